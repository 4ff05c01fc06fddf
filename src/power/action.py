"""One power action: the look before it, the POST, and the audit trail.

An action that is sent writes two lines to stderr, just before the POST and at its end. An
action that is not sent writes one.
"""

import json
import logging
import re
import time
from collections.abc import Callable
from functools import partial
from typing import get_args

from src.connection.deadline import (
    CONNECT_TIMEOUT,
    LOOK_TIMEOUT,
    POWER_TIMEOUT,
    Progress,
    within,
)
from src.errors import ProxmoxError
from src.foreign import clean
from src.models import Action, PowerResult
from src.power import advice, guest, obstacles
from src.power.guest import Look
from src.power.outcome import Order, follow, refused
from src.power.tasks import under_way
from src.proxmox.api import Api
from src.proxmox.entry_nodes import prefer_quorum
from src.proxmox.refusals import machine_elsewhere
from src.stdio import STDERR

log = logging.getLogger("mcp-proxmox")

SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z])|\n")
Cancelled = Callable[[], bool]  # whether the client has gone away


def switch(
    api: Api,
    node: str,
    vm_id: int,
    action: Action,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> PowerResult:
    """Carry out the action and wait for its outcome, for POWER_TIMEOUT in all.

    Sends nothing once `cancelled` returns true. Raises ProxmoxError if the action could
    not be sent, was refused or failed, or if its outcome is unknown.
    """
    order: Order | None = None
    end = "failed unexpectedly"
    try:
        if action not in get_args(Action):
            raise obstacles.unknown_action(get_args(Action))
        with within(POWER_TIMEOUT, CONNECT_TIMEOUT):
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
    """Return the order, with what is under way. Raises ProxmoxError if it cannot work."""
    try:
        with within(LOOK_TIMEOUT):
            prefer_quorum(api)
            look = _look(api, node, vm_id, action)
            before, tasks = look.machine, look.tasks
            order = Order(action, before, progress, time.monotonic(), pending=look.pending)
            if not order.needless:
                obstacles.check(before, action)
                if action in ("start", "stop"):
                    return order  # its task will say what else is wrong
            if tasks is None:
                tasks = guest.read_tasks(api, before)
            order.other = under_way(tasks, before, partial(guest.read_clock, api, before, tasks))
            if order.other and not order.needless:
                obstacles.check_other(before, action, order.other)
            elif look.quorate is False:
                raise obstacles.no_quorum(before)
            return order
    except ProxmoxError as error:
        raise obstacles.not_sent(error, vm_id) from None


def _look(api: Api, node: str, vm_id: int, action: Action) -> Look:
    """Read what the action needs to know. A machine may move meanwhile: then say where to."""
    found = guest.find_machine(api, node, vm_id)
    try:
        return guest.look(api, found, action)
    except ProxmoxError as error:
        now = guest.relocate(api, found) if error.code == 500 else found
        if now.node == found.node:
            raise
        raise machine_elsewhere(now, node) from None


def _carry_out(api: Api, order: Order, cancelled: Cancelled) -> PowerResult:
    """Do nothing, wait for what is under way, or send the action and follow it."""
    other = order.other
    ends_so = other and other.action != "reboot" and other.leads_to == order.before.status
    if order.needless and not (ends_so and other and other.task):  # that task may still fail
        return _nothing_to_do(order)
    if other:  # it does the same, and holds the lock that ours would need
        order.task = other.upid
        return follow(api, order)
    try:
        _send(api, order, cancelled)
    except ProxmoxError as error:
        if error.code in (429, 503, 595):
            raise advice.undelivered(order.before, order.action, error) from None
        if error.answer_lost:
            raise advice.lost(order.before, order.action, error) from None
        if error.code == "refused":
            raise obstacles.not_reached(error) from None
        if error.code == "":
            raise
        return refused(api, order, error)
    return follow(api, order)


def _nothing_to_do(order: Order) -> PowerResult:
    """Return the machine as it is. Say so if something under way will change it."""
    before, other = order.before, order.other
    if other is None or (other.leads_to == before.status and other.action != "reboot"):
        return order.result(before, obstacles.already(before))
    order.task = other.upid
    message = obstacles.will_change(before, other)
    return order.result(before, message, finished=False)


def _send(api: Api, order: Order, cancelled: Cancelled) -> None:
    """POST the action once, or a forced stop again if Proxmox rejected a parameter."""
    if cancelled():
        raise obstacles.cancelled(order.before, order.action)
    _audit(order.action, order.before.vm_id, order.before.node, None, "is being sent")
    if problem := STDERR.problem():
        raise obstacles.no_audit(order.before, order.action, problem)
    if cancelled():  # while the line was being written
        raise obstacles.cancelled(order.before, order.action)
    order.at = time.monotonic()
    if order.action == "stop" and not order.before.managed:
        # A shutdown under way holds the guest's lock, and a plain stop would fail on it.
        overrule = {"overrule-shutdown": 1}
        try:
            order.task = guest.send_action(api, order.before, order.action, **overrule)
            return
        except ProxmoxError as error:
            # PVE before 8.2 does not know the parameter, and HA rejects it.
            if error.code != 400:
                raise
        if cancelled():
            raise obstacles.cancelled_after_refusal(order.before, order.action)
    order.task = guest.send_action(api, order.before, order.action)


def _audit(action: Action, vm_id: int, node: str, task: str | None, end: str) -> None:
    """Write one line to stderr: two sentences of the outcome. The logger adds the time."""
    line = "audit action=%s machine=%s node=%s task=%s outcome=%s"
    outcome = json.dumps(clean(" ".join(SENTENCE_END.split(end)[:2])))
    log.info(line, action, vm_id, json.dumps(node), task or "none", outcome)
