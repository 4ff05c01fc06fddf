"""Why no answer came: a table of exceptions, in words for the model."""

import errno
import re
import socket
import ssl
from http.client import BadStatusLine, LineTooLong, responses

import requests

from src.config.settings import DEFAULT_PORT
from src.connection.deadline import CONNECT_TIMEOUT, time_left
from src.connection.route import Route
from src.connection.sockets import HandshakeTimeout
from src.connection.untrusted import untrusted
from src.errors import ProxmoxError

# Each cause is followed by its cure.
UNREACHABLE = (
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EADDRNOTAVAIL,
    errno.EAFNOSUPPORT,
    errno.EINVAL,  # a route that is a black hole, an IPv6 address without its zone
)
SLOW_TLS = (
    "it accepts connections, but completed no TLS handshake within {seconds} s",
    "The node may be hung or overloaded: try again in a minute.",
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

# After these another node may answer.
DOWN = (NO_LISTENER, NO_ROUTE, NO_CONNECTION, SLOW_TLS, NO_ANSWER)
ANY_NODE = "; in a cluster, any other node's address in PROXMOX_URL serves as well."
NO_PORT = (
    f" PROXMOX_URL names no port, so {DEFAULT_PORT} was used; behind a reverse proxy, add :443."
)
UNTRUSTED = "its certificate is not trusted: "

# The answer is not HTTP, or leads somewhere else.
NOT_HTTP = (
    requests.exceptions.ContentDecodingError,
    requests.exceptions.InvalidHeader,
)
BAD_PROXY_URL = (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL)

# What an exception means. Each row has the exception that requests raised, or its innermost
# cause; its errno or a proxy's status, () for any; then the code, the cause and the advice of
# the ProxmoxError. The first row that matches counts.
TABLE: tuple[tuple[type[BaseException], tuple[int, ...], str, str, str], ...] = (
    (requests.exceptions.ProxyError, (407,), "refused", *PROXY_LOGIN),
    (requests.exceptions.ProxyError, tuple(range(300, 600)), "refused", *PROXY_REFUSES),
    (requests.exceptions.ProxyError, (), "refused", *PROXY_FAILS),
    # PROXMOX_URL was checked before, so these come from a proxy's URL.
    *((kind, (), "refused", *PROXY_FAILS) for kind in BAD_PROXY_URL),
    (ssl.SSLEOFError, (), "dropped", *HUNG_UP),
    (ssl.SSLError, (), "broken", *NO_TLS),
    (socket.gaierror, (socket.EAI_AGAIN,), "refused", *NO_DNS),
    (socket.gaierror, (), "refused", *NO_NAME),
    (ConnectionRefusedError, (), "refused", *NO_LISTENER),
    (HandshakeTimeout, (), "refused", *SLOW_TLS),
    (requests.ConnectTimeout, (), "refused", *NO_CONNECTION),
    # The request may have been sent before these.
    (OSError, UNREACHABLE, "broken", *NO_ROUTE),
    (OSError, (errno.EMFILE, errno.ENFILE, errno.ENOBUFS), "broken", *NO_SOCKET),
    (PermissionError, (), "broken", *FORBIDDEN),
    (TimeoutError, (), "timeout", *NO_ANSWER),
    (requests.Timeout, (), "timeout", *NO_ANSWER),
    (OSError, (), "dropped", *HUNG_UP),
)


class NoAnswer(ProxmoxError):
    """No answer came from one address of PROXMOX_URL. `reason` is why, in a few words."""

    def __init__(self, cause: str, advice: str, code: int | str, reason: str) -> None:
        super().__init__(cause, advice, code)
        self.reason = reason

    @property
    def broke_off(self) -> bool:
        """Whether the connection was lost, which a new one may mend."""
        return self.code == "dropped" or self.reason == HUNG_UP[0]


def from_none(failures: list[NoAnswer]) -> NoAnswer:
    """Say why none of several addresses answered, each with its cause."""
    causes = " ".join(failure.cause for failure in failures)
    advice = " ".join(dict.fromkeys(failure.advice for failure in failures))
    sent = [failure for failure in failures if failure.answer_lost]
    return NoAnswer(causes, advice, [*sent, *failures][0].code, failures[0].reason)


def of_another_cluster(route: Route) -> NoAnswer:
    return NoAnswer(
        f"{route.address.url} belongs to a different cluster than the other addresses",
        "Remove it from PROXMOX_URL.",
        "refused",
        "it belongs to another cluster",
    )


def of_unknown_cluster(route: Route) -> NoAnswer:
    return NoAnswer(
        f"{route.address.url} does not tell its cluster, so no action is sent through it",
        "Run systemctl status pve-cluster on its node.",
        "refused",
        "it does not tell its cluster, so no action is sent through it",
    )


def unanswered(
    error: OSError, route: Route, seconds: float, node: str = "", sent: bool = True
) -> ProxmoxError:
    """Say why no answer came, `seconds` after the request. A NoAnswer, or not_the_api.

    `sent` is whether any of the request may have been sent. If not, the code is "refused".
    """
    root = _root_cause(error)
    if isinstance(error, NOT_HTTP) or (
        isinstance(root, BadStatusLine | LineTooLong) and not isinstance(root, ConnectionError)
    ):
        return not_the_api(route)
    by_proxy = isinstance(error, requests.exceptions.ProxyError)
    if isinstance(root, ssl.SSLCertVerificationError) and not by_proxy:
        patience = min(CONNECT_TIMEOUT, max(1.0, time_left()))
        reason, cure = untrusted(root, route, patience)
        cure += route.settings.afterwards("PROXMOX_URL", "PROXMOX_VERIFY_SSL")
        return _no_answer(route, (f"{UNTRUSTED}{reason}", cure), "refused")
    number = _number(root)
    code, *words = next(
        (code, cause, advice)
        for kind, numbers, code, cause, advice in TABLE
        if isinstance(error, kind) or isinstance(root, kind)
        if not numbers or number in numbers
    )
    facts = {
        # The text of a bad URL may contain a password.
        "reason": "its URL is wrong" if isinstance(error, BAD_PROXY_URL) else _reason(root, number),
        "seconds": f"{max(1, seconds):.0f}",
        "proxy": route.proxy_variable,
        "no_proxy": route.no_proxy_variable,
        "host": route.address.host,
    }
    specific = _specific(tuple(words), route, node)
    filled = tuple(word.format_map(facts) for word in specific)
    slow = node if code == "timeout" and sent else ""
    return _no_answer(route, filled, code if sent else "refused", slow)


def _no_answer(route: Route, words: tuple[str, ...], code: str, node: str = "") -> NoAnswer:
    cause, advice = words
    reason, _, _ = cause.partition(":")
    proxy = route.proxy_variable
    if proxy and proxy not in cause and not node:
        cause += f", through the proxy in {proxy}"
        advice += f" To bypass the proxy, add {route.address.host} to {route.no_proxy_variable}."
    where = f"node {node} through {route.address.url}" if node else route.address.url
    return NoAnswer(f"Cannot talk to {where}: {cause}", advice, code, reason)


def _specific(words: tuple[str, ...], route: Route, node: str) -> tuple[str, ...]:
    """Return the cause and advice that fit the settings, where several are possible."""
    host = route.address.host
    if words == NO_LISTENER and (host in ("localhost", "::1") or host.startswith("127.")):
        words = LOOPBACK
    if words in (NO_NAME, NO_DNS) and ":" in host:
        return NO_IPV6
    if words == SLOW_TLS and route.proxy_variable:
        words = NO_ANSWER  # it may be the proxy that is slow
    if words == NO_ANSWER and node:
        return SILENT_NODE
    cause, advice = words
    is_refused = words in (NO_LISTENER, LOOPBACK)
    if words in DOWN and len(route.settings.addresses) == 1 and not route.proxy_variable:
        advice = advice.removesuffix(".") + ANY_NODE
    if (is_refused or words in (NO_CONNECTION, NO_TLS)) and route.address.port is None:
        advice += NO_PORT
    return cause, advice


def _number(root: BaseException) -> int | None:
    """Return the errno, or the status of a proxy's refusal."""
    if tunnel := re.search(r"Tunnel connection failed: (\d+)", str(root)):
        return int(tunnel[1])
    return getattr(root, "errno", None)


def _reason(root: BaseException, number: int | None) -> str:
    """Return the system's or OpenSSL's own words, or the meaning of a proxy's status."""
    if "Tunnel connection failed" in str(root):
        return f"{number} {responses.get(number or 0, '')}".strip()
    if words := getattr(root, "verify_message", None):
        return str(words)
    said = getattr(root, "reason", None) or getattr(root, "strerror", None)
    said = said or next((each for each in root.args if isinstance(each, str)), "")
    return said.replace("_", " ").lower() or "the connection broke"


def too_slow(route: Route, seconds: float, node: str = "") -> NoAnswer:
    """Say that a list did not wait any longer for an answer."""
    cause, advice = _specific(NO_ANSWER, route, node)
    words = cause.format(seconds=f"{max(1, seconds):.0f}"), advice
    return _no_answer(route, words, "timeout", node)


def _root_cause(error: BaseException) -> BaseException:
    """Return the innermost of the exceptions that requests and urllib3 nest."""
    inner = (*error.args, error.__cause__, error.__context__)
    cause = next((each for each in inner if isinstance(each, BaseException)), None)
    return error if cause is None else _root_cause(cause)


# --- Answers that are not Proxmox's ------------------------------------------------------


def too_late() -> ProxmoxError:
    """Say that a request was not sent, because its deadline passed before its turn."""
    return ProxmoxError(
        "The request was not sent: it timed out waiting for earlier ones",
        "Try again in a minute.",
        "refused",
    )


def not_the_api(route: Route) -> ProxmoxError:
    advice = "Correct PROXMOX_URL: the API's port is usually 8006."
    if route.address.prefix:
        advice += f" Remove the path /{route.address.prefix}, unless a proxy needs it."
    return ProxmoxError(
        f"{route.address.url} answers, but not as a Proxmox VE API: it may be a login page, "
        "a proxy or another service",
        advice,
        "not the API",
    )


def not_proxmox(route: Route, status: int) -> ProxmoxError:
    """Say that an error does not have Proxmox VE's form."""
    return ProxmoxError(
        f"{route.address.url} answers {status}, but not in Proxmox VE's format: the answer came "
        "from a reverse proxy, a web firewall or another service",
        "Point PROXMOX_URL at Proxmox VE itself, usually port 8006 (8007 is Proxmox Backup "
        "Server), or let that proxy pass on the API token.",
        "refused" if status < 500 else "not the API",
    )
