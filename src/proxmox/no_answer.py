"""Why no answer came: a table of exceptions, in words for the model."""

import errno
import re
import socket
import ssl
from http.client import BadStatusLine, LineTooLong, responses

import requests

from src.config.ca_file import has_a_ca, has_expired, problem_with
from src.config.settings import Settings
from src.errors import ProxmoxError
from src.proxmox.network import Network
from src.proxmox.refusals import not_the_api

# Each cause is followed by its cure. The first part of a certificate's cause is common.
UNTRUSTED = "its certificate is not trusted: "
UNVERIFIED = "; or, in a lab, set PROXMOX_VERIFY_SSL=false."
CA = "/etc/pve/pve-root-ca.pem"
UNKNOWN_CA = (
    UNTRUSTED + "it was signed by a CA that this computer does not know, such as Proxmox's own",
    f"Set PROXMOX_VERIFY_SSL to the path of a copy of Proxmox's CA, {CA}" + UNVERIFIED,
)
OTHER_CA = (
    UNTRUSTED + "the CA in {ca} did not sign it",
    f"Copy {CA} from a node of this cluster; if a public CA signed it, set "
    "PROXMOX_VERIFY_SSL=true" + UNVERIFIED,
)
NO_CA = (
    UNTRUSTED + "{ca} contains a server's own certificate, not its CA's",
    f"Replace it with a copy of {CA} from a node" + UNVERIFIED,
)
OTHER_SELF_SIGNED = (
    UNTRUSTED + "it is self-signed, and does not match the one in {ca}",
    "Check PROXMOX_URL. If it is right, copy that certificate into the file" + UNVERIFIED,
)
SELF_SIGNED = (
    UNTRUSTED + "it is self-signed",
    "Check PROXMOX_URL. If it is right, set PROXMOX_VERIFY_SSL to the path of a copy of that "
    f"certificate (for Proxmox VE's own, {CA})" + UNVERIFIED,
)
WRONG_NAME = (
    UNTRUSTED + "{reason}",
    "Use a name or an IP address in PROXMOX_URL that the certificate contains" + UNVERIFIED,
)
BUNDLE = (
    UNTRUSTED + "the CAs in {verifier} did not sign it",
    f"Set PROXMOX_VERIFY_SSL to the path of a copy of Proxmox's CA, {CA}" + UNVERIFIED,
)
EXPIRED = (
    UNTRUSTED + "it has expired",
    "On the node, with quorum, run pvecm updatecerts --force, then systemctl reload-or-restart "
    "pveproxy (if ACME made it: pvenode acme cert renew)" + UNVERIFIED,
)
EXPIRED_CA = (
    UNTRUSTED + "the CA in {ca} has expired",
    f"Copy {CA} from a node again; if that one has expired too, the cluster needs a new CA"
    + UNVERIFIED,
)
NOT_YET = (
    UNTRUSTED + "it is not valid yet, so one of the two clocks is wrong",
    "Compare `date` here and on the node, and correct the wrong clock" + UNVERIFIED,
)
BAD = (UNTRUSTED + "{reason}", "Renew it, or the CA that signed it" + UNVERIFIED)
UNREACHABLE = (
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EADDRNOTAVAIL,
    errno.EAFNOSUPPORT,
    errno.EINVAL,  # a route that is a black hole, an IPv6 address without its zone
)
NO_TLS = "no TLS connection ({reason})", "Check the port in PROXMOX_URL, usually 8006."
NO_NAME = "its name does not resolve", "Check the host in PROXMOX_URL."
NO_DNS = (
    "its name does not resolve, because no DNS server answers",
    "Check the network, or use the IP address in PROXMOX_URL.",
)
NO_IPV6 = (
    "this computer has no IPv6",
    "Use a name or an IPv4 address in PROXMOX_URL. In a container, enable IPv6 in Docker's "
    + "network.",
)
NO_LISTENER = (
    "connection refused: nothing is listening there, or a firewall rejects it",
    "Check PROXMOX_URL, and whether pveproxy is running.",
)
LOOPBACK = (
    "connection refused: nothing is listening there, or a firewall rejects it",
    "In a container, {host} is the container itself: use the Proxmox host's name or address "
    + "in PROXMOX_URL. Otherwise check whether pveproxy, or your tunnel, is running.",
)
NO_ROUTE = (
    "no route to host",
    "Check PROXMOX_URL, the network and the VPN. On macOS, allow the client under System "
    + "Settings > Privacy & Security > Local Network.",
)
FORBIDDEN = (
    "this computer forbids the connection",
    "Check its firewall, and what the client that started this server may reach.",
)
NO_SOCKET = (
    "this computer has run out of sockets",
    "Try again in a minute, or restart this server.",
)
NO_CONNECTION = (
    "no connection within {seconds} s",
    "Check PROXMOX_URL, the network and the firewall.",
)
NO_ANSWER = ("no answer within {seconds} s", "Proxmox may be overloaded: try again in a minute.")
SILENT_NODE = (
    "no answer within {seconds} s",
    "The node may be down, hung or overloaded: call list_infrastructure in a minute.",
)
HUNG_UP = (
    "it closed the connection without an answer",
    "Try again. If that does not help, check ALLOW_FROM in /etc/default/pveproxy.",
)
BYPASS = "To bypass it, add {host} to {no_proxy}; or correct {proxy}"
PROXY_FAILS = (
    "the proxy in {proxy} cannot be used ({reason})",
    BYPASS + " (http://host:port; SOCKS does not work).",
)
PROXY_REFUSES = "the proxy in {proxy} refuses the connection ({reason})", BYPASS + "."
PROXY_LOGIN = (
    "the proxy in {proxy} requires a login ({reason})",
    "Add the user and password to {proxy}; or, to bypass it, add {host} to {no_proxy}.",
)

