"""What becomes of a power action: its task, the machine, and what went wrong.

Order      what is to be done or was sent, and how the machine was before
follow     waits for the task and then for the machine, to the deadline
refused    what Proxmox answered instead of a task
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from src import advice, guest
from src.api import Api, look, time_left, within
from src.errors import ProxmoxError
from src.fanout import Progress
from src.models import Action, Machine, PowerResult, Task, goal, succeeded
from src.rows import Row
from src.tasks import latest_failure, lock_holder

POWER_PATIENCE = 45.0  # MCP clients commonly give up at 60 s
LOG_PATIENCE = 2.0
SETTLE_PATIENCE = 2.0
CUT_PATIENCE = 10.0  # a container that is cut short needs 7 s until it is stopped

# What a forced stop makes of the task of a graceful one, of a VM and of a container.
CUT_SHORT = ("received interrupt", "unexpected status")
ENDED = re.compile("TASK (OK|ERROR|WARNINGS)")
UNREADABLE = (400, 403)  # the task is gone, or may not be read


@dataclass(frozen=True)
class Order:
    """An action and how the machine was before: what all later steps go by.

    `task` is the one to wait for: ours, or one that was under way and that `joined`
    describes. Where that is HA's, there is none.
    """

    action: Action
    before: Machine
    found: Row
    progress: Progress | None
    at: float
    task: str | None = None
    joined: str = ""

    @property
    def began(self) -> int | None:
        """When its task began, by the clock of the node."""
        return int(self.task.split(":")[4], 16) if self.task else None

    def result(
        self, after: Machine, message: str, finished: bool = True
    ) -> PowerResult:
        new = self.action == "reboot" and finished
        changed = new or after.status not in (self.before.status, "unknown")
        which = (after.vm_id, after.name, after.node, after.type, self.action)
        return PowerResult(*which, after.status, changed, finished, self.task, message)


@dataclass(frozen=True)
class _End:
    """What is known of the task: its exit status, or why that cannot be read.

    `judged` is whether the machine's state may be taken for the outcome: not while the
    task may yet fail.
    """

    status: str | None
    judged: bool
    error: ProxmoxError | None = None


def follow(api: Api, order: Order) -> PowerResult:
    """Wait for the outcome. Raises ProxmoxError for one that is a failure."""
    end = _wait_for_task(api, order)
    if end.status and not succeeded(end.status):
        return _failed(api, order, end.status)
    return _confirm(api, order, end)


def refused(api: Api, order: Order, error: ProxmoxError) -> PowerResult:
    """Raise what Proxmox refused, unless something else has reached the goal."""
    after = look(guest.read_state, api, order.found)
    if result := _overtaken(order, after, error.cause):
        return result
    then = error.advice or advice.next_step(after, order.action, error.cause)
    raise advice.failed(order.before, after, order.action, error.cause, then)


def _wait_for_task(api: Api, order: Order) -> _End:
    if order.task is None:
        return _End(None, judged=True)
    error: ProxmoxError | None = None
    for _ in _ticks(order):
        status = look(guest.exit_status, api, order.task)
        if isinstance(status, str):
            return _End(status, judged=True)
        error = status
        if error and error.code in UNREADABLE:
            return _End(None, judged=True, error=error)
    return _End(None, judged=False, error=error)


def _confirm(api: Api, order: Order, end: _End) -> PowerResult:
    """Wait until the machine itself shows the outcome.

    The task of a qemu reboot ends when the guest is down, that of an HA-managed guest
    when the request is queued; and HA may start it on another node.
    """
    found, failure = order.found, None
    after: Machine | None = None
    tasks: list[Task] = []
    for _ in _ticks(order):
        seen = look(guest.read_state, api, found)
        if isinstance(seen, ProxmoxError):
            found = guest.relocate(api, found) if seen.code == 500 else found
            continue
        after = seen
        if end.judged and _reached(after, order):
            return order.result(after, _done(api, order, after, end))
        if end.judged and (after.managed or order.action == "reboot"):
            tasks = guest.read_tasks(api, found)
            failure = latest_failure(tasks, order.began, order.task or "")
            # HA may try again: its state error is the end.
            if after.ha == "error" or (failure and not after.managed):
                break
    if after and (failure or after.ha == "error"):
        reason = (failure and failure.status) or "HA has put it into the state error"
        then = advice.next_step(after, order.action, reason)
        raise advice.failed(order.before, after, order.action, reason, then)
    outlook = _outlook(order, after, end, tasks)
    said = advice.unfinished(
        order.before, after, order.action, POWER_PATIENCE, outlook, order.joined
    )
    last = after or replace(order.before, status="unknown")
    return order.result(last, said, finished=False)


def _done(api: Api, order: Order, after: Machine, end: _End) -> str:
    tail = ""
    if end.status not in (None, "OK"):
        tail = advice.log_text(look(guest.log_tail, api, str(order.task)), "")
    return advice.done(after, order.action, end.status, tail, bool(order.joined))


def _reached(after: Machine, order: Order) -> bool:
    """Whether the machine is as it should be.

    After a reboot it runs for less long than before, or not for longer than since the
    request. A container's uptime is 0 while it goes down, and -1 when it is back.
    """
    if after.status != goal(order.action) or order.action != "reboot":
        return after.status == goal(order.action)
    return after.uptime not in (None, 0) and (
        after.uptime < (order.before.uptime or 0)
        or after.uptime <= time.monotonic() - order.at
    )


def _outlook(order: Order, after: Machine | None, end: _End, tasks: list[Task]) -> str:
    """What is to be expected of an action that is not finished."""
    if end.error:
        return advice.outlook_unread(end.error)
    if not end.judged:
        return advice.outlook_of_task(order.before, after, order.action)
    if not order.before.managed:
        return advice.outlook_of_end(after, order.action, end.status)
    state, began = after and after.ha, order.began
    acted = state in ("request_stop", "error") or state not in (None, order.before.ha)
    acted = acted or any(
        task.upid != order.task and began and (task.began or 0) >= began
        for task in tasks
    )
    return advice.outlook_of_ha(after, order.action, acted)


def _failed(api: Api, order: Order, status: str) -> PowerResult:
    """Raise what the task has ended with, unless the goal is reached all the same."""
    action = order.action
    after = look(guest.read_state, api, order.found)
    if (
        action == "start"
        and isinstance(after, Machine)
        and (after.status, after.uptime) == ("running", 0)
        and "already running" not in status
    ):  # a container whose start has failed says so for a moment
        after = _look_until_stopped(api, order, SETTLE_PATIENCE)
    if status in CUT_SHORT and action in ("shutdown", "reboot"):
        after = _look_until_stopped(api, order)
        if isinstance(after, Machine) and after.status == "stopped":
            if action == "shutdown":
                return order.result(after, advice.cut_short(after))
            status = "a forced stop cut it short"
    if result := _overtaken(order, after, status):
        return result
    lines = _whole_log(api, order)
    reason = (
        status if isinstance(lines, ProxmoxError) else advice.reason_of(status, lines)
    )
    holder = None
    if "can't lock" in reason:
        holder = lock_holder(guest.read_tasks(api, order.found), order.task or "")
    then = advice.next_step(after, action, reason, holder)
    tail = advice.log_text(lines, reason)
    raise advice.failed(order.before, after, action, reason, then, tail)


def _overtaken(
    order: Order, after: Machine | ProxmoxError, reason: str
) -> PowerResult | None:
    """The result where the goal was reached by something else before ours."""
    if isinstance(after, ProxmoxError) or after.status != goal(order.action):
        return None
    if "already running" not in reason and "not running" not in reason:
        return None
    return replace(order.result(after, advice.overtaken(after)), changed=False)


def _look_until_stopped(
    api: Api, order: Order, patience: float = CUT_PATIENCE
) -> Machine | ProxmoxError:
    with within(min(patience, max(time_left(), 2.0))):
        for _ in _ticks(order):
            after = look(guest.read_state, api, order.found)
            if isinstance(after, Machine) and after.status == "stopped":
                break
    return after


def _whole_log(api: Api, order: Order) -> list[str] | ProxmoxError:
    """The last lines of the task's log, waited for until it says how the task ended."""
    lines: list[str] | ProxmoxError = []
    with within(LOG_PATIENCE):
        for _ in _ticks(order):
            lines = look(guest.log_tail, api, str(order.task))
            if isinstance(lines, ProxmoxError) or any(map(ENDED.match, lines)):
                break
    return lines


def _ticks(order: Order) -> Iterator[None]:
    """Yield at once, then after growing pauses of at most 1 s, to the deadline."""
    pause, told = 0.05, 0
    while True:
        yield
        left = time_left()
        if left <= 0:
            return
        seconds = int(time.monotonic() - order.at)
        if order.progress and seconds > told:
            told = seconds
            doing = f"{order.action} {order.before.label}"
            order.progress(seconds, POWER_PATIENCE, doing)
        time.sleep(min(pause, left))
        pause = min(2 * pause, 1.0)
