"""Test several addresses in PROXMOX_URL, each of a node of one cluster, over real connections.

The nodes are fakes with a state of their own, so a POST is counted where it was sent.
"""

import asyncio
import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fakepve.pytest_plugin import _serve

from src import server
from src.cli import check
from src.connection import addresses, sockets, transport
from src.connection.addresses import time_share
from src.connection.deadline import within
from src.connection.no_answer import NoAnswer
from src.lists import ask_nodes
from src.power import action
from src.proxmox import entry_nodes
from tests.certificates import Authority
from tests.cluster import Cluster, Row, drop, furnish
from tests.conftest import Answer, Call, Patch, Start, at_once
from tests.relay import Relay

LISTS = ["list_infrastructure", "list_machines", "list_storage"]
COUNTS = {"list_infrastructure": 3, "list_machines": 11, "list_storage": 8}
START = {"vm_id": 106, "node": "pve2"}
Connect = Callable[..., None]


@pytest.fixture
def nodes(_fakepve_pki: tuple[str, str]) -> Iterator[list[Cluster]]:
    """Provide three nodes of the demo's cluster, each with its own address."""
    options = {"user": "root@pam", "password": "secret", "time_scale": 0}
    serving = [_serve(options, _fakepve_pki) for _ in range(3)]
    nodes = [Cluster(each.pve) for each in serving]
    for node in nodes:
        furnish(node.pve)
        node.pve.runner._shutdown_timeout = 0.1
    yield nodes
    for each in serving:
        each.stop()


@pytest.fixture
def connect(configured: Row, monkeypatch: Patch) -> Connect:
    """Set PROXMOX_URL to these addresses. A node stands for its own."""

    def connect(*places: Cluster | str) -> None:
        urls = [each if isinstance(each, str) else each.pve.url for each in places]
        monkeypatch.setenv("PROXMOX_URL", ", ".join(urls))
        server.client.forget()

    return connect


