"""The fake cluster, the tools called through a real MCP client, and the secret kept."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import CallToolResult

from src import server
from src.client import ProxmoxClient
from src.settings import Settings
from tests.cluster import SECRET, Cluster, furnish


@dataclass
class Answer:
    """What a tool call answered: the text that the model reads, and the rest."""

    text: str
    is_error: bool
    data: dict[str, Any]
    seconds: float


Call = Callable[..., Answer]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both eras of the protocol: 2026-07-28, and the one that desktop clients speak."""
    return request.param


@pytest.fixture(autouse=True)
def _the_secret_is_in_no_output(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Every test's stdout and stderr, the server processes' too."""
    said = []
    read = capfd.readouterr

    def readouterr() -> Any:
        result = read()
        said.extend(result)
        return result

    capfd.readouterr = readouterr  # type: ignore[method-assign]
    yield
    capfd.readouterr()
    assert SECRET not in "".join(said)
    assert SECRET not in caplog.text


@pytest.fixture
def cluster(fakepve: Any) -> Iterator[Cluster]:
    """An empty cluster of one node, pve1. No test may make the server change anything."""
    cluster = Cluster(fakepve)
    # Or a test with a request that hangs takes 30 s to tear down.
    fakepve.runner._shutdown_timeout = 0.1
    yield cluster
    for method, path in cluster.sent:
        assert method == "GET" or (
            method == "POST"
            and path.rsplit("/", 2)[1] == "status"
            and path.rsplit("/", 2)[2] in ("start", "stop", "shutdown", "reboot")
        ), (method, path)


@pytest.fixture
def demo(cluster: Cluster) -> Cluster:
    """The cluster of the demo: three nodes, one offline, with one of everything."""
    furnish(cluster.pve)
    return cluster


@pytest.fixture
def configured(
    cluster: Cluster,
    fakepve_cafile: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> Iterator[dict[str, str]]:
    """The environment names the fake cluster; no .env is read."""
    monkeypatch.chdir(tmp_path)
    environ = cluster.environ(fakepve_cafile)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    server.client.cache_clear()
    yield environ
    server.client.cache_clear()


@pytest.fixture
def proxmox(configured: dict[str, str]) -> ProxmoxClient:
    """The client alone, over HTTPS."""
    return ProxmoxClient(Settings.from_env(configured))


def read(result: CallToolResult, began: float) -> Answer:
    """A tool's result as an Answer, without the secret and short enough to be read."""
    assert SECRET not in result.model_dump_json()
    assert len(result.content) == 1
    text = result.content[0].text
    assert len(text) <= 40_000
    if result.is_error:
        assert result.structured_content is None
        for name in ("Traceback", "proxmoxer", "urllib3", "HTTPSConnection", "Errno"):
            assert name not in text
    return Answer(
        text, bool(result.is_error), result.structured_content, time.monotonic() - began
    )


@pytest.fixture
def call(configured: dict[str, str]) -> Call:
    """Call a tool of the server, in process, through a real MCP client."""
    return caller("legacy")


def caller(mode: str) -> Call:
    def call(tool: str, /, **arguments: Any) -> Answer:
        async def once() -> Answer:
            async with Client(server.mcp, mode=mode) as client:
                began = time.monotonic()
                return read(await client.call_tool(tool, arguments), began)

        return anyio.run(once)

    return call


def at_once(calls: list[tuple[str, dict[str, Any]]]) -> list[Answer]:
    """Call tools of one server, all at the same time."""

    async def ask() -> list[Any]:
        async with Client(server.mcp, mode="legacy") as client:
            results: list[Any] = [None] * len(calls)

            async def one(place: int, tool: str, arguments: dict[str, Any]) -> None:
                results[place] = await client.call_tool(tool, arguments)

            async with anyio.create_task_group() as group:
                for place, (tool, arguments) in enumerate(calls):
                    group.start_soon(one, place, tool, arguments)
            return results

    return [read(result, time.monotonic()) for result in anyio.run(ask)]
