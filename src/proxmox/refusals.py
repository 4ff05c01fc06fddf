"""What a refusal or an error of Proxmox means, in words for the model: pure functions."""

import re
from collections.abc import Iterable

from proxmoxer import ResourceException  # type: ignore[import-untyped]

from src.config.settings import Settings
from src.connection.no_answer import not_the_api
from src.connection.route import Route
from src.errors import ProxmoxError
from src.foreign import clean, quote
from src.models import Machine
from src.proxmox.rights import grant, keeps_roles

NO_TICKET = "No ticket"  # what Proxmox says if there is no header Authorization
TOKEN = ("PROXMOX_TOKEN_ID", "PROXMOX_TOKEN_SECRET")
CURES = {  # for Proxmox's words that do not say what to do
    "no quorum": "Call list_infrastructure: a start needs a majority of the nodes online.",
    "RPCEnvironment init": "The node's cluster file system (pmxcfs) is not running: run "
    "systemctl status pve-cluster on that node.",
}


class UnknownRequest(ProxmoxError):
    """This version of Proxmox, or whatever answers in its place, does not know a request."""


def refused(error: ResourceException, route: Route, node: str) -> ProxmoxError:
    """Say what an HTTP status of 400 or more means."""
    settings = route.settings
    code = int(error.status_code)
    said = clean(_words(error).replace(settings.token_secret, "***"), 300)
    if code == 401:
        return _unauthorized(said, settings)
    if code == 403:
        return _forbidden(said, settings)
    if 595 <= code <= 599:
        where = f"node {node}" if node else "a node"
        return ProxmoxError(
            f"Proxmox could not reach {where} ({code}). {_says(said)}",
            "Call list_infrastructure to see the nodes.",
            code,
        )
    if code in (429, 503):
        return ProxmoxError(
            f"A proxy in front of {route.address.url} has too many requests at once ({code})",
            "Try again in a minute. If that does not help, check that this proxy reaches Proxmox, "
            "or point PROXMOX_URL at Proxmox itself.",
            code,
        )
    if code in (502, 504):
        return ProxmoxError(
            f"A proxy in front of {route.address.url} could not reach Proxmox ({code})",
            "Check that proxy, or point PROXMOX_URL at Proxmox itself.",
            code,
        )
    if code == 501:
        other = not_the_api(route)
        return UnknownRequest(other.cause, other.advice, other.code)
    if code in (400, 500):
        advice = next((cure for words, cure in CURES.items() if words in said), "")
        return ProxmoxError(f"Proxmox says: {quote(said or f'error {code}')}", advice, code)
    return not_the_api(route)


def _says(said: str) -> str:
    return f"Proxmox says: {quote(said)}" if said else "Proxmox gives no reason"


def _words(error: ResourceException) -> str:
    """Return Proxmox's message, and what it says about each parameter."""
    said = str(error.content or "")
    if isinstance(error.errors, dict):
        texts = error.errors.items()
        # For a body that is not JSON, or is empty, proxmoxer has bytes there.
        said += "".join(f" {k}: {v}" for k, v in texts if isinstance(v, str))
    return said


def _unauthorized(said: str, settings: Settings) -> ProxmoxError:
    """Say that the token did not arrive, or is rejected."""
    if said == NO_TICKET:
        return ProxmoxError(
            f"The API token did not arrive at Proxmox, which says: {quote(said)}",
            "A proxy in front of it removes the header Authorization: let it pass that header on, "
            "or point PROXMOX_URL at Proxmox itself, usually port 8006.",
            401,
        )
    return ProxmoxError(
        f"Proxmox rejects the API token {settings.token_id}. {_says(said)}",
        "Check PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET, and in Permissions > API Tokens that "
        "it exists and has not expired. If the secret is lost, pveum user token modify "
        f"{settings.user} {settings.token_name} --regenerate 1 (9.1 and later) keeps its "
        "rights; a new token has none." + settings.afterwards(*TOKEN),
        401,
    )


def _forbidden(said: str, settings: Settings) -> ProxmoxError:
    """Name a missing privilege, and the commands that grant it."""
    token = settings.token_id
    match = re.search(r"\((/[^,\s]*), ([A-Za-z.]+)", said)
    if match is None:
        return ProxmoxError(
            f"Proxmox does not allow the token {token} to do this. " + _says(said),
            "Grant the missing privilege to both the user and the token; the README lists "
            "them all.",
            403,
        )
    path, privilege = match.groups()
    return ProxmoxError(
        f"The token {token} lacks {privilege} on {path}",
        f"Grant {privilege} to both the user and the token: "
        + f"{'; '.join(grant(privilege, path, settings))}. {keeps_roles(settings)}",
        403,
    )


def invalid_target(wrong: str, tool: str, there: str) -> ProxmoxError:
    return ProxmoxError(wrong, f"Call {tool} to see the {there}.")


def unknown_node(node: str, nodes: Iterable[str]) -> ProxmoxError:
    return ProxmoxError(f"There is no node {node}", f"The nodes are: {', '.join(sorted(nodes))}.")


def unknown_machine(vm_id: int, settings: Settings) -> ProxmoxError:
    return ProxmoxError(
        f"There is no machine {vm_id}, or the token {settings.token_id} lacks VM.Audit "
        f"on /vms/{vm_id}",
        "Call list_machines to see what there is.",
    )


def machine_elsewhere(machine: Machine, node: str) -> ProxmoxError:
    return ProxmoxError(
        f"{machine.title} is not on {node} but on {machine.node}",
        f'If you mean that machine, call again with node="{machine.node}".',
    )


def offline_node(vm_id: int, node: str) -> ProxmoxError:
    return ProxmoxError(
        f"Node {node} is offline, so machine {vm_id} cannot be seen, started or stopped",
        "Call list_infrastructure to see whether the node is back.",
    )
