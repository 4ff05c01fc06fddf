"""What a machine's tasks mean for it: pure functions."""

from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter

from src.models import GOALS, KINDS, Action, Machine
from src.proxmox.rows import Row, clean, integer

# What a type of task does: qmstart, vzstart and so on.
ACTIONS: dict[str, Action] = {
    f"{kind.task}{action}": action for kind in KINDS.values() for action in GOALS
} | {"hastart": "start", "hastop": "stop"}
CONSOLES = ("vncproxy", "vncshell", "termproxy", "spiceproxy", "spiceshell")
# How many seconds Proxmox waits for a guest to obey.
VM_PATIENCE, CONTAINER_PATIENCE, CONTAINER_REBOOT_PATIENCE, HA_PATIENCE = (60, 125, 60, 60)
ENDS = {  # when a task ends by itself, in seconds after its start, and how
    "qmshutdown": (VM_PATIENCE, "it gives up, and the VM keeps running"),
    "qmreboot": (VM_PATIENCE, "it gives up, and the VM keeps running"),
    "vzshutdown": (CONTAINER_PATIENCE, "it gives up, and the container keeps running"),
    "vzreboot": (CONTAINER_REBOOT_PATIENCE, "Proxmox kills the container and starts it again"),
    "qmstop": (VM_PATIENCE, "Proxmox kills the VM's process"),
}


@dataclass(frozen=True)
class Task:
    """A task of Proxmox. `status` is its exit status, None while it runs. `began` is in
    seconds since 1970 by the node's clock, 0 if unknown."""

    upid: str
    type: str
    status: str | None
    began: int

    @property
    def failed(self) -> bool:
        return self.status is not None and not succeeded(self.status)


def succeeded(status: str) -> bool:
    """Whether an exit status means success: OK, or WARNINGS and their number."""
    return status == "OK" or status.startswith("WARNINGS")


def read_task(row: Row) -> Task:
    """Read a row of /nodes/{node}/tasks. A running task has the status RUNNING."""
    status = clean(row.get("status") or "RUNNING")
    return Task(
        upid=clean(row.get("upid") or ""),
        type=clean(row.get("type") or ""),
        status=None if status == "RUNNING" else status,
        began=integer(row.get("starttime")) or 0,
    )


@dataclass(frozen=True)
class UnderWay:
    """What will change a machine: `task`, or HA if that is None."""

    action: Action
    task: Task | None = None

    @property
    def upid(self) -> str | None:
        return self.task.upid if self.task else None

    @property
    def leads_to(self) -> str:
        return GOALS[self.action]

    @property
    def description(self) -> str:
        return f"task {describe(self.task)}" if self.task else "requested from HA"


def under_way(tasks: list[Task], machine: Machine) -> UnderWay | None:
    """Return what will change the machine, if anything will; of several tasks the oldest.

    HA acts seconds after a request. Until then the newest task shows what was requested.
    """
    power = [task for task in tasks if task.type in ACTIONS]
    running = [task for task in power if task.status is None]
    if running:
        oldest = min(running, key=attrgetter("began"))
        return UnderWay(ACTIONS[oldest.type], oldest)
    if not machine.managed or machine.ha == "error":
        return None
    newest = max(power, key=attrgetter("began"), default=None)
    request = newest.type if newest and newest.status == "OK" else ""
    if machine.status == "stopped":
        starts = request == "hastart" or machine.ha in ("started", "request_start")
        return UnderWay("start") if starts and request != "hastop" else None
    stops = request == "hastop" or machine.ha == "request_stop"
    return UnderWay("stop") if stops else None


def later_than(tasks: list[Task], since: float, ours: str) -> list[Task]:
    """Return the power tasks since then, oldest first, except ours.

    The start after a reboot is a task of root@pam, as is everything that HA does.
    """
    later = [
        task for task in tasks if task.type in ACTIONS and task.upid != ours and task.began >= since
    ]
    return sorted(later, key=attrgetter("began"))


def lock_holder(tasks: list[Task], ours: str) -> Task | None:
    """Return the oldest running task of the machine, except consoles and ours."""
    running = [
        task
        for task in tasks
        if task.status is None and task.upid != ours and task.type not in CONSOLES
    ]
    return min(running, key=attrgetter("began"), default=None)


def describe(task: Task) -> str:
    """Write qmshutdown, since 12:30:05 UTC; about 12:31:05 UTC it gives up, ..."""
    since = f", since {_clock(task.began)}" if task.began else ""
    end = _expected_end(task)
    return f"{task.type}{since}{f'; {end}' if end else ''}"


def _expected_end(task: Task) -> str:
    """Say when and how the task ends by itself, or "" if that is unknown."""
    seconds, end = ENDS.get(task.type, (0, ""))
    if not end or not task.began:
        return ""
    # HA's own shutdowns are tasks of root@pam, and cut the power.
    if task.type == "qmshutdown" and ":root@pam:" in task.upid:
        end = "it gives up or, if HA manages the VM, cuts its power"
    return f"about {_clock(task.began + seconds)} {end}"


def _clock(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S UTC")
