"""What to expect of a power action that is not finished: pure functions."""

from src.errors import ProxmoxError
from src.models import Action, Machine
from src.power import tasks
from src.power.obstacles import LOOK, RESTART, force
from src.power.tasks import UnderWay

HUNG = f" Proxmox needs up to about {tasks.HUNG_PATIENCE} s for a VM that hangs."


def of_task(machine: Machine, agent: bool, action: Action, runs: bool) -> str:
    """Say what to expect while our own task still runs."""
    short, title, container = machine.short, machine.title, machine.type == "lxc"
    if action == "start":
        process = f"the process of {short} exists, but " if runs else ""
        return f"Its task has not ended: {process}the start may still fail. {LOOK}"
    if action == "stop":
        limit = "" if container else HUNG
        return f"Its task has not ended.{limit} {LOOK}"
    if action == "reboot" and container:
        return (
            f"If {short} ignores the request, Proxmox kills it {tasks.CONTAINER_REBOOT_PATIENCE} s "
            f"after it and starts it again. Unsaved data would be lost. {LOOK}"
        )
    again = RESTART if action == "reboot" else ""
    if agent:
        return (
            f"{title} may still be shutting down: Proxmox waits up to "
            f"{tasks.AGENT_PATIENCE // 60} minutes if its guest agent answers, else "
            f"{tasks.VM_PATIENCE} s, or as long as the VM's options say. Do not send force: true "
            "before then: it would cut the power in the middle of a shutdown. "
            f"{LOOK} If {short} is still running after those {tasks.AGENT_PATIENCE // 60} minutes, "
            + force(machine, again)
        )
    limit = f"{tasks.CONTAINER_PATIENCE if container else tasks.VM_PATIENCE} s"
    options = "" if container else ", or as long as the VM's options say,"
    return (
        f"Proxmox waits {limit}{options} for {short} to shut down, and then gives up: {short} "
        f"keeps running. {LOOK} If {short} is still running, {force(machine, again)}"
    )


def of_other(machine: Machine, other: UnderWay) -> str:
    """Say what to expect of another's task: nobody knows its limit, or what it does then."""
    if other.action not in ("shutdown", "reboot"):
        hung = HUNG if other.action == "stop" and machine.type == "qemu" else ""
        return f"Its task has not ended.{hung} {LOOK}"
    return (
        f"How long that {other.action} waits, and whether it then cuts the power of "
        f"{machine.short}, is unknown. {LOOK} If {machine.short} is still running after "
        f"{tasks.AGENT_PATIENCE // 60} minutes, "
        + force(machine, RESTART if other.action == "reboot" else "")
    )


def of_ha(before: Machine, after: Machine | None, action: Action, acted: bool) -> str:
    """Say what to expect of HA. `acted` is whether HA has done anything yet."""
    short = before.short
    if after is None:
        return f"HA accepted the request. {LOOK}"
    if not acted:
        return (
            "HA accepted the request, but nothing has carried it out so far: HA may be busy, or no "
            f"HA manager is active. Look in Proxmox under Datacenter > HA. {LOOK}"
        )
    if action == "shutdown" and before.type == "lxc":
        return (
            f"HA has asked {short} to shut down, and does not cut its power: if {short} ignores "
            "that, it keeps running, and about two minutes later HA puts it into the error state, "
            f"which somebody must clear in Proxmox (Datacenter > HA). {LOOK}"
        )
    if action == "shutdown":
        return (
            f"HA has asked {short} to shut down, and cuts its power about {tasks.HA_PATIENCE} s "
            f"after that if it is still running. {LOOK}"
        )
    if action == "reboot" and after and after.status == "stopped":
        return f"HA should start it again. {LOOK}"
    hung = HUNG if action == "stop" and before.type == "qemu" else ""
    return f"HA is carrying out the request.{hung} {LOOK}"


def of_ha_task(machine: Machine) -> str:
    return f"HA has not taken the request for {machine.short} yet. {LOOK}"


def unread(error: ProxmoxError) -> str:
    """Say what to do if the action's task cannot be read."""
    return f"Its task cannot be read: {error.cause} {LOOK}"


def of_end(before: Machine, after: Machine | None, action: Action, status: str | None) -> str:
    """Say what to expect if the task has ended, but the machine does not show it."""
    if action == "reboot" and after and after.status == "stopped":
        return f"No task shows that {after.short} is being started again. Call start_machine."
    shown = f", but {before.short} does not show it yet" if after else ""
    return f"The task ended with {status}{shown}. {LOOK}"