@pytest.fixture
def impatient(monkeypatch: Patch) -> None:
    """Let lists wait 1.6 s instead of 10, power actions 2 s, and one of their requests 0.5 s."""
    monkeypatch.setattr("src.client.STORAGE_TIMEOUT", 1.6)
    monkeypatch.setattr(action, "LOOK_TIMEOUT", 2.0)
    monkeypatch.setattr(entry_nodes, "CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr(ask_nodes, "LIST_TIMEOUT", 1.6)
    monkeypatch.setattr(addresses, "ATTEMPT_TIMEOUT", 0.5)


def is_whole(tool: str, answer: Answer) -> bool:
    assert not answer.is_error, answer.text
    rows = answer.data[{"list_infrastructure": "nodes"}.get(tool, tool[5:].replace("age", "ages"))]
    quiet = not any("did not answer" in note for note in answer.data["notes"])
    return len(rows) == COUNTS[tool] and quiet


DEATHS = (
    "refuses",
    "does not accept",
    "is silent",
    "is silent after TLS",
    "breaks off",
    "is another",
)


@pytest.fixture(params=DEATHS)
def dead(request: pytest.FixtureRequest, peer: Start, tmp_path: Path, unanswering: Any) -> str:
    """Provide an address that accepts no request, or answers none."""
    if request.param == "refuses":
        relay = Relay(1)
        relay.close()
        return relay.url
    if request.param == "does not accept":
        return f"https://127.0.0.1:{unanswering[1]}"
    if request.param == "is another":
        return peer("", Authority(tmp_path).server())[0]
    answer, tls = {
        "is silent": (None, False),
        "is silent after TLS": (None, True),
        "breaks off": ("", True),
    }[request.param]
    return peer(answer, tls)[0]


@pytest.mark.parametrize("tool", ["list_infrastructure", "list_storage"])
def test_a_list_is_whole_if_the_first_address_does_not_answer(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None, dead: str, tool: str
) -> None:
    connect(dead, nodes[0])
    first, second = call(tool), call(tool)
    assert is_whole(tool, first)
    assert is_whole(tool, second)
    assert second.seconds < 1


def test_a_start_is_sent_once_through_the_address_that_answers(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None, dead: str
) -> None:
    connect(dead, nodes[0])
    assert call("start_machine", **START).data["changed"]
    assert nodes[0].posts == ["/pve2/qemu/106/status/start"]
    attention = call("list_infrastructure").data["attention"]
    (line,) = (line for line in attention if dead in line)
    assert line.startswith((f"{dead} does not answer (", f"{dead} cannot be used ("))
    assert f"); asked through {nodes[0].pve.url}. " in line


def test_an_address_is_asked_last_while_it_hangs_and_first_again_if_the_other_fails(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None
) -> None:
    relay = Relay(nodes[1].pve.port)
    connect(nodes[0], relay.url)
    paths = ["/nodes", "/cluster/resources", "/cluster/status", "/cluster/tasks"]
    nodes[0].delay = dict.fromkeys(paths, 5)
    assert call("list_machines").data["total"] == 11
    assert server.client().addresses.entries[0].hangs  # before its requests end
    nodes[0].sent.clear()
    assert call("list_machines").data["total"] == 11
    assert nodes[0].sent == []
    nodes[0].delay.clear()
    assert not any(
        "asked through" in line for line in call("list_infrastructure").data["attention"]
    )
    nodes[0].sent.clear()
    assert call("list_machines").data["total"] == 11
    assert nodes[0].sent == []  # the one that answered last
    relay.close()
    assert call("list_machines").data["total"] == 11
    assert nodes[0].sent


def close_before_the_post(relay: Relay, monkeypatch: Patch) -> None:
    """Let the first address, which the relay leads to, die just before a POST is sent to it."""
    first = server.client().addresses.entries[0].transport
    ask = first.ask

    def die(request: Any, connect: float, **options: Any) -> Any:
        if request.method == "POST":
            relay.close()
        return ask(request, connect, **options)

    monkeypatch.setattr(first, "ask", die)


@pytest.mark.parametrize("death", ["refuses", "breaks off before TLS"])
def test_an_action_is_sent_elsewhere_if_its_address_dies_just_before(
    call: Call,
    connect: Connect,
    nodes: list[Cluster],
    peer: Start,
    monkeypatch: Patch,
    death: str,
) -> None:
    relay = Relay(nodes[0].pve.port)
    broken = int(peer("", tls=False)[0].rpartition(":")[2])

    def break_off() -> None:
        relay._target = broken
        server.client().addresses.entries[0].transport._trust.withdraw()

    connect(relay.url, nodes[1])
    if death != "refuses":
        monkeypatch.setattr(relay, "close", break_off)
    close_before_the_post(relay, monkeypatch)
    assert call("start_machine", **START).data["changed"]
    assert [len(node.posts) for node in nodes] == [0, 1, 0]


def test_an_action_passes_by_an_address_that_does_not_tell_its_cluster(
    call: Call,
    connect: Connect,
    nodes: list[Cluster],
    peer: Start,
    impatient: None,
    monkeypatch: Patch,
) -> None:
    """It got nothing but a question, so nothing was done unless a further address does it."""
    monkeypatch.setattr(action, "POWER_TIMEOUT", 3.0)
    for others in ([], [nodes[1]]):
        relay = Relay(nodes[0].pve.port)
        connect(relay.url, peer(None, True)[0], *others)
        close_before_the_post(relay, monkeypatch)
        answer = call("start_machine", **START)
        assert ("Nothing was done" in answer.text) == (not others)
        assert [len(node.posts) for node in nodes] == [0, len(others), 0]


def test_a_post_that_breaks_off_meanwhile_is_sent_to_no_other_address(
    call: Call, connect: Connect, nodes: list[Cluster], monkeypatch: Patch
) -> None:
    """Its end does not leave this computer, but Proxmox may act on what did."""
    connect(*nodes)
    first = server.client().addresses.entries[0].transport
    ask, send = first.ask, sockets.HTTPSConnection.request

    def connect_anew(request: Any, connect: float, **options: Any) -> Any:
        if request.method == "POST":
            first._trust.withdraw()
        return ask(request, connect, **options)

    def break_off(connection: Any, method: str, *given: Any, **options: Any) -> None:
        send(connection, method, *given, **options)
        if method == "POST":
            raise ConnectionResetError

    monkeypatch.setattr(first, "ask", connect_anew)
    monkeypatch.setattr(sockets.HTTPSConnection, "request", break_off)
    answer = call("start_machine", **START)
    assert answer.is_error
    assert "Nothing was done" not in answer.text
    assert nodes[1].posts == nodes[2].posts == []


@pytest.mark.parametrize("failure", ["drop", "hang", "hang and leave time", "595", "503", "500"])
def test_a_post_that_may_have_been_sent_is_sent_to_no_other_address(
    call: Call, connect: Connect, nodes: list[Cluster], monkeypatch: Patch, failure: str
) -> None:
    monkeypatch.setattr(action, "POWER_TIMEOUT", 1.0)
    if failure == "hang and leave time":
        monkeypatch.setattr(action, "POWER_TIMEOUT", 3.0)
        monkeypatch.setattr(transport, "READ_TIMEOUT", 1.0)
    connect(*nodes)
    path = "/nodes/pve2/qemu/106/status/start"
    if failure.startswith("hang"):
        nodes[0].delay[path] = 5
    elif failure == "drop":
        nodes[0].raw[path] = drop
    else:
        nodes[0].pve.fail("POST", path, int(failure), "No route to host")
    assert call("start_machine", **START).is_error
    assert [len(node.posts) for node in nodes] == [1, 0, 0]
    nodes[0].sent.clear()
    call("list_machines")
    is_asked = ("GET", "/api2/json/nodes") in nodes[0].sent
    assert is_asked != failure.startswith(("hang", "drop"))  # that is asked last


def test_a_slow_post_is_waited_for(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None
) -> None:
    """A request that hangs after the look was fine is not: it uses no more than its share."""
    connect(*nodes)
    nodes[0].delay["/nodes/pve2/qemu/106/status/start"] = 1.0
    nodes[0].delay["/nodes/pve2/qemu/106/status/current"] = 5
    assert call("start_machine", **START).data["changed"]
    assert [len(node.posts) for node in nodes] == [0, 1, 0]
    nodes[0].delay.pop("/nodes/pve2/qemu/106/status/current")
    connect(*nodes)
    assert call("start_machine", **START).data["changed"]
    assert [len(node.posts) for node in nodes] == [1, 1, 0]


def test_requests_alone_go_on_from_address_to_address(
    connect: Connect, nodes: list[Cluster], peer: Start
) -> None:
    dead, broken = Relay(1), peer("HTTP/1.1 200 OK\nContent-Length: 100\n\nx")[0]
    dead.close()
    connect(dead.url, broken, nodes[0])
    for _ in range(2):
        assert len(server.client().get_nodes()) == 3
    assert server.client().addresses.in_order()[0].url == nodes[0].pve.url


def test_a_request_is_sent_to_each_address_once(connect: Connect, nodes: list[Cluster]) -> None:
    connect(*nodes[:2])
    nodes[0].raw["/nodes"] = nodes[1].raw["/nodes"] = drop
    with pytest.raises(NoAnswer):
        server.client().get_nodes()
    for node in nodes[:2]:
        assert [path for _, path in node.sent].count("/api2/json/nodes") == 1


def test_a_post_leaves_time_for_the_next_address(
    connect: Connect, nodes: list[Cluster], impatient: None, unanswering: Any
) -> None:
    connect(f"https://127.0.0.1:{unanswering[1]}", nodes[0])
    api = server.client()._api
    with within(4):
        api.post(api.root.nodes("pve2").qemu(106).status.start, "pve2")
    assert len(nodes[0].posts) == 1


def test_only_an_address_that_may_hang_is_asked_last(
    connect: Connect, nodes: list[Cluster]
) -> None:
    connect(*nodes)
    client = server.client()
    first, *others = client.addresses.entries
    first.failed(NoAnswer("", "", "refused", "connection refused"))
    assert client.addresses.in_order() == [first, *others]
    first.failed(NoAnswer("", "", "timeout", "no answer"))
    assert client.addresses.in_order() == [*others, first]


def test_time_is_left_for_each_address() -> None:
    with within(6):
        assert 1.9 < time_share(2) <= 2
        assert time_share(0) == math.inf


@pytest.mark.parametrize(
    ("status", "words"), [(401, "rejects"), (403, "lacks"), (500, "broken"), (200, "not as a")]
)
def test_an_answer_leads_to_no_other_address(
    call: Call, connect: Connect, nodes: list[Cluster], status: int, words: str
) -> None:
    async def respond(_: web.Request) -> web.Response:
        if status == 200:
            return web.Response(text="<html>Please log in</html>")
        message = "broken (/nodes, Sys.Audit)"
        return web.json_response({"data": None, "message": message}, status=status, reason="x")

    paths = ("/nodes", "/cluster/resources", "/cluster/status")
    nodes[0].raw = dict.fromkeys(paths, respond)
    connect(*nodes)
    for tool in LISTS:
        assert words in call(tool).text
    assert words in call("start_machine", **START).text
    assert nodes[1].sent == nodes[2].sent == []


def test_an_error_names_each_address_with_its_cause(
    call: Call, connect: Connect, peer: Start, impatient: None
) -> None:
    refusing, silent = Relay(1), peer(None, True)[0]
    refusing.close()
    connect(refusing.url, silent)
    for tool, given in (("list_machines", {}), ("start_machine", START)):
        text = call(tool, **given).text
        assert f"{refusing.url}: connection refused" in text
        assert "any other node" not in text
        assert re.search(f"{silent}: (no answer|it accepts connections, but .*) within", text)
        assert len(text) < 600


@pytest.mark.parametrize("tool", LISTS)
def test_a_list_is_whole_if_its_node_dies_meanwhile(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None, tool: str
) -> None:
    relay = Relay(nodes[0].pve.port)

    async def die(_: web.Request) -> web.Response:
        relay.close()
        await asyncio.sleep(0.2)
        return web.Response()

    nodes[0].raw = {f"/nodes/pve2/{what}": die for what in ("qemu", "storage", "status")}
    connect(relay.url, nodes[1])
    assert is_whole(tool, call(tool))
    line = f"{relay.url} does not answer (connection refused); asked through {nodes[1].pve.url}."
    assert line in call("list_infrastructure").text


def test_no_list_has_answers_of_two_addresses(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None
) -> None:
    for number, node in enumerate(nodes):
        for vm_id in (300 + number, 310 + number):
            node.pve.add_vm(vm_id, f"only-{number}", node="pve2")
        node.pve._random = Sometimes(number)
        node.pve.flaky_network(drop_rate=0.5)
    connect(*nodes)
    for _ in range(10):
        answer = call("list_machines")
        if not answer.is_error:
            ids = [each["vm_id"] for each in answer.data["machines"]]
            assert len({vm_id % 10 for vm_id in ids if 300 <= vm_id < 400}) <= 1


class Sometimes(random.Random):
    """Drop about half of the requests, always the same ones."""


@pytest.mark.parametrize("tool", LISTS)
def test_slow_nodes_are_waited_for_through_the_address_that_answers(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None, tool: str
) -> None:
    """The next address is asked beside it, but the first may still be the first."""
    paths = {"list_infrastructure": "status", "list_storage": "storage"}
    slow = paths.get(tool, "qemu")
    for node in nodes:
        node.delay = {f"/nodes/{name}/{slow}": 1.1 for name in ("pve1", "pve2")}
    connect(*nodes)
    reports: list[Any] = []

    async def report(*given: Any) -> None:
        reports.append(given)

    (answer,) = at_once([(tool, {})], progress_callback=report)
    assert is_whole(tool, answer)
    assert bool(reports) == (tool == "list_storage")


def test_a_request_that_hangs_behind_one_address_is_answered_by_another(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None
) -> None:
    nodes[0].delay = {"/nodes/pve2/qemu": 5, "/nodes/pve2/status": 5}
    connect(*nodes[:2])
    for tool in ("list_machines", "list_infrastructure"):
        assert is_whole(tool, call(tool))


def test_an_address_is_not_blamed_for_a_node_behind_it_that_hangs(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None
) -> None:
    nodes[0].delay["/nodes/pve2/qemu"] = nodes[1].delay["/nodes/pve2/qemu"] = 5
    for places in (nodes[:2], [nodes[0], nodes[2]]):
        connect(*places)
        call("list_machines")
        assert not any(entry.hangs for entry in server.client().addresses.entries)


def test_a_dropped_request_is_repeated_before_another_address_is_asked(
    call: Call, connect: Connect, nodes: list[Cluster]
) -> None:
    async def drop_once(request: web.Request) -> web.Response:
        nodes[0].raw.clear()
        return await drop(request)

    nodes[0].raw["/nodes/pve2/qemu"] = drop_once
    connect(*nodes)
    assert is_whole("list_machines", call("list_machines"))
    assert nodes[0].raw == {}
    assert nodes[1].sent == nodes[2].sent == []


def test_an_address_that_refuses_is_not_waited_for(
    call: Call, connect: Connect, nodes: list[Cluster]
) -> None:
    dead = Relay(1)
    dead.close()
    connect(dead.url, nodes[0])
    answer = call("list_machines")
    assert is_whole("list_machines", answer)
    assert answer.seconds < 4  # it had 5


def test_a_slow_address_is_waited_for_if_the_other_one_refuses(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None
) -> None:
    nodes[0].delay["/nodes"] = 1.1
    dead = Relay(1)
    dead.close()
    connect(nodes[0], dead.url)
    for _ in range(2):
        assert is_whole("list_machines", call("list_machines"))


def test_a_limit_leads_to_no_other_address(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=503, text="<html>")

    nodes[0].raw = dict.fromkeys(("/nodes", "/cluster/resources", "/cluster/status"), refuse)
    connect(*nodes)
    for tool in LISTS:
        assert "has too many requests at once (503)" in call(tool).text
    assert nodes[1].sent == nodes[2].sent == []


# --- A node that is cut off -----------------------------------------------------------


def cut_off(node: Cluster) -> None:
    """Let a node answer as one that has lost the others: no quorum, and they are offline."""

    def status(rows: list[Row]) -> list[Row]:
        return [row | ({"quorate": 0} if row["type"] == "cluster" else {}) for row in rows]

    def offline(rows: list[Row]) -> list[Row]:
        lost = ("pve2", "pve3")
        return [
            r | {"status": "offline"} if r.get("node") in lost and r["type"] == "node" else r
            for r in rows
        ]

    node.edit |= {"/cluster/status": status, "/nodes": offline, "/cluster/resources": offline}


@pytest.mark.parametrize("tool", LISTS)
def test_a_node_that_is_cut_off_is_not_believed(
    call: Call, connect: Connect, nodes: list[Cluster], tool: str
) -> None:
    for node in nodes:  # of two of four nodes, neither half has quorum
        node.pve.add_node("pve4")
    connect(nodes[1])
    expected = call(tool).data["notes"]
    cut_off(nodes[0])
    connect(*nodes)
    answer = call(tool)
    assert answer.data["notes"] == expected
    assert "NO QUORUM" not in answer.text
    line = f"{nodes[0].pve.url} is cut off from the cluster (no quorum); asked through "
    assert line in call("list_infrastructure").text


def test_a_node_with_quorum_is_believed_though_half_of_them_are_offline(
    call: Call, connect: Connect, nodes: list[Cluster]
) -> None:
    for node in nodes:
        node.pve.add_node("pve4", online=False)
    connect(*nodes)
    assert is_whole("list_machines", call("list_machines"))
    assert nodes[1].sent == nodes[2].sent == []


@pytest.mark.parametrize("tool", ["start_machine", "stop_machine", "reboot_machine"])
def test_a_power_action_goes_through_a_node_with_quorum(
    call: Call, connect: Connect, nodes: list[Cluster], tool: str
) -> None:
    cut_off(nodes[0])
    cut_off(nodes[1])
    nodes[2].delay["/cluster/status"] = 0.2  # the first to answer has none either
    connect(*nodes)
    machine = {"vm_id": 101 if tool != "start_machine" else 106, "node": "pve2"}
    assert call(tool, **machine).data["changed"]
    assert [len(node.posts) for node in nodes] == [0, 0, 1]


def test_no_quorum_is_told_if_no_address_has_it(
    call: Call, connect: Connect, nodes: list[Cluster]
) -> None:
    for node in nodes:
        cut_off(node)
    dead = Relay(1)
    dead.close()
    connect(*nodes, dead.url)
    text = call("list_infrastructure").text
    assert "NO QUORUM" in text
    assert text.count("asked through") == 1  # of the one that does not answer
    assert "no quorum" in call("reboot_machine", vm_id=100, node="pve1").text
    assert not any(node.posts for node in nodes)


@pytest.mark.parametrize("tool", ["list_machines", "list_storage"])
def test_whether_an_address_has_quorum_does_not_fail_a_list(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None, tool: str
) -> None:
    cut_off(nodes[0])
    nodes[0].delay["/cluster/status"] = 5
    dead = Relay(1)
    dead.close()
    connect(nodes[0], dead.url)
    for _ in range(2):
        assert not call(tool).is_error


# --- One address, and addresses of different clusters ---------------------------------


def test_check_tells_each_address(
    connect: Connect, nodes: list[Cluster], capfd: pytest.CaptureFixture[str]
) -> None:
    dead = Relay(1)
    dead.close()

    def checked(*places: Cluster | str) -> tuple[bool, str]:
        connect(*places)
        return check(["list_machines"]), capfd.readouterr().out

    well, text = checked(*nodes[:2])
    assert well
    for node in nodes[:2]:
        assert f"{node.pve.url} answered in " in text
    assert text.count("a certificate for") == text.count(", its clock shows ") == 2
    assert text.count("Cluster demo (pve1, pve2, pve3)") == 2
    well, text = checked(dead.url, nodes[0])
    assert not well
    assert f"ERROR: Cannot talk to {dead.url}" in text
    assert "11 machines" in text
    nodes[2].pve.cluster_name = "other"
    well, text = checked(nodes[0], nodes[2])
    assert not well
    assert "ERROR: the addresses in PROXMOX_URL are not of one cluster" in text
    nodes[2].pve.cluster_name = "demo"
    nodes[2].pve.add_node("pve9")
    assert not checked(nodes[0], nodes[2])[0]


@pytest.mark.parametrize("tool", [*LISTS, "start_machine"])
def test_an_address_of_another_cluster_is_not_asked(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None, tool: str
) -> None:
    nodes[1].pve.cluster_name = "other"
    relay = Relay(nodes[0].pve.port)
    connect(relay.url, nodes[1])
    assert not call("list_machines").is_error
    relay.close()
    answer = call(tool, **(START if tool == "start_machine" else {}))
    assert f"{nodes[1].pve.url} belongs to a different cluster" in answer.text
    assert nodes[1].posts == []


def be_another(node: Cluster, by: str) -> None:
    """Let a node answer as one of another cluster, which differs by this."""

    def rename(rows: list[Row]) -> list[Row]:
        keys = {"name", "node"}
        renamed = [{key: f"x-{row[key]}" for key in keys & set(row)} for row in rows]
        return [r | (n if r["type"] == "node" else {}) for r, n in zip(rows, renamed, strict=True)]

    if by == "its name":
        node.pve.cluster_name = "other"
    else:
        node.edit |= {"/cluster/status": rename, "/nodes": rename}


@pytest.mark.parametrize("by", ["its name", "its nodes", "its nodes, all that may be read"])
def test_an_action_does_not_change_to_another_cluster(
    call: Call, connect: Connect, nodes: list[Cluster], monkeypatch: Patch, by: str
) -> None:
    """Its machine may have a namesake there."""
    be_another(nodes[1], by)
    if by.endswith("may be read"):
        for node in nodes:
            node.pve.fail("GET", "/cluster/status", 403, "Permission check failed (/, Sys.Audit)")
    relay = Relay(nodes[0].pve.port)
    connect(relay.url, nodes[1])
    close_before_the_post(relay, monkeypatch)
    assert "Nothing was done" in call("start_machine", **START).text
    assert nodes[0].posts == nodes[1].posts == []


@pytest.mark.parametrize("tool", LISTS)
def test_a_node_that_is_cut_off_is_believed_rather_than_another_cluster(
    call: Call, connect: Connect, nodes: list[Cluster], tool: str
) -> None:
    cut_off(nodes[0])
    connect(nodes[0])
    expected = call(tool).data["notes"]
    nodes[1].pve.cluster_name = "other"
    connect(*nodes[:2])
    for _ in range(2):
        assert call(tool).data["notes"] == expected


def test_an_address_that_failed_is_not_taken_for_one_of_another_cluster(
    call: Call, connect: Connect, nodes: list[Cluster], impatient: None
) -> None:
    nodes[1].pve.cluster_name = "other"
    connect(*nodes[:2])
    assert not call("list_machines").is_error
    nodes[0].raw = dict.fromkeys(("/nodes", "/cluster/resources", "/cluster/status"), drop)
    assert f"{nodes[1].pve.url} belongs to a different cluster" in call("list_machines").text
    nodes[0].raw.clear()
    for _ in range(2):  # the first one asks it again for its cluster
        assert is_whole("list_infrastructure", call("list_infrastructure"))


def test_a_post_goes_to_no_address_whose_cluster_is_unknown(
    call: Call, connect: Any, nodes: Any, monkeypatch: Patch
) -> None:
    nodes[1].pve.cluster_name = "other"
    nodes[1].pve.fail("GET", "/cluster/status", 500, "ipcc_send_rec[1] failed")
    relay = Relay(nodes[0].pve.port)
    connect(relay.url, nodes[1])
    close_before_the_post(relay, monkeypatch)
    answer = call("start_machine", **START)
    assert "does not tell its cluster" in answer.text
    assert "Nothing was done" in answer.text
    assert nodes[1].posts == []
