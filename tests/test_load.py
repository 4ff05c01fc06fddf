"""Test many calls, concurrent and in sequence: all are answered, no thread or socket leaks.

`python -m tests.test_load [minutes]` calls ten servers over stdio in turn, by default for an
hour: the lists, then start and stop of a machine. Each minute it prints the memory, threads
and sockets of the servers.
"""

import asyncio
import sys
import threading
import time
from contextlib import AsyncExitStack
from typing import Any

import anyio
import psutil
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from src.connection.transport import MAX_REQUESTS
from src.server import power_actions
from tests.cluster import Cluster, in_a_process
from tests.conftest import Call, Patch
from tests.process import COMMAND, ROOT, Server

CLIENTS = 10
AT_ONCE = 100  # more than the 40 threads that the SDK shares
Calls = list[tuple[str, dict[str, Any]]]


def calls(started: dict[str, Any], *more: tuple[str, dict[str, Any]]) -> Calls:
    """Return calls of every list, then of a machine's start and stop."""
    lists = ("list_infrastructure", "list_machines", "list_storage")
    switched = [("start_machine", started), ("stop_machine", started)]
    return [*((tool, {}) for tool in lists), *switched, *more]


def test_many_calls_leak_no_thread_and_no_socket(configured: dict[str, str], demo: Cluster) -> None:
    broken = ("start_machine", {"vm_id": 102, "node": "pve1"})
    turn = calls({"vm_id": 106, "node": "pve2"}, broken)
    with Server(COMMAND, configured) as server:
        process = psutil.Process(server.process.pid)

        def turns(count: int) -> tuple[int, int, int]:
            for _ in range(count):
                for tool, arguments in turn:
                    server.result(tool, **arguments)
            sockets = len(process.net_connections())
            return process.num_threads(), sockets, process.num_fds()

        threads, sockets, files = turns(5)
        assert sockets <= MAX_REQUESTS
        for _ in range(2):
            after = turns(10)
            assert after[0] <= threads + 1
            assert after[1] <= MAX_REQUESTS
            assert after[2] <= files + MAX_REQUESTS - sockets
    assert len(demo.posts) == 3 * 25


@pytest.mark.parametrize(("mode", "progress"), [("auto", True), ("legacy", False)])
def test_a_hundred_concurrent_actions_delay_neither_each_other_nor_a_list(
    configured: dict[str, str], cluster: Cluster, mode: str, progress: bool
) -> None:
    may_stop = threading.Event()

    async def pause(seconds: float) -> None:
        while seconds and not may_stop.is_set():
            await asyncio.sleep(0.1)

    cluster.pve.time_scale, cluster.pve.pause = 1.0, pause
    machines = range(100, 100 + AT_ONCE)
    for vm_id in machines:
        cluster.pve.add_vm(vm_id, "lab", status="running").shutdown_secs = 10
    server = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=configured, cwd=ROOT)
    reported: set[int] = set()
    stopped: set[int] = set()

    async def session() -> None:
        async with Client(server, mode=mode) as client, anyio.create_task_group() as calls:

            async def stop(vm_id: int) -> None:
                async def report(*_: Any) -> None:
                    reported.add(vm_id)

                machine = {"vm_id": vm_id, "node": "pve1"}
                options = {"progress_callback": report} if progress else {}
                result = await client.call_tool("stop_machine", machine, **options)
                content = result.structured_content
                assert (content["vm_id"], content["status"]) == (vm_id, "stopped")
                stopped.add(vm_id)

            for vm_id in machines:
                calls.start_soon(stop, vm_id)
            with anyio.fail_after(60):
                while len(cluster.posts) < AT_ONCE or (progress and len(reported) < AT_ONCE):
                    await anyio.sleep(0.05)
                await client.list_tools()
                listed = await client.call_tool("list_machines")
            assert listed.structured_content["total"] == AT_ONCE
            assert not stopped
            may_stop.set()

    anyio.run(session)
    assert stopped == set(machines)
    assert reported == (stopped if progress else set())
    assert len(cluster.posts) == AT_ONCE


def test_a_power_action_too_many_is_not_sent(call: Call, demo: Cluster, monkeypatch: Patch) -> None:
    assert power_actions._limit == 400
    monkeypatch.setattr(power_actions, "_limit", 0)
    answer = call("start_machine", vm_id=106, node="pve2")
    assert "calls are under way already. Call again" in answer.text
    assert demo.sent == []
    assert not call("list_machines").is_error


def measure() -> str:
    servers = [p for p in psutil.Process().children() if "src.server" in p.cmdline()]
    rss = [server.memory_info().rss / 2**20 for server in servers]
    return (
        f"memory {min(rss):.1f}-{max(rss):.1f} MiB, mean {sum(rss) / len(rss):.2f}; "
        f"threads at most {max(server.num_threads() for server in servers)}; "
        f"sockets at most {max(len(server.net_connections()) for server in servers)}"
    )


async def main(minutes: float) -> None:
    async with AsyncExitStack() as stack:
        environ = stack.enter_context(in_a_process(nodes=8, machines=200, delay=0))
        server = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=environ, cwd=ROOT)
        clients = [await stack.enter_async_context(Client(server)) for _ in range(CLIENTS)]
        start = printed = time.monotonic()
        done = 0
        while (now := time.monotonic()) - start < minutes * 60:
            for number, client in enumerate(clients):
                node = {"node": f"pve{number * 4 % 8 + 1:02}"}
                machine = {"vm_id": 100 + number * 4} | node
                for tool, arguments in calls(machine, ("list_machines", node)):
                    result = await client.call_tool(tool, arguments)
                    assert not result.is_error, result.content
                    done += 1
            if printed == start or now - printed >= 60:
                printed = now
                minute = f"{(now - start) / 60:5.1f} min"
                print(f"{minute}, {done:,} calls: {measure()}", flush=True)
        print(f"end, {done:,} calls: {measure()}")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60))
