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
from src.api import Api, briefly, time_left, within
from src.errors import ProxmoxError
from src.models import Action, Machine, PowerResult
from src.rows import Row

log = logging.getLogger("mcp-proxmox")

POWER_PATIENCE = 45.0  # MCP clients commonly give up at 60 s

Progress = Callable[[float, float, str], None]  # seconds so far, at most, what for


@dataclass(frozen=True)
class _Sent:
    """An action that was sent: what its later steps go by."""

    action: Action
    before: Machine
    found: Row
    at: float
    task: str
    progress: Progress | None


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
    if before.status == advice.goal(action) and action != "reboot":
        return _result(before, action, advice.already(before), changed=False)
    if error := advice.obstacle(before, action):
        raise error
    _audit(action, vm_id, node, None, "is being sent")
    at = time.monotonic()
    try:
        task = guest.send_action(api, found, action)
    except ProxmoxError as error:
        if error.answer_lost:
            raise advice.lost(before, action, error) from None
        return _settle(api, found, before, action, error)
    sent = _Sent(action, before, found, at, task, progress)
    status = _wait_for_task(api, sent)
    if status and status != "OK" and not status.startswith("WARNINGS"):
        return _settle(api, found, before, action, ProxmoxError(status), task)
    return _confirm(api, sent, status)


def _wait_for_task(api: Api, sent: _Sent) -> str | None:
    """The task's exit status; None where it goes on, or may not be read."""
    for _ in _ticks(sent):
        try:
            with briefly():
                status = guest.exit_status(api, sent.task)
        except ProxmoxError as error:
            if not error.answer_lost:
                return None  # the live state will tell
        else:
            if status is not None:
                return status
    return None


def _confirm(api: Api, sent: _Sent, status: str | None) -> PowerResult:
    """Wait until the machine itself shows the outcome.

    The task of a qemu reboot ends when the guest is down, that of an HA-managed guest
    when the request is queued; and HA may start it on another node.
    """
    action, found = sent.action, sent.found
    after: Machine | None = None
    for _ in _ticks(sent):
        try:
            with briefly():
                after = guest.read_state(api, found)
        except ProxmoxError as error:
            if error.code == 500:
                found = _relocate(api, found)
            continue
        if after.status == advice.goal(action) and _is_new(after, sent):
            tail = _log(api, sent.task) if status not in (None, "OK") else ""
            said = advice.done(after, action, status, tail)
            return _result(after, action, said, sent.task)
    said = advice.unfinished(sent.before, after, action, sent.task, POWER_PATIENCE)
    last = after or replace(sent.before, status="unknown")
    return _result(last, action, said, sent.task, finished=False)


def _is_new(after: Machine, sent: _Sent) -> bool:
    """Whether a reboot has happened: it runs for less long than before, or not for
    longer than since the request."""
    return sent.action != "reboot" or (
        after.uptime is not None
        and (
            after.uptime < (sent.before.uptime or 0)
            or after.uptime <= time.monotonic() - sent.at
        )
    )


def _relocate(api: Api, found: Row) -> Row:
    """Where the machine is now; a look that fails is repeated next tick."""
    try:
        with briefly():
            return guest.relocate(api, found)
    except ProxmoxError as error:
        log.debug("%s", error)
        return found


def _settle(
    api: Api,
    found: Row,
    before: Machine,
    action: Action,
    error: ProxmoxError,
    task: str | None = None,
) -> PowerResult:
    """Raise what was refused or failed, unless something else has reached the goal."""
    after = _look(api, found)
    if (
        isinstance(after, Machine)
        and after.status == advice.goal(action)
        and re.search("already running|not running", error.cause)
    ):
        said = advice.overtaken(after)
        return _result(after, action, said, task, changed=False)
    raise advice.failed(before, after, action, error, _log(api, task) if task else "")


def _look(api: Api, found: Row) -> Machine | ProxmoxError:
    try:
        with briefly():
            return guest.read_state(api, found)
    except ProxmoxError as error:
        return error


def _log(api: Api, task: str) -> str:
    try:
        with briefly():
            return advice.log_text(task, guest.log_tail(api, task))
    except ProxmoxError as error:
        return advice.log_text(task, error)


def _ticks(sent: _Sent) -> Iterator[None]:
    """Yield at once, then after growing pauses of at most 1 s, to the deadline."""
    pause, told = 0.05, time.monotonic()
    while True:
        yield
        left = time_left()
        if left <= 0:
            return
        now = time.monotonic()
        if sent.progress and now - told >= 0.7:
            told = now
            doing = f"{sent.action} {sent.before.label}"
            sent.progress(POWER_PATIENCE - left, POWER_PATIENCE, doing)
        time.sleep(min(pause, left))
        pause = min(2 * pause, 1.0)


def _result(
    machine: Machine,
    action: Action,
    message: str,
    task: str | None = None,
    changed: bool = True,
    finished: bool = True,
) -> PowerResult:
    return PowerResult(
        vm_id=machine.vm_id,
        name=machine.name,
        node=machine.node,
        type=machine.type,
        action=action,
        status=machine.status,
        changed=changed,
        finished=finished,
        task=task,
        message=message,
    )


def _audit(
    action: Action, vm_id: int, node: str, task: str | None, outcome: str
) -> None:
    """One line on stderr: the logger adds the time."""
    log.info(
        "audit action=%s machine=%s node=%s task=%s outcome=%s",
        action,
        vm_id,
        json.dumps(node),
        task or "none",
        json.dumps(outcome.partition("\n")[0][:400]),
    )
