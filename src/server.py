"""The MCP server: six tools over stdio, each one call into the client.

What tutorials call FastMCP is named MCPServer since version 2 of the SDK.
"""

import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, NoReturn, TypeVar

import anyio.from_thread
import anyio.to_thread
from dotenv import dotenv_values
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field, ValidationError

from src.client import (
    MAX_NODE_NAME,
    MAX_VM_ID,
    MIN_VM_ID,
    NODE_PATTERN,
    Action,
    Infrastructure,
    Machine,
    Machines,
    Node,
    PowerResult,
    ProxmoxClient,
    ProxmoxError,
    Settings,
    Storage,
    Storages,
    log,
)

T = TypeVar("T")

MAX_TEXT = 40_000  # characters: clients cut or refuse more

# Before MCPServer sets logging up, without the time.
logging.basicConfig(
    stream=sys.stderr,
    level=logging.WARNING,
    format="%(asctime)s %(levelname)s %(message)s",
    datefmt="%Y-%m-%dT%H:%M:%S%z",
)
log.setLevel(logging.INFO)  # its audit lines

PARAMETERS = {
    "vm_id": f"a whole number from {MIN_VM_ID} to {MAX_VM_ID}",
    "node": "a node's name (letters, digits and hyphens)",
    "status": "a word such as running, stopped, unknown or paused",
    "force": "true or false",
}


class _Server(MCPServer[Any]):
    """MCPServer whose errors are bare text: no prefix, no pydantic, no class names."""

    async def call_tool(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().call_tool(*args, **kwargs)
        except ToolError as error:
            if isinstance(error.__cause__, ToolError):
                raise error.__cause__ from None
            if not isinstance(error.__cause__, ValidationError):
                raise
            names = dict.fromkeys(str(e["loc"][0]) for e in error.__cause__.errors())
            wrong = "; ".join(f"{name} must be {PARAMETERS[name]}" for name in names)
            raise ToolError(
                f"Nothing was sent to Proxmox: {wrong}. list_machines without filters "
                "shows the vm_id, node and status of every machine."
            ) from None


mcp = _Server(
    "mcp-proxmox",
    title="Proxmox VE",
    version="1.0.0",
    instructions=(
        "Watch a Proxmox VE infrastructure and switch its machines on and off. List "
        "first: the power tools need a machine's vm_id and its node. Stop gracefully; "
        "use force only when the user accepts to lose unsaved data. Nothing can be "
        "deleted."
    ),
    log_level="WARNING",
)

OPTIONAL_NODE = Field(
    pattern=NODE_PATTERN,
    max_length=MAX_NODE_NAME,
    description="Only machines on this node",
)
OPTIONAL_STATUS = Field(
    pattern="^[a-z-]{1,30}$",
    description="Only machines that are running, stopped, unknown, paused, ...",
)
VmId = Annotated[
    int, Field(ge=MIN_VM_ID, le=MAX_VM_ID, description="The machine's id, e.g. 100")
]
NodeName = Annotated[
    str,
    Field(
        pattern=NODE_PATTERN,
        max_length=MAX_NODE_NAME,
        description="The node the machine is on, as list_machines says",
    ),
]
Force = Annotated[
    bool,
    Field(description="Cut the power: loses what is not saved. Ask the user first"),
]


def hints(read_only: bool, destructive: bool, idempotent: bool) -> ToolAnnotations:
    return ToolAnnotations(
        read_only_hint=read_only,
        destructive_hint=destructive,
        idempotent_hint=idempotent,
        open_world_hint=False,
    )


READS = hints(read_only=True, destructive=False, idempotent=True)


@cache
def client() -> ProxmoxClient:
    """The one client. Errors are not cached: a mended .env works with the next call."""
    try:
        file = dotenv_values(".env", interpolate=False)
    except (OSError, ValueError) as error:
        raise ProxmoxError(f"The file .env cannot be read: {error}.") from None
    return ProxmoxClient(
        Settings.from_env({k: v or "" for k, v in file.items()} | dict(os.environ))
    )


async def _ask(call: Callable[[ProxmoxClient], T]) -> T:
    """Run a call in a thread: pings and other tools are answered meanwhile."""
    try:
        proxmox = client()  # here, so that calls at once do not make one each
        # Abandoned, because a thread that waits would hold up the end of the process.
        return await anyio.to_thread.run_sync(call, proxmox, abandon_on_cancel=True)
    except ProxmoxError as error:
        raise ToolError(str(error)) from None


def _answer(text: str, content: dict[str, Any]) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=content
    )


@mcp.tool(
    title="List infrastructure",
    annotations=READS,
)
async def list_infrastructure() -> Annotated[CallToolResult, Infrastructure]:
    """Show the cluster, its quorum, and each node's CPU, memory, disk, load, uptime."""
    found = await _ask(lambda proxmox: proxmox.get_overview())
    return _answer(
        infrastructure_text(found),
        vars(found)
        | {"nodes": list(map(vars, found.nodes)), "totals": vars(found.totals)},
    )


