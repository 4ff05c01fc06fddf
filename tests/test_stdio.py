"""The server as clients launch it: a process over stdio, and how it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.cluster import Cluster
from tests.process import COMMAND, ROOT, Server, wait_for

Start = Callable[..., Server]


@pytest.fixture
def start(configured: dict[str, str]) -> Iterator[Start]:
    servers = []

    def start(*wrapper: str, stderr: int = subprocess.PIPE, **environ: str) -> Server:
        servers.append(Server([*wrapper, *COMMAND], configured | environ, stderr))
        return servers[-1]

    yield start
    for each in servers:
        each.process.kill()
        each.process.wait()


# --- As clients launch it -------------------------------------------------------------


def test_a_real_client_lists_and_switches_over_stdio(
    mode: str, configured: dict[str, str], demo: Cluster
) -> None:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "src.server"], env=configured, cwd=ROOT
    )

    async def session() -> tuple[Any, ...]:
        async with Client(server, mode=mode) as client:
            return (
                await client.list_tools(),
                await client.call_tool("list_infrastructure", {}),
                await client.call_tool("list_machines", {}),
                await client.call_tool("list_storage", {}),
                await client.call_tool("start_machine", {"vm_id": 106, "node": "pve2"}),
                await client.call_tool(
                    "reboot_machine", {"vm_id": 100, "node": "pve1"}
                ),
                await client.call_tool("stop_machine", {"vm_id": 100, "node": "pve1"}),
                await client.call_tool("start_machine", {"vm_id": 102, "node": "pve1"}),
            )

    tools, infrastructure, machines, storage, *power, failed = anyio.run(session)
    assert len(tools.tools) == 6
    assert infrastructure.content[0].text.startswith("Cluster demo, quorate: 2 of 3")
    assert len(machines.structured_content["machines"]) == 11
    assert len(storage.structured_content["storages"]) == 8
    assert [each.structured_content["finished"] for each in power] == [True] * 3
    assert failed.is_error
    assert demo.posts == [
        "/pve2/qemu/106/status/start",
        "/pve1/qemu/100/status/reboot",
        "/pve1/qemu/100/status/shutdown",
        "/pve1/qemu/102/status/start",
    ]


def test_it_starts_from_another_folder(
    configured: dict[str, str], demo: Cluster, tmp_path: Path
) -> None:
    """As a desktop client without a working directory launches a local Python."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "src.server"],
        env=configured | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )

    async def session() -> Any:
        async with Client(server, mode="legacy") as client:
            return await client.call_tool("list_infrastructure", {})

    assert not anyio.run(session).is_error


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"PROXMOX_URL": ""}, "PROXMOX_URL is missing"),
        ({"PROXMOX_URL": "pve"}, "PROXMOX_URL is not https://host:port"),
        ({"PROXMOX_TOKEN_SECRET": "wrong"}, "does not accept the API token mcp@pve!t"),
        ({"PROXMOX_URL": "https://127.0.0.1:1"}, "connection refused"),
    ],
)
def test_bad_settings_are_the_error_of_each_call_and_never_the_end(
    start: Start, demo: Cluster, environ: dict[str, str], says: str
) -> None:
    server = start(**environ)
    server.initialize()
    server.send("tools/list", id=1)
    assert len(server.answer(1)["result"]["tools"]) == 6
    for number, tool in ((2, "list_machines"), (3, "list_storage")):
        server.call(number, tool)
        result = server.answer(number)["result"]
        assert result["isError"] is True
        assert says in result["content"][0]["text"]
    assert server.process.poll() is None
    server.process.stdin.close()
    assert server.leaves_within(1)
    lines = server.errors.decode().splitlines()
    if "URL" in says:
        assert sum("The server is not configured" in line for line in lines) == 1


def test_an_unknown_machine_is_an_error(start: Start, demo: Cluster) -> None:
    server = start()
    server.initialize()
    server.call(1, "start_machine", vm_id=999, node="pve1")
    result = server.answer(1)["result"]
    assert result["isError"] is True
    assert "There is no machine 999" in result["content"][0]["text"]


def test_verification_off_is_warned_of_once(start: Start, demo: Cluster) -> None:
    server = start(PROXMOX_VERIFY_SSL="false")
    server.initialize()
    for number in (1, 2):
        server.call(number, "list_infrastructure")
        assert (
            "isError" not in server.answer(number)["result"]
            or not (server.answer(number)["result"]["isError"])
        )
    server.process.stdin.close()
    assert server.leaves_within(1)
    (line,) = server.errors.decode().splitlines()
    assert line.endswith(
        "WARNING PROXMOX_VERIFY_SSL=false: the certificate is not checked."
    )


