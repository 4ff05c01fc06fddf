"""Wait for the outcome of a power action: its task first, then the machine."""

import math
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace

from src.connection.deadline import POWER_TIMEOUT, Progress, attempt, time_left, within
from src.errors import ProxmoxError
from src.models import GOALS, Action, Machine, PowerResult
from src.power import advice, guest, outlook
from src.power.guest import LiveMachine
from src.power.tasks import UnderWay, later_than, lock_holder, starts
from src.proxmox.api import Api
from src.proxmox.tasks import succeeded

CHANGES_TIMEOUT = 0.2  # they were asked for before the POST
LOG_TIMEOUT = 2.0
SETTLE_TIMEOUT = 2.0
CUT_TIMEOUT = 10.0  # a container that is cut short needs 7 s to stop

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
    sent, and if HA carries out what is under way. `at` is when the action began, `down`
    after how many seconds a VM's reboot task ended, which is when the VM was down.
    `pending` has the keys of changes that a start carries out, once they are read.
    """

    action: Action
    before: LiveMachine
    progress: Progress | None
    at: float
    other: UnderWay | None = None
    task: str | None = None
    pending: Future[list[str]] | None = None
    down: float | None = None

    @property
    def needless(self) -> bool:
        """Whether the machine already is as the action would make it."""
        return self.before.status == GOALS[self.action] and self.action != "reboot"

    @property
    def seconds(self) -> float:
        """How long ago the action began."""
        return time.monotonic() - self.at

    @property
    def began(self) -> float:
        """When the task began, by the node's clock. Infinite without a task."""
        return int(self.task.split(":")[4], 16) if self.task else math.inf

    @property
    def changes(self) -> list[str]:
        """The keys of pending changes, as far as they were read in time.

        A start that only resumes a process carries out none.
        """
        if self.action == "start" and self.before.status != "stopped":
            return []
        if not self.pending or wait([self.pending], CHANGES_TIMEOUT).not_done:
            return []
        return self.pending.result()

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
        if end is not None and not _may_still_run(order, end):
            break
    if isinstance(end, str) and not succeeded(end):
        return _failed(api, order, end)
    if order.action == "reboot" and order.before.type == "qemu" and isinstance(end, str):
        order.down = order.seconds
    return _confirm(api, order, end)


def refused(api: Api, order: Order, error: ProxmoxError) -> PowerResult:
    """Raise ProxmoxError with Proxmox's refusal, unless the goal was reached otherwise."""
    after = _look_after(api, order)
    if result := _overtaken(order, after, error.cause):
        return result
    raise advice.refused(order.before, after, order.action, error)


def _look_after(api: Api, order: Order) -> LiveMachine | ProxmoxError:
    """Return the machine's state after a failure. Raises ProxmoxError if it has moved."""
    after = attempt(guest.read_state, api, order.before)
    if isinstance(after, ProxmoxError) and after.code == 500:
        node = guest.relocate(api, order.before).node
        if node != order.before.node:
            raise advice.moved(order.before, node, order.action)
    return after


def _may_still_run(order: Order, end: End) -> bool:
    """Whether the task may still run, so that the machine's state is not its outcome yet."""
    if isinstance(end, ProxmoxError):
        return end.code not in UNREADABLE
    return end is None and order.task is not None


def _confirm(api: Api, order: Order, end: End) -> PowerResult:
    """Wait until the machine itself shows the outcome.

    A VM's reboot task ends when the guest is down, and HA's task when the request is
    queued. HA may start the machine on another node.
    """
    machine: Machine = order.before
    reason, acted = "", False
    after: LiveMachine | None = None
    for _ in _ticks(order):
        seen = attempt(guest.read_state, api, machine)
        if isinstance(seen, ProxmoxError):
            after = None  # what was seen before may be wrong by now
            machine = guest.relocate(api, machine) if seen.code == 500 else machine
            if machine.node != order.before.node and not _ha_acts(order, end):
                return _moved(api, order, machine, end)
            continue
        after = seen
        if _may_still_run(order, end):
            continue
        if _reached(after, order):
            return order.result(after, _done(api, order, after, end))
        started = order.action == "start" and not after.managed
        if after.managed or order.action == "reboot":
            tasks = guest.read_tasks(api, machine)
            later = later_than(tasks, order.began, order.task or "")
            started = any(starts(task) and succeeded(task.status or "") for task in later)
            acted = bool(later) or after.ha not in (None, order.before.ha)
            reason = str(later[-1].status) if later and later[-1].failed else ""
            # HA may try again, until it puts the machine into the state error.
            if after.ha == "error" or (reason and not after.managed):
                break
        if started and _is_frozen(order, after):
            message = advice.frozen(after, order.action)
            return order.result(after, message + _tail(api, order, end))
    if after and (reason or after.ha == "error"):
        reason = reason or advice.IN_ERROR
        step = advice.next_step(order.before, after, order.action, reason, None)
        raise advice.failed(order.before, after, order.action, reason, step, order.other)
    message = advice.unfinished(order.before, after, order.action, order.seconds, order.other)
    last = after or replace(order.before, status="unknown")
    return order.result(last, f"{message} {_outlook(order, after, end, acted)}", finished=False)


def _ha_acts(order: Order, end: End) -> bool:
    """Whether HA carries out the action, and may move the machine for it.

    Of a reboot that is the start, after its task has ended.
    """
    return order.before.managed and (order.action != "reboot" or isinstance(end, str))


