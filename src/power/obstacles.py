"""Why a power action cannot work, so that nothing is sent: pure functions."""

from collections.abc import Iterable

from src.errors import ProxmoxError
from src.models import KINDS, Action, Machine
from src.power.tasks import UnderWay

LOOK = "Call list_machines in a minute."
FORCE = (
    "call stop_machine with force: true to cut its power{}. Unsaved data is lost then, so ask "
    "the user first."
)
RESTART = " and start_machine to start it again"  # for FORCE in place of a reboot
HA_ERROR = (
    "Disable it in HA (in Proxmox, Datacenter > HA) and fix the cause before HA can start it again."
)
STUCK = {  # what a state of QEMU means, and the way out of it
    "shutdown": (
        "the guest is off, but its process still runs",
        "Call stop_machine with force: true to end the process. Nothing is lost.",
    ),
    "io-error": (
        "its storage fails or is full, so QEMU froze it",
        "Repair the storage and resume it in Proxmox, or " + FORCE.format(""),
    ),
}


def unknown_action(actions: Iterable[str]) -> ProxmoxError:
    return ProxmoxError(f"action must be one of {', '.join(actions)}")


def check(machine: Machine, action: Action) -> None:
    """Raise ProxmoxError if the action cannot work in this state, with what to do instead."""
    subject, lock = machine.subject, machine.lock
    if machine.template:
        raise ProxmoxError(
            f"{subject} is a template, which cannot run",
            "Clone it in Proxmox, and start the clone.",
        )
    if action == "reboot" and machine.status == "stopped":
        raise ProxmoxError(f"{subject} is stopped", "Call start_machine instead.")
    # A hibernated VM has the lock suspended, and starting it resumes it.
    exempt = {("start", "suspended"), ("start", "mounted"), ("stop", "mounted")}
    if lock and (action, lock) not in exempt:
        command = KINDS[machine.type].command
        raise ProxmoxError(
            f"{subject} is locked ({lock})",
            "Try again when that task has ended. If no such task runs, an administrator "
            f"can remove the lock: {command} unlock {machine.vm_id}",
        )
    if machine.status not in ("running", "stopped") and action != "stop":
        resume = "Resume it in Proxmox, or " + FORCE.format("")
        meaning, advice = STUCK.get(machine.status, ("", resume))
        raise ProxmoxError(
            f"{subject} is in state {machine.status}{f': {meaning}' if meaning else ''}. "
            f"A {action} does not work in this state",
            advice,
        )
    if action == "reboot" and machine.ha == "error":
        raise ProxmoxError(
            f"{subject} is in the HA state error, so it would go down and not start again", HA_ERROR
        )


def no_quorum(machine: Machine) -> ProxmoxError:
    return ProxmoxError(
        f"The cluster has no quorum, and without quorum nothing can be started: "
        f"{machine.label} would go down and stay down",
        "Call list_infrastructure to see which nodes are missing.",
    )


def check_other(machine: Machine, action: Action, other: UnderWay) -> None:
    """Raise ProxmoxError if what is under way does not lead to what the action is for."""
    if action == other.action or (action == "shutdown" and other.action == "stop"):
        return
    raise ProxmoxError(
        f"The {action} of {machine.label} cannot work now, because a {other.action} is "
        f"under way ({other.description})",
        LOOK,
    )


def not_sent(error: ProxmoxError) -> ProxmoxError:
    """Say that nothing was sent, because of an error before the POST."""
    return ProxmoxError(f"{error.cause} Nothing was sent", error.advice, error.code)


def cancelled(machine: Machine, action: Action) -> ProxmoxError:
    return ProxmoxError(f"The {action} of {machine.label} was cancelled. Nothing was sent")


def cancelled_after_refusal(machine: Machine, action: Action) -> ProxmoxError:
    return ProxmoxError(
        f"The {action} of {machine.label} was cancelled. Proxmox had rejected the first "
        "request, and no second one was sent"
    )


def already(machine: Machine) -> str:
    message = f"{machine.subject} is already {machine.status}. Nothing was sent."
    if machine.ha == "error":
        message += f" It is in the HA state error. {HA_ERROR}"
    return message


def will_change(machine: Machine, other: UnderWay) -> str:
    tool = "start_machine" if other.leads_to == "stopped" else "stop_machine"
    return (
        f"{machine.subject} is {machine.status} now, but a {other.action} of it is under "
        f"way ({other.description}). Nothing was sent. {LOOK} When it is "
        f"{other.leads_to}, call {tool}."
    )
