"""Test what list_infrastructure says needs attention, through a real client and over HTTPS."""

from typing import Any

import pytest
from aiohttp import web

from src.lists import attention
from src.lists.attention import Findings, needs_attention
from src.models import Node
from src.proxmox.rows import Row
from tests.cluster import BACKUP, HA, TOKEN, Cluster
from tests.conftest import Call, Patch
from tests.golden import compare
from tests.replay import recording

NOW = 1_787_200_000  # 2026-08-20 04:26:40 UTC
TASKS, CEPH = "/cluster/tasks", "/cluster/ceph/status"
NOTHING = "Nothing needs attention."
UNSEEN = "Not seen: inside guests, disks' health, updates, replication."


def task(kind: str, status: str | None = "OK", **changes: Any) -> Row:
    """Return a row of /cluster/tasks that ended an hour ago, or runs if it has no status."""
    row: Row = {"type": kind, "id": "", "node": "pve1", "user": "root@pam"} | changes
    row |= {"starttime": row.get("starttime", NOW - 3700)}
    began, where = f"{row['starttime']:08X}", row["node"]
    row["upid"] = f"UPID:{where}:0000C350:0A0B0C0D:{began}:{kind}:{row['id']}:{row['user']}:"
    ended = {"endtime": row["starttime"] + 100, "status": status, "saved": "1"}
    return row | ({"pid": 5} if status is None else ended)


@pytest.fixture(autouse=True)
def _time_of_the_cluster(monkeypatch: Patch) -> None:
    monkeypatch.setattr("src.proxmox.api.Api.server_time", float(NOW))


@pytest.fixture
def healthy(cluster: Cluster) -> Cluster:
    """Provide three nodes without any trouble."""
    for name in ("pve2", "pve3"):
        cluster.pve.add_node(name)
    cluster.pve.add_vm(100, "web", status="running")
    cluster.pve.add_vm(108, "hibernated", lock="suspended")
    cluster.pve.add_ct(200, "dns", node="pve2", status="running")
    cluster.rows[TASKS] = [
        task("vzdump", "job errors", starttime=NOW - 7200),
        task("vzdump", "WARNINGS: 1"),
        task("vzdump", "job errors", node="pve2", starttime=NOW - 90_000),
        task("aptupdate", "exit code 1"),
        task("vncproxy", "connection timed out", id="100"),
        task("qmstart", "no disk", id="100", user="ann@pam"),
        task("vzstart", "no disk", id="200", user=TOKEN.split("!")[0], tokenid="t"),
        task("qmstart", "no disk", id="108", starttime=NOW - 5000),
        task("qmstart", "OK", id="108"),
    ]
    return cluster


def test_a_healthy_cluster_needs_no_attention(call: Call, healthy: Cluster) -> None:
    answer = call("list_infrastructure")
    assert answer.text.splitlines()[:2] == [NOTHING, UNSEEN]
    assert answer.data["attention"] == []
    assert len(answer.data["notes"]) == 1
    assert not [path for _, path in healthy.sent if "ceph" in path or "/log" in path]