# The answer is not HTTP, or leads somewhere else.
NOT_HTTP = (
    requests.TooManyRedirects,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.InvalidHeader,
)
BAD_PROXY_URL = (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL)

# What an exception means. Each row has the exception that requests raised, or its innermost
# cause; its errno, OpenSSL's verify_code or a proxy's status, () for any; then the code, the
# cause and the advice of the ProxmoxError. The first row that matches counts.
TABLE: tuple[tuple[type[BaseException], tuple[int, ...], str, str, str], ...] = (
    (requests.exceptions.ProxyError, (407,), "refused", *PROXY_LOGIN),
    (requests.exceptions.ProxyError, tuple(range(300, 600)), "refused", *PROXY_REFUSES),
    (requests.exceptions.ProxyError, (), "refused", *PROXY_FAILS),
    # PROXMOX_URL was checked before, so these come from a proxy's URL.
    *((kind, (), "refused", *PROXY_FAILS) for kind in BAD_PROXY_URL),
    (ssl.SSLCertVerificationError, (9,), "refused", *NOT_YET),
    (ssl.SSLCertVerificationError, (10,), "refused", *EXPIRED),
    (ssl.SSLCertVerificationError, (18,), "refused", *SELF_SIGNED),
    (ssl.SSLCertVerificationError, (2, 19, 20, 21), "refused", *UNKNOWN_CA),
    (ssl.SSLCertVerificationError, (62, 64), "refused", *WRONG_NAME),
    (ssl.SSLCertVerificationError, (), "refused", *BAD),
    (ssl.SSLEOFError, (), "dropped", *HUNG_UP),
    (ssl.SSLError, (), "broken", *NO_TLS),
    (socket.gaierror, (socket.EAI_AGAIN,), "refused", *NO_DNS),
    (socket.gaierror, (), "refused", *NO_NAME),
    (ConnectionRefusedError, (), "refused", *NO_LISTENER),
    (requests.ConnectTimeout, (), "refused", *NO_CONNECTION),
    # The request may have been sent before these.
    (OSError, UNREACHABLE, "broken", *NO_ROUTE),
    (OSError, (errno.EMFILE, errno.ENFILE, errno.ENOBUFS), "broken", *NO_SOCKET),
    (PermissionError, (), "broken", *FORBIDDEN),
    (TimeoutError, (), "timeout", *NO_ANSWER),
    (requests.Timeout, (), "timeout", *NO_ANSWER),
    (OSError, (), "dropped", *HUNG_UP),
)


