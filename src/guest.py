"""One machine: where it is, its live state, and its tasks.

find_machine      its row of /cluster/resources, or why there is none
relocate          the same once more, after it may have moved
read_state        its live state
send_action       the one POST
exit_status       what a task ended with, None while it runs
log_tail          the last lines of a task's log
"""

from __future__ import annotations

import re
from typing import Any

from src.api import Api, check_target
from src.errors import ProxmoxError
from src.failures import (
    machine_elsewhere,
    not_the_api,
    offline_node,
    unknown_machine,
    unknown_node,
)
from src.models import Action, Machine
from src.rows import Row, find_row, read_machine

UPID = re.compile(r"UPID:([a-zA-Z0-9-]+)(:[0-9A-Fa-f]{8,9}){3}:[^/\s?#%]+:")
LOG_LINES, LOG_CHARACTERS = 5, 200


def find_machine(api: Api, node: str, vm_id: int) -> Row:
    """The machine's row of GET /cluster/resources.

    Raises ProxmoxError, which names the right node where it is on another one.
    """
    check_target(node, vm_id)
    rows = api.rows(api.root.cluster.resources)
    nodes = {str(row["node"]): row for row in rows if row.get("type") == "node"}
    if node not in nodes:
        raise unknown_node(node, nodes)
    found = find_row(vm_id, rows)
    if found is None:
        raise unknown_machine(vm_id, api.settings)
    if found["node"] != node:
        name = found.get("name") or "no name"
        raise machine_elsewhere(vm_id, name, node, found["node"])
    if nodes[node].get("status") == "offline":
        raise offline_node(vm_id, node)
    return found


def relocate(api: Api, found: Row) -> Row:
    """Its row of GET /cluster/resources?type=vm now: HA and migrations move machines."""
    rows = api.rows(api.root.cluster.resources, type="vm")
    return find_row(int(found["vmid"]), rows) or found


def read_state(api: Api, found: Row) -> Machine:
    """GET /nodes/{node}/{qemu|lxc}/{vm_id}/status/current."""
    node, kind = str(found["node"]), str(found["type"])
    row = api.row(_resource(api, found).status.current, node)
    return read_machine(int(found["vmid"]), {**row, "node": node, "type": kind}, {})


def send_action(api: Api, found: Row, action: Action) -> str:
    """POST /nodes/{node}/{qemu|lxc}/{vm_id}/status/{action}; the UPID of its task."""
    node, resource = str(found["node"]), _resource(api, found).status(action)
    # A shutdown under way holds the guest's lock, on which a plain stop fails.
    overrule = {"overrule-shutdown": 1} if action == "stop" else {}
    try:
        task = api.post(resource, node, **overrule)
    except ProxmoxError as error:
        # PVE before 8.2 does not know the parameter, and HA does not allow it.
        if not overrule or error.code != 400:
            raise
        task = api.post(resource, node)
    if not isinstance(task, str) or not UPID.fullmatch(task):
        raise not_the_api(api.settings)
    return task


def exit_status(api: Api, task: str) -> str | None:
    """GET /nodes/{node}/tasks/{upid}/status: the exit status, None while it runs."""
    node = task.split(":")[1]
    row = api.row(api.root.nodes(node).tasks(task).status, node)
    if row.get("status") != "stopped":
        return None
    return str(row.get("exitstatus") or "no exit status")


def log_tail(api: Api, task: str) -> list[str]:
    """GET /nodes/{node}/tasks/{upid}/log: its last lines."""
    node = task.split(":")[1]
    rows = api.rows(api.root.nodes(node).tasks(task).log, node, limit=1000)
    lines = [str(row.get("t") or "").strip()[:LOG_CHARACTERS] for row in rows]
    return [line for line in lines if line][-LOG_LINES:]


def _resource(api: Api, found: Row) -> Any:
    return getattr(api.root.nodes(found["node"]), found["type"])(found["vmid"])