@mcp.tool(
    title="List machines",
    annotations=READS,
)
async def list_machines(
    node: Annotated[str | None, OPTIONAL_NODE] = None,
    status: Annotated[str | None, OPTIONAL_STATUS] = None,
) -> Annotated[CallToolResult, Machines]:
    """List VMs and containers: vm_id, name, node, status, CPU, memory, uptime."""
    found = await _ask(lambda proxmox: proxmox.get_all_machines(node))
    shown = [each for each in found.machines if status in (None, each.status)]
    return _answer(
        machines_text(found, shown, node, status),
        {"machines": list(map(vars, shown)), "notes": found.notes},
    )


@mcp.tool(
    title="List storage",
    annotations=READS,
)
async def list_storage() -> Annotated[CallToolResult, Storages]:
    """List storages, fullest first: type, state, use, capacity, nodes, content."""
    found = await _ask(lambda proxmox: proxmox.get_all_storage())
    return _answer(
        storage_text(found),
        {"storages": list(map(vars, found.storages)), "notes": found.notes},
    )


async def _power(ctx: Context, vm_id: int, node: str, action: Action) -> CallToolResult:
    def progress(done: float, total: float, message: str) -> None:
        anyio.from_thread.run(ctx.report_progress, done, total, message)

    result = await _ask(
        lambda proxmox: proxmox.set_machine_state(node, vm_id, action, progress)
    )
    return _answer(result.message, vars(result))


@mcp.tool(
    title="Start a machine",
    annotations=hints(read_only=False, destructive=False, idempotent=True),
)
async def start_machine(
    vm_id: VmId, node: NodeName, ctx: Context
) -> Annotated[CallToolResult, PowerResult]:
    """Start a VM or container and wait, up to 45 s, until it runs."""
    return await _power(ctx, vm_id, node, "start")


@mcp.tool(
    title="Stop a machine",
    annotations=hints(read_only=False, destructive=True, idempotent=True),
)
async def stop_machine(
    vm_id: VmId, node: NodeName, ctx: Context, force: Force = False
) -> Annotated[CallToolResult, PowerResult]:
    """Shut a VM or container down and wait, up to 45 s, until it is stopped."""
    return await _power(ctx, vm_id, node, "stop" if force else "shutdown")


@mcp.tool(
    title="Reboot a machine",
    annotations=hints(read_only=False, destructive=True, idempotent=False),
)
async def reboot_machine(
    vm_id: VmId, node: NodeName, ctx: Context
) -> Annotated[CallToolResult, PowerResult]:
    """Reboot a running VM or container and wait, up to 45 s, until it is back."""
    return await _power(ctx, vm_id, node, "reboot")


# --- Texts for the model, pure --------------------------------------------------------


def size(total: float, used: float | None = None) -> str:
    """12.4/62.7 GiB, or 62.7 GiB: in the unit that fits the total."""
    units = ((4, "TiB"), (3, "GiB"), (2, "MiB"))
    power, unit = next(((p, u) for p, u in units if total >= 1024**p), units[-1])
    part = "" if used is None else f"{used / 1024**power:.1f}/"
    return f"{part}{total / 1024**power:.1f} {unit}"


def duration(seconds: int) -> str:
    """12d 4h, 4h 10m, 10m 5s, 5s."""
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    if d:
        return f"{d}d {h}h"
    if h:
        return f"{h}h {m}m"
    return f"{m}m {s}s" if m else f"{s}s"


def percent(fraction: float) -> str:
    return f"{fraction * 100:.0f} %"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tally(machines: list[Machine]) -> str:
    """230 running, 180 stopped, 1 paused, 2 unknown."""
    counts = Counter(machine.status for machine in machines)
    order = {"running": 0, "stopped": 1, "unknown": 3}
    names = sorted(counts, key=lambda name: (order.get(name, 2), name))
    return ", ".join(f"{counts[name]:,} {name}" for name in names)


def infrastructure_text(found: Infrastructure) -> str:
    """A tally, the notes, and a line a node."""
    totals = found.totals
    quorum = {
        None: "",
        True: ", quorate",
        False: ", NOT QUORATE, so nothing can be started",
    }
    head = f"Cluster {found.cluster}{quorum[found.quorate]}: " if found.cluster else ""
    head += f"{totals.online} of {count(totals.nodes, 'node')} online"
    if totals.cpu is not None:
        head += f", CPU {percent(totals.cpu)} of {totals.cpus}"
    if totals.memory_total is not None:
        head += f", memory {size(totals.memory_total, totals.memory_used)}"
    return "\n".join([head, *found.notes, *map(_node_line, found.nodes)])


def _node_line(node: Node) -> str:
    figures = [f"{node.node} {node.status}"]
    if node.cpu is not None:
        figures.append(f"CPU {percent(node.cpu)} of {node.cpus}")
    if node.memory_total is not None:
        figures.append(f"memory {size(node.memory_total, node.memory_used)}")
    if node.disk_total is not None:
        figures.append(f"root disk {size(node.disk_total, node.disk_used)}")
    if node.load is not None:
        figures.append("load " + " ".join(f"{value:.2f}" for value in node.load))
    if node.uptime is not None:
        figures.append(f"up {duration(node.uptime)}")
    if node.version is not None:
        figures.append(f"version {node.version}")
    return ", ".join(figures)


