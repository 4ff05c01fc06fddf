"""One machine: where it is, its live state, and its tasks.

find_machine      its row of /cluster/resources, or why there is none
relocate          the same once more, after it may have moved
read_state        its live state
read_tasks        what is under way on it, and what has lately been
has_quorum        whether anything can be started
send_action       a POST
exit_status       what a task ended with, None while it runs
log_tail          the last lines of a task's log
"""

from __future__ import annotations

import re
from typing import Any

from src.api import Api, check_target, look
from src.errors import ProxmoxError
from src.failures import (
    machine_elsewhere,
    not_the_api,
    offline_node,
    unknown_machine,
    unknown_node,
)
from src.models import Action, Machine, Task
from src.rows import Row, clean, find_row, read_cluster, read_machine, read_task

UPID = re.compile(r"UPID:([a-zA-Z0-9-]+)(:[0-9A-Fa-f]{8,9}){3}:[^/\s?#%]+:")
LOG_LINES = 5


def find_machine(api: Api, node: str, vm_id: int) -> Row:
    """The machine's row of GET /cluster/resources.

    Raises ProxmoxError, which names the right node where it is on another one.
    """
    check_target(node.replace(".", "-"), vm_id)
    rows = api.rows(api.root.cluster.resources)
    nodes = {str(row["node"]): row for row in rows if row.get("type") == "node"}
    if node not in nodes:  # as also a full name is, pve1.example.com
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
    """Its row of GET /cluster/resources?type=vm now: HA and migrations move machines.

    The row as it was where that cannot be had.
    """
    rows = look(api.rows, api.root.cluster.resources, type="vm")
    if isinstance(rows, ProxmoxError):
        return found
    return find_row(int(found["vmid"]), rows) or found


def read_state(api: Api, found: Row) -> Machine:
    """GET /nodes/{node}/{qemu|lxc}/{vm_id}/status/current."""
    node, kind = str(found["node"]), str(found["type"])
    row = api.row(_resource(api, found).status.current, node)
    return read_machine(int(found["vmid"]), {**row, "node": node, "type": kind}, {})


def read_tasks(api: Api, found: Row) -> list[Task]:
    """GET /nodes/{node}/tasks?vmid={vm_id}&source=all: those that run, then the newest.

    They answer though the node's daemon hangs. None where they cannot be had: what is
    asked here only helps.
    """
    node, vm_id = str(found["node"]), int(found["vmid"])
    tasks = api.root.nodes(node).tasks
    rows = look(api.rows, tasks, node, vmid=vm_id, limit=20, source="all")
    return [] if isinstance(rows, ProxmoxError) else [read_task(row) for row in rows]


def has_quorum(api: Api) -> bool | None:
    """GET /cluster/status: None on a standalone host, and where it cannot be had."""
    rows = look(api.rows, api.root.cluster.status)
    return None if isinstance(rows, ProxmoxError) else read_cluster(rows)[1]


def send_action(api: Api, found: Row, action: Action, **params: int) -> str:
    """POST /nodes/{node}/{qemu|lxc}/{vm_id}/status/{action}; the UPID of its task."""
    node, resource = str(found["node"]), _resource(api, found).status(action)
    task = api.post(resource, node, **params)
    if not isinstance(task, str) or not UPID.fullmatch(task):
        raise not_the_api(api.settings)
    return task


def exit_status(api: Api, task: str) -> str | None:
    """GET /nodes/{node}/tasks/{upid}/status: the exit status, None while it runs."""
    node = task.split(":")[1]
    row = api.row(api.root.nodes(node).tasks(task).status, node)
    if row.get("status") != "stopped":
        return None
    return clean(row.get("exitstatus") or "no exit status")


def log_tail(api: Api, task: str) -> list[str]:
    """GET /nodes/{node}/tasks/{upid}/log: its last lines, cut to length."""
    node = task.split(":")[1]
    rows = api.rows(api.root.nodes(node).tasks(task).log, node, limit=1000)
    lines = [clean(row.get("t") or "") for row in rows]
    return [line for line in lines if line not in ("", "no content")][-LOG_LINES:]


def _resource(api: Api, found: Row) -> Any:
    return getattr(api.root.nodes(found["node"]), found["type"])(found["vmid"])
