"""What becomes of a power action: its task, the machine, and what went wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from src.errors import ProxmoxError
from src.models import Action, Machine, PowerResult, goal
from src.power import advice, guest
from src.power.tasks import Task, UnderWay, latest_failure, lock_holder, succeeded
from src.proxmox.api import Api
from src.proxmox.deadline import Progress, attempt, time_left, within

POWER_PATIENCE = 45.0  # MCP clients commonly give up at 60 s
LOG_PATIENCE = 2.0
SETTLE_PATIENCE = 2.0
CUT_PATIENCE = 10.0  # a container that is cut short needs 7 s until it is stopped

# What a forced stop makes of the task of a graceful one, of a VM and of a container.
CUT_SHORT = ("received interrupt", "unexpected status")
ENDED = re.compile("TASK (OK|ERROR|WARNINGS)")
UNREADABLE = (400, 403)  # the task is gone, or may not be read

# A task's exit status, why it cannot be read, or None while it runs.
End = str | ProxmoxError | None


@dataclass
class Order:
    """An action, how the machine was before, and what was under way on it.

    `task` is the one to wait for: ours, or the other one, which then is joined. There is
    none where HA has been asked, and before ours is sent.
    """

    action: Action
    before: Machine
    progress: Progress | None
    at: float
    other: UnderWay | None = None
    task: str | None = None

    @property
    def needless(self) -> bool:
        """Whether the machine is already what the action is to make it."""
        return self.before.status == goal(self.action) and self.action != "reboot"

    @property
    def joined(self) -> str:
        """What is waited for in place of an action of ours."""
        return self.other.description if self.other else ""

    @property
    def began(self) -> int | None:
        """When its task began, by the clock of the node."""
        return int(self.task.split(":")[4], 16) if self.task else None

    def result(
        self, after: Machine, message: str, finished: bool = True
    ) -> PowerResult:
        new = self.action == "reboot" and finished
        return PowerResult(
            vm_id=after.vm_id,
            name=after.name,
            node=after.node,
            type=after.type,
            action=self.action,
            status=after.status,
            changed=new or after.status not in (self.before.status, "unknown"),
            finished=finished,
            task=self.task,
            message=message,
        )


def follow(api: Api, order: Order) -> PowerResult:
    """Wait for the outcome. Raises ProxmoxError for one that is a failure."""
    end = _wait_for_task(api, order)
    if isinstance(end, str) and not succeeded(end):
        return _failed(api, order, end)
    return _confirm(api, order, end)


def refused(api: Api, order: Order, error: ProxmoxError) -> PowerResult:
    """Raise what Proxmox refused, unless something else has reached the goal."""
    after = attempt(guest.read_state, api, order.before)
    if result := _overtaken(order, after, error.cause):
        return result
    then = error.advice or advice.next_step(after, order.action, error.cause)
    raise advice.failed(order.before, after, order.action, error.cause, then)


def _wait_for_task(api: Api, order: Order) -> End:
    end: End = None
    for _ in _ticks(order) if order.task else ():
        end = attempt(guest.exit_status, api, str(order.task))
        if end is not None and not _may_yet_fail(order, end):
            break
    return end


def _may_yet_fail(order: Order, end: End) -> bool:
    """Whether the task may still run, so that the machine's state is no outcome yet."""
    if isinstance(end, ProxmoxError):
        return end.code not in UNREADABLE
    return end is None and order.task is not None


def _confirm(api: Api, order: Order, end: End) -> PowerResult:
    """Wait until the machine itself shows the outcome.

    The task of a qemu reboot ends when the guest is down, that of an HA-managed guest
    when the request is queued; and HA may start it on another node.
    """
    machine, failure = order.before, None
    after: Machine | None = None
    tasks: list[Task] = []
    for _ in _ticks(order):
        seen = attempt(guest.read_state, api, machine)
        if isinstance(seen, ProxmoxError):
            machine = guest.relocate(api, machine) if seen.code == 500 else machine
            continue
        after = seen
        if _may_yet_fail(order, end):
            continue
        if _reached(after, order):
            return order.result(after, _done(api, order, after, end))
        if after.managed or order.action == "reboot":
            tasks = guest.read_tasks(api, machine)
            failure = latest_failure(tasks, order.began, order.task or "")
            # HA may try again: its state error is the end.
            if after.ha == "error" or (failure and not after.managed):
                break
    if after and (failure or after.ha == "error"):
        reason = (failure and failure.status) or "HA has put it into the state error"
        then = advice.next_step(after, order.action, reason)
        raise advice.failed(order.before, after, order.action, reason, then)
    outlook = _outlook(order, after, end, tasks)
    message = advice.unfinished(
        order.before, after, order.action, POWER_PATIENCE, outlook, order.joined
    )
    last = after or replace(order.before, status="unknown")
    return order.result(last, message, finished=False)


def _done(api: Api, order: Order, after: Machine, end: End) -> str:
    status, tail = end if isinstance(end, str) else None, ""
    if status not in (None, "OK"):
        tail = advice.log_text(attempt(guest.log_tail, api, str(order.task)), "")
    return advice.done(after, order.action, status, tail, bool(order.joined))


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


def _outlook(order: Order, after: Machine | None, end: End, tasks: list[Task]) -> str:
    """What is to be expected of an action that is not finished."""
    if isinstance(end, ProxmoxError):
        return advice.outlook_unread(end)
    if _may_yet_fail(order, end):
        return advice.outlook_of_task(order.before, after, order.action)
    if not order.before.managed:
        return advice.outlook_of_end(after, order.action, end)
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
    after = attempt(guest.read_state, api, order.before)
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
        holder = lock_holder(guest.read_tasks(api, order.before), order.task or "")
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
            after = attempt(guest.read_state, api, order.before)
            if isinstance(after, Machine) and after.status == "stopped":
                break
    return after


def _whole_log(api: Api, order: Order) -> list[str] | ProxmoxError:
    """The last lines of the task's log, waited for until it says how the task ended."""
    lines: list[str] | ProxmoxError = []
    with within(LOG_PATIENCE):
        for _ in _ticks(order):
            lines = attempt(guest.log_tail, api, str(order.task))
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