def _moved(api: Api, order: Order, machine: Machine, end: End) -> PowerResult:
    """Return the result if the machine is as it should be on its new node, else say where."""
    after = attempt(guest.read_state, api, machine)
    # A migration gives a VM a new process too, so only the task tells that it was rebooted.
    told = order.action != "reboot" or isinstance(end, str)
    if isinstance(after, ProxmoxError) or not told:
        raise advice.moved_unseen(order.before, machine.node, order.action)
    if _reached(after, order):
        if _may_still_run(order, end):
            return order.result(after, advice.overtaken(after))
        return order.result(after, _done(api, order, after, end))
    raise advice.moved(order.before, machine.node, order.action)


def _is_frozen(order: Order, after: LiveMachine) -> bool:
    """Whether it waits in prelaunch because of its options, and not for a backup."""
    was_off = order.before.status in ("stopped", "running")
    return after.status == "prelaunch" and was_off and not after.lock


def _done(api: Api, order: Order, after: Machine, end: End) -> str:
    if order.other:
        message = advice.done_by_other(after, order.other)
    else:
        message = advice.done(after, order.action, order.seconds, order.down)
    return message + _tail(api, order, end)


def _tail(api: Api, order: Order, end: End) -> str:
    """Say which pending changes took effect, and what the task warned of."""
    keys = order.changes
    tail = advice.took_effect(keys) if keys else ""
    if isinstance(end, str) and end != "OK":
        log = attempt(guest.log_tail, api, str(order.task))
        tail += advice.with_warnings(end, advice.log_text(log, ""))
    return tail


def _reached(after: LiveMachine, order: Order) -> bool:
    """Whether the machine is as it should be.

    A container whose start fails is "running" for a moment, without a process. After a reboot
    a machine has another process, or its uptime is lower than before, or no longer than the
    time since the request.
    """
    if order.action == "start" and after.type == "lxc" and not after.pid and not after.uptime:
        return False
    if after.status != GOALS[order.action] or order.action != "reboot":
        return after.status == GOALS[order.action]
    if after.pid and order.before.pid and after.pid != order.before.pid:
        return True
    return after.uptime not in (None, 0) and (
        after.uptime < (order.before.uptime or 0) or after.uptime <= order.seconds
    )


def _outlook(order: Order, after: LiveMachine | None, end: End, acted: bool) -> str:
    """Say what to expect of an action that is not finished."""
    before, action = order.before, order.action
    if isinstance(end, ProxmoxError):
        return outlook.unread(end)
    if _may_still_run(order, end):
        if order.other:
            return outlook.of_other(before, order.other)
        if _ha_acts(order, end):
            return outlook.of_ha_task(before)
        runs = bool(after and after.status == "running")
        return outlook.of_task(before, before.agent, action, runs)
    stopped = bool(after and after.status == "stopped")
    if before.managed and (action != "reboot" or stopped):
        acted = acted or bool(after and after.ha in ("request_stop", "error"))
        return outlook.of_ha(before, after, action, acted)
    return outlook.of_end(before, after, action, end)


def _failed(api: Api, order: Order, status: str) -> PowerResult:
    """Raise ProxmoxError with the task's failure, unless the goal was reached otherwise."""
    action = order.action
    ran: float | None = order.seconds
    after = _look_after(api, order)
    if (
        action == "start"
        and isinstance(after, Machine)
        and after.status == "running"
        and not after.uptime
        and "already running" not in status
    ):  # a container whose start failed looks like this for a moment
        after = _look_until_stopped(api, order, SETTLE_TIMEOUT)
    if status in INTERRUPTED and action in ("shutdown", "reboot"):
        after = _look_until_stopped(api, order, CUT_TIMEOUT)
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
    if order.other and order.other.task:  # it began before us, by the node's clock
        ended = [t for t in guest.read_tasks(api, order.before) if t.upid == order.task]
        ran = ended[0].ended - ended[0].began if ended and ended[0].ended else None
    by_ha = ":hast" in (order.task or "")
    step = advice.next_step(order.before, after, action, reason, ran, holder, by_ha)
    step += advice.log_text(lines, reason)
    raise advice.failed(order.before, after, action, reason, step, order.other)


def _overtaken(order: Order, after: Machine | ProxmoxError, reason: str) -> PowerResult | None:
    """Return the result if something else reached the goal before ours did."""
    if isinstance(after, ProxmoxError) or after.status != GOALS[order.action]:
        return None
    if order.action == "reboot":  # that it runs does not tell that it was rebooted
        return None
    if "already running" not in reason and "not running" not in reason:
        return None
    return replace(order.result(after, advice.overtaken(after)), changed=False)


def _look_until_stopped(api: Api, order: Order, seconds: float) -> LiveMachine | ProxmoxError:
    """Return the machine when it has stopped, or as it is when time runs out."""
    with within(min(seconds, max(time_left(), 2.0))):
        for _ in _ticks(order):
            after = attempt(guest.read_state, api, order.before)
            if isinstance(after, Machine) and after.status == "stopped":
                break
    return after


def _whole_log(api: Api, order: Order) -> list[str] | ProxmoxError:
    """Wait until the log says how the task ended, and return its last lines."""
    lines: list[str] | ProxmoxError = []
    with within(LOG_TIMEOUT):
        for _ in _ticks(order):
            lines = attempt(guest.log_tail, api, str(order.task))
            if isinstance(lines, ProxmoxError) and lines.code not in UNREADABLE:
                continue
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
        seconds = int(order.seconds)
        if order.progress and seconds > reported:
            reported = seconds
            order.progress(seconds, POWER_TIMEOUT, f"{order.action} {order.before.label}")
        time.sleep(min(pause, left))
        pause = min(2 * pause, 1.0)
