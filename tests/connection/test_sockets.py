"""Test connections that die, start late or are too many, over real ones."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from src import server
from src.connection import sockets, transport
from src.lists import ask_nodes
from tests.cluster import Cluster
from tests.conftest import Answer, Call, Patch
from tests.relay import Relay

LISTS = ["list_infrastructure", "list_machines", "list_storage"]
START = {"vm_id": 106, "node": "pve2"}
Through = Callable[..., Relay]


def is_whole(answer: Answer) -> bool:
    return not answer.is_error and not any("not answer" in note for note in answer.data["notes"])


@pytest.fixture
def through(demo: Cluster, configured: Any, monkeypatch: Patch) -> Iterator[Through]:
    """Point PROXMOX_URL at a relay to the demo's cluster."""
    relays: list[Relay] = []

    def start(host: str = "127.0.0.1", **options: Any) -> Relay:
        relays.append(Relay(demo.pve.port, **options))
        monkeypatch.setenv("PROXMOX_URL", relays[0].url.replace("127.0.0.1", host))
        server.client.forget()
        return relays[0]

    yield start
    for relay in relays:
        relay.close()


class Clocks(SimpleNamespace):
    """Both clocks, ahead of the real ones: after a while awake, or after a laptop's sleep."""

    awake = asleep = 0.0

    def __call__(self) -> tuple[float, float]:
        return time.monotonic() + self.awake, time.time() + self.awake + self.asleep


@pytest.fixture
def clocks(monkeypatch: Patch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(sockets, "_clocks", clocks)
    return clocks


@pytest.mark.parametrize("idle", ["awake", "asleep"])
@pytest.mark.parametrize("end", ["reset", "swallow"])
def test_a_connection_that_died_while_it_was_idle_is_not_used(
    call: Call, through: Through, demo: Cluster, clocks: Clocks, idle: str, end: str
) -> None:
    relay = through()
    for tool in LISTS:
        assert is_whole(call(tool))
    getattr(relay, end)()
    setattr(clocks, idle, 5.0)
    for tool in LISTS:
        answer = call(tool)
        assert is_whole(answer)
        assert answer.seconds < 3
    getattr(relay, end)()
    setattr(clocks, idle, 10.0)
    assert call("start_machine", **START).data["changed"]
    assert len(demo.posts) == 1


def test_a_fresh_connection_is_used_again_and_one_failure_replaces_all(
    call: Call, through: Through, clocks: Clocks
) -> None:
    relay = through()
    for awake in (0, 3, 6):  # seconds, 3 between two answers
        clocks.awake = awake
        server.client().get_nodes()
    assert relay.accepted == 1
    call("list_machines")
    for _ in range(5):
        relay.mine()
        assert is_whole(call("list_machines"))


def test_a_tls_handshake_may_take_longer_than_the_connection(
    call: Call, through: Through, demo: Cluster, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.3)
    through(delay=0.5)
    assert is_whole(call("list_machines"))
    assert call("start_machine", **START).data["changed"]


def test_a_post_is_not_sent_after_its_time(
    call: Call, through: Through, demo: Cluster, monkeypatch: Patch
) -> None:
    """A name may take long to resolve, or a server to greet."""
    monkeypatch.setattr("src.power.action.POWER_TIMEOUT", 1.0)
    through("localhost")
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "false")
    ask = transport.Transport.ask

    def resolve_late(*given: Any, **options: Any) -> Any:
        if given[1].method == "POST":
            monkeypatch.setattr(sockets, "resolve", lambda *a: time.sleep(1.2) or resolve(*a))
            given[0]._trust.withdraw()
        return ask(*given, **options)

    resolve = sockets.resolve
    monkeypatch.setattr(transport.Transport, "ask", resolve_late)
    answer = call("start_machine", **START)
    assert "Nothing was done" in answer.text
    assert demo.posts == []


def test_a_name_that_no_server_resolves_is_not_waited_for(
    call: Call, through: Through, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.3)
    through("localhost")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3) or [])
    answer = call("start_machine", **START)
    assert "because no DNS server answers" in answer.text
    assert answer.seconds < 2


@pytest.mark.parametrize("drops", [50, 8])
def test_an_answer_that_drips_ends_at_its_deadline(
    call: Call, demo: Cluster, monkeypatch: Patch, drops: int
) -> None:
    monkeypatch.setattr("src.power.action.LOOK_TIMEOUT", 1.0)

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        for _ in range(drops):
            await response.write(b" ")
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        return response

    raw: Any = demo.raw
    raw["/cluster/resources"] = drip
    answer = call("start_machine", **START)
    assert "no answer within 1 s" in answer.text
    assert answer.seconds < 3


