"""The requests about one machine: where it is, its live state, its tasks, the POST."""

import re
from typing import Any

from src.errors import ProxmoxError
from src.models import KINDS, Action, Machine
from src.power.tasks import Task, read_task
from src.proxmox import refusals
from src.proxmox.api import Api, check_target
from src.proxmox.deadline import attempt
from src.proxmox.rows import Row, clean, integer, read_cluster, read_machine

UPID = re.compile(r"UPID:([a-zA-Z0-9-]+)(:[0-9A-Fa-f]{8,9}){3}:[^/\s?#%]+:")
LOG_LINES = 5


def find_machine(api: Api, node: str, vm_id: int) -> Machine:
    """GET /cluster/resources: the machine as it was some seconds ago.

    Raises ProxmoxError, which names the right node if the machine is on another one.
    """
    check_target(node.replace(".", "-"), vm_id)
    rows = api.rows(api.root.cluster.resources)
    nodes = {str(row["node"]): row for row in rows if row.get("type") == "node"}
    if node not in nodes:  # as also a full name is, pve1.example.com
        raise refusals.unknown_node(node, nodes)
    found = _known(vm_id, rows)
    if found is None:
        raise refusals.unknown_machine(vm_id, api.settings)
    if found.node != node:
        raise refusals.machine_elsewhere(vm_id, found.name or "no name", node, found.node)
    if nodes[node].get("status") == "offline":
        raise refusals.offline_node(vm_id, node)
    return found


def relocate(api: Api, machine: Machine) -> Machine:
    """GET /cluster/resources?type=vm: the same machine, on the node where it is now.

    HA and migrations move machines. Returns it unchanged if that cannot be read.
    """
    rows = attempt(api.rows, api.root.cluster.resources, type="vm")
    if isinstance(rows, ProxmoxError):
        return machine
    return _known(machine.vm_id, rows) or machine


def _known(vm_id: int, resources: list[Row]) -> Machine | None:
    for row in resources:
        if row.get("type") in KINDS and integer(row.get("vmid")) == vm_id:
            return read_machine(vm_id, None, row) if "node" in row else None
    return None


def read_state(api: Api, machine: Machine) -> Machine:
    """GET /nodes/{node}/{qemu|lxc}/{vm_id}/status/current: the machine, live."""
    row = api.row(_resource(api, machine).status.current, machine.node)
    row |= {"node": machine.node, "type": machine.type}
    return read_machine(machine.vm_id, row, {})


def read_tasks(api: Api, machine: Machine) -> list[Task]:
    """GET /nodes/{node}/tasks?vmid={vm_id}&source=all: running tasks, then the newest.

    A node answers this even while its daemon hangs. Returns none if they cannot be read,
    because they only help.
    """
    tasks = api.root.nodes(machine.node).tasks
    wanted: Any = {"vmid": machine.vm_id, "limit": 20, "source": "all"}
    rows = attempt(api.rows, tasks, machine.node, **wanted)
    return [] if isinstance(rows, ProxmoxError) else [read_task(row) for row in rows]


def has_quorum(api: Api) -> bool | None:
    """GET /cluster/status: None on a single host, and if it cannot be read."""
    rows = attempt(api.rows, api.root.cluster.status)
    return None if isinstance(rows, ProxmoxError) else read_cluster(rows)[1]


def send_action(api: Api, machine: Machine, action: Action, **params: int) -> str:
    """POST /nodes/{node}/{qemu|lxc}/{vm_id}/status/{action}: the UPID of its task."""
    resource = _resource(api, machine).status(action)
    task = api.post(resource, machine.node, **params)
    if not isinstance(task, str) or not UPID.fullmatch(task):
        raise refusals.not_the_api(api.settings)
    return task


def exit_status(api: Api, task: str) -> str | None:
    """GET /nodes/{node}/tasks/{upid}/status: the exit status, None while it runs."""
    node = task.split(":")[1]
    row = api.row(api.root.nodes(node).tasks(task).status, node)
    if row.get("status") != "stopped":
        return None
    return clean(row.get("exitstatus") or "no exit status")


def log_tail(api: Api, task: str) -> list[str]:
    """GET /nodes/{node}/tasks/{upid}/log: its last lines, shortened."""
    node = task.split(":")[1]
    rows = api.rows(api.root.nodes(node).tasks(task).log, node, limit=1000)
    lines = [clean(row.get("t") or "") for row in rows]
    return [line for line in lines if line not in ("", "no content")][-LOG_LINES:]


def _resource(api: Api, machine: Machine) -> Any:
    return getattr(api.root.nodes(machine.node), machine.type)(machine.vm_id)
