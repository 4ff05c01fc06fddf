"""Test the server process as clients launch it, over stdio, and how it ends."""

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import anyio
import pytest
from aiohttp import web
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from src import stdio
from tests.cluster import Cluster
from tests.conftest import Patch
from tests.process import COMMAND, ROOT, Server, run, wait_for

Start = Callable[..., Server]
PVE1, PVE2 = {"node": "pve1"}, {"node": "pve2"}


@pytest.fixture
def start(configured: dict[str, str]) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def start(*wrapper: str, stderr: int = PIPE, **environ: str) -> Server:
            server = Server([*wrapper, *COMMAND], configured | environ, stderr)
            return stack.enter_context(server)

        yield start


def ask_to_leave(server: Server, how: str) -> None:
    """Close stdin, or send a signal to the process, or to the one its wrapper launched."""
    if how == "EOF":
        server.close()
        return
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(children[0]) if children else pid, getattr(signal, how))


def end(server: Server, how: str = "EOF") -> list[str]:
    """Check that it leaves within a second, and return its lines on stderr."""
    ask_to_leave(server, how)
    assert server.leaves_within(1)
    return server.errors.decode().splitlines()


def test_a_real_client_lists_and_controls_machines_over_stdio(
    mode: str, configured: dict[str, str], demo: Cluster, tmp_path: Path
) -> None:
    """The client launches it from another folder, as desktop clients do."""
    program, *options = COMMAND
    environ = configured | {"PYTHONPATH": str(ROOT)}
    server = StdioServerParameters(command=program, args=options, env=environ, cwd=tmp_path)
    # Otherwise the tool waits after the reboot until the uptime is above 0.
    demo.edit["/nodes/pve1/qemu/100/status/current"] = lambda row: (
        row | {"uptime": row["uptime"] or 1}
    )
    lists = ("infrastructure", "machines", "storage")
    calls: list[Any] = [(f"list_{what}", {}) for what in lists]
    calls += [("start_machine", {"vm_id": 106} | PVE2)]
    for how, vm_id in (("reboot", 100), ("stop", 100), ("start", 102), ("start", 999)):
        calls += [(f"{how}_machine", {"vm_id": vm_id} | PVE1)]

    async def session() -> tuple[Any, list[Any]]:
        async with Client(server, mode=mode) as client:
            tools = (await client.list_tools()).tools
            return tools, [await client.call_tool(*each) for each in calls]

    tools, answers = anyio.run(session)
    assert len(tools) == 6
    assert [each.is_error for each in answers] == [False] * 6 + [True] * 2
    infrastructure, machines, storage, *power = answers[:6]
    assert infrastructure.structured_content["cluster"] == "demo"
    assert "\npve3 " in infrastructure.content[0].text
    assert len(machines.structured_content["machines"]) == 11
    assert len(storage.structured_content["storages"]) == 8
    assert [each.structured_content["finished"] for each in power] == [True] * 3
    assert "999" in answers[-1].content[0].text
    sent = [path.split("/")[3::2] for path in demo.posts]
    expected = [["106", "start"], ["100", "reboot"], ["100", "shutdown"]]
    assert sent == [*expected, ["102", "start"]]


def test_bad_settings_fail_each_call_but_never_end_the_server(start: Start, demo: Cluster) -> None:
    server = start(PROXMOX_URL="")
    assert len(server.request("tools/list")["tools"]) == 6
    for _ in range(2):
        result = server.result("list_machines")
        assert result["isError"] is True
        assert "PROXMOX_URL" in result["content"][0]["text"]
    (line,) = end(server, "SIGINT")
    assert "PROXMOX_URL" in line


def test_stderr_has_warnings_and_a_timestamped_audit_trail(start: Start, demo: Cluster) -> None:
    server = start(PROXMOX_VERIFY_SSL="false")
    lists: list[Any] = [("list_infrastructure", {})] * 2
    for tool, arguments in (*lists, ("start_machine", {"vm_id": 106} | PVE2)):
        assert not server.result(tool, **arguments).get("isError")
    audit = 'INFO audit action=start machine=106 node="pve2" task='
    expected = ("WARNING PROXMOX_VERIFY_SSL", f"{audit}none ", f"{audit}UPID:pve2:")
    for line, begin in zip(end(server, "SIGTERM"), expected, strict=True):
        stamp, _, rest = line.partition(" ")
        assert time.strptime(stamp, "%Y-%m-%dT%H:%M:%S%z")
        assert rest.startswith(begin)


