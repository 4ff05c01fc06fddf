"""Test what list_machines says of machines that it does not show, or knows little of."""

from datetime import UTC, datetime
from typing import Any

import pytest

from src.lists.texts import ranges
from tests.cluster import Cluster, Row
from tests.conftest import Call
from tests.lists.test_attention import NOW, TASKS, task

LOST = (400, 550, 551, 552, 553, 554, 555)


@pytest.fixture
def lab(cluster: Cluster) -> Cluster:
    """Provide seven machines on pve4, and seven whose names are unknown on pve6."""
    pve = cluster.pve
    pve.add_node("pve4")
    pve.add_node("pve6", online=False)
    states = {"web": "running", "mail": "running", "db": "io-error", "build": "running"}
    for number, (name, state) in enumerate(states.items()):
        config = {"memory": 2048, "tags": "prod;Lab" if name == "web" else "collab"}
        options = {"status": "running", "qmpstatus": state, "config": config, "node": "pve4"}
        pve.add_vm(101 + number, name, **options).stats.update(mem=1 << 30)
    pve.add_vm(105, "asleep", node="pve4", status="running", qmpstatus="paused", pool="infra")
    pve.add_vm(201, "mail", node="pve4")
    pve.add_ct(202, "old", node="pve4")
    for vm_id in LOST:
        pve.add_vm(vm_id, "nas-gw", node="pve6")
    return cluster


@pytest.mark.parametrize(
    ("filters", "head"),
    [
        ({"node": "pve4", "status": "running"}, (
            "3 of 7 machines on pve4 match (status running): 3 running, memory 3.0/6.0 GiB. "
            "Not shown: 2 stopped, 1 io-error, 1 paused."
        )),
        ({"node": "pve4", "tag": "LAB"}, (
            "1 of 7 machines on pve4 matches (tag LAB): 1 running, memory 1.0/2.0 GiB. "
            "Not shown: 2 running, 2 stopped, 1 io-error, 1 paused."
        )),
        ({"pool": "INFRA"}, (
            "1 of 14 machines on 2 nodes matches (pool INFRA): 1 paused, memory 64.0/512.0 MiB. "
            "Not shown: 3 running, 2 stopped, 1 io-error, 7 unknown."
        )),
        ({"name": "202"}, (
            "1 of 14 machines on 2 nodes matches (name 202): 1 stopped. "
            "Not shown: 3 running, 1 stopped, 1 io-error, 1 paused, 7 unknown."
        )),
        ({"node": "pve4", "status": "suspended"}, (
            "No machines on pve4 match (status suspended). Without the filters there are: "
            "3 running, 2 stopped, 1 io-error, 1 paused."
        )),
    ],
)  # fmt: skip
def test_a_filter_does_not_hide_silently(call: Call, lab: Cluster, filters: Row, head: str) -> None:
    answer = call("list_machines", **filters)
    assert answer.data["notes"][0] == head
    assert answer.text.startswith(head)


def test_machines_without_a_known_name_cannot_be_matched(call: Call, lab: Cluster) -> None:
    words = (
        "7 machines on pve6 (400, 550 to 555) cannot be matched: their names and tags are not "
        "known while it is offline. One of them may be meant."
    )
    for filters in ({"name": "nas-gw"}, {"tag": "lab"}, {"name": "nas-gw", "node": "pve6"}):
        assert words in call("list_machines", **filters).data["notes"]
    for filters in ({"name": "mail", "node": "pve4"}, {"status": "running"}, {}):
        assert "cannot be matched" not in call("list_machines", **filters).text
    text = call("list_machines", name="400").text
    assert "400 (name unknown), pve6" in text
    assert "(no name)" not in text
    assert "cannot be matched" in text  # another one may have it in its name


def test_machines_that_are_excluded_otherwise_could_not_be_matched_either(
    call: Call, lab: Cluster
) -> None:
    def known(rows: list[Row]) -> list[Row]:
        return [row | ({"tags": "prod"} if row.get("vmid") == 400 else {}) for row in rows]

    lab.edit["/cluster/resources"] = known
    for filters in ({"pool": "infra"}, {"status": "running"}, {"node": "pve4"}):
        assert "cannot be matched" not in call("list_machines", name="nas-gw", **filters).text
    text = call("list_machines", name="nas-gw", tag="lab").text
    assert "6 machines on pve6 (550 to 555) cannot be matched" in text


