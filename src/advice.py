"""What stands in a power action's way, what its end means, what to do next: pure.

goal                                    the state that an action is to bring about
unknown_action, obstacle                errors before anything is sent
already, overtaken, done, unfinished    messages of a result
failed, lost                            errors after it was sent
next_step, log_text                     what to do about it; what its task wrote
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from src.errors import ProxmoxError
from src.models import Action, Machine

DONE = {
    "start": "Started {label}; it is running.",
    "stop": "Cut the power of {label}; it is stopped.",
    "shutdown": "Shut down {label}; it is stopped.",
    "reboot": "Rebooted {label}; it is running again.",
}


def goal(action: Action) -> str:
    """The state of a machine that the action is to bring about."""
    return "stopped" if action in ("stop", "shutdown") else "running"


def unknown_action(actions: Iterable[str]) -> ProxmoxError:
    return ProxmoxError(f"action must be one of: {', '.join(actions)}")


def obstacle(machine: Machine, action: Action) -> ProxmoxError | None:
    """Why the action cannot work on a machine in this state, and what to do instead."""
    label, lock = machine.label, machine.lock
    if machine.template:
        return ProxmoxError(
            f"{label} is a template, which cannot run",
            "Clone it in Proxmox and start the clone.",
        )
    if action == "reboot" and machine.status == "stopped":
        return ProxmoxError(f"{label} is stopped", "Call start_machine instead.")
    # A hibernated VM has the lock suspended, and starting it resumes it.
    exempt = {("start", "suspended"), ("start", "mounted"), ("stop", "mounted")}
    if lock and (action, lock) not in exempt:
        tool = "qm" if machine.type == "qemu" else "pct"
        return ProxmoxError(
            f"{label} is locked ({lock})",
            "Try again when that task is over. If no such task runs, an administrator "
            f"can remove the lock: {tool} unlock {machine.vm_id}",
        )
    if machine.status not in ("running", "stopped") and action != "stop":
        return ProxmoxError(
            f"{label} is in state {machine.status}, in which {action} does not work",
            "Resume it in Proxmox; or call stop_machine(force=True), which cuts its "
            "power and loses what is not saved.",
        )
    return None


def already(machine: Machine) -> str:
    return f"{machine.label} is already {machine.status}; nothing was sent."


def overtaken(machine: Machine) -> str:
    return f"{machine.label} is already {machine.status}: something else was faster."


def done(machine: Machine, action: Action, status: str | None, log: str = "") -> str:
    """`status` is what its task ended with, where that is known; `log` what it wrote."""
    said = DONE[action].format(label=machine.label)
    if status and status != "OK":
        said += f" Its task ended with {status}.{log}"
    return said


def unfinished(
    before: Machine, after: Machine | None, action: Action, task: str, seconds: float
) -> str:
    seen = f"it is {after.status}" if after else "it cannot be seen"
    return (
        f"The {action} of {before.label} is not finished after {seconds:.0f} s: {seen}, "
        f"and task {task} may go on. "
        f"{next_step(after, action) or 'Call list_machines in a minute.'}"
    )


def failed(
    before: Machine,
    after: Machine | ProxmoxError,
    action: Action,
    error: ProxmoxError,
    log: str,
) -> ProxmoxError:
    """What was refused, or what its task ended with; `after` is the machine then."""
    if isinstance(after, ProxmoxError):
        now, machine = f"Its state cannot be read: {after.cause}", None
    else:
        now, machine = f"It is {after.status} now.", after
    advice = error.advice or next_step(machine, action, error.cause)
    return ProxmoxError(
        f"The {action} of {before.label} failed: {error.cause} {now}", advice + log
    )


def lost(before: Machine, action: Action, error: ProxmoxError) -> ProxmoxError:
    return ProxmoxError(
        f"The answer to the {action} of {before.label} was lost, so its outcome is "
        f"unknown. {error.cause}",
        f'Call list_machines(node="{before.node}") before you try again.',
        error.code,
    )


def next_step(after: Machine | None, action: Action, reason: str = "") -> str:
    """What to do about an action that failed for a reason, or that goes on."""
    status = after.status if after else "unknown"
    if status == goal(action) and action != "reboot":
        return ""
    if re.search(r"can't lock|is locked", reason):
        return "Another task is at work on it: look again in a minute."
    if action == "start":
        return "Remove the cause, then call start_machine again." if reason else ""
    if action == "stop":
        return "Look at the node's tasks in Proxmox before you try again."
    if status == "stopped":
        return "If it stays stopped, call start_machine."
    again = " and start_machine starts it again" if action == "reboot" else ""
    return (
        "The guest may still follow: call list_machines in a minute. If it does not, "
        f"stop_machine(force=True) cuts its power{again}; what is not saved is lost, so "
        "ask the user first."
    )


def log_text(task: str, lines: list[str] | ProxmoxError) -> str:
    """The end of a task's log, to be added to a text."""
    if isinstance(lines, ProxmoxError):
        return f"\nThe log of task {task} cannot be read: {lines.cause}"
    return "\n".join([f"\nTask {task} ended its log with", *lines])
