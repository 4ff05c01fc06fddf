"""What it means that no answer came: a table of exceptions, in words for the model."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from http.client import BadStatusLine, LineTooLong, responses

import requests

from src.config.ca_file import has_a_ca, has_expired, wrong_with
from src.config.settings import Settings
from src.errors import ProxmoxError
from src.proxmox.network import (
    from_environment,
    no_proxy_variable,
    proxy_variable,
    verifier,
)
from src.proxmox.refusals import not_the_api

UNTRUSTED = "its certificate is not trusted: "
UNVERIFIED = "; or, on a network you trust, PROXMOX_VERIFY_SSL=false."
UNKNOWN_CA = (
    UNTRUSTED + "no CA that is known here signed it, as with Proxmox's own",
    "Set PROXMOX_VERIFY_SSL to the path of a copy of Proxmox's CA, "
    "/etc/pve/pve-root-ca.pem" + UNVERIFIED,
)
OTHER_CA = (
    UNTRUSTED + "the CA in {ca} did not sign it",
    "Copy /etc/pve/pve-root-ca.pem from a node of this cluster; if a public CA signed it, "
    "set PROXMOX_VERIFY_SSL=true" + UNVERIFIED,
)
NO_CA = (
    UNTRUSTED + "{ca} has a server's own certificate in it, not its CA's",
    "Copy /etc/pve/pve-root-ca.pem from a node in its place" + UNVERIFIED,
)
OTHER_SELF_SIGNED = (
    UNTRUSTED + "it is self-signed, and not the one in {ca}",
    "Check PROXMOX_URL. If it is right, put a copy of that certificate there"
    + UNVERIFIED,
)
SELF_SIGNED = (
    UNTRUSTED + "it is self-signed",
    "Check PROXMOX_URL. If it is right, set PROXMOX_VERIFY_SSL to the path of a copy of that "
    "certificate (Proxmox VE's own needs /etc/pve/pve-root-ca.pem)" + UNVERIFIED,
)
WRONG_NAME = (
    UNTRUSTED + "{reason}",
    "Put a name that the certificate has into PROXMOX_URL: the node's, or its IP address"
    + UNVERIFIED,
)
BUNDLE = (
    UNTRUSTED + "the CAs in {bundle} did not sign it",
    "Set PROXMOX_VERIFY_SSL to the path of a copy of Proxmox's CA, "
    "/etc/pve/pve-root-ca.pem" + UNVERIFIED,
)
EXPIRED = (
    UNTRUSTED + "it has expired",
    "Renew it on the node: pvecm updatecerts --force (one that ACME made: pvenode acme cert "
    "renew)" + UNVERIFIED,
)
EXPIRED_CA = (
    UNTRUSTED + "the CA in {ca} has expired",
    "Copy /etc/pve/pve-root-ca.pem from a node once more; where that one has expired, too, "
    "the cluster needs a new one" + UNVERIFIED,
)
NOT_YET = (
    UNTRUSTED + "it is not valid yet, so one of the two clocks is wrong",
    "Compare `date` here and on the node, and set the one that is wrong" + UNVERIFIED,
)
BAD = (
    UNTRUSTED + "{reason}",
    "Renew it, or the CA that signed it" + UNVERIFIED,
)
VERIFY_CODES = (2, 9, 10, 18, 19, 20, 21, 62, 64)  # OpenSSL's
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
    "its name does not resolve, for no DNS server answers",
    "Check the network, or put the IP address into PROXMOX_URL.",
)
NO_IPV6 = (
    "no IPv6 here",
    "Put a name or an IPv4 address into PROXMOX_URL; in a container Docker's network must "
    + "have IPv6.",
)
NO_LISTENER = (
    "connection refused, nothing listens there",
    "Check PROXMOX_URL, and that pveproxy runs.",
)
LOOPBACK = (
    "connection refused, nothing listens there",
    "In a container {host} is the container itself: put the Proxmox host's name or address "
    + "into PROXMOX_URL. Elsewhere check that pveproxy, or the tunnel, runs.",
)
NO_ROUTE = (
    "no route to host",
    "Check PROXMOX_URL, the network and VPN; on macOS allow the client under System "
    + "Settings > Privacy & Security > Local Network.",
)
FORBIDDEN = (
    "this system forbids the connection",
    "Check its firewall, and what the client that started this server may reach.",
)
NO_SOCKET = (
    "no socket is left here",
    "Try again in a minute, or restart this server.",
)
NO_CONNECTION = (
    "no connection in {seconds} s",
    "Check PROXMOX_URL, the network and the firewall.",
)
NO_ANSWER = (
    "no answer within {seconds} s",
    "Proxmox may be overloaded: try again in a minute.",
)
HUNG_UP = (
    "it closed the connection without an answer",
    "Try again; if it stays so, check ALLOW_FROM in /etc/default/pveproxy.",
)
PAST_PROXY = "Put {host} into {no_proxy} to go past it, or correct {proxy}."
NO_PROXY = "the proxy of {proxy} does not answer ({reason})", PAST_PROXY
PROXY_REFUSES = "the proxy of {proxy} does not let it through ({reason})", PAST_PROXY
PROXY_LOGIN = (
    "the proxy of {proxy} wants a login ({reason})",
    "Put {host} into {no_proxy} to go past it, or user and password into {proxy}.",
)
PLAIN_PROXY = (
    "the proxy of {proxy} speaks no TLS",
    "Write http:// in {proxy}, or put {host} into {no_proxy} to go past it.",
)
UNTRUSTED_PROXY = (
    "the proxy of {proxy} has a certificate that is not trusted ({reason})",
    PAST_PROXY,
)
ODD_PROXY = (
    "the proxy of {proxy} cannot be used: it must be http://host:port, and no SOCKS",
    PAST_PROXY,
)

# What is none of HTTP's, or leads somewhere else.
NOT_HTTP = (
    requests.TooManyRedirects,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.InvalidHeader,
)

# What an exception means that came instead of an answer: the exception, as requests raised
# it or its innermost cause; its errno, OpenSSL's verify_code or a proxy's status, () for
# any; the code, the cause and the advice of the ProxmoxError. The first row that fits
# counts.
TABLE: tuple[tuple[type[BaseException], tuple[int, ...], str, str, str], ...] = (
    (requests.exceptions.ProxyError, (407,), "refused", *PROXY_LOGIN),
    (requests.exceptions.ProxyError, tuple(range(300, 600)), "refused", *PROXY_REFUSES),
    (requests.exceptions.ProxyError, VERIFY_CODES, "refused", *UNTRUSTED_PROXY),
    (requests.exceptions.ProxyError, (ssl.SSL_ERROR_SSL,), "refused", *PLAIN_PROXY),
    (requests.exceptions.ProxyError, (), "refused", *NO_PROXY),
    # PROXMOX_URL was checked: what is wrong is a proxy's.
    (requests.exceptions.InvalidSchema, (), "refused", *ODD_PROXY),
    (requests.exceptions.InvalidURL, (), "refused", *ODD_PROXY),
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
    # Perhaps after it has left.
    (OSError, UNREACHABLE, "broken", *NO_ROUTE),
    (OSError, (errno.EMFILE, errno.ENFILE, errno.ENOBUFS), "broken", *NO_SOCKET),
    (PermissionError, (), "broken", *FORBIDDEN),
    (TimeoutError, (), "timeout", *NO_ANSWER),
    (requests.Timeout, (), "timeout", *NO_ANSWER),
    (OSError, (), "dropped", *HUNG_UP),
)


def unanswered(
    error: OSError, settings: Settings, seconds: float, node: str = ""
) -> ProxmoxError:
    """What it means that no answer came, `seconds` after the request."""
    root = _root_cause(error)
    if isinstance(error, NOT_HTTP) or (
        isinstance(root, BadStatusLine | LineTooLong)
        and not isinstance(root, ConnectionError)
    ):
        return not_the_api(settings)
    number = _number(root)
    code, *words = next(
        (code, cause, advice)
        for kind, numbers, code, cause, advice in TABLE
        if isinstance(error, kind) or isinstance(root, kind)
        if not numbers or number in numbers
    )
    proxy = proxy_variable(settings.address)
    named = {
        "reason": _reason(root, number),
        "seconds": f"{seconds:.0f}",
        "proxy": proxy,
        "no_proxy": no_proxy_variable(),
        "host": settings.host,
        "ca": settings.verify_ssl,
        "bundle": verifier(from_environment(settings)[1]),
    }
    cause, advice = (
        word.format_map(named) for word in _at_hand(tuple(words), settings)
    )
    through = f"node {node} through " if node and code == "timeout" else ""
    if proxy and proxy not in cause and not through:
        cause += f", on the way through the proxy of {proxy}"
        advice += f" Put {settings.host} into {no_proxy_variable()} to go past it."
    return ProxmoxError(
        f"Cannot talk to {through}{settings.address}: {cause}", advice, code
    )


def _at_hand(words: tuple[str, ...], settings: Settings) -> tuple[str, ...]:
    """The cause among those that the settings tell apart."""
    here = settings.host in ("localhost", "::1") or settings.host.startswith("127.")
    if words == NO_LISTENER and here:
        return LOOPBACK
    if words in (NO_NAME, NO_DNS) and ":" in settings.host:
        return NO_IPV6
    ca = settings.verify_ssl
    if words == UNKNOWN_CA and ca is True and from_environment(settings)[1] is not True:
        return BUNDLE
    if isinstance(ca, bool) or wrong_with(ca):
        return words
    if words == EXPIRED and has_expired(ca):
        return EXPIRED_CA
    if words == UNKNOWN_CA:
        return OTHER_CA if has_a_ca(ca) else NO_CA
    return OTHER_SELF_SIGNED if words == SELF_SIGNED else words


def _number(root: BaseException) -> int | None:
    """The errno, OpenSSL's verify_code, or the status with which a proxy refuses."""
    if tunnel := re.search(r"Tunnel connection failed: (\d+)", str(root)):
        return int(tunnel[1])
    return getattr(root, "verify_code", None) or getattr(root, "errno", None)


def _reason(root: BaseException, number: int | None) -> str:
    """The system's or OpenSSL's own words; of a proxy's status the standard's."""
    if "Tunnel connection failed" in str(root):
        return f"{number} {responses.get(number or 0, '')}".strip()
    if words := getattr(root, "verify_message", None):
        return str(words)
    said = getattr(root, "reason", None) or getattr(root, "strerror", None)
    said = said or next((each for each in root.args if isinstance(each, str)), "")
    return said.replace("_", " ").lower() or "it broke"


def too_slow(settings: Settings, seconds: float, node: str = "") -> ProxmoxError:
    """What was not waited for any longer."""
    return unanswered(requests.Timeout(), settings, seconds, node)


def _root_cause(error: BaseException) -> BaseException:
    """The innermost of the exceptions that requests and urllib3 wrap in each other."""
    inner = (*error.args, error.__cause__, error.__context__)
    cause = next((each for each in inner if isinstance(each, BaseException)), None)
    return error if cause is None else _root_cause(cause)
