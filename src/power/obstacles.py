"""What stands in a power action's way, so that nothing is sent: pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from src.errors import ProxmoxError
from src.models import Action, Machine
from src.power.tasks import UnderWay

LOOK = "Call list_machines in a minute."
FORCE = (
    "stop_machine with force: true cuts its power{}; what is not saved is lost, so ask "
    "the user first."
)
HA_ERROR = (
    "It must be disabled in HA (Datacenter > HA in Proxmox) and the cause fixed before "
    "HA is asked to start it again."
)
STUCK = {  # what a state of QEMU means, and the way out of it
    "shutdown": (
        "the guest is off, but its process is not",
        "stop_machine with force: true ends the process; nothing is lost.",
    ),
    "io-error": (
        "its storage fails or is full, and it is frozen",
        "Mend the storage and resume it in Proxmox; or " + FORCE.format(""),
    ),
}


def unknown_action(actions: Iterable[str]) -> ProxmoxError:
    return ProxmoxError(f"action must be one of: {', '.join(actions)}")


def obstacle(machine: Machine, action: Action) -> ProxmoxError | None:
    """Why the action cannot work on a machine in this state, and what to do instead."""
    label, subject, lock = machine.label, machine.subject, machine.lock
    if machine.template:
        return ProxmoxError(
            f"{subject} is a template, which cannot run",
            "Clone it in Proxmox and start the clone.",
        )
    if action == "reboot" and machine.status == "stopped":
        return ProxmoxError(f"{subject} is stopped", "Call start_machine instead.")
    # A hibernated VM has the lock suspended, and starting it resumes it.
    exempt = {("start", "suspended"), ("start", "mounted"), ("stop", "mounted")}
    if lock and (action, lock) not in exempt:
        tool = "qm" if machine.type == "qemu" else "pct"
        return ProxmoxError(
            f"{subject} is locked ({lock})",
            "Try again when that task is over. If no such task runs, an administrator "
            f"can remove the lock: {tool} unlock {machine.vm_id}",
        )
    if machine.status not in ("running", "stopped") and action != "stop":
        resume = "Resume it in Proxmox; or " + FORCE.format("")
        means, then = STUCK.get(machine.status, ("", resume))
        return ProxmoxError(
            f"{subject} is in state {machine.status}{f': {means}' if means else ''}. "
            f"{action.capitalize()} does not work then",
            then,
        )
    if action == "reboot" and machine.ha == "error":
        return ProxmoxError(
            f"HA has {label} in the state error: it would go down and not be started "
            "again. Nothing was sent",
            HA_ERROR,
        )
    return None


def no_quorum(machine: Machine) -> ProxmoxError:
    return ProxmoxError(
        f"The cluster has no quorum, so {machine.label} would go down for the reboot and "
        "stay down: without quorum nothing can be started. Nothing was sent",
        "Call list_infrastructure to see which nodes are missing.",
    )


def busy(machine: Machine, action: Action, other: UnderWay) -> ProxmoxError:
    return ProxmoxError(
        f"The {action} of {machine.label} cannot work now: {other.words}. Nothing was sent",
        LOOK,
    )


def not_sent(error: ProxmoxError) -> ProxmoxError:
    """A look before the action that failed; what was found out by it stays as it is."""
    if error.code == "":
        return error
    return ProxmoxError(f"{error.cause} Nothing was sent", error.advice, error.code)


def cancelled(machine: Machine, action: Action) -> ProxmoxError:
    return ProxmoxError(
        f"The {action} of {machine.label} was cancelled. Nothing was sent"
    )


def already(machine: Machine) -> str:
    said = f"{machine.subject} is already {machine.status}; nothing was sent."
    if machine.ha == "error":
        said += f" HA has it in the state error. {HA_ERROR}"
    return said


def will_change(machine: Machine, other: UnderWay) -> str:
    then = "start_machine" if other.leads_to == "stopped" else "stop_machine"
    return (
        f"{machine.subject} is {machine.status} now, but {other.words}. Nothing was sent. "
        f"{LOOK} When it is {other.leads_to}, call {then}."
    )
