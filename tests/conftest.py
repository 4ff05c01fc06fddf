"""The fake cluster, the tools called through a real MCP client, and the secret kept."""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import hypothesis
import pytest
from mcp import Client
from mcp.types import CallToolResult

from src import server
from src.client import ProxmoxClient
from src.config.settings import Settings
from src.proxmox.network import BUNDLES
from tests.cluster import SECRET, Cluster, furnish


@dataclass
class Answer:
    """What a tool call answered: the text that the model reads, and the rest."""

    text: str
    is_error: bool
    data: dict[str, Any]
    seconds: float


Call = Callable[..., Answer]
Start = Callable[..., tuple[str, list[bytes]]]

# A busy machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_unconfigure() -> None:
    """What the fake's requests that still hang say at the very end is no news."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both eras of the protocol: 2026-07-28, and the one that desktop clients speak."""
    return request.param


@pytest.fixture(autouse=True)
def _the_secret_is_in_no_output(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Every test's stdout and stderr, the server processes' too."""
    yield
    logged = caplog.get_records("call")
    said = [*capfd.readouterr(), *(record.getMessage() for record in logged)]
    assert SECRET not in "".join(said)


@pytest.fixture(autouse=True)
def _nothing_of_this_machines_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy or a bundle of CAs that is set here is none of the tests'."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in (*BUNDLES, "SSLKEYLOGFILE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cluster(fakepve: Any) -> Iterator[Cluster]:
    """An empty cluster of one node, pve1. No test may make the server change anything."""
    cluster = Cluster(fakepve)
    # Or a test with a request that hangs takes 30 s to tear down.
    fakepve.runner._shutdown_timeout = 0.1
    yield cluster
    actions = tuple(f"/status/{how}" for how in ("start", "stop", "shutdown", "reboot"))
    for method, path in cluster.sent:
        assert method == "GET" or (method == "POST" and path.endswith(actions)), path


@pytest.fixture
def demo(cluster: Cluster) -> Cluster:
    """The cluster of the demo: three nodes, one offline, with one of everything."""
    furnish(cluster.pve)
    return cluster


@pytest.fixture
def configured(
    cluster: Cluster, fakepve_cafile: str, monkeypatch: Any, tmp_path: Any
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


def read(result: CallToolResult, seconds: float) -> Answer:
    """A tool's result as an Answer, without the secret and short enough to be read."""
    assert SECRET not in result.model_dump_json()
    (content,) = result.content
    assert len(content.text) <= 40_000
    if result.is_error:
        assert result.structured_content is None
        for name in ("Traceback", "proxmoxer", "urllib3", "HTTPSConnection", "Errno"):
            assert name not in content.text
    is_error, data = bool(result.is_error), result.structured_content
    return Answer(content.text, is_error, data, seconds)


def at_once(calls: list[Any], mode: str = "legacy", **options: Any) -> list[Answer]:
    """Call tools of one server, in process, through a real MCP client, at once."""
    results: dict[int, tuple[CallToolResult, float]] = {}

    async def ask() -> None:
        async with Client(server.mcp, mode=mode) as client:

            async def one(place: int, tool: str, arguments: dict[str, Any]) -> None:
                began = time.monotonic()
                result = await client.call_tool(tool, arguments, **options)
                results[place] = result, time.monotonic() - began

            async with anyio.create_task_group() as group:
                for place, (tool, arguments) in enumerate(calls):
                    group.start_soon(one, place, tool, arguments)

    anyio.run(ask)
    return [read(*results[place]) for place in range(len(calls))]


def caller(mode: str) -> Call:
    return lambda tool, /, **given: at_once([(tool, given)], mode)[0]


@pytest.fixture
def call(configured: dict[str, str]) -> Call:
    """Call one tool, in the era of the protocol that desktop clients speak."""
    return caller("legacy")


@pytest.fixture
def peer(_fakepve_pki: tuple[str, str]) -> Iterator[Start]:
    """Start something on a port that answers each connection in the same way.

    None is silence, "" hangs up, else it is HTTP. Gives its URL and what it was sent.
    """
    end = threading.Event()
    listeners: list[socket.socket] = []

    def serve(listener: Any, raw: bytes | None, tls: Any, sent: list[bytes]) -> None:
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*(_fakepve_pki if tls is True else tls))
        with contextlib.suppress(OSError), listener:
            while one := listener.accept()[0]:
                with contextlib.suppress(OSError):
                    if tls:
                        one = context.wrap_socket(one, server_side=True)
                        sent.append(one.recv(65536))
                    if raw is None:
                        end.wait(5)
                    one.sendall(raw or b"")
                one.close()

    def start(answer: str | None, tls: Any = True) -> tuple[str, list[bytes]]:
        raw = answer
        if answer:
            head, _, body = answer.partition("\n\n")
            if "Length" not in head:
                head += f"\nContent-Length: {len(body)}\nConnection: close"
            raw = head.replace("\n", "\r\n") + "\r\n\r\n" + body
        listeners.append(socket.create_server(("127.0.0.1", 0)))
        url, sent = f"https://127.0.0.1:{listeners[-1].getsockname()[1]}", []
        given = (listeners[-1], None if raw is None else raw.encode(), tls, sent)
        threading.Thread(target=serve, args=given, daemon=True).start()
        return url, sent

    yield start
    end.set()
    for each in listeners:
        each.shutdown(socket.SHUT_RDWR)
