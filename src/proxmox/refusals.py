"""What an answer that is a refusal means, in words for the model: pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable

from proxmoxer import ResourceException  # type: ignore[import-untyped]

from src.config.settings import Settings
from src.errors import ProxmoxError
from src.proxmox.rights import grant
from src.proxmox.rows import clean

CURES = {  # of what Proxmox says, where its words are not enough
    "no quorum": "Call list_infrastructure: a start needs most nodes to be online.",
    "RPCEnvironment init": "Its cluster file system does not run: look at systemctl status "
    "pve-cluster on that node.",
}


def too_late() -> ProxmoxError:
    """What was not sent, its time being over."""
    return ProxmoxError(
        "It was not sent: its time was over while earlier requests were waited for",
        "Try again in a minute.",
        "refused",
    )


def not_the_api(settings: Settings) -> ProxmoxError:
    advice = "Correct PROXMOX_URL: the API's port is usually 8006."
    if settings.prefix:
        advice += f" Leave out the path /{settings.prefix}, unless a proxy needs it."
    return ProxmoxError(
        f"{settings.address} answers, but not as a Proxmox VE API: it is a login page, "
        "a proxy or another service",
        advice,
        "not the API",
    )


def not_proxmox(settings: Settings, status: int) -> ProxmoxError:
    """A refusal or an error that is not in Proxmox VE's form."""
    return ProxmoxError(
        f"{settings.address} answers {status}, but that answer is not Proxmox VE's: a "
        "reverse proxy, a web firewall or another service gave it",
        "Point PROXMOX_URL at Proxmox VE itself, usually port 8006 (8007 is Proxmox Backup "
        "Server), or let that proxy pass the API token on.",
        "refused" if status < 500 else "not the API",
    )


def refused(error: ResourceException, settings: Settings, node: str) -> ProxmoxError:
    """What an HTTP status of 400 or more means."""
    code, token = int(error.status_code), settings.token_id
    said = clean(_words(error).replace(settings.token_secret, "***"), 500)
    if code == 401:
        return ProxmoxError(
            f"Proxmox does not accept the API token {token} ({said or 'no reason'})",
            "Check PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET, and under Permissions > API "
            "Tokens that it exists and has not expired. A token made anew has no rights: "
            "grant them again.",
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
        advice = next((cure for words, cure in CURES.items() if words in said), "")
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
            f"Proxmox does not allow this to the token {token}: {said or 'no reason'}",
            "Grant the privilege to the user and to the token; the README lists them.",
            403,
        )
    path, privilege = match.groups()
    return ProxmoxError(
        f"The token {token} lacks {privilege} on {path}",
        f"Grant it to user and token: {'; '.join(grant(privilege, path, settings))}",
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
