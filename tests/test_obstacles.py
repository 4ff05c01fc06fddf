"""What stands in a power action's way, so that nothing is sent, to the letter."""

from dataclasses import replace

import pytest

from src.errors import ProxmoxError
from src.models import Machine
from src.power import obstacles
from src.power.tasks import Task, UnderWay

WEB = Machine(vm_id=100, name="web", node="pve1", type="qemu", status="running")
UNLOCK = (
    "Try again when that task is over. If no such task runs, an administrator can remove the "
    "lock: "
)
FORCE = (
    "stop_machine with force: true cuts its power; what is not saved is lost, so ask the user "
    "first."
)
HA_ERROR = (
    "It must be disabled in HA (Datacenter > HA in Proxmox) and the cause fixed before HA is "
    "asked to start it again."
)
LOOK = "Call list_machines in a minute."
OBSTACLES = {  # of an action on a machine of a type, status and lock
    "start qemu template": "VM 100 (web) on pve1 is a template, which cannot run. Clone it in "
    "Proxmox and start the clone.",
    "stop qemu template backup": "is a template",
    "reboot lxc stopped backup": "Container 100 (web) on pve1 is stopped. Call start_machine "
    "instead.",
    "start qemu stopped backup": f"VM 100 (web) on pve1 is locked (backup). {UNLOCK}qm unlock 100",
    "stop qemu paused suspended": "locked (suspended)",
    "shutdown lxc running mounted": "Container 100 (web) on pve1 is locked (mounted). "
    f"{UNLOCK}pct unlock 100",
    "reboot lxc running mounted": "locked (mounted)",
    "start qemu paused": "is in state paused. Start does not work then",
    "shutdown qemu paused": "VM 100 (web) on pve1 is in state paused. Shutdown does not work "
    f"then. Resume it in Proxmox; or {FORCE}",
    "shutdown qemu shutdown": "VM 100 (web) on pve1 is in state shutdown: the guest is off, but "
    "its process is not. Shutdown does not work then. stop_machine with force: true ends the "
    "process; nothing is lost.",
    "reboot qemu io-error": "VM 100 (web) on pve1 is in state io-error: its storage fails or is "
    "full, and it is frozen. Reboot does not work then. Mend the storage and resume it in "
    f"Proxmox; or {FORCE}",
    "start qemu stopped": "",
    "start qemu stopped suspended": "",  # hibernated: a start resumes it
    "start lxc stopped mounted": "",
    "stop lxc running mounted": "",
    "stop qemu paused": "",
    "reboot qemu running": "",
}


@pytest.mark.parametrize(("case", "says"), OBSTACLES.items())
def test_nothing_is_sent_that_cannot_work(case: str, says: str) -> None:
    action, kind, status, *lock = case.split()
    machine = replace(WEB, type=kind, status=status, lock=lock[0] if lock else None)
    if status == "template":
        machine = replace(machine, status="stopped", template=True)
    error = str(obstacles.obstacle(machine, action) or "")  # type: ignore[arg-type]
    assert error == says if "100" in says or not says else says in error


def test_a_reboot_that_ha_would_not_end_is_not_sent() -> None:
    failed = replace(WEB, ha="error")
    assert str(obstacles.obstacle(failed, "reboot")) == (
        "HA has VM 100 (web) on pve1 in the state error: it would go down and not be started "
        f"again. Nothing was sent. {HA_ERROR}"
    )
    assert obstacles.obstacle(failed, "shutdown") is None
    assert str(obstacles.no_quorum(WEB)) == (
        "The cluster has no quorum, so VM 100 (web) on pve1 would go down for the reboot and "
        "stay down: without quorum nothing can be started. Nothing was sent. Call "
        "list_infrastructure to see which nodes are missing."
    )


def test_what_is_under_way_is_told() -> None:
    reboot = UnderWay("reboot", Task("UPID:x", "qmreboot", None, 1795642946))
    task = (
        "a reboot of it is under way (task qmreboot, since 21:42:26 UTC; about 21:43:26 UTC it "
        "gives up, and the VM runs on)"
    )
    assert str(obstacles.busy(WEB, "shutdown", reboot)) == (
        f"The shutdown of VM 100 (web) on pve1 cannot work now: {task}. Nothing was sent. {LOOK}"
    )
    assert obstacles.will_change(WEB, reboot) == (
        f"VM 100 (web) on pve1 is running now, but {task}. Nothing was sent. {LOOK} When it is "
        "running, call stop_machine."
    )
    assert obstacles.will_change(WEB, UnderWay("stop")) == (
        "VM 100 (web) on pve1 is running now, but a stop of it is under way (asked of HA). "
        f"Nothing was sent. {LOOK} When it is stopped, call start_machine."
    )


def test_a_machine_that_is_so_already_is_left_alone() -> None:
    already = "VM 100 (web) on pve1 is already running; nothing was sent."
    assert obstacles.already(WEB) == already
    in_error = f"{already} HA has it in the state error. {HA_ERROR}"
    assert obstacles.already(replace(WEB, ha="error")) == in_error


def test_what_was_not_sent_is_said() -> None:
    silent = ProxmoxError("No answer", "Try again.", "timeout")
    error = obstacles.not_sent(silent)
    assert (str(error), error.code) == (
        "No answer. Nothing was sent. Try again.",
        "timeout",
    )
    found_out = ProxmoxError("There is no node x")
    assert obstacles.not_sent(found_out) is found_out
    assert str(obstacles.cancelled(WEB, "stop")) == (
        "The stop of VM 100 (web) on pve1 was cancelled. Nothing was sent."
    )
    assert str(obstacles.unknown_action(["a", "b"])) == "action must be one of: a, b."