# --- A name with several addresses ----------------------------------------------------


@pytest.mark.parametrize("order", ["sdr", "drs", "rds"])
def test_a_dead_address_of_a_name_is_not_waited_for(
    call: Call, through: Through, unanswering: Any, monkeypatch: Patch, order: str
) -> None:
    relay = through("localhost")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = listener.getsockname()
    places = {"s": unanswering, "r": refusing, "d": ("127.0.0.1", relay.port)}
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", places[each]) for each in order]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(found))
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "false")
    first = call("list_machines")
    assert is_whole(first)
    assert first.seconds < 2
    slow = []

    def count(*given: Any) -> Any:
        slow.append(given)
        return begin(*given)

    begin = sockets._begin
    monkeypatch.setattr(sockets, "_begin", count)
    relay.reset()
    answer = call("list_machines")
    assert is_whole(answer)
    assert {given[1][-1] for given in slow} == {places["d"]}


def test_a_names_address_that_hangs_after_accepting_is_left_for_the_next(
    call: Call, through: Through, monkeypatch: Patch
) -> None:
    relay = through("localhost")
    monkeypatch.setattr(ask_nodes, "LIST_TIMEOUT", 3.0)
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "false")
    with socket.create_server(("127.0.0.1", 0), backlog=100) as hung:
        places = (hung.getsockname(), ("127.0.0.1", relay.port))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(found))
        assert is_whole(call("list_machines"))
        answer = call("list_machines")
        assert is_whole(answer)
        assert answer.seconds < 0.9


def test_a_names_address_that_begins_to_hang_is_left_for_the_next(
    call: Call, through: Through, monkeypatch: Patch
) -> None:
    first = through("localhost")
    second = Relay(first._target)
    monkeypatch.setattr(ask_nodes, "LIST_TIMEOUT", 3.0)
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "false")
    places = [("127.0.0.1", relay.port) for relay in (first, second)]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(found))
    assert is_whole(call("list_machines"))
    first.delay = 5
    first.reset()
    assert is_whole(call("list_machines"))
    second.reset()
    answer = call("list_machines")
    second.close()
    assert is_whole(answer)
    assert answer.seconds < 0.9


def test_a_name_without_an_address_that_accepts_is_an_error(
    call: Call, through: Through, unanswering: Any, monkeypatch: Patch
) -> None:
    through("localhost")
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.5)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", unanswering)] * 2
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(found))
    assert "no connection within" in call("list_machines").text


# --- A front with a limit -------------------------------------------------------------


@pytest.mark.parametrize(("status", "headers"), [(503, {}), (429, {}), (503, {"Retry-After": "1"})])
def test_a_list_is_whole_if_a_proxy_allows_few_requests_at_once(
    call: Call, demo: Cluster, status: int, headers: dict[str, str]
) -> None:
    running, refused, original = 0, 0, demo._original

    async def limit(*given: Any) -> web.Response:
        nonlocal running, refused
        if running >= 2:
            refused += 1
            return web.Response(status=status, headers=headers, text="<html>")
        running += 1
        await asyncio.sleep(0.03)
        response: web.Response = await original(*given)
        running -= 1
        return response

    demo._original = limit
    for tool in LISTS:
        assert is_whole(call(tool))
    assert refused


@pytest.mark.parametrize("status", [503, 429])
def test_a_proxy_that_never_has_time_is_named(
    call: Call, demo: Cluster, monkeypatch: Patch, status: int
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>")

    monkeypatch.setattr(ask_nodes, "LIST_TIMEOUT", 1.4)
    demo.raw = dict.fromkeys(("/nodes", "/nodes/pve2/qemu", "/cluster/resources"), refuse)
    words = f"has too many requests at once ({status})"
    assert words in call("list_machines").text
    assert 3 <= len([path for _, path in demo.sent if path.endswith("/nodes")]) <= 8
    del demo.raw["/nodes"]
    assert words in call("list_machines").text
    demo.raw = {"/nodes/pve2/qemu/106/status/start": refuse}
    answer = call("start_machine", **START)
    assert words in answer.text
    assert "nothing was done" in answer.text
    assert len(demo.posts) == 1
