"""What a power action is told: its obstacles, its end and the next step, to the letter."""

from dataclasses import replace

import pytest

from src import advice
from src.errors import ProxmoxError
from src.models import Machine

REST = (None, None, None, None, 7, False, None, [], True)
WEB = Machine(100, "web", "pve1", "qemu", "running", *REST)
CT = Machine(200, None, "pve2", "lxc", "stopped", *REST)
LOST = ProxmoxError("No answer", "Try again.", "timeout")
FORCE = (
    "The guest may still follow: call list_machines in a minute. If it does not, "
    "stop_machine(force=True) cuts its power; what is not saved is lost, so ask the user first."
)
FORCE_AND_START = FORCE.replace("power;", "power and start_machine starts it again;")
TASKS = "Look at the node's tasks in Proxmox before you try again."
START_AGAIN = "Remove the cause, then call start_machine again."
BUSY = "Another task is at work on it: look again in a minute."
OBSTACLES = {  # of an action on a machine of a type, status and lock
    "start qemu template": "VM 100 (web) on pve1 is a template, which cannot run. Clone it in "
    "Proxmox and start the clone.",
    "stop qemu template backup": "is a template",
    "reboot lxc stopped backup": "container 100 (web) on pve1 is stopped. Call start_machine "
    "instead.",
    "start qemu stopped backup": "VM 100 (web) on pve1 is locked (backup). Try again when that "
    "task is over. If no such task runs, an administrator can remove the lock: qm unlock 100",
    "stop qemu paused suspended": "locked (suspended)",
    "shutdown lxc running mounted": "(mounted)",
    "reboot lxc running mounted": "remove the lock: pct unlock 100",
    "start qemu paused": "in state paused, in which start does not work",
    "shutdown qemu paused": "VM 100 (web) on pve1 is in state paused, in which shutdown does not "
    "work. Resume it in Proxmox; or call stop_machine(force=True), which cuts its power and "
    "loses what is not saved.",
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
    error = str(advice.obstacle(machine, action) or "")  # type: ignore[arg-type]
    assert error == says if not says or " on pve1 is " in says else says in error


@pytest.mark.parametrize(
    ("says", "cases"),
    [
        ("", "start running is locked; stop stopped x; shutdown stopped x"),
        ("", "start stopped"),
        (START_AGAIN, "start stopped x; start unseen x"),
        (TASKS, "stop running x; stop unseen"),
        (FORCE, "shutdown running x; shutdown unseen"),
        (FORCE_AND_START, "reboot running x; reboot running the disk was locked"),
        ("If it stays stopped, call start_machine.", "reboot stopped"),
        (BUSY, "start stopped can't lock file; stop running CT is locked (backup)"),
    ],
)
def test_the_next_step_fits_action_state_and_reason(says: str, cases: str) -> None:
    for case in cases.split("; "):
        action, status, *reason = case.split(" ", 2)
        after = replace(WEB, status=status) if status != "unseen" else None
        assert advice.next_step(after, action, *reason) == says  # type: ignore[arg-type]


def test_what_is_no_action_and_what_is_so_already() -> None:
    assert str(advice.unknown_action(["a", "b"])) == "action must be one of: a, b."
    already = "VM 100 (web) on pve1 is already running"
    assert advice.already(WEB) == f"{already}; nothing was sent."
    assert advice.overtaken(WEB) == f"{already}: something else was faster."


def test_what_is_done_is_said_with_what_its_task_warned_of() -> None:
    said = {
        ("start", "OK"): "Started {}; it is running.",
        ("stop", None): "Cut the power of {}; it is stopped.",
        ("shutdown", ""): "Shut down {}; it is stopped.",
        (
            "reboot",
            "X",
        ): "Rebooted {}; it is running again. Its task ended with X.\nlog",
    }
    for (action, status), says in said.items():
        text = says.format("container 200 (no name) on pve2")
        assert advice.done(CT, action, status, "\nlog") == text  # type: ignore[arg-type]
    assert advice.done(CT, "stop", "X").endswith(" Its task ended with X.")


def test_what_is_unfinished_goes_on_and_is_to_be_looked_at() -> None:
    start = advice.unfinished(WEB, CT, "start", "UPID:a", 44.6)
    assert start == (
        "The start of VM 100 (web) on pve1 is not finished after 45 s: it is stopped, and task "
        "UPID:a may go on. Call list_machines in a minute."
    )
    reboot = advice.unfinished(WEB, CT, "reboot", "UPID:a", 45)
    assert reboot.endswith("may go on. If it stays stopped, call start_machine.")
    unseen = advice.unfinished(WEB, None, "shutdown", "UPID:a", 45)
    assert unseen.endswith(f"it cannot be seen, and task UPID:a may go on. {FORCE}")


def test_what_failed_says_why_and_how_the_machine_is_now() -> None:
    for after, cause, advised, says in (
        (CT, "no space", "", f"It is stopped now. {START_AGAIN}"),
        (CT, "no space", "Do this.", "It is stopped now. Do this."),
        (WEB, "no space", "", "It is running now."),
        (LOST, "no", "", f"Its state cannot be read: No answer. {START_AGAIN}"),
        (CT, "VM is locked", "", f"It is stopped now. {BUSY}"),
    ):
        error = advice.failed(
            WEB, after, "start", ProxmoxError(cause, advised), "\nlog"
        )
        said = str(error).replace(" \n", "\n")
        assert said == f"The start of VM 100 (web) on pve1 failed: {cause}. {says}\nlog"


def test_what_is_lost_is_unknown_and_what_a_task_wrote_is_told_by_line() -> None:
    error = advice.lost(WEB, "stop", LOST)
    assert error.code == "timeout"
    assert str(error) == (
        "The answer to the stop of VM 100 (web) on pve1 was lost, so its outcome is unknown. No "
        'answer. Call list_machines(node="pve1") before you try again.'
    )
    assert advice.log_text("U:1", ["a", "b"]) == "\nTask U:1 ended its log with\na\nb"
    unread = "\nThe log of task U:1 cannot be read: No answer."
    assert advice.log_text("U:1", LOST) == unread
