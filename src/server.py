"""The MCP server: six tools over stdio, each one call into the client.

The class that tutorials call FastMCP is MCPServer since version 2 of the SDK.
"""

import itertools
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

MAX_TEXT = 40_000  # characters; clients cut or refuse more

# Before MCPServer, whose own set-up would print no time.
logging.basicConfig(
    stream=sys.stderr,
    level=logging.WARNING,
    format="%(asctime)s %(levelname)s %(message)s",
    datefmt="%Y-%m-%dT%H:%M:%S%z",
)
log.setLevel(logging.INFO)


class _Server(MCPServer[Any]):
    """MCPServer with errors in plain words: no prefix, no pydantic, no class names."""

    async def call_tool(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().call_tool(*args, **kwargs)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                wrong = (
                    f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
                    for each in cause.errors()
                )
                raise ToolError(
                    f"Nothing was sent: {'; '.join(wrong)}. Call list_machines to see each "
                    "machine's vm_id and node."
                ) from None
            if isinstance(cause, ToolError):
                raise cause from None
            raise


mcp = _Server(
    "mcp-proxmox",
    title="Proxmox VE",
    version="1.0.0",
    instructions=(
        "Watch a Proxmox VE infrastructure and switch its machines. List first: the power "
        "tools need a machine's vm_id and its node. Prefer the graceful stop; use force only "
        "when the user agrees to lose unsaved data. Nothing can be deleted."
    ),
    log_level="WARNING",
)

READS = ToolAnnotations(
    read_only_hint=True, idempotent_hint=True, open_world_hint=False
)

VmId = Annotated[int, Field(ge=MIN_VM_ID, le=MAX_VM_ID, description="The machine's id")]
NodeName = Annotated[
    str, Field(pattern=NODE_PATTERN, max_length=63, description="The node it is on")
]


@cache
def client() -> ProxmoxClient:
    """The one client, made when it is first needed; while it fails, made anew each time."""
    environ = {k: v or "" for k, v in dotenv_values(".env", interpolate=False).items()}
    return ProxmoxClient(Settings.from_env(environ | dict(os.environ)))


async def _ask(call: Callable[[ProxmoxClient], T]) -> T:
    """Run a call in a thread, so that pings and other tools are answered meanwhile."""
    try:
        return await anyio.to_thread.run_sync(
            lambda: call(client()), abandon_on_cancel=True
        )
    except ProxmoxError as error:
        raise ToolError(str(error)) from None


def _answer(text: str, content: dict[str, Any]) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=content
    )


@mcp.tool(title="List infrastructure", annotations=READS)
async def list_infrastructure() -> Annotated[CallToolResult, Infrastructure]:
    """Show the cluster: quorum, and each node's status, CPU, memory, disk, load and uptime."""
    found = await _ask(lambda proxmox: proxmox.get_overview())
    content = vars(found) | {
        "nodes": [vars(node) for node in found.nodes],
        "totals": vars(found.totals),
    }
    return _answer(infrastructure_text(found), content)


@mcp.tool(title="List machines", annotations=READS)
async def list_machines(
    node: Annotated[
        str | None,
        Field(
            pattern=NODE_PATTERN, max_length=63, description="Only those on this node"
        ),
    ] = None,
    status: Annotated[
        str | None,
        Field(
            pattern="^[a-z-]{1,30}$",
            description="Only those running, stopped, unknown, paused...",
        ),
    ] = None,
) -> Annotated[CallToolResult, Machines]:
    """List VMs and containers with vm_id, name, node, status, CPU and memory."""
    found = await _ask(lambda proxmox: proxmox.get_all_machines(node))
    text = machines_text(found, node, status)
    shown = [vars(each) for each in found.machines if status in (None, each.status)]
    return _answer(text, {"machines": shown, "notes": found.notes})


@mcp.tool(title="List storage", annotations=READS)
async def list_storage() -> Annotated[CallToolResult, Storages]:
    """List storages with type, nodes, state, use and capacity, fullest first."""
    found = await _ask(lambda proxmox: proxmox.get_all_storage())
    content = {
        "storages": [vars(each) for each in found.storages],
        "notes": found.notes,
    }
    return _answer(storage_text(found), content)


async def _power(ctx: Context, vm_id: int, node: str, action: Action) -> CallToolResult:
    def progress(done: float, total: float, message: str) -> None:
        anyio.from_thread.run(ctx.report_progress, done, total, message)

    result = await _ask(
        lambda proxmox: proxmox.set_machine_state(node, vm_id, action, progress)
    )
    return _answer(result.message, vars(result))


