"""What went wrong between here and a machine, in words for the model: pure functions.

refused           an HTTP status of 400 or more
unanswered        a broken connection, by a table of exceptions
too_slow          no answer in the time that there was
too_late          no time was left to send it
not_the_api       something else answered
invalid_target, unknown_node, unknown_machine, machine_elsewhere, offline_node
                  a machine that is not there
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterable

import requests
from proxmoxer import ResourceException  # type: ignore[import-untyped]

from src.errors import ProxmoxError
from src.rows import clean
from src.settings import Settings

TRUSTED_ONLY = "; or, only on a network you trust, PROXMOX_VERIFY_SSL=false."
UNTRUSTED = "its certificate is not trusted ({reason})"
WRONG_NAME = "Put a name that the certificate has into PROXMOX_URL" + TRUSTED_ONLY
UNKNOWN_CA = (
    "Set PROXMOX_VERIFY_SSL to the path of a copy of Proxmox's CA, "
    "/etc/pve/pve-root-ca.pem" + TRUSTED_ONLY
)
NO_TLS = "no TLS connection ({reason})", "Check the port in PROXMOX_URL, usually 8006."
NO_NAME = "its name does not resolve", "Check the host in PROXMOX_URL."
NO_LISTENER = (
    "connection refused, nothing listens there",
    "Check PROXMOX_URL, and that pveproxy runs.",
)
NO_PROXY = (
    "the proxy of HTTPS_PROXY does not answer",
    "Check HTTPS_PROXY, or put the host into NO_PROXY.",
)
NO_CONNECTION = (
    "no connection in {seconds:.0f} s",
    "Check PROXMOX_URL, the network and the firewall.",
)
NO_ANSWER = (
    "no answer within {seconds:.0f} s",
    "Proxmox may be overloaded: try again in a minute.",
)
HUNG_UP = (
    "it closed the connection without an answer",
    "Try again; if it stays so, check ALLOW_FROM in /etc/default/pveproxy.",
)
NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH)

# What an exception means that came instead of an answer: the exception, as requests raised
# it or its innermost cause; its errno or OpenSSL's verify_code, () for any; the code, the
# cause and the advice of the ProxmoxError. The first row that fits counts.
TABLE: tuple[tuple[type[BaseException], tuple[int, ...], str, str, str], ...] = (
    (requests.exceptions.ProxyError, (), "refused", *NO_PROXY),
    (ssl.SSLCertVerificationError, (62, 64), "refused", UNTRUSTED, WRONG_NAME),
    (ssl.SSLCertVerificationError, (), "refused", UNTRUSTED, UNKNOWN_CA),
    (ssl.SSLEOFError, (), "dropped", *HUNG_UP),
    (ssl.SSLError, (), "broken", *NO_TLS),
    (socket.gaierror, (), "refused", *NO_NAME),
    (ConnectionRefusedError, (), "refused", *NO_LISTENER),
    (requests.ConnectTimeout, (), "refused", *NO_CONNECTION),
    (OSError, NO_ROUTE, "broken", *NO_CONNECTION),  # perhaps after it has left
    (TimeoutError, (), "timeout", *NO_ANSWER),
    (requests.Timeout, (), "timeout", *NO_ANSWER),
    (OSError, (), "dropped", *HUNG_UP),
)


def unanswered(
    error: OSError, settings: Settings, seconds: float, node: str = ""
) -> ProxmoxError:
    """What it means that no answer came, `seconds` after the request."""
    if isinstance(error, requests.TooManyRedirects):
        return not_the_api(settings)
    root = _root_cause(error)
    number = getattr(root, "verify_code", None) or getattr(root, "errno", None)
    code, cause, advice = next(
        words
        for kind, numbers, *words in TABLE
        if isinstance(error, kind) or isinstance(root, kind)
        if not numbers or number in numbers
    )
    reason = getattr(root, "verify_message", None) or getattr(root, "reason", None)
    if not hasattr(root, "verify_message"):
        reason = str(reason or "it broke").replace("_", " ").lower()
    through = f"node {node} through " if node and code == "timeout" else ""
    said = cause.format(reason=reason, seconds=seconds)
    return ProxmoxError(
        f"Cannot talk to {through}{settings.address}: {said}", advice, code
    )


def too_slow(settings: Settings, seconds: float, node: str = "") -> ProxmoxError:
    """What was not waited for any longer."""
    return unanswered(requests.Timeout(), settings, seconds, node)


def too_late() -> ProxmoxError:
    """What was not sent, its time being over."""
    return ProxmoxError(
        "It was not sent: its time was over while earlier requests were waited for",
        "Try again in a minute.",
        "refused",
    )


def _root_cause(error: BaseException) -> BaseException:
    """The innermost of the exceptions that requests and urllib3 wrap in each other."""
    inner = (*error.args, error.__cause__, error.__context__)
    cause = next((each for each in inner if isinstance(each, BaseException)), None)
    return error if cause is None else _root_cause(cause)


def not_the_api(settings: Settings) -> ProxmoxError:
    return ProxmoxError(
        f"{settings.address} answers, but not as a Proxmox VE API: it is a login page, "
        "a proxy or another service",
        "Correct PROXMOX_URL: the API's port is usually 8006.",
        "not the API",
    )


def refused(error: ResourceException, settings: Settings, node: str) -> ProxmoxError:
    """What an HTTP status of 400 or more means."""
    code, token = int(error.status_code), settings.token_id
    said = clean(_words(error).replace(settings.token_secret, "***"), 500)
    if code == 401:
        return ProxmoxError(
            f"Proxmox does not accept the API token {token} ({said or 'no reason'})",
            "Check PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET, and in Proxmox under "
            "Permissions > API Tokens that the token exists and has not expired.",
            code,
        )
    if code == 403:
        return _forbidden(said, settings)
    if 595 <= code <= 599:
        return ProxmoxError(
            f"Proxmox could not reach {f'node {node}' if node else 'a node'} "
            f"({code} {said})",
            "Call list_infrastructure to see the nodes.",
            code,
        )
    if code in (502, 503, 504):
        return ProxmoxError(
            f"A proxy in front of {settings.address} could not reach Proxmox ({code})",
            "Check that proxy, or point PROXMOX_URL at Proxmox itself.",
            code,
        )
    if code in (400, 500):
        quorum = "Call list_infrastructure: a start needs most nodes to be online."
        advice = quorum if "no quorum" in said else ""
        return ProxmoxError(f"Proxmox says: {said or f'error {code}'}", advice, code)
    return not_the_api(settings)


def _words(error: ResourceException) -> str:
    """Proxmox's message, and what it says of each parameter."""
    said = str(error.content or "")
    if isinstance(error.errors, dict):
        texts = error.errors.items()
        # proxmoxer has bytes there for a body that is not JSON, be it empty.
        said += "".join(f" {k}: {v}" for k, v in texts if isinstance(v, str))
    return said


