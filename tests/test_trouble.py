"""Lists about a cluster in trouble: complete, in time, and honest about what is missing."""

import asyncio
import random
import time
from typing import Any

import pytest
from aiohttp import web

from src import fanout
from tests.cluster import Cluster, Row, drop
from tests.conftest import Call, at_once

LISTS = ["list_infrastructure", "list_machines", "list_storage"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 s in place of the 10 that a list waits for a node."""
    monkeypatch.setattr(fanout, "LIST_PATIENCE", 1.0)


def machines(answer: Any) -> dict[int, Row]:
    return {each["vm_id"]: each for each in answer.data["machines"]}


def test_a_list_waits_ten_seconds() -> None:
    assert fanout.LIST_PATIENCE == 10


# --- A node in trouble ----------------------------------------------------------------


def test_an_offline_node_is_not_asked_and_its_machines_are_unknown(
    call: Call, demo: Cluster
) -> None:
    answer = call("list_machines")
    assert machines(answer)[107]["status"] == "unknown"
    assert not [path for _, path in demo.sent if "/nodes/pve3" in path]
    for tool in ("list_infrastructure", "list_storage"):
        call(tool)
    assert not [path for _, path in demo.sent if "/nodes/pve3" in path]


def test_a_machine_that_the_broadcast_still_calls_running_is_unknown_when_its_node_is_off(
    call: Call, demo: Cluster
) -> None:
    def stale(rows: list[Row]) -> list[Row]:
        old = {"status": "running", "cpu": 0.5, "mem": 1, "uptime": 9, "name": "lost"}
        return [row | old if row.get("vmid") == 107 else row for row in rows]

    demo.edit["/cluster/resources"] = stale
    lost = machines(call("list_machines"))[107]
    assert (lost["name"], lost["status"], lost["live"]) == ("lost", "unknown", False)
    assert lost["cpu"] is lost["memory_used"] is lost["uptime"] is None


@pytest.mark.parametrize(
    ("code", "reason", "says"),
    [
        (595, "No route to host", "could not reach node pve2 (595 No route to host)"),
        (596, "Connection timed out", "could not reach node pve2 (596"),
        (500, "got timeout", "Proxmox says: got timeout."),
    ],
)
def test_a_node_that_fails_leaves_its_machines_as_last_known(
    call: Call, demo: Cluster, code: int, reason: str, says: str
) -> None:
    demo.pve.fail("GET", "/nodes/pve2/qemu", code, reason)
    demo.pve.fail("GET", "/nodes/pve2/lxc", code, reason)
    answer = call("list_machines")
    found = machines(answer)
    assert len(found) == 11
    assert [n for n, each in found.items() if not each["live"]] == [
        101,
        104,
        106,
        107,
        201,
    ]
    assert found[101]["status"] == "running"
    note = "pve2 did not answer: machines there are shown as last known. "
    assert [n for n in answer.data["notes"] if n.startswith(note) and says in n]
    assert note in answer.text
    line = next(line for line in answer.text.splitlines() if line.startswith("101 "))
    assert line.endswith(", last known")


def test_containers_are_live_where_only_the_vms_fail(call: Call, demo: Cluster) -> None:
    demo.pve.fail("GET", "/nodes/pve2/qemu", 500, "got timeout")
    found = machines(call("list_machines"))
    assert found[201]["live"] is True
    assert found[101]["live"] is False


def test_a_vm_that_is_removed_meanwhile_does_not_fail_its_nodes_list(
    call: Call, demo: Cluster
) -> None:
    demo.pve.fail("GET", "/nodes/pve2/qemu", 500, "no such config", times=1)
    answer = call("list_machines")
    assert machines(answer)[101]["live"] is True
    assert len(answer.data["notes"]) == 1  # pve3 is offline


@pytest.mark.parametrize("tool", LISTS)
def test_a_node_that_hangs_does_not_hold_up_the_list(
    call: Call, demo: Cluster, impatient: None, tool: str
) -> None:
    for path in ("qemu", "lxc", "storage", "status"):
        demo.delay[f"/nodes/pve2/{path}"] = 5
    answer = call(tool)
    assert answer.seconds < 1.5
    assert not answer.is_error
    assert any(note.startswith("pve2 did not answer") for note in answer.data["notes"])
    assert "Cannot talk to node pve2 through https://127.0.0.1" in answer.text
    assert "no answer within 1 s" in answer.text
    if tool == "list_machines":
        assert len(machines(answer)) == 11
    if tool == "list_storage":
        assert "local, dir, active" in answer.text
        assert len(answer.data["storages"]) == 8
        local = [s for s in answer.data["storages"] if s["nodes"] == ["pve2"]]
        assert {s["active"] for s in local} == {True}
        assert {s["available"] for s in local} == {None}
    if tool == "list_infrastructure":
        pve2 = answer.data["nodes"][1]
        assert (pve2["cpu"], pve2["load"]) == (0.05, None)


def test_a_node_that_hangs_is_asked_once_in_a_list(
    call: Call, demo: Cluster, impatient: None
) -> None:
    demo.delay["/nodes/pve2/qemu"] = 5
    call("list_machines")
    asked = [path for _, path in demo.sent if "/nodes/pve2/" in path]
    assert asked == ["/api2/json/nodes/pve2/qemu"]


async def trickle(request: web.Request) -> web.StreamResponse:
    """Each byte comes within the read timeout; the whole does not."""
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    for _ in range(30):
        await response.write(b" ")
        await asyncio.sleep(0.1)
    return response


def test_an_answer_that_trickles_does_not_hold_up_the_list(
    call: Call, demo: Cluster, impatient: None
) -> None:
    demo.raw["/nodes/pve2/qemu"] = trickle  # type: ignore[assignment]
    answer = call("list_machines")
    assert answer.seconds < 1.5
    assert len(machines(answer)) == 11


def test_a_list_of_nodes_that_trickles_is_an_error_in_time(
    call: Call, demo: Cluster, impatient: None
) -> None:
    demo.raw["/nodes"] = demo.raw["/cluster/resources"] = trickle  # type: ignore[assignment]
    answer = call("list_machines")
    assert answer.is_error
    assert "no answer within 1 s" in answer.text
    assert answer.seconds < 1.5


def test_a_node_without_statistics_is_asked_all_the_same(
    call: Call, demo: Cluster
) -> None:
    def unknown(rows: list[Row]) -> list[Row]:
        keys = ("id", "node", "type")
        for row in rows:
            if row["node"] == "pve2":
                for key in set(row) - set(keys):
                    del row[key]
                row["status"] = "unknown"
        return rows

    demo.edit["/nodes"] = unknown
    assert machines(call("list_machines"))[101]["live"] is True
    answer = call("list_infrastructure")
    pve2 = answer.data["nodes"][1]
    assert pve2["status"] == "unknown"
    assert pve2["load"] == [0.52, 0.40, 0.31]
    assert answer.data["totals"]["online"] == 1


# --- The cluster in trouble -----------------------------------------------------------


def test_without_the_broadcast_the_nodes_still_tell(call: Call, demo: Cluster) -> None:
    demo.pve.fail("GET", "/cluster/resources", 500, "rrd dump failed")
    answer = call("list_machines")
    assert len(machines(answer)) == 10  # all but that of the offline node
    assert "The cluster's broadcast is missing" in answer.text
    assert "rrd dump failed" in answer.text
    storage = call("list_storage")
    assert "The cluster's broadcast is missing" in storage.text
    assert {tuple(s["nodes"]) for s in storage.data["storages"]} == {
        ("pve1",),
        ("pve2",),
        ("pve1", "pve2"),
    }


def test_without_the_list_of_nodes_the_broadcast_names_them(
    call: Call, demo: Cluster
) -> None:
    demo.pve.fail("GET", "/nodes", 500, "no nodes")
    answer = call("list_machines")
    found = machines(answer)
    assert len(found) == 11
    assert found[101]["live"] is True
    infrastructure = call("list_infrastructure")
    assert [(n["node"], n["status"]) for n in infrastructure.data["nodes"]] == [
        ("pve1", "online"),
        ("pve2", "online"),
        ("pve3", "offline"),
    ]
    assert len(call("list_storage").data["storages"]) == 8


@pytest.mark.parametrize("tool", LISTS)
def test_an_api_that_answers_500_to_everything_is_an_error(
    call: Call, demo: Cluster, tool: str
) -> None:
    for path in ("resources", "nodes", "qemu", "lxc", "storage", "status"):
        demo.pve.fail("GET", f"/{path}", 500, "RPCEnvironment init request failed")
    answer = call(tool)
    assert answer.is_error
    assert answer.text == "Proxmox says: RPCEnvironment init request failed."


def test_nodes_that_all_fail_without_a_broadcast_are_an_error(
    call: Call, demo: Cluster
) -> None:
    demo.pve.fail("GET", "/resources", 500, "no broadcast")
    for path in ("qemu", "lxc", "storage"):
        demo.pve.fail("GET", f"/{path}", 500, "no node")
    for tool in ("list_machines", "list_storage"):
        answer = call(tool)
        assert answer.is_error
        assert answer.text == "Proxmox says: no broadcast."


def test_one_node_that_fails_without_a_broadcast_is_an_error(
    call: Call, demo: Cluster
) -> None:
    demo.pve.fail("GET", "/resources", 500, "no broadcast")
    for path in ("qemu", "lxc"):
        demo.pve.fail("GET", f"/nodes/pve2/{path}", 595, "No route to host")
    answer = call("list_machines", node="pve2")
    assert answer.is_error
    assert answer.text == "Proxmox says: no broadcast."


def test_no_machines_on_a_node_that_failed_is_not_called_a_missing_right(
    call: Call, cluster: Cluster
) -> None:
    cluster.pve.fail("GET", "/nodes/pve1/qemu", 595, "No route to host")
    answer = call("list_machines")
    assert answer.text.startswith("No machines.\npve1 did not answer")
    assert "VM.Audit" not in answer.text


def test_a_lost_quorum_is_told(call: Call, demo: Cluster) -> None:
    demo.pve.lose_quorum()
    answer = call("list_infrastructure")
    assert answer.data["quorate"] is False
    assert answer.text.startswith(
        "Cluster demo, NOT QUORATE, so nothing can be started"
    )


def test_a_cluster_status_that_fails_is_told(call: Call, demo: Cluster) -> None:
    demo.pve.fail("GET", "/cluster/status", 500, "corosync is down")
    answer = call("list_infrastructure")
    assert answer.data["quorate"] is None
    assert "corosync is down" in answer.data["notes"][0]


def test_a_shared_storage_that_is_dead_on_one_node_says_on_which(
    call: Call, demo: Cluster
) -> None:
    def dead(rows: list[Row]) -> list[Row]:
        zeros = {"active": 0, "total": 0, "used": 0, "avail": 0}
        return [row | zeros if row["storage"] == "nfs1" else row for row in rows]

    demo.edit["/nodes/pve2/storage"] = dead
    answer = call("list_storage")
    assert answer.data["notes"] == [
        "pve3 is offline: the state of its storages is unknown.",
        "nfs1 is not active on pve2.",
    ]
    (nfs1,) = [s for s in answer.data["storages"] if s["storage"] == "nfs1"]
    assert nfs1["active"] is True
    assert nfs1["total"] == 10 << 40


# --- Rights ---------------------------------------------------------------------------


def test_a_token_without_any_right_learns_which_one_to_ask_for(
    call: Call, demo: Cluster
) -> None:
    demo.pve.grant("somebody@pve", "/", "VM.Audit")
    demo.edit["/cluster/resources"] = lambda rows: [
        row for row in rows if row["type"] == "node"
    ]
    answer = call("list_machines")
    assert not answer.is_error
    assert answer.data["machines"] == []
    assert answer.text.splitlines()[0] == "No machines."
    assert (
        "Proxmox shows no machines to the token mcp@pve!t. If there are some, it lacks "
        "VM.Audit on /vms: grant that to the user and, with privilege separation, to the "
        "token as well."
    ) in answer.text
    storage = call("list_storage")
    assert storage.text.splitlines()[0] == "No storages."
    assert "shows no storages to the token mcp@pve!t" in storage.text
    assert "it lacks Datastore.Audit on /storage: grant that" in storage.text


def test_a_token_with_some_rights_sees_what_it_may(call: Call, demo: Cluster) -> None:
    demo.pve.grant("mcp@pve", "/vms/100", "VM.Audit")
    answer = call("list_machines")
    assert list(machines(answer)) == [100]


def test_nodes_without_sys_audit_have_no_figures_and_that_is_said(
    call: Call, demo: Cluster
) -> None:
    for name in ("pve1", "pve2"):
        demo.pve.fail(
            "GET",
            f"/nodes/{name}/status",
            403,
            f"Permission check failed (/nodes/{name}, Sys.Audit)",
        )
    demo.pve.fail(
        "GET", "/cluster/status", 403, "Permission check failed (/, Sys.Audit)"
    )
    keep = ("node", "id", "status", "type", "level")
    demo.edit["/nodes"] = lambda rows: [
        {key: row[key] for key in keep if key in row} for row in rows
    ]
    answer = call("list_infrastructure")
    assert not answer.is_error
    assert answer.data["cluster"] is answer.data["quorate"] is None
    assert answer.data["totals"] == {
        "nodes": 3,
        "online": 2,
        "cpu": None,
        "cpus": None,
        "memory_used": None,
        "memory_total": None,
    }
    assert answer.text.splitlines() == [
        "2 of 3 nodes online",
        (
            "pve1, pve2 refused: load, version and fresh figures are missing. The "
            "token mcp@pve!t lacks Sys.Audit on /nodes/pve1. Grant it to "
            "user and token: pveum role add McpSysAudit --privs Sys.Audit; pveum acl "
            "modify /nodes/pve1 --users mcp@pve --tokens 'mcp@pve!t' --roles McpSysAudit"
        ),
        "pve1 online",
        "pve2 online",
        "pve3 offline",
    ]


# --- A bad line -----------------------------------------------------------------------


class EverySeventh(random.Random):
    """Chance as the fake asks it: about 15 % of the connections, but never by bad luck."""

    count = 0

    def random(self) -> float:
        self.count += 1
        return float(self.count % 7 != 0)


@pytest.mark.parametrize("tool", LISTS)
def test_lists_are_complete_with_15_percent_of_connections_dropped(
    call: Call, demo: Cluster, tool: str
) -> None:
    demo.pve._random = EverySeventh()
    demo.pve.flaky_network(drop_rate=0.15)
    for _ in range(20):
        answer = call(tool)
        assert not answer.is_error, answer.text
        if tool == "list_machines":
            assert len(machines(answer)) == 11
        if tool == "list_storage":
            assert len(answer.data["storages"]) == 8
        if tool == "list_infrastructure":
            assert len(answer.data["nodes"]) == 3


def test_the_broadcast_is_asked_for_again_because_all_else_lies_on_it(
    call: Call, demo: Cluster
) -> None:
    dropped = []

    async def three_times(request: web.Request) -> web.Response:
        dropped.append(request)
        if len(dropped) == 3:
            del demo.raw["/cluster/resources"]
        return await drop(request)

    demo.raw["/cluster/resources"] = three_times
    answer = call("list_machines")
    assert len(machines(answer)) == 11
    assert len(dropped) == 3


def test_a_connection_that_the_server_closed_while_idle_is_no_error(
    call: Call, demo: Cluster
) -> None:
    assert not call("list_machines").data["notes"][1:]
    for connection in list(demo.pve.runner.server.connections):
        loop = connection._loop
        loop.call_soon_threadsafe(connection.transport.close)
    time.sleep(0.5)
    assert not call("list_machines").data["notes"][1:]
    assert not call("start_machine", vm_id=106, node="pve2").is_error


@pytest.mark.parametrize("tool", LISTS)
def test_the_server_recovers_by_itself(call: Call, demo: Cluster, tool: str) -> None:
    demo.pve.flaky_network(drop_rate=1.0)
    assert call(tool).is_error
    demo.pve.flaky_network()
    assert not call(tool).is_error
    del demo.pve.apitokens["mcp@pve!t"]
    assert call(tool).is_error
    demo.pve.apitokens["mcp@pve!t"] = demo.environ("")["PROXMOX_TOKEN_SECRET"]
    assert not call(tool).is_error


# --- How it asks ----------------------------------------------------------------------


def test_a_list_of_machines_takes_two_requests_a_node_and_two_more(
    call: Call, demo: Cluster
) -> None:
    call("list_machines")
    assert len(demo.sent) == 2 * 2 + 2
    assert ("GET", "/api2/json/cluster/resources?type=vm") in demo.sent
    demo.sent.clear()
    call("list_storage")
    assert len(demo.sent) == 2 + 2
    assert ("GET", "/api2/json/cluster/resources?type=storage") in demo.sent
    demo.sent.clear()
    call("list_infrastructure")
    assert len(demo.sent) == 2 + 2


def test_at_most_eight_requests_are_in_flight_and_two_to_one_node(
    configured: dict[str, str], cluster: Cluster
) -> None:
    for n in range(2, 17):
        cluster.pve.add_node(f"pve{n}")
    flying: dict[str, int] = {}
    most: dict[str, int] = {}
    original = cluster._original

    async def count(request: Any, handler: Any, generic: Any, node: Any) -> Any:
        for key in ("all", node or "cluster"):
            flying[key] = flying.get(key, 0) + 1
            most[key] = max(most.get(key, 0), flying[key])
        await asyncio.sleep(0.02)
        try:
            return await original(request, handler, generic, node)
        finally:
            for key in ("all", node or "cluster"):
                flying[key] -= 1

    cluster._original = count
    at_once([("list_machines", {})] * 4)
    assert most.pop("all") == 8
    most.pop("cluster")
    assert len(most) == 16
    assert set(most.values()) <= {1, 2}
    assert 2 in most.values()


def test_calls_at_once_send_two_requests_to_one_node_at_most(
    configured: dict[str, str], cluster: Cluster
) -> None:
    flying, most = 0, 0
    original = cluster._original

    async def count(request: Any, handler: Any, generic: Any, node: Any) -> Any:
        nonlocal flying, most
        if not node:
            return await original(request, handler, generic, node)
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.05)
        flying -= 1
        return await original(request, handler, generic, node)

    cluster._original = count
    for tool in LISTS:
        at_once([(tool, {})] * 5)
        assert most == 2, tool
        most = 0


# --- Texts of many machines -----------------------------------------------------------


def test_a_text_past_40000_characters_leaves_out_whole_rows(
    call: Call, cluster: Cluster
) -> None:
    cluster.pve.add_node("pve2")
    for n in range(100, 1400):
        cluster.pve.add_vm(n, f"machine-number-{n}", node=f"pve{n % 2 + 1}")
    answer = call("list_machines")
    assert 39_000 < len(answer.text) <= 40_000
    assert len(answer.data["machines"]) == 1300
    lines = answer.text.splitlines()
    assert lines[0] == "1,300 machines on 2 nodes: 1,300 stopped"
    assert lines[1:3] == ["pve1: 650 stopped", "pve2: 650 stopped"]
    rows = [line for line in lines if "machine-number" in line]
    assert all(row.endswith("512.0 MiB") for row in rows)
    assert lines[-1] == (
        f"{1300 - len(rows):,} more rows are not shown. Call list_machines with node or "
        "status to see them."
    )
    one = call("list_machines", node="pve1", status="stopped")
    assert len(one.data["machines"]) == 650
    assert len(one.text) < 40_000
