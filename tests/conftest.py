"""Provide the fake cluster, calls through a real MCP client, and a check for the secret."""

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
from src.connection.route import BUNDLES
from src.lists import answers
from src.stdio import STDERR
from tests.cluster import SECRET, Cluster, furnish


@dataclass
class Answer:
    """Hold what a tool call returned: the text that the model reads, and the rest."""

    text: str
    is_error: bool
    data: dict[str, Any]
    seconds: float


Patch = pytest.MonkeyPatch
Call = Callable[..., Answer]
Start = Callable[..., tuple[str, list[bytes]]]

# What these assert is shown in full, too.
pytest.register_assert_rewrite("tests.golden", "tests.process", "tests.replay")

# A busy machine must not fail a test.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


# Its thread would write the audit lines of calls in this process between pytest's own lines.
logging.getLogger().removeHandler(STDERR)


def pytest_configure(config: pytest.Config) -> None:
    """Ignore what is not ours: a warning that proxmoxer turns off, and pytest on again, and
    what asyncio meets when a fake closes with requests that hang, since Python 3.12.
    """
    config.addinivalue_line("filterwarnings", "ignore:Unverified HTTPS request")
    closing = "ignore:.*_SelectorTransport.__del__:pytest.PytestUnraisableExceptionWarning"
    config.addinivalue_line("filterwarnings", closing)


def pytest_unconfigure() -> None:
    """Silence the requests to the fake that still hang at the end."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    """Run the test in both eras of the protocol: 2026-07-28, and the desktop clients' one."""
    return request.param


@pytest.fixture(autouse=True)
def _no_output_contains_the_secret(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Search stdout, stderr and logs of every test, and of its server processes."""
    yield
    logged = (record.getMessage() for record in caplog.get_records("call"))
    assert SECRET not in "".join([*capfd.readouterr(), *logged])


@pytest.fixture(autouse=True)
def _no_env_file_of_the_project(monkeypatch: Patch) -> None:
    monkeypatch.setattr("src.config.env_file.PROJECT", "/no/project")


@pytest.fixture(autouse=True)
def _no_proxy_or_bundle_from_outside(monkeypatch: Patch) -> None:
    """Ignore proxies and CA bundles in the environment of the tests."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in (*BUNDLES, "SSLKEYLOGFILE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cluster(fakepve: Any) -> Iterator[Cluster]:
    """Provide an empty cluster of one node, pve1, and reject requests that change anything."""
    cluster = Cluster(fakepve)
    # Otherwise a test with a hanging request takes 30 s to tear down.
    fakepve.runner._shutdown_timeout = 0.1
    yield cluster
    actions = tuple(f"/status/{name}" for name in ("start", "stop", "shutdown", "reboot"))
    for method, path in cluster.sent:
        assert method == "GET" or (method == "POST" and path.endswith(actions)), path


@pytest.fixture
def demo(cluster: Cluster) -> Cluster:
    """Provide the demo's cluster: three nodes, one offline, with one of everything."""
    furnish(cluster.pve)
    return cluster


@pytest.fixture
def configured(
    cluster: Cluster, fakepve_cafile: str, monkeypatch: Any, tmp_path: Any
) -> Iterator[dict[str, str]]:
    """Point the environment at the fake cluster; no .env is read."""
    monkeypatch.chdir(tmp_path)
    environ = cluster.environ(fakepve_cafile)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    server.client.forget()
    yield environ
    server.client.forget()


@pytest.fixture
def proxmox(configured: dict[str, str]) -> ProxmoxClient:
    """Provide the client alone, over HTTPS."""
    return ProxmoxClient(Settings.from_env(configured))


def read(result: CallToolResult, seconds: float) -> Answer:
    """Return a tool's result as an Answer; check its length, and that it has no secret."""
    assert SECRET not in result.model_dump_json()
    (content,) = result.content
    assert len(content.text) <= answers.MAX_TEXT
    if result.is_error:
        assert result.structured_content is None
        for name in ("Traceback", "proxmoxer", "urllib3", "HTTPSConnection", "Errno"):
            assert name not in content.text
    is_error, data = bool(result.is_error), result.structured_content
    return Answer(content.text, is_error, data, seconds)


def at_once(calls: list[Any], mode: str = "legacy", **options: Any) -> list[Answer]:
    """Call tools of one in-process server concurrently, through a real MCP client."""
    results: dict[int, tuple[CallToolResult, float]] = {}

    async def ask() -> None:
        async with Client(server.mcp, mode=mode) as client:

            async def call(index: int, tool: str, arguments: dict[str, Any]) -> None:
                start = time.monotonic()
                result = await client.call_tool(tool, arguments, **options)
                results[index] = result, time.monotonic() - start

            async with anyio.create_task_group() as group:
                for index, (tool, arguments) in enumerate(calls):
                    group.start_soon(call, index, tool, arguments)

    anyio.run(ask)
    return [read(*results[index]) for index in range(len(calls))]


def caller(mode: str) -> Call:
    return lambda tool, /, **given: at_once([(tool, given)], mode)[0]


@pytest.fixture
def call(configured: dict[str, str]) -> Call:
    """Call one tool, in the protocol era that desktop clients speak."""
    return caller("legacy")


@pytest.fixture
def peer(_fakepve_pki: tuple[str, str]) -> Iterator[Start]:
    """Start servers that give each connection the same answer; return URL and requests.

    The answer None is silence, "" closes the connection, anything else is sent as HTTP.
    """
    end = threading.Event()
    listeners: list[socket.socket] = []

    def serve(listener: Any, raw: bytes | None, tls: Any, sent: list[bytes]) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        if tls:
            context.load_cert_chain(*(_fakepve_pki if tls is True else tls))

        def answer(connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                if tls:
                    connection = context.wrap_socket(connection, server_side=True)
                    sent.append(connection.recv(65536))
                if raw is None:
                    end.wait(5)
                connection.sendall(raw or b"")
            connection.close()

        with contextlib.suppress(OSError), listener:
            while connection := listener.accept()[0]:
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def start(answer: str | None, tls: Any = True) -> tuple[str, list[bytes]]:
        raw = answer
        if answer:
            head, _, body = answer.partition("\n\n")
            if "Length" not in head:
                head += f"\nContent-Length: {len(body)}\nConnection: close"
            raw = head.replace("\n", "\r\n") + "\r\n\r\n" + body
        listeners.append(socket.create_server(("127.0.0.1", 0)))
        url, sent = f"https://127.0.0.1:{listeners[-1].getsockname()[1]}", []
        arguments = (listeners[-1], None if raw is None else raw.encode(), tls, sent)
        threading.Thread(target=serve, args=arguments, daemon=True).start()
        return url, sent

    yield start
    end.set()
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def unanswering() -> Iterator[Any]:
    """Provide an address that neither accepts nor refuses: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()
        for filler in fillers:
            filler.close()
