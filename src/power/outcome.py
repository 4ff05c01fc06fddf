"""Wait for the outcome of a power action: its task first, then the machine."""

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from src.errors import ProxmoxError
from src.models import GOALS, Action, Machine, PowerResult
from src.power import advice, guest
from src.power.tasks import UnderWay, later_than, lock_holder, succeeded
from src.proxmox.api import Api
from src.proxmox.deadline import POWER_TIMEOUT, Progress, attempt, time_left, within

LOG_PATIENCE = 2.0
SETTLE_PATIENCE = 2.0
CUT_PATIENCE = 10.0  # a container that is cut short needs 7 s to stop

# How the task of a graceful stop ends, a VM's or a container's, when a forced stop comes.
INTERRUPTED = ("received interrupt", "unexpected status")
ENDED = re.compile("TASK (OK|ERROR|WARNINGS)")
UNREADABLE = (400, 403)  # the task is gone, or the token may not read it

# A task's exit status, why it cannot be read, or None while it runs.
End = str | ProxmoxError | None


@dataclass
class Order:
    """An action, the machine as it was before, and what was under way on it.

    `task` is the task to wait for: ours, or that of `other`. It is None before ours is
    sent, and if HA carries out what is under way. `at` is when the action began.
    """

    action: Action
    before: Machine
    progress: Progress | None
    at: float
    other: UnderWay | None = None
    task: str | None = None

    @property
    def needless(self) -> bool:
        """Whether the machine already is as the action would make it."""
        return self.before.status == GOALS[self.action] and self.action != "reboot"

    @property
    def joined(self) -> str:
        """What is under way already, so that nothing is sent, or ""."""
        return self.other.description if self.other else ""

    @property
    def began(self) -> float:
        """When the task began, by the node's clock. Without a task nothing is later."""
        return int(self.task.split(":")[4], 16) if self.task else math.inf

    def result(self, after: Machine, message: str, finished: bool = True) -> PowerResult:
        """Return the result, with the machine as it is now."""
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
    """Wait for the outcome. Raises ProxmoxError if the action failed."""
    end: End = None
    for _ in _ticks(order) if order.task else ():
        end = attempt(guest.exit_status, api, str(order.task))
        if end is not None and not _may_still_fail(order, end):
            break
    if isinstance(end, str) and not succeeded(end):
        return _failed(api, order, end)
    return _confirm(api, order, end)


def refused(api: Api, order: Order, error: ProxmoxError) -> PowerResult:
    """Raise ProxmoxError with Proxmox's refusal, unless the goal was reached otherwise."""
    after = attempt(guest.read_state, api, order.before)
    if result := _overtaken(order, after, error.cause):
        return result
    step = error.advice or advice.next_step(after, order.action, error.cause)
    raise advice.failed(order.before, after, order.action, error.cause, step)


def _may_still_fail(order: Order, end: End) -> bool:
    """Whether the task may still run, so that the machine's state is not its outcome yet."""
    if isinstance(end, ProxmoxError):
        return end.code not in UNREADABLE
    return end is None and order.task is not None


def _confirm(api: Api, order: Order, end: End) -> PowerResult:
    """Wait until the machine itself shows the outcome.

    A VM's reboot task ends when the guest is down, and HA's task when the request is
    queued. HA may start the machine on another node.
    """
    machine, reason, acted = order.before, "", False
    after: Machine | None = None
    for _ in _ticks(order):
        seen = attempt(guest.read_state, api, machine)
        if isinstance(seen, ProxmoxError):
            machine = guest.relocate(api, machine) if seen.code == 500 else machine
            continue
        after = seen
        if _may_still_fail(order, end):
            continue
        if _reached(after, order):
            return order.result(after, _done(api, order, after, end))
        if after.managed or order.action == "reboot":
            tasks = guest.read_tasks(api, machine)
            later = later_than(tasks, order.began, order.task or "")
            acted = bool(later) or after.ha not in (None, order.before.ha)
            reason = str(later[-1].status) if later and later[-1].failed else ""
            # HA may try again, until it puts the machine into the state error.
            if after.ha == "error" or (reason and not after.managed):
                break
    if after and (reason or after.ha == "error"):
        reason = reason or "HA has put it into the state error"
        step = advice.next_step(after, order.action, reason)
        raise advice.failed(order.before, after, order.action, reason, step)
    message = advice.unfinished(
        order.before,
        after,
        order.action,
        time.monotonic() - order.at,
        _outlook(order, after, end, acted),
        order.joined,
    )
    last = after or replace(order.before, status="unknown")
    return order.result(last, message, finished=False)


