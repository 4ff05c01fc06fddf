"""One power action: the look before it, the POST, and the audit trail.

Two lines on stderr for an action that is sent, just before it and at its end; one for an
action that is not.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import get_args

from src.errors import ProxmoxError
from src.models import Action, PowerResult
from src.power import advice, guest, obstacles, outcome
from src.power.outcome import Order, follow, refused
from src.power.tasks import UnderWay, under_way
from src.proxmox.api import Api
from src.proxmox.deadline import Progress, within

log = logging.getLogger("mcp-proxmox")

Cancelled = Callable[[], bool]  # whether the client has gone away

READ_PATIENCE = 30.0  # for what is read before the POST, so that it has time left


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
    order: Order | None = None
    end = "failed unexpectedly"
    try:
        if action not in get_args(Action):
            raise obstacles.unknown_action(get_args(Action))
        with within(outcome.POWER_PATIENCE):
            order = _look_before(api, node, vm_id, action, progress)
            result = _carry_out(api, order, cancelled or (lambda: False))
        end = result.message
    except ProxmoxError as error:
        end = f"error: {error}"
        raise
    finally:
        _audit(action, vm_id, node, order.task if order else None, end)
    return result


def _look_before(
    api: Api, node: str, vm_id: int, action: Action, progress: Progress | None
) -> Order:
    """The order, with what is under way. Raises ProxmoxError for what cannot work."""
    with within(READ_PATIENCE):
        try:
            before = guest.read_state(api, guest.find_machine(api, node, vm_id))
        except ProxmoxError as error:
            raise obstacles.not_sent(error) from None
        order = Order(action, before, progress, time.monotonic())
        if not order.needless:
            if wrong := obstacles.obstacle(before, action):
                raise wrong
            if action in ("start", "stop"):
                return order  # at once: what stands in its way, its task will say
        order.other = under_way(guest.read_tasks(api, before), before)
        if action == "reboot" and not order.other and guest.has_quorum(api) is False:
            raise obstacles.no_quorum(before)
    return order


def _carry_out(api: Api, order: Order, cancelled: Cancelled) -> PowerResult:
    """Do nothing, wait for what is under way, or send it."""
    if order.needless:
        return _nothing_to_do(order)
    if order.other:
        _join(order, order.other)
        return follow(api, order)
    try:
        _send(api, order, cancelled)
    except ProxmoxError as error:
        if error.answer_lost:
            raise advice.lost(order.before, order.action, error) from None
        if error.code == "":
            raise
        return refused(api, order, error)
    return follow(api, order)


def _nothing_to_do(order: Order) -> PowerResult:
    """The machine is as it should be: unless something under way will change that."""
    before, other = order.before, order.other
    if other is None or other.leads_to == before.status:
        return order.result(before, obstacles.already(before))
    order.task = other.upid
    message = obstacles.will_change(before, other)
    return order.result(before, message, finished=False)


def _join(order: Order, other: UnderWay) -> None:
    """Wait for what is under way, if it does the same: it would hold up ours."""
    graceful = order.action == "shutdown" and other.action == "stop"
    if other.action != order.action and not graceful:
        raise obstacles.busy(order.before, order.action, other)
    order.task = other.upid


def _send(api: Api, order: Order, cancelled: Cancelled) -> None:
    """POST the action, once."""
    _refuse_cancelled(order, cancelled)
    _audit(order.action, order.before.vm_id, order.before.node, None, "is being sent")
    order.at = time.monotonic()
    if order.action == "stop" and not order.before.managed:
        # A shutdown under way holds the guest's lock, on which a plain stop fails.
        overrule = {"overrule-shutdown": 1}
        try:
            order.task = guest.send_action(api, order.before, order.action, **overrule)
            return
        except ProxmoxError as error:
            # PVE before 8.2 does not know the parameter, and HA does not allow it.
            if error.code != 400:
                raise
        _refuse_cancelled(order, cancelled)
    order.task = guest.send_action(api, order.before, order.action)


def _refuse_cancelled(order: Order, cancelled: Cancelled) -> None:
    if cancelled():
        raise obstacles.cancelled(order.before, order.action)


def _audit(action: Action, vm_id: int, node: str, task: str | None, end: str) -> None:
    """One line on stderr: the logger adds the time."""
    line = "audit action=%s machine=%s node=%s task=%s outcome=%s"
    outcome = json.dumps(end.partition("\n")[0][:400])
    log.info(line, action, vm_id, json.dumps(node), task or "none", outcome)