def everything(cluster: Cluster) -> None:
    """Give the cluster one trouble of each kind."""
    pve, edit, gib = cluster.pve, cluster.edit, 1 << 30
    for n in range(2, 7):
        pve.add_node(f"pve{n}", online=n != 6)
    for n, (usage, total) in enumerate(((60, 64), (10, 64), (10, 64))):
        pve.nodes[f"pve{n + 1}"]["usage"] = {"mem": usage * gib, "maxmem": total * gib}
    pve.nodes["pve2"]["usage"] |= {"disk": 95 * gib, "maxdisk": 100 * gib}
    states = ("io-error", "internal-error", "guest-panicked", "watchdog", "shutdown", "paused")
    for n, state in enumerate((*states, "suspended")):
        pve.add_vm(101 + n, f"vm-{state}", status="running", qmpstatus=state)
    pve.add_vm(110, "locked", lock="backup", node="pve2")
    pve.add_vm(111, "in-backup", lock="backup", status="running")
    pve.add_vm(112, "failed", node="pve3").ha_state = "error"
    pve.add_vm(113, "lost", node="pve4").ha_state = "recovery"
    pve.add_ct(200, "full", status="running")
    pve.add_ceph_storage()
    pve.storages["dead"] = {"type": "nfs", "active": 0, "shared": 1, "content": "iso"}
    pve.storages["dead"] |= {"path": "/m", "server": "s", "export": "/e", "files": set()}

    def resources(rows: list[Row]) -> list[Row]:
        for row in rows:
            if row["id"] == "lxc/200":
                row |= {"disk": 39 * gib, "maxdisk": 40 * gib}
            if row["id"] == "node/pve4":
                row["hastate"] = "fence"
            if row.get("storage") == "local" and row["node"] == "pve3":
                row |= {"disk": 97 * gib, "maxdisk": 100 * gib}
            if row.get("node") == "pve5" and row["type"] == "storage":
                row["status"] = "unknown"
            if row["id"] == "qemu/113":
                row["hastate"] = "recovery"
        return rows

    def nodes(rows: list[Row]) -> list[Row]:
        few = {"id": "node/pve5", "node": "pve5", "type": "node", "status": "unknown"}
        return [few if row["node"] == "pve5" else row for row in rows]

    edit |= {"/cluster/resources": resources, "/nodes": nodes}
    edit["/cluster/status"] = lambda rows: [
        r | {"quorate": 0} if "quorate" in r else r for r in rows
    ]
    edit["/nodes/pve1/status"] = lambda row: row | {"swap": {"used": 8 * gib, "total": 8 * gib}}
    edit["/nodes/pve3/status"] = lambda row: row | {"pveversion": "pve-manager/8.4.1/x"}
    cluster.rows[HA] = [
        {"type": "fencing", "armed-state": "disarmed", "resource_mode": "freeze"},
        {"type": "master", "node": "pve2", "status": "pve2 (old timestamp - dead?, x)"},
        {"type": "lrm", "node": "pve3", "status": "pve3 (old timestamp - dead?, x)"},
        {"type": "lrm", "node": "pve6", "status": "pve6 (old timestamp - dead?, x)"},
    ]
    checks = {
        "A": {"severity": "HEALTH_WARN", "summary": {"message": "1 pool is nearly full"}},
        "B": {"severity": "HEALTH_ERR", "summary": {"message": "3 osds down"}},
    }
    cluster.rows[CEPH] = {"health": {"status": "HEALTH_ERR", "checks": checks}}
    pools = [{"name": "rpool", "health": "ONLINE"}, {"name": "tank", "health": "DEGRADED"}]
    cluster.rows["/nodes/pve2/disks/zfs"] = pools
    cluster.rows[BACKUP] = [{"vmid": n, "name": f"vm-{n}", "type": "qemu"} for n in range(101, 113)]
    failed = task("vzdump", "job errors")
    cluster.rows[TASKS] = [
        failed,
        task("vzdump", "job errors", starttime=NOW - 9000),
        task("qmigrate", "migration aborted", id="112", node="pve3"),
        task("qmrestore", "no space", id="120"),
        task("qmstart", "no disk", id="112", node="pve3"),
        task("qmsnapshot", "got timeout", id="101"),
        task("prunebackups", "no such store", id="nas"),
        task("acmerenew", "order failed"),
        task("vzdump", None, starttime=NOW - 60),
    ]
    log = [
        "INFO: starting new backup job",
        "ERROR: Backup of VM 101 failed - no space left on device",
        "ERROR: Backup of CT 200 failed - vma: exit code 1",
        "INFO: Backup job finished with errors",
    ]
    lines = [{"n": n, "t": text} for n, text in enumerate(log, 1)]

    async def read(_: web.Request) -> web.Response:
        return web.json_response({"data": lines})

    cluster.raw[f"/nodes/pve1/tasks/{failed['upid']}/log"] = read


def test_everything_that_can_be_wrong_is_listed_worst_first(
    call: Call, cluster: Cluster, monkeypatch: Patch
) -> None:
    everything(cluster)
    compare("attention-at-most-20", {"all at once": call("list_infrastructure").text})
    monkeypatch.setattr(attention, "MAX_LINES", 100)
    compare("attention", {"all at once": call("list_infrastructure").text})


def test_a_token_without_rights_is_told_what_it_cannot_see(call: Call, healthy: Cluster) -> None:
    user = TOKEN.split("!")[0]
    healthy.pve.grant(user, "/vms", "VM.Audit")
    healthy.pve.grant(TOKEN, "/vms", "VM.Audit")
    for path in ("/cluster/status", HA, BACKUP):
        healthy.pve.fail("GET", path, 403, "Permission check failed (/, Sys.Audit)")
    healthy.rows[TASKS] = []
    lines = call("list_infrastructure").text.splitlines()
    assert lines[0] == "Nothing that could be seen needs attention."
    more = "quorum, failed tasks, HA, backup jobs, "
    assert lines[1].startswith(f"Not seen: {more}")