def unanswered(
    error: OSError, settings: Settings, network: Network, seconds: float, node: str = ""
) -> ProxmoxError:
    """Say why no answer came, `seconds` after the request."""
    root = _root_cause(error)
    if isinstance(error, NOT_HTTP) or (
        isinstance(root, BadStatusLine | LineTooLong) and not isinstance(root, ConnectionError)
    ):
        return not_the_api(settings)
    number = _number(root)
    code, *words = next(
        (code, cause, advice)
        for kind, numbers, code, cause, advice in TABLE
        if isinstance(error, kind) or isinstance(root, kind)
        if not numbers or number in numbers
    )
    proxy = network.proxy_variable
    facts = {
        # The text of a bad URL may contain a password.
        "reason": "its URL is wrong" if isinstance(error, BAD_PROXY_URL) else _reason(root, number),
        "seconds": f"{seconds:.0f}",
        "proxy": proxy,
        "no_proxy": network.no_proxy_variable,
        "host": settings.host,
        "ca": settings.verify_ssl,
        "verifier": network.verifier,
    }
    cause, advice = (
        word.format_map(facts) for word in _specific(tuple(words), settings, network, node)
    )
    through = f"node {node} through " if node and code == "timeout" else ""
    if proxy and proxy not in cause and not through:
        cause += f", through the proxy in {proxy}"
        advice += f" To bypass the proxy, add {settings.host} to {network.no_proxy_variable}."
    return ProxmoxError(f"Cannot talk to {through}{settings.address}: {cause}", advice, code)


def _specific(
    words: tuple[str, ...], settings: Settings, network: Network, node: str
) -> tuple[str, ...]:
    """Return the cause and advice that fit the settings, where several are possible."""
    local = settings.host in ("localhost", "::1") or settings.host.startswith("127.")
    if words == NO_LISTENER and local:
        return LOOPBACK
    if words in (NO_NAME, NO_DNS) and ":" in settings.host:
        return NO_IPV6
    if words == NO_ANSWER and node:
        return SILENT_NODE
    ca = settings.verify_ssl
    if words == UNKNOWN_CA and ca is True and network.verify is not True:
        return BUNDLE
    if isinstance(ca, bool) or problem_with(ca):
        return words
    if words == EXPIRED and has_expired(ca):
        return EXPIRED_CA
    if words == UNKNOWN_CA:
        return OTHER_CA if has_a_ca(ca) else NO_CA
    return OTHER_SELF_SIGNED if words == SELF_SIGNED else words


def _number(root: BaseException) -> int | None:
    """Return the errno, OpenSSL's verify_code, or the status of a proxy's refusal."""
    if tunnel := re.search(r"Tunnel connection failed: (\d+)", str(root)):
        return int(tunnel[1])
    return getattr(root, "verify_code", None) or getattr(root, "errno", None)


def _reason(root: BaseException, number: int | None) -> str:
    """Return the system's or OpenSSL's own words, or the meaning of a proxy's status."""
    if "Tunnel connection failed" in str(root):
        return f"{number} {responses.get(number or 0, '')}".strip()
    if words := getattr(root, "verify_message", None):
        return str(words)
    said = getattr(root, "reason", None) or getattr(root, "strerror", None)
    said = said or next((each for each in root.args if isinstance(each, str)), "")
    return said.replace("_", " ").lower() or "the connection broke"


def too_slow(settings: Settings, network: Network, seconds: float, node: str = "") -> ProxmoxError:
    """Say that a list did not wait any longer for an answer."""
    return unanswered(requests.Timeout(), settings, network, seconds, node)


def _root_cause(error: BaseException) -> BaseException:
    """Return the innermost of the exceptions that requests and urllib3 nest."""
    inner = (*error.args, error.__cause__, error.__context__)
    cause = next((each for each in inner if isinstance(each, BaseException)), None)
    return error if cause is None else _root_cause(cause)