def test_the_audit_line_is_on_stderr_with_its_time(start: Start, demo: Cluster) -> None:
    server = start()
    server.initialize()
    server.call(1, "start_machine", vm_id=106, node="pve2")
    server.answer(1)
    server.process.stdin.close()
    assert server.leaves_within(1)
    (line,) = server.errors.decode().splitlines()
    stamp, level, rest = line.split(" ", 2)
    assert time.strptime(stamp, "%Y-%m-%dT%H:%M:%S%z")
    assert level == "INFO"
    assert rest.startswith('audit action=start machine=106 node="pve2" task=UPID:pve2:')


# --- While it works -------------------------------------------------------------------


def test_a_ping_is_answered_while_tools_wait(start: Start, demo: Cluster) -> None:
    for path in ("/nodes", "/cluster/resources"):
        demo.delay[path] = 3
    server = start()
    server.initialize()
    server.call(1, "list_machines")
    server.call(2, "start_machine", vm_id=106, node="pve2")
    time.sleep(0.3)
    times = []
    for number in range(10, 20):
        began = time.monotonic()
        server.send("ping", id=number)
        server.answer(number)
        times.append(time.monotonic() - began)
    assert sorted(times)[len(times) // 2] < 0.1
    assert 1 not in server.answers


@pytest.mark.parametrize(
    "garbage",
    [
        b"not json",
        b"\x00\xff\xfe",
        b"{}",
        b"[]",
        b"null",
        b'{"jsonrpc": "2.0", "id": 9, "method": "no/such"}',
        b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": 1}',
        b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "x"}}',
        b"x" * 1_000_000,
        b"[" * 10_000,
    ],
)
def test_garbage_on_stdin_does_not_end_it(
    start: Start, demo: Cluster, garbage: bytes
) -> None:
    server = start()
    server.initialize()
    server.write(garbage)
    server.call(1, "list_infrastructure")
    assert "Cluster demo" in server.answer(1)["result"]["content"][0]["text"]
    server.process.stdin.close()
    assert server.process.wait(1) == 0


# --- How it ends ----------------------------------------------------------------------


def unshare_works() -> bool:
    try:
        return (
            subprocess.run(
                ["unshare", "--fork", "--pid", "true"],
                capture_output=True,
                check=False,
            ).returncode
            == 0
        )
    except OSError:
        return False


PLAIN: tuple[str, ...] = ()
AS_PID_1 = ("unshare", "--fork", "--pid", "--kill-child")
WRAPPERS = [
    pytest.param(PLAIN, id="plain"),
    pytest.param(
        AS_PID_1,
        id="as-pid-1",
        marks=pytest.mark.skipif(
            not unshare_works(), reason="unshare --fork --pid is not allowed here"
        ),
    ),
]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("end", ["EOF", "SIGTERM", "SIGINT"])
def test_it_leaves_within_a_second_when_told(
    start: Start, demo: Cluster, wrapper: tuple[str, ...], busy: bool, end: str
) -> None:
    for path in ("/nodes/pve1/qemu", "/nodes/pve1/qemu/105/status/shutdown"):
        demo.delay[path] = 20
    server = start(*wrapper)
    server.initialize()
    if busy:
        server.call(1, "list_machines")
        server.call(2, "stop_machine", vm_id=105, node="pve1")
        wait_for(lambda: demo.posts)
    if end == "EOF":
        server.process.stdin.close()
    else:
        os.kill(server_pid(server, wrapper), getattr(signal, end))
    assert server.leaves_within(1)
    if busy:
        audit = [
            line for line in server.errors.decode().splitlines() if "audit" in line
        ]
        (line,) = audit
        assert "action=shutdown machine=105" in line
        assert "unknown: the server ended before the action did" in line


def server_pid(server: Server, wrapper: tuple[str, ...]) -> int:
    if not wrapper:
        return server.process.pid
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return int(children.split()[0])


def test_a_stderr_that_nobody_reads_does_not_keep_it(
    start: Start, demo: Cluster
) -> None:
    """A full pipe blocks every write to it, the last audit line's too."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    demo.delay["/nodes/pve1/qemu/105/status/shutdown"] = 20
    server = start(stderr=writer)
    server.initialize()
    server.call(1, "stop_machine", vm_id=105, node="pve1")
    wait_for(lambda: demo.posts)
    server.process.send_signal(signal.SIGTERM)
    assert server.leaves_within(1)
    os.close(reader)
    os.close(writer)
