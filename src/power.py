"""One power action: the look before it, the POST, the audit trail.

switch       carries it out and waits for its outcome
Cancelled    how it learns that it is to send nothing any more

Two lines on stderr for an action that is sent, just before and at its end; one for an
action that is not.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

from src import advice, guest, obstacles, outcome
from src.api import Api, within
from src.errors import ProxmoxError
from src.fanout import Progress
from src.models import Action, PowerResult, goal
from src.outcome import Order, follow, refused
from src.tasks import UnderWay, under_way

log = logging.getLogger("mcp-proxmox")

Cancelled = Callable[[], bool]  # whether the client has gone away

READ_PATIENCE = 30.0  # for the looks before the POST, so that it has time left


def switch(
    api: Api,
    node: str,
    vm_id: int,
    action: Action,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> PowerResult:
    """Carry the action out, 45 s in all. Raises ProxmoxError, also for what failed.

    Nothing is sent once `cancelled` says so.
    """
    task, end = None, "failed unexpectedly"
    try:
        if action not in get_args(Action):
            raise obstacles.unknown_action(get_args(Action))
        with within(outcome.POWER_PATIENCE):
            order = _look_before(api, node, vm_id, action, progress)
            if isinstance(order, Order) and not order.joined:
                order = _send(api, order, cancelled or (lambda: False))
            task = order.task
            result = follow(api, order) if isinstance(order, Order) else order
        end = result.message
    except ProxmoxError as error:
        end = f"error: {error}"
        raise
    finally:
        _audit(action, vm_id, node, task, end)
    return result


def _look_before(
    api: Api, node: str, vm_id: int, action: Action, progress: Progress | None
) -> Order | PowerResult:
    """The order to carry out; a result where nothing is to be sent."""
    with within(READ_PATIENCE):
        try:
            found = guest.find_machine(api, node, vm_id)
            before = guest.read_state(api, found)
        except ProxmoxError as error:
            raise obstacles.not_sent(error) from None
        order = Order(action, before, found, progress, time.monotonic())
        there = before.status == goal(action) and action != "reboot"
        if not there and (wrong := obstacles.obstacle(before, action)):
            raise wrong
        if not there and action in ("start", "stop"):
            return order  # at once: what stands in its way, its task will say
        other = under_way(guest.read_tasks(api, found), before)
        if there:
            return _nothing_to_do(order, other)
        if other:
            return _join(order, other)
        if action == "reboot" and guest.has_quorum(api) is False:
            raise obstacles.no_quorum(before)
    return order


def _nothing_to_do(order: Order, other: UnderWay | None) -> PowerResult:
    """The machine is as it should be: unless something under way will change that."""
    before = order.before
    if other is None or other.leads_to == before.status:
        return order.result(before, obstacles.already(before))
    task = other.task.upid if other.task else None
    said = obstacles.will_change(before, other)
    return replace(order, task=task).result(before, said, finished=False)


def _join(order: Order, other: UnderWay) -> Order:
    """Wait for what is under way, where it does the same: it would hold up ours."""
    same = other.action == order.action
    if same or (order.action == "shutdown" and other.action == "stop"):
        task = other.task.upid if other.task else None
        return replace(order, task=task, joined=other.description)
    raise obstacles.busy(order.before, order.action, other)


def _send(api: Api, order: Order, cancelled: Cancelled) -> Order | PowerResult:
    """The order with its task; a result where something else has reached the goal."""
    _refuse_cancelled(order, cancelled)
    _audit(order.action, order.before.vm_id, order.before.node, None, "is being sent")
    order = replace(order, at=time.monotonic())
    try:
        return replace(order, task=_post(api, order, cancelled))
    except ProxmoxError as error:
        if error.answer_lost:
            raise advice.lost(order.before, order.action, error) from None
        return refused(api, order, error)


def _post(api: Api, order: Order, cancelled: Cancelled) -> str:
    """Send the action, once; the UPID of its task."""
    if order.action == "stop" and not order.before.managed:
        # A shutdown under way holds the guest's lock, on which a plain stop fails.
        overrule = {"overrule-shutdown": 1}
        try:
            return guest.send_action(api, order.found, order.action, **overrule)
        except ProxmoxError as error:
            # PVE before 8.2 does not know the parameter, and HA does not allow it.
            if error.code != 400:
                raise
        _refuse_cancelled(order, cancelled)
    return guest.send_action(api, order.found, order.action)


def _refuse_cancelled(order: Order, cancelled: Cancelled) -> None:
    if cancelled():
        raise obstacles.cancelled(order.before, order.action)


def _audit(action: Action, vm_id: int, node: str, task: str | None, end: str) -> None:
    """One line on stderr: the logger adds the time."""
    line = "audit action=%s machine=%s node=%s task=%s outcome=%s"
    said = json.dumps(end.partition("\n")[0][:400])
    log.info(line, action, vm_id, json.dumps(node), task or "none", said)
