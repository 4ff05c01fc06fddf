"""Test that lists of a cluster in trouble are complete and in time, where no recording shows it."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from src.client import ProxmoxClient
from src.connection.transport import MAX_REQUESTS
from src.lists import ask_nodes
from tests.cluster import SECRET, TOKEN, Cluster, Row
from tests.conftest import Answer, Call, Patch, at_once
from tests.process import wait_for

LISTS = ["list_infrastructure", "list_machines", "list_storage"]


@pytest.fixture
def impatient(monkeypatch: Patch) -> None:
    """Let a list wait 0.8 s for a node instead of 10."""
    monkeypatch.setattr(ask_nodes, "LIST_TIMEOUT", 1.4)


def machines(answer: Answer) -> dict[int, Row]:
    return {each["vm_id"]: {"live": True} | each for each in answer.data["machines"]}


def notes(answer: Answer) -> list[str]:
    """Return the notes after the tally."""
    found: list[str] = answer.data["notes"][1:]
    return found


def not_live(answer: Answer) -> list[int]:
    """Return the machines of which only the last known state is shown."""
    return [vm_id for vm_id, each in machines(answer).items() if not each["live"]]


# --- A node in trouble ----------------------------------------------------------------


def test_an_offline_node_is_not_asked(call: Call, demo: Cluster) -> None:
    for tool in LISTS:
        call(tool)
    assert not [path for _, path in demo.sent if "/nodes/pve3" in path]


@pytest.mark.parametrize(
    ("paths", "code", "reason", "lost"),
    [
        (["qemu", "lxc"], 595, "No route to host", [101, 104, 106, 107, 201]),
        (["qemu", "lxc"], 596, "Connection timed out", [101, 104, 106, 107, 201]),
        (["qemu"], 500, "got timeout", [101, 104, 106, 107]),
        (["lxc"], 500, "got timeout", [107, 201]),
    ],
)
def test_missing_answers_are_replaced_with_the_last_known_state(
    call: Call, demo: Cluster, paths: Any, code: int, reason: str, lost: list[int]
) -> None:
    for path in paths:
        demo.pve.fail("GET", f"/nodes/pve2/{path}", code, reason)
    answer = call("list_machines")
    assert len(machines(answer)) == 11
    assert not_live(answer) == lost
    assert machines(answer)[101]["status"] == "running"
    note = notes(answer)[0]
    assert note.startswith("pve2 ")
    assert reason in note
    assert note in answer.text


def test_the_first_error_of_a_node_is_told(call: Call, demo: Cluster) -> None:
    demo.pve.fail("GET", "/nodes/pve2/qemu", 596, "Connection timed out")
    demo.pve.fail("GET", "/nodes/pve2/lxc", 500, "got timeout")
    assert "Connection timed out" in notes(call("list_machines"))[0]


def test_a_node_that_cannot_list_its_storages_is_asked_once(call: Call, demo: Cluster) -> None:
    """It checks them one by one, which may have taken long."""
    demo.pve.fail("GET", "/nodes/pve2/storage", 500, "got timeout")
    assert "got timeout" in notes(call("list_storage"))[0]
    assert len([path for _, path in demo.sent if path.endswith("/pve2/storage")]) == 1


def test_a_slow_list_reports_progress_each_second(proxmox: ProxmoxClient, demo: Cluster) -> None:
    demo.delay["/nodes/pve2/storage"] = 2.4
    reports: list[tuple[float, float, str]] = []
    found = proxmox.get_all_storage(lambda *report: reports.append(report))
    assert len(found.storages) == 8
    assert [report[:2] for report in reports[:2]] == [(1, 30), (2, 30)]
    assert "1" in reports[0][2]


def test_a_vm_that_vanishes_does_not_break_a_list(call: Call, demo: Cluster) -> None:
    demo.pve.fail("GET", "/nodes/pve2/qemu", 500, "no such config", times=1)
    answer = call("list_machines")
    assert not_live(answer) == [107]
    assert len(notes(answer)) == 2  # pve3 is offline, and a VM paused


@pytest.mark.parametrize(("hanging", "live"), [(9, ["lxc", "qemu"]), (16, ["qemu"])])
def test_hanging_nodes_do_not_block_two_healthy_ones(
    call: Call, cluster: Cluster, impatient: None, hanging: int, live: list[str]
) -> None:
    for n in range(1, hanging + 3):
        cluster.pve.add_vm(100 + n, f"vm-{n}", node=f"pve{n}")
        cluster.pve.add_ct(200 + n, f"ct-{n}", node=f"pve{n}")
    *dead, one, two = sorted(cluster.pve.nodes)
    for name in dead:
        for path in ("qemu", "lxc"):
            cluster.delay[f"/nodes/{name}/{path}"] = 5
    answer = call("list_machines")
    found = [(m["node"], m["type"]) for m in machines(answer).values() if m["live"]]
    assert sorted(found) == [(name, kind) for name in (one, two) for kind in live]


def test_an_answer_that_trickles_in_is_cut_off(call: Call, demo: Cluster, impatient: None) -> None:
    """Each byte arrives in time, but not the whole answer."""
    finished = []

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        for _ in range(60):
            await response.write(b" ")
            await asyncio.sleep(0.1)
        finished.append(request.path)
        return response

    raw: Any = demo.raw
    raw["/nodes/pve2/qemu"] = trickle
    assert not_live(call("list_machines")) == [101, 104, 106, 107]
    raw["/nodes"] = raw["/cluster/resources"] = trickle
    assert call("list_machines").is_error
    assert finished == []


def test_no_machines_is_not_said_if_nobody_could_know(call: Call, demo: Cluster) -> None:
    demo.pve.fail("GET", "/cluster/resources", 500, "got timeout")
    text = call("list_machines", node="pve3").text
    assert text.startswith("No machines on pve3 can be seen.\n")
    assert "VM.Audit" not in text


def test_a_node_without_statistics_is_asked(call: Call, demo: Cluster) -> None:
    def unknown(rows: list[Row]) -> list[Row]:
        few = {"id": "node/pve2", "node": "pve2", "type": "node", "status": "unknown"}
        return [few if row["node"] == "pve2" else row for row in rows]

    demo.edit["/nodes"] = unknown
    assert not_live(call("list_machines")) == [107]
    answer = call("list_infrastructure")
    pve2 = answer.data["nodes"][1]
    assert pve2["status"] == "unknown"
    assert pve2["load"] == [0.52, 0.40, 0.31]
    assert answer.data["totals"]["online"] == 1


# --- The cluster in trouble -----------------------------------------------------------


def test_lists_work_without_the_broadcast(call: Call, demo: Cluster) -> None:
    demo.pve.fail("GET", "/cluster/resources", 500, "rrd dump failed")
    listed, storage = call("list_machines"), call("list_storage")
    assert len(machines(listed)) == 10  # all except that of the offline node
    nodes = {tuple(each["nodes"]) for each in storage.data["storages"]}
    assert nodes == {("pve1",), ("pve2",), ("pve1", "pve2")}
    for answer in (listed, storage):
        assert "rrd dump failed" in notes(answer)[-1]


def test_one_nodes_answer_is_shown_though_all_else_fails(call: Call, demo: Cluster) -> None:
    for path in ("/cluster/resources", "/nodes/pve2/qemu", "/nodes/pve2/lxc"):
        demo.pve.fail("GET", path, 500, "it is broken")
    answer = call("list_machines")
    assert not answer.is_error
    assert {each["node"] for each in machines(answer).values()} == {"pve1"}


@pytest.mark.parametrize(
    ("tool", "node", "failing"),
    [
        *((tool, {}, ["/nodes"]) for tool in LISTS),
        ("list_machines", {}, ["/qemu", "/lxc"]),
        ("list_storage", {}, ["/storage"]),
        ("list_machines", {"node": "pve2"}, ["/pve2/qemu", "/pve2/lxc"]),
    ],
)
def test_a_list_without_any_data_is_an_error(
    call: Call, demo: Cluster, tool: str, node: Row, failing: list[str]
) -> None:
    for path in ("/cluster/resources", "/cluster/status", *failing):
        known = path == "/nodes" or "cluster" in path
        demo.pve.fail("GET", path, 500, "it is broken" if known else "no such node")
    answer = call(tool, **node)
    assert answer.is_error
    assert "it is broken" in answer.text


# --- The connection -------------------------------------------------------------------


class EveryEleventh(random.Random):
    """Drop every eleventh request: the fake asks for a random number twice per request."""

    count = 0

    def random(self) -> float:
        self.count += 1
        return float(self.count % 22 != 0)


@pytest.mark.parametrize("tool", LISTS)
def test_lists_are_complete_if_connections_drop(call: Call, demo: Cluster, tool: str) -> None:
    expected = call(tool)
    demo.pve._random = EveryEleventh()
    demo.pve.flaky_network(drop_rate=0.15)
    for _ in range(15):
        answer = call(tool)
        assert not answer.is_error, answer.text
        assert notes(answer) == notes(expected)
        for key in ("nodes", "machines", "storages"):
            assert len(answer.data.get(key, "")) == len(expected.data.get(key, ""))
    assert demo.pve._random.count >= 4 * 22  # at least four were dropped, each time a different one


def test_a_connection_closed_while_idle_is_replaced(call: Call, demo: Cluster) -> None:
    assert not call("list_machines").is_error
    connections = demo.pve.runner.server.connections
    assert connections
    for each in connections:
        each._loop.call_soon_threadsafe(each.transport.close)
    wait_for(lambda: all(each.transport.is_closing() for each in connections))
    time.sleep(0.05)  # until this end has noticed
    assert len(notes(call("list_machines"))) == 2  # pve3 is offline, and a VM paused
    assert not call("start_machine", vm_id=106, node="pve2").is_error


@pytest.mark.parametrize("tool", LISTS)
def test_the_server_recovers_by_itself(call: Call, demo: Cluster, tool: str) -> None:
    demo.pve.flaky_network(drop_rate=1.0)
    assert call(tool).is_error
    demo.pve.flaky_network()
    assert not call(tool).is_error
    del demo.pve.apitokens[TOKEN]
    assert call(tool).is_error
    demo.pve.apitokens[TOKEN] = SECRET
    assert not call(tool).is_error


def test_each_list_sends_only_the_requests_it_needs(call: Call, demo: Cluster) -> None:
    for tool, requests, path in (
        ("list_machines", 2 * 2 + 3, "resources?type=vm"),
        ("list_storage", 2 + 2, "resources?type=storage"),
        ("list_infrastructure", 2 * 2 + 6, "status"),
    ):
        demo.sent.clear()
        call(tool)
        assert len(demo.sent) == requests
        assert ("GET", f"/api2/json/cluster/{path}") in demo.sent


def test_nodes_of_the_last_list_do_not_wait_for_the_list_of_nodes(
    call: Call, demo: Cluster
) -> None:
    call("list_machines")
    demo.sent.clear()
    demo.delay["/nodes"] = 1
    early: list[str] = []

    def look(rows: Any) -> Any:
        early.extend(path.removeprefix("/api2/json") for _, path in demo.sent)
        return rows

    demo.edit["/nodes"] = look
    assert len(machines(call("list_machines"))) == 11
    assert {path for path in early if path.startswith("/nodes/")} == {
        f"/nodes/{node}/{kind}" for node in ("pve1", "pve2") for kind in ("qemu", "lxc")
    }
    assert len(demo.sent) == 2 * 2 + 3  # none twice


def test_a_node_that_goes_offline_is_asked_no_more_and_not_believed(
    call: Call, demo: Cluster
) -> None:
    call("list_machines")
    demo.edit["/nodes"] = lambda rows: [
        row | ({"status": "offline"} if row["node"] == "pve2" else {}) for row in rows
    ]
    assert not_live(call("list_machines"))[:2] == [101, 104]
    # The second list does not wait for what it had asked pve2 by then, or was about to ask.
    with contextlib.suppress(AssertionError):
        wait_for(lambda: sum("/nodes/pve2/" in path for _, path in demo.sent) == 2 * 2)
    demo.sent.clear()
    call("list_machines", node="pve2")
    assert not [path for _, path in demo.sent if "/nodes/pve2" in path]
    del demo.edit["/nodes"]
    assert not not_live(call("list_machines", node="pve2"))


def test_one_node_is_asked_alone_though_others_are_known(call: Call, demo: Cluster) -> None:
    call("list_machines")
    demo.sent.clear()
    call("list_machines", node="pve1")
    assert not [path for _, path in demo.sent if "/nodes/pve2" in path]


def test_requests_run_in_parallel_but_at_most_32_at_once(call: Call, cluster: Cluster) -> None:
    for n in range(2, 25):
        cluster.pve.add_node(f"pve{n}")
    running: Counter[str] = Counter()
    highest: Counter[str] = Counter()
    original, full = cluster._original, asyncio.Event()

    async def count(request: Any, handler: Any, generic: Any, node: Any) -> Any:
        keys = ["all", node or "cluster"]
        running.update(keys)
        highest.update({key: max(running[key] - highest[key], 0) for key in keys})
        if running["all"] == MAX_REQUESTS:
            full.set()
        if node:
            await asyncio.wait_for(full.wait(), 5)
            await asyncio.sleep(0.1)  # time for one request too many
        running.subtract(keys)
        return await original(request, handler, generic, node)

    cluster._original = count
    call("list_machines")
    assert len(highest) == 2 + 24
    assert highest["pve1"] == 2
    at_once([("list_machines", {})] * 2)
    assert highest["all"] == MAX_REQUESTS == 32


def test_a_node_that_answers_with_an_error_did_answer(call: Call, demo: Cluster) -> None:
    """One broken container makes the node's whole list an error, and its VMs are live."""
    demo.pve.fail("GET", "/nodes/pve2/lxc", 500, "short read on command socket")
    answer = call("list_machines")
    said = "pve2 answered with an error: some machines there are shown as last known."
    assert said in answer.text
    assert "did not answer" not in answer.text
    assert not_live(answer) == [107, 201]
