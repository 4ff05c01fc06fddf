"""Why a power action cannot work, so that nothing is sent: pure functions."""

from collections.abc import Iterable

from src.errors import ProxmoxError
from src.models import KINDS, STATES, Action, Machine
from src.power.tasks import UnderWay

LOOK = "Call list_machines in a minute."
RESTART = " and start_machine to start it again"
# An exempt action works under a lock: Proxmox resumes a hibernated VM, and ignores mounts.
EXEMPT = {("start", "suspended"), ("start", "mounted"), ("stop", "mounted")}
# What a state of QEMU means, and the way out of it: wait, resume it, cut its power,
# end its process, or repair the storage.
WAIT, RESUME, CUT, END, REPAIR = "wait", "resume", "cut", "end", "repair"
STUCK = {
    "shutdown": (STATES["shutdown"], END),
    "io-error": (STATES["io-error"], REPAIR),
    "internal-error": (STATES["internal-error"], CUT),
    "guest-panicked": (STATES["guest-panicked"], CUT),
    "watchdog": (STATES["watchdog"], RESUME),
    "inmigrate": ("it is being migrated or resumed", WAIT),
    "postmigrate": ("it has been migrated", WAIT),
    "finish-migrate": ("it is being migrated", WAIT),
    "save-vm": ("its state is being saved", WAIT),
    "restore-vm": ("its state is being restored", WAIT),
    "prelaunch": ("it waits frozen before it runs", RESUME),
    "suspended": ("its guest is asleep", RESUME),
}


def force(machine: Machine, again: str = "") -> str:
    """Offer to cut the power, at the end of a sentence that says when."""
    return (
        f"call stop_machine with force: true to cut the power of {machine.short}{again}. Unsaved "
        "data will be lost, so ask the user first."
    )


def ha_error(machine: Machine) -> str:
    return (
        f"HA will not start {machine.short} again until somebody disables it in HA (in Proxmox, "
        "Datacenter > HA) and fixes the cause."
    )


def unknown_action(actions: Iterable[str]) -> ProxmoxError:
    return ProxmoxError(f"action must be one of {', '.join(actions)}")


def check(machine: Machine, action: Action) -> None:
    """Raise ProxmoxError if the action cannot work in this state, with what to do instead."""
    subject, container = machine.subject, machine.type == "lxc"
    if machine.template:
        advice = "Clone it in Proxmox, and start the clone."
        raise ProxmoxError(f"{subject} is a template, which cannot run", advice)
    if action == "reboot" and machine.status == "stopped":
        raise ProxmoxError(f"{subject} is stopped", "Call start_machine instead.")
    if machine.ha == "freeze" and not (action == "reboot" and container):
        end = "nothing would carry it out"
        if action == "reboot":
            end = f"{machine.short} would go down and stay down"
        raise ProxmoxError(
            f"The {action} of {machine.label} cannot work: HA is disarmed or paused (its HA state "
            f"is freeze), so {end}",
            "If HA is disarmed, an administrator must arm it (in Proxmox, Datacenter > HA). If the "
            "machine's node or its pve-ha-lrm is restarting, wait and try again.",
        )
    _check_lock(machine, action)
    if machine.status not in ("running", "stopped") and action != "stop":
        _check_state(machine, action)
    if action == "reboot" and machine.ha == "error":
        raise ProxmoxError(
            f"{subject} is in the HA error state, so it would go down and not start again",
            ha_error(machine),
        )


def _check_lock(machine: Machine, action: Action) -> None:
    lock = machine.lock
    if not lock or (action, lock) in EXEMPT or _resumes_backup(machine, action):
        return
    advice = unlock(machine)
    if lock == "mounted":
        advice = (
            "Somebody mounted its file system on the node. When it is no longer needed there, run "
            f"pct unmount {machine.vm_id} on {machine.node}."
        )
    raise ProxmoxError(f"{machine.subject} is locked ({lock})", advice)


def unlock(machine: Machine) -> str:
    """Say what to do about a lock: wait, or remove one that is left over."""
    return (
        "A task may hold the lock: try again when it has ended. If no task is running on "
        f"{machine.short}, the lock is left over, and an administrator can remove it with "
        f"{KINDS[machine.type].command} unlock {machine.vm_id}. (While a task is running, that "
        "does harm.)"
    )


def _resumes_backup(machine: Machine, action: Action) -> bool:
    """Whether it is off and being backed up. Its process waits, and a start resumes it."""
    state = (action, machine.lock, machine.status)
    return state in (("start", "backup", "prelaunch"), ("start", "backup", "paused"))


def _check_state(machine: Machine, action: Action) -> None:
    if _resumes_backup(machine, action):
        return
    meaning, way_out = STUCK.get(machine.status, ("", RESUME))
    advice = {
        END: "Call stop_machine with force: true to end the process. No data will be lost.",
        WAIT: f"Wait for that. {LOOK}",
        RESUME: f"Resume {machine.short} in Proxmox, or {force(machine)}",
        REPAIR: f"Repair the storage and resume {machine.short} in Proxmox, or {force(machine)}",
        CUT: force(machine, RESTART)[0].upper() + force(machine, RESTART)[1:],
    }[way_out]
    raise ProxmoxError(
        f"{machine.subject} is in state {machine.status}{f': {meaning}' if meaning else ''}. "
        f"A {action} does not work in this state",
        advice,
    )


def check_other(machine: Machine, action: Action, other: UnderWay) -> None:
    """Raise ProxmoxError if what is under way does not lead to what the action is for."""
    if action == other.action or (action == "shutdown" and other.action == "stop"):
        return
    raise ProxmoxError(
        f"The {action} of {machine.label} cannot work now, because a {other.action} of it is "
        f"under way ({other.description})",
        f"{LOOK} If the {action} is still needed then, call the tool again.",
    )


def no_quorum(machine: Machine) -> ProxmoxError:
    return ProxmoxError(
        "The cluster has no quorum, and without quorum nothing can be started: "
        f"{machine.label} would go down and stay down",
        "Call list_infrastructure to see which nodes are missing.",
    )


def not_sent(error: ProxmoxError, vm_id: int) -> ProxmoxError:
    """Say that nothing was sent, because of an error before the POST."""
    to = f" to machine {vm_id}" if error.code else ""  # else the error is about the machine
    return ProxmoxError(f"{error.cause} Nothing was sent{to}", error.advice, error.code)


def not_reached(error: ProxmoxError) -> ProxmoxError:
    """Say that the POST did not reach Proxmox: no connection, or a firewall answered."""
    return ProxmoxError(f"{error.cause} Nothing was done", error.advice, error.code)


def no_audit(machine: Machine, action: Action, problem: str) -> ProxmoxError:
    return ProxmoxError(
        f"The audit line of the {action} of {machine.label} cannot be written to stderr, because "
        f"{problem}. Nothing was sent",
        "Restart the client, or let it read the server's stderr.",
    )


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
        message += f" It is in the HA error state. {ha_error(machine)}"
    return message


def will_change(machine: Machine, other: UnderWay) -> str:
    tool = "start_machine" if other.leads_to == "stopped" else "stop_machine"
    then = f" If {machine.short} is {other.leads_to} then, call {tool}."
    return (
        f"{machine.subject} is {machine.status} now, but a {other.action} of it is under way "
        f"({other.description}). Nothing was sent. {LOOK}"
        + ("" if other.leads_to == machine.status else then)
    )