@pytest.mark.parametrize(
    ("path", "status", "note"),
    [
        (HA, 500, "HA could not be read."),
        (HA, 596, "HA could not be read."),
        (TASKS, 500, "Failed tasks could not be read."),
        (BACKUP, 500, "Backup jobs could not be read."),
        (CEPH, 500, ""),
        (CEPH, 596, "Ceph could not be read."),
        (CEPH, 500, "Ceph could not be read."),
        ("/nodes/pve2/disks/zfs", 500, "ZFS of pve2 could not be read."),
        ("/nodes/pve2/disks/zfs", 500, ""),
        ("/nodes/pve2/disks/zfs", 596, "ZFS of pve2 could not be read."),
        (HA, 501, ""),
    ],
)
def test_a_source_that_fails_is_one_note_unless_it_is_absent(
    call: Call, healthy: Cluster, path: str, status: int, note: str
) -> None:
    healthy.pve.add_ceph_storage()
    healthy.rows[CEPH] = {"health": {"status": "HEALTH_OK"}}
    assert call("list_infrastructure").text.startswith(NOTHING)
    absent = "binary not installed: /usr/bin/ceph-mon" if path == CEPH else "it is broken"
    healthy.pve.fail("GET", path, status, absent if not note else "it timed out")
    answer = call("list_infrastructure")
    is_absent = status == 500 and not note
    assert answer.text.startswith(NOTHING) == is_absent
    assert answer.data["attention"] == []
    assert [each[: len(note)] for each in answer.data["notes"][1:]] == [note][: bool(note)]