@mcp.tool(
    title="Start a machine",
    annotations=ToolAnnotations(
        read_only_hint=False,
        destructive_hint=False,
        idempotent_hint=True,
        open_world_hint=False,
    ),
)
async def start_machine(
    vm_id: VmId, node: NodeName, ctx: Context
) -> Annotated[CallToolResult, PowerResult]:
    """Start a VM or container and wait until it runs."""
    return await _power(ctx, vm_id, node, "start")


@mcp.tool(
    title="Stop a machine",
    annotations=ToolAnnotations(
        read_only_hint=False,
        destructive_hint=True,
        idempotent_hint=True,
        open_world_hint=False,
    ),
)
async def stop_machine(
    vm_id: VmId,
    node: NodeName,
    ctx: Context,
    force: Annotated[
        bool,
        Field(description="Cut the power: unsaved data is lost. Ask the user first"),
    ] = False,
) -> Annotated[CallToolResult, PowerResult]:
    """Shut a VM or container down, and wait until it has stopped."""
    return await _power(ctx, vm_id, node, "stop" if force else "shutdown")


@mcp.tool(
    title="Reboot a machine",
    annotations=ToolAnnotations(
        read_only_hint=False,
        destructive_hint=True,
        idempotent_hint=False,
        open_world_hint=False,
    ),
)
async def reboot_machine(
    vm_id: VmId, node: NodeName, ctx: Context
) -> Annotated[CallToolResult, PowerResult]:
    """Shut a running VM or container down and start it again; wait until it runs."""
    return await _power(ctx, vm_id, node, "reboot")


# --- Texts for the model: pure functions ----------------------------------------------


def size(used: float | None, total: float | None) -> str:
    """ "12.4/62.7 GiB", in the unit that fits the total; "?" for what is unknown."""
    most = total if total is not None else used
    if most is None:
        return "?"
    power, unit = next(
        ((p, u) for p, u in ((4, "TiB"), (3, "GiB")) if most >= 1024**p), (2, "MiB")
    )
    shown = "/".join(
        "?" if value is None else f"{value / 1024**power:.1f}"
        for value in (used, total)
    )
    return f"{shown} {unit}"