def _done(api: Api, order: Order, after: Machine, end: End) -> str:
    status, log = end if isinstance(end, str) else None, ""
    if status not in (None, "OK"):
        log = advice.log_text(attempt(guest.log_tail, api, str(order.task)), "")
    return advice.done(after, order.action, status, log, bool(order.joined))


def _reached(after: Machine, order: Order) -> bool:
    """Whether the machine is as it should be.

    After a reboot its uptime is lower than before, or not longer ago than the request. A
    container's uptime is 0 while it goes down, and -1 when it is back.
    """
    if after.status != GOALS[order.action] or order.action != "reboot":
        return after.status == GOALS[order.action]
    return after.uptime not in (None, 0) and (
        after.uptime < (order.before.uptime or 0) or after.uptime <= time.monotonic() - order.at
    )


def _outlook(order: Order, after: Machine | None, end: End, acted: bool) -> str:
    """Say what to expect of an action that is not finished."""
    if isinstance(end, ProxmoxError):
        return advice.outlook_unread(end)
    if _may_still_fail(order, end):
        return advice.outlook_of_task(order.before, after, order.action)
    if order.before.managed:
        acted = acted or bool(after and after.ha in ("request_stop", "error"))
        return advice.outlook_of_ha(after, order.action, acted)
    return advice.outlook_of_end(after, order.action, end)


def _failed(api: Api, order: Order, status: str) -> PowerResult:
    """Raise ProxmoxError with the task's failure, unless the goal was reached otherwise."""
    action = order.action
    after = attempt(guest.read_state, api, order.before)
    if (
        action == "start"
        and isinstance(after, Machine)
        and (after.status, after.uptime) == ("running", 0)
        and "already running" not in status
    ):  # a container whose start failed looks like this for a moment
        after = _look_until_stopped(api, order, SETTLE_PATIENCE)
    if status in INTERRUPTED and action in ("shutdown", "reboot"):
        after = _look_until_stopped(api, order)
        if isinstance(after, Machine) and after.status == "stopped":
            if action == "shutdown":
                return order.result(after, advice.cut_short(after))
            status = advice.CUT_SHORT
    if result := _overtaken(order, after, status):
        return result
    lines = _whole_log(api, order)
    reason = status if isinstance(lines, ProxmoxError) else advice.reason_of(status, lines)
    holder = None
    if "can't lock" in reason:
        holder = lock_holder(guest.read_tasks(api, order.before), order.task or "")
    step = advice.next_step(after, action, reason, holder)
    tail = advice.log_text(lines, reason)
    raise advice.failed(order.before, after, action, reason, step, tail)


def _overtaken(order: Order, after: Machine | ProxmoxError, reason: str) -> PowerResult | None:
    """Return the result if something else reached the goal before ours did."""
    if isinstance(after, ProxmoxError) or after.status != GOALS[order.action]:
        return None
    if "already running" not in reason and "not running" not in reason:
        return None
    return replace(order.result(after, advice.overtaken(after)), changed=False)


def _look_until_stopped(
    api: Api, order: Order, patience: float = CUT_PATIENCE
) -> Machine | ProxmoxError:
    """Return the machine when it has stopped, or as it is when the time is over."""
    with within(min(patience, max(time_left(), 2.0))):
        for _ in _ticks(order):
            after = attempt(guest.read_state, api, order.before)
            if isinstance(after, Machine) and after.status == "stopped":
                break
    return after


def _whole_log(api: Api, order: Order) -> list[str] | ProxmoxError:
    """Wait until the log says how the task ended, and return its last lines."""
    lines: list[str] | ProxmoxError = []
    with within(LOG_PATIENCE):
        for _ in _ticks(order):
            lines = attempt(guest.log_tail, api, str(order.task))
            if isinstance(lines, ProxmoxError) or any(map(ENDED.match, lines)):
                break
    return lines


def _ticks(order: Order) -> Iterator[None]:
    """Yield at once, then after growing pauses, until the deadline. Report each second."""
    pause, reported = 0.05, 0
    while True:
        yield
        left = time_left()
        if left <= 0:
            return
        seconds = int(time.monotonic() - order.at)
        if order.progress and seconds > reported:
            reported = seconds
            order.progress(seconds, POWER_TIMEOUT, f"{order.action} {order.before.label}")
        time.sleep(min(pause, left))
        pause = min(2 * pause, 1.0)