def test_garbage_on_stdin_or_in_an_answer_is_survived(start: Start, demo: Cluster) -> None:
    async def respond(request: web.Request) -> web.Response:
        assert request.transport
        head = b"HTTP/1.1 200 OK\r\nno header at all\r\nContent-Length: 11\r\n\r\n"
        request.transport.write(head + b'{"data":[]}')
        request.transport.close()
        return web.Response()

    demo.raw["/cluster/status"] = respond
    server = start()
    unknown = {"jsonrpc": "2.0", "id": 99, "method": "no/such"}
    wrong = [unknown | {"method": "tools/call", "params": p} for p in (1, {"name": "x"})]
    garbage = [b"not json", b"\x00\xff\xfe", b"{}", b"[]", b"null", b"x" * 1_000_000, b"[" * 10_000]
    garbage += [json.dumps(message).encode() for message in (unknown, *wrong)]
    for number, line in enumerate(garbage, 1):
        server.write(line)
        server.call(number, "list_infrastructure")
        result = server.answer(number)["result"]
        assert len(result["structuredContent"]["nodes"]) == 3, line[:50]
    assert not end(server)


def test_a_ping_is_answered_while_tools_wait(start: Start, demo: Cluster) -> None:
    for path in ("/nodes", "/cluster/resources"):
        demo.delay[path] = 60
    server = start()
    server.call(1, "list_machines")
    server.call(2, "start_machine", vm_id=106, **PVE2)
    wait_for(lambda: len(demo.sent) >= 4)
    for number in range(10, 20):
        server.send("ping", id=number)
        server.answer(number)
    assert not {1, 2} & set(server.answers)


def unshare_works() -> bool:
    with contextlib.suppress(OSError):
        return not run(["unshare", "--fork", "--pid", "true"]).returncode
    return False


AS_PID_1 = ("unshare", "--fork", "--pid", "--kill-child")
unshared = pytest.mark.skipif(not unshare_works(), reason="unshare is not allowed here")


@pytest.mark.parametrize("how", ["EOF", "SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    "wrapper", [pytest.param((), id="alone"), pytest.param(AS_PID_1, marks=unshared, id="as-pid-1")]
)
def test_it_leaves_within_a_second_when_told_even_if_it_is_busy(
    start: Start, demo: Cluster, how: str, wrapper: tuple[str, ...]
) -> None:
    for path in ("/nodes/pve1/qemu", "/nodes/pve1/qemu/105/status/shutdown"):
        demo.delay[path] = 60
    server = start(*wrapper)
    server.call(1, "list_machines")
    server.call(2, "stop_machine", vm_id=105, **PVE1)
    wait_for(lambda: demo.posts)
    (line,) = end(server, how)  # written before the action was sent
    assert "audit action=shutdown machine=105" in line


@pytest.mark.parametrize("how", ["EOF", "SIGTERM"])
def test_a_blocked_stderr_stops_actions_not_the_exit(start: Start, demo: Cluster, how: str) -> None:
    """A full pipe blocks every write, including the audit line before the POST."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    server = start(stderr=writer)
    server.call(1, "stop_machine", vm_id=105, **PVE1)
    wait_for(lambda: any("source=all" in path for _, path in demo.sent))
    server.call(2, "list_machines")
    assert server.answer(2)["result"]["structuredContent"]["machines"]
    started = time.monotonic()
    refusal = server.answer(1)["result"]
    assert time.monotonic() - started < 5  # 2 s on an idle machine
    assert refusal["isError"]
    text = refusal["content"][0]["text"]
    assert "because the client does not read it. Nothing was sent." in text
    assert demo.posts == []
    ask_to_leave(server, how)
    assert server.leaves_within(1)
    os.close(reader)
    os.close(writer)


def test_lines_for_stderr_are_kept_in_bounds_and_written_before_the_exit(
    monkeypatch: Patch,
) -> None:
    go, written = threading.Event(), []

    class Slow:
        def write(self, text: str) -> None:
            go.wait(5)
            written.append(text)

        def flush(self) -> None:
            time.sleep(0.05)

    monkeypatch.setattr(sys, "stderr", Slow())
    monkeypatch.setattr(stdio, "MAX_LINES", 3)
    handler = stdio.Stderr()
    for number in range(5):
        handler.emit(logging.LogRecord("x", 20, "", 0, f"line {number}", None, None))
    assert len(handler._lines) == 3
    go.set()
    handler.drain(5)
    assert written == [f"line {number}\n" for number in range(3)]