def test_a_source_that_hangs_is_not_waited_for_longer_than_a_list(
    call: Call, healthy: Cluster, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("src.lists.ask_nodes.LIST_TIMEOUT", 1.4)
    healthy.delay = dict.fromkeys((TASKS, "/nodes/pve2/disks/zfs"), 5)
    answer = call("list_infrastructure")
    assert answer.seconds < 3
    assert len(answer.data["notes"]) == 3
    assert answer.data["totals"]["online"] == 3


def test_the_certificate_in_use_is_told_two_weeks_before_it_ends() -> None:
    def lines(days: float) -> list[str]:
        return needs_attention(
            Findings([], address="https://a:8006", expires=NOW + days * 86_400, now=NOW)
        )

    assert lines(15) == []
    (line,) = lines(13)
    assert line.startswith("The certificate of https://a:8006 ends on 2026-09-02. ")


def test_attention_has_at_most_20_lines() -> None:
    nodes = [Node(f"n{n}", "offline") for n in range(20)]
    assert len(needs_attention(Findings(nodes))) == 20
    found = needs_attention(Findings([*nodes, Node("x", "offline")]))
    assert len(found) == 20
    assert found[-1] == "And 2 more, none of them more severe."


def test_a_lock_is_left_over_only_if_its_task_could_be_seen(call: Call, healthy: Cluster) -> None:
    def lines() -> list[str]:
        found: list[str] = call("list_infrastructure").data["attention"]
        return [line for line in found if "locked" in line]

    healthy.pve.guest(100).lock = "backup"
    healthy.pve.add_vm(120, "copy", lock="clone")
    healthy.rows[TASKS] = [task("vncshell", None), task("aptupdate", None)]
    healthy.rows[TASKS].append(task("qmclone", None))  # of no machine
    assert len(lines()) == 2
    for running in (task("vzdump", None), task("qmclone", None, id="108")):
        healthy.rows[TASKS].append(running)
    assert lines() == []
    healthy.rows[TASKS] = []
    healthy.pve.fail("GET", HA, 403, "Permission check failed (/, Sys.Audit)")
    assert lines() == []


def test_a_job_for_all_machines_of_a_node_explains_their_locks(
    call: Call, healthy: Cluster
) -> None:
    healthy.pve.guest(100).lock = "migrate"
    for node in ("pve1", "pve2"):
        healthy.rows[TASKS] = [task("migrateall", None, node=node)]
        attention = call("list_infrastructure").data["attention"]
        assert [line[:6] for line in attention] == ([] if node == "pve1" else ["VM 100"])


def test_what_is_old_of_an_offline_node_needs_no_attention(call: Call, healthy: Cluster) -> None:
    """Resources keep its rows for five minutes."""
    healthy.pve.add_node("pve4", online=False)
    for vm_id in (121, 122):
        healthy.pve.add_vm(vm_id, "x", node="pve4")
    healthy.pve.add_ct(221, "full", node="pve4")
    old = {"qemu/121": {"lock": "backup"}, "qemu/122": {"status": "paused"}}
    old["lxc/221"] = {"status": "running", "disk": 39, "maxdisk": 40}
    healthy.edit["/cluster/resources"] = lambda rows: [r | old.get(r["id"], {}) for r in rows]
    (line,) = call("list_infrastructure").data["attention"]
    assert line.startswith("Node pve4 is offline")


def test_a_template_needs_no_backup_job(call: Call, healthy: Cluster) -> None:
    healthy.pve.add_vm(900, "debian-13", template=True)
    healthy.rows[BACKUP] = [{"vmid": n, "name": "x", "type": "qemu"} for n in (900, "108")]
    (line,) = call("list_infrastructure").data["attention"]
    assert line.startswith("1 machine is in no backup job: 108 (x). ")


def test_ha_that_is_being_disarmed_is_told() -> None:
    for state, lines in (("disarming", 1), ("disarmed", 1), ("armed", 0)):
        found = Findings([], ha=[{"type": "fencing", "armed-state": state}])
        assert len(needs_attention(found)) == lines


def test_nothing_is_said_to_be_well_if_no_machine_can_be_seen(call: Call, healthy: Cluster) -> None:
    healthy.edit["/cluster/resources"] = lambda rows: [r for r in rows if r["type"] == "node"]
    lines = call("list_infrastructure").text.splitlines()
    assert lines[0] == "Nothing that could be seen needs attention."
    assert lines[1].startswith("Not seen: machines, storages, Ceph, inside guests")


def test_a_later_success_counts_only_if_it_is_of_the_same_kind(
    call: Call, healthy: Cluster
) -> None:
    early = {"starttime": NOW - 9000}
    healthy.rows[TASKS] = [
        task("acmerenew", "order failed", **early),
        task("acmeregister"),
        task("qmigrate", "migration aborted", id="100", **early),
        task("hamigrate", id="100"),
        task("vzdump", "job errors", **early),
        task("vzdump", node="pve2"),
        task("cephdestroyosd", "no such OSD", id="3"),
    ]
    text = call("list_infrastructure").text
    for words in (
        *("renewal of the certificate on pve1", "migration of VM 100 (web) on pve1"),
        *("backup on pve1", "work on Ceph of 3 on pve1"),
    ):
        assert f"The {words} failed at " in text


def test_a_shared_storage_is_full_whichever_node_cannot_use_it(
    call: Call, healthy: Cluster
) -> None:
    shared = {"type": "nfs", "active": 1, "shared": 1, "content": "iso", "path": "/m"}
    shared |= {"server": "s", "export": "/e", "files": set(), "total": 100, "avail": 3}
    healthy.pve.storages["nfs1"] = shared

    def full(rows: list[Row]) -> list[Row]:
        for row in rows:
            if row.get("storage") == "nfs1":
                row |= {"disk": 97, "maxdisk": 100, "status": "available"}
                if row["node"] == "pve1":
                    row["status"] = "unknown"
        return rows

    healthy.edit["/cluster/resources"] = full
    attention = call("list_infrastructure").data["attention"]
    assert "Storage nfs1 is 97 % full. See list_storage." in attention


def test_odd_answers_are_no_exception(call: Call, healthy: Cluster) -> None:
    healthy.pve.add_ceph_storage()
    healthy.rows[TASKS] = [task("vzdump", "job errors", id="\u00b2"), task("qmstart", None, id="x")]
    odd: list[Any] = [{"health": "x"}, {"health": {"status": "HEALTH_WARN", "checks": {"A": None}}}]
    odd += [{"health": {"status": "HEALTH_WARN", "checks": {"A": {"summary": "x"}}}}, {}]
    for answer in odd:
        healthy.rows[CEPH] = answer
        assert not call("list_infrastructure").is_error
        assert not call("list_machines").is_error


@pytest.mark.parametrize("failure", ["hangs", "is refused"])
def test_a_log_that_cannot_be_read_does_not_lose_the_others(
    call: Call, healthy: Cluster, monkeypatch: Patch, failure: str
) -> None:
    monkeypatch.setattr("src.lists.ask_nodes.LIST_TIMEOUT", 1.2)
    failed = [task("vzdump", "job errors", node=f"pve{n}") for n in (1, 2)]
    healthy.rows[TASKS] = failed

    async def read(_: web.Request) -> web.Response:
        lines = [{"n": 1, "t": "ERROR: Backup of VM 100 failed - no space"}]
        return web.json_response({"data": lines})

    first, second = (f"/nodes/{row['node']}/tasks/{row['upid']}/log" for row in failed)
    healthy.raw[first] = read
    if failure == "hangs":
        healthy.delay[second] = 5
    else:
        healthy.pve.fail("GET", second, 403, "Permission check failed (/nodes/pve2, Sys.Audit)")
    text = call("list_infrastructure").text
    assert 'VM 100 (web) ("no space")' in text
    assert 'The backup on pve2 failed at 2026-08-20 03:26 UTC: "job errors".' in text


def test_a_task_that_ended_without_a_status_failed(call: Call, healthy: Cluster) -> None:
    healthy.rows[TASKS] = [task("vzdump", "")]
    assert '"no exit status"' in call("list_infrastructure").text


def test_a_log_is_read_to_its_end(call: Call, healthy: Cluster, monkeypatch: Patch) -> None:
    monkeypatch.setattr("src.proxmox.tasks.LOG_PAGE", 2)
    failed = task("vzdump", "job errors")
    healthy.rows[TASKS] = [failed]
    log = ["INFO: starting"] * 4 + ["ERROR: Backup of VM 100 failed - no space"]
    lines = [{"n": n, "t": text} for n, text in enumerate(log, 1)]

    async def read(request: web.Request) -> web.Response:
        start, limit = (int(request.query[key]) for key in ("start", "limit"))
        return web.json_response({"data": lines[start : start + limit]})

    healthy.raw[f"/nodes/pve1/tasks/{failed['upid']}/log"] = read
    assert 'VM 100 (web) ("no space")' in call("list_infrastructure").text


def test_a_node_that_is_unknown_and_silent_has_no_inactive_storages(
    call: Call, healthy: Cluster, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("src.lists.ask_nodes.LIST_TIMEOUT", 1.4)
    few = {"id": "node/pve3", "node": "pve3", "type": "node", "status": "unknown"}
    healthy.edit["/nodes"] = lambda rows: [few if r["node"] == "pve3" else r for r in rows]

    def unknown(rows: list[Row]) -> list[Row]:
        for row in rows:
            if row.get("node") == "pve3" and row["type"] == "storage":
                row["status"] = "unknown"
        return rows

    healthy.edit["/cluster/resources"] = unknown
    for path in ("status", "disks/zfs"):
        healthy.delay[f"/nodes/pve3/{path}"] = 5
    (line,) = call("list_infrastructure").data["attention"]
    assert line.startswith("Node pve3 does not answer")


def test_a_node_that_tells_only_its_pools_does_not_answer(
    call: Call, healthy: Cluster, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("src.lists.ask_nodes.LIST_TIMEOUT", 1.4)
    healthy.delay["/nodes/pve3/status"] = 5
    answer = call("list_infrastructure")
    (line,) = answer.data["attention"]
    assert line.startswith("Node pve3 does not answer")
    assert answer.data["nodes"][2]["status"] == "unknown"


def test_the_token_of_the_readme_sees_all_of_it(call: Call, healthy: Cluster) -> None:
    """These are the rights that a real cluster reported for it, in lists-watch."""
    granted = recording("lists-watch")["before"]["/access/permissions"]["data"]
    for path, privileges in granted.items():
        for who in (TOKEN.split("!")[0], TOKEN):
            healthy.pve.grant(who, path, *privileges)
    healthy.pve.add_ceph_storage()
    healthy.rows[CEPH] = {"health": {"status": "HEALTH_OK"}}
    assert call("list_infrastructure").text.splitlines()[:2] == [NOTHING, UNSEEN]


def test_a_backup_that_failed_for_many_machines_counts_them(call: Call, demo: Cluster) -> None:
    row = task("vzdump", "job errors")
    demo.rows["/cluster/tasks"] = [row]
    why = "command 'set -o pipefail && lxc-usernsexec -m u:0:100000:65536 -- tar cpf' failed"
    lines = [
        {"n": n, "t": f"ERROR: Backup of VM {400 + n} failed - {why}: exit code 11"}
        for n in range(15)
    ]

    async def log(_: web.Request) -> web.Response:
        return web.json_response({"data": lines, "total": len(lines)})

    demo.raw[f"/nodes/pve1/tasks/{row['upid']}/log"] = log
    (line,) = [
        each for each in call("list_infrastructure").data["attention"] if "The backup" in each
    ]
    assert "15 machines: machine 400" in line
    assert "and 5 more. Look" in line
    assert attention.shorten("x" * 601, 600) == "x" * 597 + "..."
