"""One power action, from the look before it to the look after it.

switch      carries it out and waits for its outcome
Progress    how it tells that it still waits

Two lines on stderr for an action that is sent, just before and at its end; one for an
action that is refused.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import get_args

from src import advice, guest
from src.api import Api, look, time_left, within
from src.errors import ProxmoxError
from src.models import Action, Machine, PowerResult
from src.rows import Row

log = logging.getLogger("mcp-proxmox")

POWER_PATIENCE = 45.0  # MCP clients commonly give up at 60 s

Progress = Callable[[float, float, str], None]  # seconds so far, at most, what for


@dataclass(frozen=True)
class _Order:
    """An action, and how the machine was before: what its later steps go by."""

    action: Action
    before: Machine
    found: Row
    at: float
    progress: Progress | None
    task: str | None = None


def switch(
    api: Api, node: str, vm_id: int, action: Action, progress: Progress | None = None
) -> PowerResult:
    """Carry the action out, 45 s in all. Raises ProxmoxError, also for what failed."""
    try:
        if action not in get_args(Action):
            raise advice.unknown_action(get_args(Action))
        with within(POWER_PATIENCE):
            result = _switch(api, node, vm_id, action, progress)
    except ProxmoxError as error:
        _audit(action, vm_id, node, None, f"error: {error}")
        raise
    _audit(action, vm_id, node, result.task, result.message)
    return result


def _switch(
    api: Api, node: str, vm_id: int, action: Action, progress: Progress | None
) -> PowerResult:
    found = guest.find_machine(api, node, vm_id)
    before = guest.read_state(api, found)
    order = _Order(action, before, found, time.monotonic(), progress)
    if before.status == advice.goal(action) and action != "reboot":
        return _result(order, before, advice.already(before), changed=False)
    if error := advice.obstacle(before, action):
        raise error
    _audit(action, vm_id, node, None, "is being sent")
    try:
        task = guest.send_action(api, found, action)
    except ProxmoxError as error:
        if error.answer_lost:
            raise advice.lost(before, action, error) from None
        return _settle(api, order, error)
    order = replace(order, task=task)
    status = _wait_for_task(api, order, task)
    if status and status != "OK" and not status.startswith("WARNINGS"):
        return _settle(api, order, ProxmoxError(status))
    return _confirm(api, order, status, task)


def _wait_for_task(api: Api, order: _Order, task: str) -> str | None:
    """The task's exit status; None where it goes on, or may not be read."""
    for _ in _ticks(order):
        status = look(guest.exit_status, api, task)
        if isinstance(status, str):
            return status
        if isinstance(status, ProxmoxError) and not status.answer_lost:
            return None  # the live state will tell
    return None


def _confirm(api: Api, order: _Order, status: str | None, task: str) -> PowerResult:
    """Wait until the machine itself shows the outcome.

    The task of a qemu reboot ends when the guest is down, that of an HA-managed guest
    when the request is queued; and HA may start it on another node.
    """
    action, found = order.action, order.found
    after: Machine | None = None
    for _ in _ticks(order):
        seen = look(guest.read_state, api, found)
        if isinstance(seen, ProxmoxError):
            moved = look(guest.relocate, api, found) if seen.code == 500 else found
            found = moved if isinstance(moved, dict) else found
            continue
        after = seen
        if after.status == advice.goal(action) and _is_new(after, order):
            tail = _log(api, task) if status not in (None, "OK") else ""
            said = advice.done(after, action, status, tail)
            return _result(order, after, said)
    said = advice.unfinished(order.before, after, action, task, POWER_PATIENCE)
    last = after or replace(order.before, status="unknown")
    return _result(order, last, said, finished=False)


def _is_new(after: Machine, order: _Order) -> bool:
    """Whether a reboot has happened: it runs for less long than before, or not for
    longer than since the request."""
    return order.action != "reboot" or (
        after.uptime is not None
        and (
            after.uptime < (order.before.uptime or 0)
            or after.uptime <= time.monotonic() - order.at
        )
    )


def _settle(api: Api, order: _Order, error: ProxmoxError) -> PowerResult:
    """Raise what was refused or failed, unless something else has reached the goal."""
    found, before, action, task = order.found, order.before, order.action, order.task
    after = look(guest.read_state, api, found)
    if (
        isinstance(after, Machine)
        and after.status == advice.goal(action)
        and re.search("already running|not running", error.cause)
    ):
        said = advice.overtaken(after)
        return _result(order, after, said, changed=False)
    raise advice.failed(before, after, action, error, _log(api, task) if task else "")


def _log(api: Api, task: str) -> str:
    return advice.log_text(task, look(guest.log_tail, api, task))


def _ticks(order: _Order) -> Iterator[None]:
    """Yield at once, then after growing pauses of at most 1 s, to the deadline."""
    pause, told = 0.05, time.monotonic()
    while True:
        yield
        left = time_left()
        if left <= 0:
            return
        now = time.monotonic()
        if order.progress and now - told >= 0.7:
            told = now
            doing = f"{order.action} {order.before.label}"
            order.progress(POWER_PATIENCE - left, POWER_PATIENCE, doing)
        time.sleep(min(pause, left))
        pause = min(2 * pause, 1.0)


def _result(
    order: _Order,
    after: Machine,
    said: str,
    changed: bool = True,
    finished: bool = True,
) -> PowerResult:
    which = (after.vm_id, after.name, after.node, after.type, order.action)
    return PowerResult(*which, after.status, changed, finished, order.task, said)


def _audit(
    action: Action, vm_id: int, node: str, task: str | None, outcome: str
) -> None:
    """One line on stderr: the logger adds the time."""
    line = "audit action=%s machine=%s node=%s task=%s outcome=%s"
    said = json.dumps(outcome.partition("\n")[0][:400])
    log.info(line, action, vm_id, json.dumps(node), task or "none", said)
