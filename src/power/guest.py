"""The requests about one machine: where it is, its live state, its tasks, the POST."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from src.connection.deadline import attempt, time_left
from src.connection.no_answer import not_the_api
from src.errors import ProxmoxError
from src.foreign import clean
from src.models import KINDS, Action, Machine
from src.power.tasks import node_time
from src.proxmox import refusals
from src.proxmox.api import Api, check_target
from src.proxmox.rows import Row, flag, integer, read_cluster, read_machine
from src.proxmox.tasks import UPID, Task, read_log, read_task

LOG_LINES = 5  # of a log are shown


@dataclass(kw_only=True)
class LiveMachine(Machine):
    """A machine with what only status/current has: its process, and whether its guest agent
    is enabled in its options (not whether it answers)."""

    pid: int | None = None
    agent: bool = False


@dataclass
class Look:
    """What is read before a power action. `pending` has the keys of pending changes, once
    they are read. `quorate` is None if it is unknown or was not read."""

    machine: LiveMachine
    tasks: list[Task] | None
    quorate: bool | None
    pending: Future[list[str]] | None


def find_machine(api: Api, node: str, vm_id: int) -> Machine:
    """GET /cluster/resources: the machine as it was some seconds ago.

    Raises ProxmoxError, which names the right node if the machine is on another one.
    """
    check_target(node.replace(".", "-"), vm_id)
    rows = api.rows(api.root.cluster.resources)
    nodes = {str(row.get("node")): row for row in rows if row.get("type") == "node"}
    if node not in nodes:  # as also a full name is, pve1.example.com
        raise refusals.unknown_node(node, nodes)
    found = _known(vm_id, rows)
    if found is None:
        raise refusals.unknown_machine(vm_id, api.settings)
    if found.node != node:
        raise refusals.machine_elsewhere(found, node)
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


def look(api: Api, machine: Machine, action: Action) -> Look:
    """Read at once what an action needs to know: GET the live state, and beside it

    - pending changes before a start or a reboot,
    - tasks before a graceful stop or a reboot,
    - quorum before a reboot.

    Raises ProxmoxError if the state cannot be read.
    """
    pool = ThreadPoolExecutor(4)

    def ask(call: Callable[..., Any], *args: Any) -> Future[Any]:
        return pool.submit(partial(copy_context().run, call, *args))

    state = ask(read_state, api, machine)
    starts, graceful = action in ("start", "reboot"), action in ("shutdown", "reboot")
    pending = ask(read_pending, api, machine) if starts else None
    tasks = ask(read_tasks, api, machine) if graceful else None
    quorate = ask(has_quorum, api) if action == "reboot" else None
    pool.shutdown(wait=False)
    live = state.result()  # its failure does not wait for the others
    wait([each for each in (tasks, quorate) if each], max(0.0, time_left()))
    return Look(
        machine=live,
        tasks=tasks.result() if tasks else None,
        quorate=quorate.result() if quorate else None,
        pending=pending,
    )


def read_state(api: Api, machine: Machine) -> LiveMachine:
    """GET /nodes/{node}/{qemu|lxc}/{vm_id}/status/current: the machine, live."""
    row = api.row(_resource(api, machine).status.current, machine.node)
    row |= {"node": machine.node, "type": machine.type}
    live = read_machine(machine.vm_id, row, {})
    return LiveMachine(**vars(live), pid=integer(row.get("pid")), agent=flag(row.get("agent")))


def read_pending(api: Api, machine: Machine) -> list[str]:
    """GET /nodes/{node}/{qemu|lxc}/{vm_id}/pending: the keys that a start will change.

    Returns none if they cannot be read, because they only help.
    """
    rows = attempt(api.rows, _resource(api, machine).pending, machine.node)
    rows = [] if isinstance(rows, ProxmoxError) else rows
    changed = (row for row in rows if "pending" in row or "delete" in row)
    return sorted(clean(row.get("key"), 40) for row in changed if row.get("key"))


def read_tasks(api: Api, machine: Machine) -> list[Task]:
    """GET /nodes/{node}/tasks?vmid={vm_id}&source=all: running tasks, then the newest.

    A node answers this even while its daemon hangs. Returns none if they cannot be read,
    because they only help.
    """
    resource = api.root.nodes(machine.node).tasks
    wanted: Any = {"vmid": machine.vm_id, "limit": 20, "source": "all"}
    rows = attempt(api.rows, resource, machine.node, **wanted)
    tasks = [] if isinstance(rows, ProxmoxError) else [read_task(row) for row in rows]
    return [task for task in tasks if UPID.fullmatch(task.upid)]


def has_quorum(api: Api) -> bool | None:
    """GET /cluster/status: None on a single host, and if it cannot be read."""
    rows = attempt(api.rows, api.root.cluster.status)
    return None if isinstance(rows, ProxmoxError) else read_cluster(rows)[1]


def read_clock(api: Api, machine: Machine, tasks: list[Task], since: int) -> float | None:
    """Return the time by the node's clock, which runs apart from this computer's.

    From the machine's tasks and uptime, else GET /cluster/ha/status/current, where every
    node writes its time each 10 s, else the header Date. A source that is before `since`
    is behind. None if none of them tells.
    """
    now = node_time(tasks, machine)
    if now is not None and now >= since:
        return now
    rows = attempt(api.rows, api.root.cluster.ha.status.current)
    rows = [] if isinstance(rows, ProxmoxError) else rows
    now = max((integer(row.get("timestamp")) or 0 for row in rows), default=0)
    if now >= since > 0:
        return now
    return api.server_time if machine.status != "stopped" else None


def send_action(api: Api, machine: Machine, action: Action, **params: int) -> str:
    """POST /nodes/{node}/{qemu|lxc}/{vm_id}/status/{action}: the UPID of its task."""
    resource = _resource(api, machine).status(action)
    task = api.post(resource, machine.node, **params)
    if not isinstance(task, str) or not UPID.fullmatch(task):
        raise not_the_api(api.route)
    return task


def exit_status(api: Api, task: str) -> str | None:
    """GET /nodes/{node}/tasks/{upid}/status: the exit status, None while it runs."""
    node = task.split(":")[1]
    row = api.row(api.root.nodes(node).tasks(task).status, node)
    if row.get("status") != "stopped":
        return None
    return clean(row.get("exitstatus") or "no exit status")


def log_tail(api: Api, task: str) -> list[str]:
    """GET /nodes/{node}/tasks/{upid}/log: its last lines, shortened.

    If there are warnings, their lines, and those that continue the first one.
    """
    lines = read_log(api, task)
    warnings = [n for n, line in enumerate(lines) if line.startswith("WARN")]
    if not warnings:
        return lines[-LOG_LINES:]
    first = [*warnings, *range(warnings[0], len(lines))]  # what follows continues a warning
    return [lines[n] for n in sorted({*list(dict.fromkeys(first))[:LOG_LINES]})]


def _resource(api: Api, machine: Machine) -> Any:
    return getattr(api.root.nodes(machine.node), machine.type)(machine.vm_id)
