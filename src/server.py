"""The MCP server: six tools over stdio, each one call into the client.

What tutorials call FastMCP is named MCPServer since version 2 of the SDK.
"""

import logging
import os
import signal
import sys

if __name__ == "__main__":  # before the imports, which take half a second
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number))

from dataclasses import asdict
from functools import cache, partial
from threading import Event
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, TextContent, ToolAnnotations

from src.arguments import (
    Force,
    NodeName,
    OptionalName,
    OptionalNode,
    OptionalStatus,
    Server,
    VmId,
)
from src.calls import Calls
from src.cli import check, read_options
from src.client import ProxmoxClient
from src.config.settings import read_settings
from src.errors import ProxmoxError
from src.lists.answers import infrastructure_answer, machines_answer, storages_answer
from src.models import Action, Infrastructure, Machines, PowerResult, Storages

log = logging.getLogger("mcp-proxmox")

# Before MCPServer sets logging up, without the time. What the libraries say below an error
# is none of ours: urllib3 prints URLs.
logging.basicConfig(
    stream=sys.stderr,
    level=logging.ERROR,
    format="%(asctime)s %(levelname)s %(message)s",
    datefmt="%Y-%m-%dT%H:%M:%S%z",
)
log.setLevel(logging.INFO)  # its audit lines

mcp = Server(
    "mcp-proxmox",
    title="Proxmox VE",
    version="1.0.0",
    instructions=(
        "Watch a Proxmox VE infrastructure, and switch its machines on and off where there "
        "are tools for it. List first: the power tools need a machine's vm_id and its node. "
        "Whether all is well is what the three lists say together. What is inside a guest, "
        "history, and how full the disks of VMs are cannot be seen. Stop gracefully; use "
        "force only when the user has just asked for exactly that. Nothing can be deleted."
    ),
    log_level="ERROR",
)

hint = partial(ToolAnnotations, open_world_hint=False)
READS = hint(read_only_hint=True, destructive_hint=False, idempotent_hint=True)
STARTS = hint(read_only_hint=False, destructive_hint=False, idempotent_hint=True)
STOPS = hint(read_only_hint=False, destructive_hint=True, idempotent_hint=True)
REBOOTS = hint(read_only_hint=False, destructive_hint=True, idempotent_hint=False)


@cache
def client() -> ProxmoxClient:
    """The one client. Errors are not cached: a mended .env works with the next call."""
    return ProxmoxClient(read_settings())


# Counted apart, so that power actions, which wait for 45 s, never keep lists out.
lists = Calls(client, at_most=100)
power_actions = Calls(client, at_most=400)


def _answer(text: str, content: dict[str, Any]) -> CallToolResult:
    """The text for the model, and the same as structured content."""
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=content
    )


@mcp.tool(title="List infrastructure", annotations=READS)
async def list_infrastructure(
    ctx: Context,
) -> Annotated[CallToolResult, Infrastructure]:
    """Show what needs attention, quorum, and each node's CPU, memory, disk, load."""
    found = await lists.run(lambda proxmox, _: proxmox.get_overview(), ctx)
    return _answer(*infrastructure_answer(found))


@mcp.tool(title="List machines", annotations=READS)
async def list_machines(
    ctx: Context,
    node: OptionalNode = None,
    status: OptionalStatus = None,
    name: OptionalName = None,
) -> Annotated[CallToolResult, Machines]:
    """List VMs and containers: status, CPU, memory, uptime, lock, HA state, tags."""
    found = await lists.run(
        lambda proxmox, _: proxmox.get_all_machines(node, status, name), ctx
    )
    return _answer(*machines_answer(found))


@mcp.tool(title="List storage", annotations=READS)
async def list_storage(ctx: Context) -> Annotated[CallToolResult, Storages]:
    """List storages, fullest first: type, state, use, capacity, nodes, content."""
    found = await lists.run(
        lambda proxmox, progress: proxmox.get_all_storage(progress.report), ctx
    )
    return _answer(*storages_answer(found))


async def _power(ctx: Context, vm_id: int, node: str, action: Action) -> CallToolResult:
    gone = Event()
    try:
        result = await power_actions.run(
            lambda proxmox, progress: proxmox.set_machine_state(
                node, vm_id, action, progress.report, gone.is_set
            ),
            ctx,
        )
    finally:
        gone.set()  # the thread goes on by itself: it must not send any more
    return _answer(result.message, asdict(result))


@mcp.tool(title="Start a machine", annotations=STARTS)
async def start_machine(
    vm_id: VmId, node: NodeName, ctx: Context
) -> Annotated[CallToolResult, PowerResult]:
    """Start a VM or container and wait, up to 45 s, until it runs."""
    return await _power(ctx, vm_id, node, "start")


@mcp.tool(
    title="Stop a machine",
    description=(
        "Shut a VM or container down and wait, up to 45 s, until it is stopped; with "
        "force cut its power. Where HA manages it, HA cuts the power of a guest that has "
        "not obeyed after about 60 s."
    ),
    annotations=STOPS,
)
async def stop_machine(
    vm_id: VmId, node: NodeName, ctx: Context, force: Force = False
) -> Annotated[CallToolResult, PowerResult]:
    return await _power(ctx, vm_id, node, "stop" if force else "shutdown")


@mcp.tool(
    title="Reboot a machine",
    description=(
        "Reboot a running VM or container and wait, up to 45 s, until it is back. A "
        "container that has not obeyed after 60 s is killed by Proxmox and started again."
    ),
    annotations=REBOOTS,
)
async def reboot_machine(
    vm_id: VmId, node: NodeName, ctx: Context
) -> Annotated[CallToolResult, PowerResult]:
    return await _power(ctx, vm_id, node, "reboot")


POWER_TOOLS = ("start_machine", "stop_machine", "reboot_machine")
WAITING = (
    "Waiting for an MCP client on stdin; Ctrl+C ends it. To check the set-up: "
    "python -m src.server --check\n"
)


def main() -> None:
    """Serve over stdio until stdin ends, or SIGTERM or SIGINT comes; or check."""
    options, status = read_options(), 1
    if options.watch_only:
        for name in POWER_TOOLS:
            mcp.remove_tool(name)
    try:
        if options.check:
            names = [tool.name for tool in anyio.run(mcp.list_tools)]
            status = 0 if check(names) else 1
        else:
            _serve()
            status = 0
    except Exception:
        log.exception("the server ends")
    finally:  # though requests may still hang
        os._exit(status)


def _serve() -> None:
    # As PID 1 a process has no default action for signals; and the thread that reads
    # stdin outlives an ordinary exit. Each line on stderr is flushed as it is written.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    if sys.stdin and sys.stdin.isatty():
        sys.stderr.write(WAITING)
    try:
        if client().settings.verify_ssl is False:
            log.warning("PROXMOX_VERIFY_SSL=false: the certificate is not checked.")
    except ProxmoxError as error:
        log.error("%s", error)
    if sys.stdin:  # a closed one has ended
        mcp.run()


if __name__ == "__main__":
    main()