def test_pools_that_cannot_be_seen_are_said(call: Call, cluster: Cluster) -> None:
    cluster.pve.add_vm(100, "web")
    text = call("list_machines", pool="lab").text
    assert "lacks Pool.Audit on /pool" in text
    cluster.pve.guest(100).pool = "infra"
    assert "Pool.Audit" not in call("list_machines", pool="lab").text


def test_machines_of_one_name_are_said(call: Call, lab: Cluster) -> None:
    note = "2 machines have the name mail (102, 201)."
    assert note in call("list_machines").data["notes"]
    assert note in call("list_machines", name="mail").data["notes"]
    assert note not in call("list_machines", status="running").data["notes"]
    for number in range(300, 314):
        lab.pve.add_vm(number, f"twin-{number // 2}", node="pve4")
    notes = call("list_machines").data["notes"]
    assert "3 more names are those of several machines." in notes


def test_what_paused_means_is_said_once(call: Call, lab: Cluster) -> None:
    lab.pve.add_vm(106, "asleep-too", node="pve4", status="running", qmpstatus="paused")
    note = "paused: suspended, not hung; resume it in Proxmox."
    assert call("list_machines").text.count(note) == 1
    assert note not in call("list_machines", status="running").text


def test_a_running_task_is_shown_with_its_machine(call: Call, lab: Cluster) -> None:
    began = NOW - 60
    running: list[Any] = [
        task("qmshutdown", None, id="101", node="pve4", starttime=began),
        task("vncproxy", None, id="102", node="pve4"),
        task("qmstart", "no disk", id="102", node="pve4"),
        task("vzdump", None, node="pve4", starttime=began),
        task("qmigrate", None, id="400", node="pve6"),
        task("qmclone", None, id="103", node="pve4", starttime=began),
        task("qmsnapshot", None, id="103", node="pve4", starttime=began + 5),
    ]
    lab.rows[TASKS] = running
    lab.pve.guest(104).lock = "backup"
    answer = call("list_machines")
    when = f"{datetime.fromtimestamp(began, UTC):%H:%M:%S} UTC"
    lines = {line.split()[0]: line for line in answer.text.splitlines()}
    assert f", shutdown since {when}" in lines["101"]
    assert f", clone since {when}" in lines["103"]
    assert f", locked (backup), backup since {when}" in lines["104"]
    assert not [n for n in ("102", "105", "201", "400") if "since" in lines[n]]
    found = {each["vm_id"]: each.get("task") for each in answer.data["machines"]}
    assert found[101] == {"type": "qmshutdown", "since": began}
    assert found[104] == {"type": "vzdump", "since": began}
    assert found[102] is None
    attention = " ".join(call("list_infrastructure").data["attention"])
    assert "locked" not in attention
    lab.rows[TASKS] = []
    assert (
        "VM 104 (build) on pve4 is locked (backup), but no task runs on it."
        in call("list_infrastructure").text
    )


def test_tasks_that_cannot_be_read_are_one_note(call: Call, lab: Cluster) -> None:
    lab.pve.fail("GET", TASKS, 500, "it is broken")
    notes = call("list_machines").data["notes"]
    assert 'What runs on the machines now could not be read. Proxmox says: "it is broken".' in notes


def test_a_list_of_storages_and_one_of_nodes_name_each_other(call: Call, lab: Cluster) -> None:
    assert "(storages: list_storage)" in call("list_infrastructure").data["notes"][0]
    assert "(the nodes' root disks: list_infrastructure)" in call("list_storage").data["notes"][0]


def test_ids_are_written_as_ranges() -> None:
    assert ranges([3, 1, 2, 5, 7, 8]) == "1 to 3, 5, 7, 8"
    assert ranges([]) == ""


def test_a_dead_nodes_task_does_not_run_on_a_machine_that_has_moved(
    call: Call, demo: Cluster
) -> None:
    demo.pve.add_vm(300, "moved", node="pve2", status="running")
    demo.rows["/cluster/tasks"] = [task("qmshutdown", None, id="300", node="pve3")]
    text = call("list_machines").text + call("list_machines", node="pve2").text
    assert text.count("300 moved") == 2
    assert "shutdown since" not in text


@pytest.mark.parametrize("wanted", [{"pool": "prod"}, {"status": "paused"}])
def test_a_filter_says_what_could_not_be_read(
    call: Call, demo: Cluster, wanted: dict[str, str]
) -> None:
    demo.pve.fail("GET", "/cluster/resources", 500, "got timeout")
    assert "the filters may hide machines that match" in call("list_machines", **wanted).text
    assert "may hide" not in call("list_machines", name="web").text
