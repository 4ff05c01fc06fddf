"""A long run under load: `python -m tests.soak [minutes]`, an hour unless given.

Ten servers over stdio, called in turn: lists, and a machine that is started and stopped.
Prints the memory, the threads and the sockets of the servers each minute.
"""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.cluster import in_a_process

ROOT = Path(__file__).parent.parent
CLIENTS = 10


def servers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "src.server" in child.cmdline()]


def measure() -> str:
    rss, threads, sockets = [], [], []
    for server in servers():
        rss.append(server.memory_info().rss / 2**20)
        threads.append(server.num_threads())
        sockets.append(len(server.net_connections()))
    return (
        f"memory {min(rss):.1f}-{max(rss):.1f} MiB, mean {sum(rss) / len(rss):.2f}; "
        f"threads at most {max(threads)}; sockets at most {max(sockets)}"
    )


async def round_of(client: Client, number: int) -> int:
    """One client's turn: every list, then one machine off and on, or on and off."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("list_infrastructure", {}),
        ("list_machines", {}),
        ("list_storage", {}),
        ("list_machines", {"node": "pve02"}),
    ]
    machine = {"vm_id": 100 + number * 4, "node": f"pve{number * 4 % 8 + 1:02}"}
    calls += [("stop_machine", machine), ("start_machine", machine)]
    for tool, arguments in calls:
        result = await client.call_tool(tool, arguments)
        assert not result.is_error, result.content
    return len(calls)


async def main(minutes: float) -> None:
    with in_a_process(nodes=8, machines=200, delay=0) as environ:
        async with AsyncExitStack() as stack:
            server = StdioServerParameters(
                command=sys.executable, args=["-m", "src.server"], env=environ, cwd=ROOT
            )
            clients = [
                await stack.enter_async_context(Client(server)) for _ in range(CLIENTS)
            ]
            began = told = time.monotonic()
            calls = 0
            while (now := time.monotonic()) - began < minutes * 60:
                for number, client in enumerate(clients):
                    calls += await round_of(client, number)
                if calls == CLIENTS * 6 or now - told >= 60:
                    told = now
                    print(
                        f"{(now - began) / 60:5.1f} min, {calls:,} calls: {measure()}"
                    )
                    sys.stdout.flush()
            print(f"end, {calls:,} calls: {measure()}")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60))