def _forbidden(said: str, settings: Settings) -> ProxmoxError:
    """A missing privilege, with the commands that grant it."""
    token = settings.token_id
    match = re.search(r"\((/[^,\s]*), ([A-Za-z.]+)", said)
    if match is None:
        return ProxmoxError(
            f"Proxmox does not allow this to the token {token}: {said}",
            "Grant the privilege to the user and to the token; the README lists them.",
            403,
        )
    path, privilege = match.groups()
    # A role on a deeper path replaces the one from above, so it must have both.
    privileges = "VM.Audit,VM.PowerMgmt" if privilege.startswith("VM.") else privilege
    role = "Mcp" + privilege.replace(".", "")
    return ProxmoxError(
        f"The token {token} lacks {privilege} on {path}",
        f"Grant it to user and token: pveum role add {role} --privs {privileges}; pveum "
        f"acl modify {path} --users {settings.user} --tokens '{token}' --roles {role}",
        403,
    )


def invalid_target(wrong: str, tool: str, there: str) -> ProxmoxError:
    return ProxmoxError(wrong, f"Call {tool} to see the {there}.")


def unknown_node(node: str, nodes: Iterable[str]) -> ProxmoxError:
    return ProxmoxError(
        f"There is no node {node}", f"Nodes: {', '.join(sorted(nodes))}."
    )


def unknown_machine(vm_id: int, settings: Settings) -> ProxmoxError:
    return ProxmoxError(
        f"There is no machine {vm_id}, or the token {settings.token_id} lacks VM.Audit "
        f"on /vms/{vm_id}",
        "Call list_machines to see what there is.",
    )


def machine_elsewhere(vm_id: int, name: str, node: str, found: str) -> ProxmoxError:
    return ProxmoxError(
        f"Machine {vm_id} ({name}) is not on {node} but on {found}",
        f'If you mean that one, call again with node="{found}".',
    )


def offline_node(vm_id: int, node: str) -> ProxmoxError:
    return ProxmoxError(
        f"Node {node} is offline: machine {vm_id} cannot be seen or switched",
        "Call list_infrastructure to see when the node is back.",
    )
