"""What a machine's tasks mean for it: pure functions."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter

from src.models import GOALS, KINDS, Action, Machine
from src.proxmox.tasks import CONSOLES, Task

# What a type of task does: qmstart, vzstart and so on.
ACTIONS: dict[str, Action] = {
    f"{kind.task}{action}": action for kind in KINDS.values() for action in GOALS
} | {"hastart": "start", "hastop": "stop"}
# How many seconds Proxmox waits for a guest to obey, unless its options say otherwise.
VM_PATIENCE, AGENT_PATIENCE, CONTAINER_PATIENCE, CONTAINER_REBOOT_PATIENCE = 60, 600, 125, 60
HUNG_PATIENCE = 70  # until the process of a VM that hangs is killed
HA_PATIENCE = 60  # until HA cuts the power of a VM
ASKED_WITHIN = 15  # seconds: a graceful task that fails sooner has not asked the guest
HA_DELAY = 60  # until HA acts on a request; 30 s were seen on a busy cluster


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


def under_way(
    tasks: list[Task], machine: Machine, clock: Callable[[int], float | None]
) -> UnderWay | None:
    """Return what will change the machine, if anything will; of several tasks the oldest.

    HA acts seconds after a request. Until then the newest task shows what was requested,
    and after HA_DELAY it shows nothing any more: HA dropped the request, or nobody carried
    it out. `clock` returns the node's time, which is not before the request, or None if unknown.
    """
    power = [task for task in tasks if task.type in ACTIONS]
    running = [task for task in power if task.status is None]
    if running:
        oldest = min(running, key=attrgetter("began"))
        return UnderWay(ACTIONS[oldest.type], oldest)
    if not machine.managed or machine.ha in ("error", "freeze"):
        return None
    newest = max(power, key=attrgetter("began"), default=None)
    request = ""
    if newest and newest.type in ("hastart", "hastop") and newest.status == "OK":
        since = newest.ended or newest.began
        now = clock(since)
        request = newest.type if now is None or now - since <= HA_DELAY else ""
    if machine.status == "stopped":
        starts = request == "hastart" or machine.ha in ("started", "request_start")
        return UnderWay("start") if starts and request != "hastop" else None
    stops = request == "hastop" or machine.ha == "request_stop"
    return UnderWay("stop") if stops else None


def starts(task: Task) -> bool:
    """Whether it starts the machine itself, and does not only ask HA to."""
    return ACTIONS.get(task.type) == "start" and task.type != "hastart"


def node_time(tasks: list[Task], machine: Machine) -> float | None:
    """Return the node's time: when its latest start began, and its uptime since then."""
    starts = [
        task.began
        for task in tasks
        if ACTIONS.get(task.type) in ("start", "reboot") and task.type != "hastart"
        if task.status is not None and not task.failed
    ]
    return max(starts) + machine.uptime if starts and machine.uptime else None


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
    """Write qmshutdown, since 12:30:05 UTC.

    Nobody can tell when another's task ends: a bulk shutdown and HA cut the power, and a
    guest agent has ten minutes.
    """
    if not task.began:
        return task.type
    return f"{task.type}, since {datetime.fromtimestamp(task.began, UTC):%H:%M:%S} UTC"
