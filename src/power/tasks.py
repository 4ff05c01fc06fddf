"""What a machine's tasks mean for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from src.models import Action, Machine, goal
from src.proxmox.rows import Row, clean, integer

ACTIONS: dict[str, Action] = {  # what a type of task does
    "qmstart": "start",
    "vzstart": "start",
    "hastart": "start",
    "qmstop": "stop",
    "vzstop": "stop",
    "hastop": "stop",
    "qmshutdown": "shutdown",
    "vzshutdown": "shutdown",
    "qmreboot": "reboot",
    "vzreboot": "reboot",
}
CONSOLES = ("vncproxy", "vncshell", "termproxy", "spiceproxy", "spiceshell")
ENDS = {  # seconds after its start, and what it comes to then
    "qmshutdown": (60, "it gives up, and the VM runs on"),
    "qmreboot": (60, "it gives up, and the VM runs on"),
    "vzshutdown": (125, "it gives up, and the container runs on"),
    "vzreboot": (60, "Proxmox kills the container and starts it again"),
    "qmstop": (60, "Proxmox kills the VM's process"),
}


@dataclass(frozen=True)
class Task:
    """A task of Proxmox. `status` is its exit status, None while it runs; `began` is in
    seconds since 1970 by the node's clock, None where it is not said."""

    upid: str
    type: str
    status: str | None
    began: int | None

    @property
    def failed(self) -> bool:
        return self.status is not None and not succeeded(self.status)


def succeeded(status: str) -> bool:
    """Whether an exit status is success: OK, or WARNINGS and their number."""
    return status == "OK" or status.startswith("WARNINGS")


def read_task(row: Row) -> Task:
    """A Task from a row of /nodes/{node}/tasks, where a running one says RUNNING."""
    status = clean(row.get("status") or "RUNNING")
    return Task(
        upid=clean(row.get("upid") or ""),
        type=clean(row.get("type") or ""),
        status=None if status == "RUNNING" else status,
        began=integer(row.get("starttime")),
    )


@dataclass(frozen=True)
class UnderWay:
    """What will change a machine: `task`, or HA where that is None."""

    action: Action
    task: Task | None = None

    @property
    def upid(self) -> str | None:
        return self.task.upid if self.task else None

    @property
    def leads_to(self) -> str:
        return goal(self.action)

    @property
    def description(self) -> str:
        return f"task {described(self.task)}" if self.task else "asked of HA"

    @property
    def words(self) -> str:
        return f"a {self.action} of it is under way ({self.description})"


def under_way(tasks: list[Task], machine: Machine) -> UnderWay | None:
    """What will change the machine, if anything will; of several tasks the oldest.

    HA acts seconds after it was asked: until then the newest task says what it was.
    """
    power = [task for task in tasks if task.type in ACTIONS]
    running = [task for task in power if task.status is None]
    if running:
        oldest = min(running, key=_began)
        return UnderWay(ACTIONS[oldest.type], oldest)
    if not machine.managed or machine.ha == "error":
        return None
    newest = max(power, key=_began, default=None)
    asked = newest.type if newest and newest.status == "OK" else ""
    if machine.status == "stopped":
        starts = asked == "hastart" or machine.ha in ("started", "request_start")
        return UnderWay("start") if starts and asked != "hastop" else None
    stops = asked == "hastop" or machine.ha == "request_stop"
    return UnderWay("stop") if stops else None


def latest_failure(tasks: list[Task], since: int | None, ours: str) -> Task | None:
    """The newest power task since then, other than ours, if that failed.

    The start after a reboot, and all that HA does, are tasks of root@pam.
    """
    later = [
        task
        for task in tasks
        if task.type in ACTIONS and task.upid != ours and task.began is not None
        if since is not None and task.began >= since
    ]
    newest = max(later, key=_began, default=None)
    return newest if newest and newest.failed else None


def lock_holder(tasks: list[Task], ours: str) -> Task | None:
    """The oldest task of the machine that runs, consoles and ours aside."""
    running = [
        task
        for task in tasks
        if task.status is None and task.upid != ours and task.type not in CONSOLES
    ]
    return min(running, key=_began, default=None)


def _began(task: Task) -> int:
    return task.began or 0


def described(task: Task) -> str:
    """qmshutdown, since 12:30:05 UTC; at 12:31:05 UTC it gives up, ..."""
    since = f", since {_clock(task.began)}" if task.began else ""
    end = ends(task)
    return f"{task.type}{since}{f'; {end}' if end else ''}"


def ends(task: Task) -> str:
    """When and how the task ends by itself; "" where nobody can say."""
    seconds, then = ENDS.get(task.type, (0, ""))
    if not then or not task.began:
        return ""
    # HA's own shutdowns are tasks of root@pam, and cut the power.
    if task.type == "qmshutdown" and ":root@pam:" in task.upid:
        then = "it gives up or, where HA manages the VM, cuts its power"
    return f"about {_clock(task.began + seconds)} {then}"


def _clock(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S UTC")