def duration(seconds: int) -> str:
    """ "12d 4h": the two largest units."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for (big, n), (small, m) in itertools.pairwise(units):
        if seconds >= n:
            return f"{seconds // n}{big} {seconds % n // m}{small}"
    return f"{seconds}s"


def percent(fraction: float) -> str:
    return f"{fraction * 100:.0f} %"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tally(statuses: Counter[str]) -> str:
    """ "230 running, 180 stopped, 2 unknown"."""
    order = {"running": 0, "stopped": 1, "unknown": 3}
    names = sorted(statuses, key=lambda name: (order.get(name, 2), name))
    return ", ".join(f"{statuses[name]:,} {name}" for name in names)


def infrastructure_text(found: Infrastructure) -> str:
    totals = found.totals
    quorum = {None: "", True: ", quorate", False: ", NOT QUORATE: starts are refused"}
    head = f"Cluster {found.cluster}{quorum[found.quorate]}: " if found.cluster else ""
    figures = [f"{totals.online} of {count(totals.nodes, 'node')} online"]
    if totals.cpu is not None:
        figures.append(f"CPU {percent(totals.cpu)} of {totals.cpus}")
    if totals.memory_total is not None:
        figures.append(f"memory {size(totals.memory_used, totals.memory_total)}")
    return "\n".join(
        [head + ", ".join(figures), *found.notes, *map(_node_line, found.nodes)]
    )


def _node_line(node: Node) -> str:
    figures = [f"{node.node} {node.status}"]
    if node.cpu is not None:
        figures.append(f"CPU {percent(node.cpu)} of {node.cpus}")
    if node.memory_used is not None:
        figures.append(f"memory {size(node.memory_used, node.memory_total)}")
    if node.disk_used is not None:
        figures.append(f"root disk {size(node.disk_used, node.disk_total)}")
    if node.load is not None:
        figures.append("load " + " ".join(f"{value:.2f}" for value in node.load))
    if node.uptime is not None:
        figures.append(f"up {duration(node.uptime)}")
    if node.version:
        figures.append(f"version {node.version}")
    return ", ".join(figures)


def machines_text(
    found: Machines, node: str | None = None, status: str | None = None
) -> str:
    """A tally, notes, and a line a machine, in at most MAX_TEXT characters."""
    machines = [each for each in found.machines if status in (None, each.status)]
    where = (
        f"on {node}" if node else f"on {count(len({m.node for m in machines}), 'node')}"
    )
    head = f"{count(len(machines), 'machine')} {where}"
    if machines:
        head += f": {tally(Counter(each.status for each in machines))}"
    elif found.machines:
        head = f"No machine {where if node else ''} is {status}. There are: ".replace(
            "  ", " "
        )
        head += tally(Counter(each.status for each in found.machines))
    top = [head, *found.notes]
    if machines:
        top.append("vm_id name, node, type, status, CPU, memory, uptime:")
    rows = [_machine_line(each) for each in machines]
    by_node: dict[str, Counter[str]] = {}
    for each in machines:
        by_node.setdefault(each.node, Counter())[each.status] += 1
    filters = [
        *(["node"] if node is None and len(by_node) > 1 else []),
        *(["status"] if status is None else []),
    ]
    then = (
        f"Call list_machines with {' or '.join(filters)} to see them."
        if filters
        else "The structured content has all of them."
    )
    nodes = [f"{name}: {tally(by_node[name])}" for name in sorted(by_node)]
    return fit(top, nodes, rows, "machine", then)


def _machine_line(machine: Machine) -> str:
    cpus = f"{machine.cpus:g}" if machine.cpus is not None else "?"
    running = machine.status not in ("stopped", "unknown")
    figures = [
        f"{machine.vm_id} {' '.join((machine.name or '(no name)').split())}",
        machine.node,
        machine.type,
        machine.status,
        f"{percent(machine.cpu)} of {cpus}"
        if running and machine.cpu is not None
        else f"{cpus} CPU",
        size(machine.memory_used, machine.memory_total)
        if running
        else size(machine.memory_total, None).replace("/?", ""),
    ]
    if running and machine.uptime is not None:
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


def storage_text(found: Storages) -> str:
    """A tally, notes, and a line a storage, fullest first."""
    states = {True: "active", False: "inactive", None: "unknown"}
    counts = Counter(states[each.active] for each in found.storages)
    head = count(len(found.storages), "storage")
    if counts:
        head += ": " + ", ".join(
            f"{counts[s]:,} {s}" for s in states.values() if counts[s]
        )

    def fullness(storage: Storage) -> float:
        return storage.used / storage.total if storage.used and storage.total else 0

    def line(storage: Storage) -> str:
        figures = [storage.storage, storage.type, states[storage.active]]
        if storage.active and storage.total is not None:
            figures.append(
                f"{percent(fullness(storage))} used of {size(storage.used, storage.total)}"
            )
            if storage.available is not None:
                figures.append(
                    f"{size(storage.available, None).replace('/?', '')} free"
                )
        figures.append(
            ("shared by " if storage.shared else "on ") + " ".join(storage.nodes)
        )
        figures.append("for " + " ".join(storage.content))
        return ", ".join(figures)

    ranked = sorted(found.storages, key=lambda s: (-fullness(s), s.active is not True))
    return fit(
        [head, *found.notes],
        [],
        list(map(line, ranked)),
        "storage",
        "The fullest are above.",
    )


def fit(
    top: list[str], instead: list[str], rows: list[str], noun: str, then: str
) -> str:
    """The lines, or as many whole rows as fit in MAX_TEXT, below `instead` of the others."""
    whole = "\n".join(top + rows)
    if len(whole) <= MAX_TEXT:
        return whole
    left = MAX_TEXT - len("\n".join(top + instead)) - len(then) - 100
    shown = 0
    while left > len(rows[shown]):
        left -= len(rows[shown]) + 1
        shown += 1
    more = f"{count(len(rows) - shown, f'more {noun}')} not shown. {then}"
    return "\n".join([top[0], *instead, *top[1:], *rows[:shown], more])


# --- The process ----------------------------------------------------------------------


def leave() -> NoReturn:
    """End the process now, even while threads wait, leaving no action unmentioned."""
    # Should stderr be stuck, the audit lines must not keep the process.
    timer = threading.Timer(0.5, os._exit, [0])
    timer.daemon = True
    timer.start()
    if client.cache_info().currsize:
        client().abandon()
    sys.stderr.flush()
    os._exit(0)


def main() -> None:
    """Serve over stdio until stdin ends, or SIGTERM or SIGINT comes."""
    # As PID 1 in a container a process has no default action for signals, and the
    # thread that reads stdin would keep one that ends in the ordinary way.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave())
    try:
        if client().settings.verify_ssl is False:
            log.warning(
                "PROXMOX_VERIFY_SSL=false: the Proxmox certificate is not checked"
            )
    except ProxmoxError as error:
        log.error("%s", error)
    try:
        mcp.run()
    finally:
        leave()


if __name__ == "__main__":
    main()