def machines_text(
    found: Machines, shown: list[Machine], node: str | None, status: str | None
) -> str:
    """A tally, the notes, and a line a machine; too many to fit are counted by node."""
    by_node: dict[str, list[Machine]] = {}
    for machine in shown:
        by_node.setdefault(machine.node, []).append(machine)
    where = f"on {node}" if node else f"on {count(len(by_node), 'node')}"
    top = [f"{count(len(shown), 'machine')} {where}: {tally(shown)}"]
    if not shown:
        there = f"There are: {tally(found.machines)}." if found.machines else ""
        top = [f"No machine{f' on {node}' if node else ''} is {status}. {there}"]
        if status is None or not found.machines:
            top = ["No machines."]
    top += found.notes
    if shown:
        top.append("vm_id name, node, type, status, CPU, memory, uptime:")
    filters = [
        name for name, value in (("node", node), ("status", status)) if value is None
    ]
    then = f"Call list_machines with {' or '.join(filters)} to see them."
    return fit(
        top,
        list(map(_machine_line, shown)),
        [f"{name}: {tally(by_node[name])}" for name in sorted(by_node)],
        then if filters else "The structured content has them all.",
    )


def _machine_line(machine: Machine) -> str:
    runs = machine.status not in ("stopped", "unknown")
    name = " ".join((machine.name or "(no name)").split())
    figures = [f"{machine.vm_id} {name}", machine.node, machine.type, machine.status]
    if machine.cpus is not None and runs and machine.cpu is not None:
        figures.append(f"{percent(machine.cpu)} of {machine.cpus:g}")
    elif machine.cpus is not None:
        figures.append(f"{machine.cpus:g} CPU")
    if machine.memory_total is not None:
        used = machine.memory_used if runs else None
        figures.append(size(machine.memory_total, used))
    if runs and machine.uptime is not None:
        figures.append(duration(machine.uptime))
    if machine.template:
        figures.append("template")
    if machine.lock:
        figures.append(f"locked ({machine.lock})")
    if machine.tags:
        figures.append("tags " + " ".join(machine.tags))
    if not machine.live and machine.status != "unknown":
        figures.append("last known")
    return ", ".join(figures)


STATES = {True: "active", False: "inactive", None: "unknown"}


def storage_text(found: Storages) -> str:
    """A tally, the notes, and a line a storage, fullest first."""
    counts = Counter(STATES[each.active] for each in found.storages)
    tallied = ", ".join(f"{counts[s]:,} {s}" for s in STATES.values() if counts[s])
    head = f"{count(len(found.storages), 'storage')}: {tallied}"
    rows = sorted(found.storages, key=lambda row: (-_fullness(row), row.active is None))
    return fit(
        [head if found.storages else "No storages.", *found.notes],
        list(map(_storage_line, rows)),
        [],
        "The fullest are above; the structured content has them all.",
    )


def _fullness(storage: Storage) -> float:
    return storage.used / storage.total if storage.used and storage.total else 0.0


def _storage_line(storage: Storage) -> str:
    figures = [storage.storage, storage.type, STATES[storage.active]]
    if storage.total is not None:
        figures.append(f"{percent(_fullness(storage))} of {size(storage.total)} used")
    if storage.available is not None:
        figures.append(f"{size(storage.available)} free")
    figures.append(
        ("shared by " if storage.shared else "on ") + " ".join(storage.nodes)
    )
    figures.append("for " + " ".join(storage.content))
    return ", ".join(figures)


def fit(top: list[str], rows: list[str], summary: list[str], then: str) -> str:
    """The lines; where they are too many, the summary, whole rows, and what to do."""
    text = "\n".join(top + rows)
    if len(text) <= MAX_TEXT:
        return text
    top[1:1] = summary
    left = MAX_TEXT - sum(len(line) + 1 for line in top) - len(then) - 50
    shown = 0
    while left > len(rows[shown]):
        left -= len(rows[shown]) + 1
        shown += 1
    more = f"{len(rows) - shown:,} more rows are not shown. {then}"
    return "\n".join([*top, *rows[:shown], more])


# --- The process ----------------------------------------------------------------------


def leave() -> NoReturn:
    """End the process at once, whatever waits, with no sent action unmentioned."""
    # Should stderr be stuck, it must not keep the process.
    deadline = threading.Timer(0.5, os._exit, [0])
    deadline.daemon = True
    deadline.start()
    if client.cache_info().currsize:
        client().abandon()
    sys.stderr.flush()
    os._exit(0)


def main() -> None:
    """Serve over stdio until stdin ends, or SIGTERM or SIGINT comes."""
    # As PID 1 a process has no default action for signals; and the thread that reads
    # stdin outlives an ordinary exit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave())
    try:
        if client().settings.verify_ssl is False:
            log.warning("PROXMOX_VERIFY_SSL=false: the certificate is not checked.")
    except ProxmoxError as error:
        log.error("%s", error)
    try:
        mcp.run()
    finally:
        leave()


if __name__ == "__main__":
    main()
