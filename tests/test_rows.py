"""Reading and laying what Proxmox answers, as it really answers: pure functions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.merge import add_up, merge_machines, merge_node, merge_storages, named_nodes
from src.models import Machine, Machines, Node, Storages
from src.rows import read_machine, read_node, read_node_resources
from src.texts import duration, fit, machines_text, size, storage_text
from tests.cluster import GIB, Row, node_status

USAGE = {"cpu": 0.2, "maxcpu": 16, "mem": 25 * GIB, "maxmem": 63 * GIB} | {
    "disk": 9 * GIB,
    "maxdisk": 94 * GIB,
    "uptime": 100,
}


# --- Nodes ----------------------------------------------------------------------------


def test_a_node_without_figures() -> None:
    assert read_node({"node": "pve1", "status": "online"}) == Node("pve1", "online")
    assert read_node({"node": "pve1"}).status == "unknown"


def test_load_comes_as_strings() -> None:
    resources = read_node_resources("pve1", node_status(USAGE))
    assert resources.load == [0.52, 0.40, 0.31]
    assert resources.version == "9.1.2"
    assert (resources.swap_used, resources.swap_total) == (GIB, 8 * GIB)
    assert (resources.disk_used, resources.disk_total) == (9 * GIB, 94 * GIB)


@pytest.mark.parametrize("row", [{}, {"memory": None, "loadavg": ["fake"]}])
def test_resources_of_which_nothing_is_there(row: Row) -> None:
    resources = read_node_resources("pve1", row)
    assert {value for key, value in vars(resources).items() if key != "node"} == {
        None,
        "online",
    }


def test_an_unusual_version_is_shown_as_it_is() -> None:
    assert read_node_resources("pve1", {"pveversion": "9.1"}).version == "9.1"


def test_zeros_where_figures_should_be_do_not_hide_what_is_known() -> None:
    empty = {"memory": {"total": 0}, "cpuinfo": {"cpus": 0}}
    node = merge_node(read_node({"node": "a"} | USAGE), read_node_resources("a", empty))
    assert (node.memory_total, node.cpus) == (63 * GIB, 16)


def test_what_the_node_says_wins_but_for_status_and_cpu() -> None:
    live = read_node_resources("a", node_status(USAGE | {"mem": GIB, "maxcpu": 8}))
    node = merge_node(read_node({"node": "a", "status": "unknown"} | USAGE), live)
    assert (node.status, node.cpu) == ("unknown", 0.2)
    assert (node.memory_used, node.cpus) == (GIB, 8)
    assert merge_node(Node("a", "online"), live).cpu == 0
    assert merge_node(Node("a", "online"), None) == Node("a", "online")


def test_totals_weigh_cpu_by_the_number_of_cpus() -> None:
    nodes = [
        Node("a", "online", cpu=1.0, cpus=4, memory_used=1, memory_total=2),
        Node("b", "online", cpu=0.0, cpus=12, memory_used=3, memory_total=4),
        Node("c", "online"),
        Node("d", "offline", cpus=64, memory_total=100),
    ]
    totals = add_up(nodes)
    assert vars(totals) == {
        "nodes": 4,
        "online": 3,
        "cpu": 0.25,
        "cpus": 16,
        "memory_used": 4,
        "memory_total": 6,
    }
    assert add_up([]).cpu is add_up([]).memory_used is None


def test_the_broadcast_names_nodes() -> None:
    cluster_status = [
        {"type": "cluster", "name": "demo"},
        {"type": "node", "name": "pve1", "online": 1},
        {"type": "node", "name": "pve2", "online": 0},
    ]
    assert named_nodes(cluster_status) == [
        {"node": "pve1", "status": "online"},
        {"node": "pve2", "status": "offline"},
    ]
    machines = [{"type": "qemu", "node": "pve1", "name": "web"}]
    assert named_nodes(machines) == [{"node": "pve1", "status": "unknown"}]


# --- Machines -------------------------------------------------------------------------


def lay(ground: list[Row], live: list[Row], *offline: str) -> list[Machine]:
    return merge_machines(ground, live, set(offline))


GROUND = {"vmid": 100, "node": "pve1", "type": "qemu", "status": "running"}
LIVE = {"vmid": 100, "node": "pve1", "type": "qemu", "status": "running"}


def test_a_container_of_an_older_proxmox_has_its_vmid_as_a_string() -> None:
    live = {"vmid": "200", "node": "pve1", "type": "lxc", "status": "running"}
    ground = GROUND | {"vmid": 200, "type": "lxc", "name": "dns", "cpu": 0.5}
    (machine,) = lay([ground], [live | {"cpus": "1.5"}])
    assert (machine.vm_id, machine.name, machine.cpu, machine.cpus) == (
        200,
        "dns",
        0.5,
        1.5,
    )


def test_rows_of_other_types_and_without_a_node_are_left_out() -> None:
    rows = [
        {"type": "storage", "vmid": 1},
        {"type": "sdn"},
        {"type": "qemu", "vmid": 5},
    ]
    assert lay([*rows, {"type": "network", "node": "pve1"}], []) == []


def test_a_null_name_is_taken_from_the_node() -> None:
    """A machine that is named U has no name in the broadcast."""
    (machine,) = lay([GROUND | {"name": None}], [LIVE | {"name": "U"}])
    assert machine.name == "U"
    (machine,) = lay([GROUND | {"name": None}], [])
    assert machine.name is None
    assert "100 (no name)" in machines_text(
        Machines([machine], []), [machine], None, None
    )


def test_what_the_node_says_live_wins() -> None:
    ground = GROUND | {"status": "stopped", "mem": 1, "lock": "backup", "tags": "old"}
    (machine,) = lay([ground], [LIVE | {"mem": 2, "tags": "a;b,c d"}])
    assert (machine.status, machine.memory_used, machine.lock) == ("running", 2, None)
    assert machine.tags == ["a", "b", "c", "d"]
    assert machine.live is True


@pytest.mark.parametrize("state", ["paused", "io-error", "prelaunch", "suspended"])
def test_a_state_finer_than_running_comes_from_the_broadcast(state: str) -> None:
    (machine,) = lay([GROUND | {"status": state}], [LIVE])
    assert machine.status == state
    (machine,) = lay([GROUND | {"status": state}], [LIVE | {"status": "stopped"}])
    assert machine.status == "stopped"


def test_cpu_comes_from_the_broadcast_while_it_runs() -> None:
    assert lay([GROUND | {"cpu": 0.5}], [LIVE | {"cpu": 0}])[0].cpu == 0.5
    stopped = LIVE | {"status": "stopped", "cpu": 0}
    assert lay([GROUND | {"cpu": 0.5}], [stopped])[0].cpu == 0
    assert lay([], [LIVE | {"cpu": 0.1}])[0].cpu == 0.1


def test_a_machine_that_migrates_is_there_once_where_the_broadcast_has_it() -> None:
    there = LIVE | {"node": "pve2"}
    for live in ([LIVE, there], [there, LIVE]):
        (machine,) = lay([GROUND | {"node": "pve2"}], live)
        assert machine.node == "pve2"
    (machine,) = lay([GROUND], [])  # between the nodes: the last known state
    assert (machine.status, machine.live) == ("running", False)


def test_status_current_tells_a_paused_vm() -> None:
    row = LIVE | {"qmpstatus": "paused"}
    assert read_machine(100, row, {}).status == "paused"
    assert read_machine(100, row | {"qmpstatus": "running"}, {}).status == "running"
    assert read_machine(100, LIVE | {"template": 1, "lock": "x"}, {}).template is True


TEXTS = ("name", "status", "lock", "tags", "qmpstatus", "template")
FIGURES = ("cpu", "cpus", "maxcpu", "mem", "maxmem", "uptime")
anything = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.floats())
rows = st.fixed_dictionaries(
    {
        "vmid": st.one_of(st.integers(100, 105), st.integers(100, 105).map(str)),
        "node": st.sampled_from(["pve1", "pve2", "pve3"]),
        "type": st.sampled_from(["qemu", "lxc"]),
    },
    optional=dict.fromkeys((*TEXTS, *FIGURES), anything),
)


@given(
    ground=st.lists(rows, unique_by=lambda row: int(row["vmid"])),
    live=st.lists(rows),
    offline=st.sets(st.sampled_from(["pve1", "pve2", "pve3"])),
)
def test_every_machine_is_there_exactly_once_whatever_is_missing(
    ground: list[Row], live: list[Row], offline: set[str]
) -> None:
    machines = merge_machines(ground, live, offline)
    told = {int(row["vmid"]) for row in ground + live}
    assert [machine.vm_id for machine in machines] == sorted(told)
    answered = {int(row["vmid"]) for row in live}
    for machine in machines:
        assert machine.live is (machine.vm_id in answered)
        if not machine.live and machine.node in offline:
            assert machine.status == "unknown"
            assert machine.cpu is machine.memory_used is machine.uptime is None
    text = machines_text(Machines(machines, []), machines, None, None)
    for machine in machines:
        assert f"\n{machine.vm_id} " in text


# --- Storages -------------------------------------------------------------------------


def store(**changes: Any) -> Row:
    row = {"storage": "nfs", "node": "pve1", "type": "nfs", "content": "iso,images"}
    figures = {"active": 1, "enabled": 1, "shared": 1, "total": 100, "used": 60}
    return row | figures | {"avail": 30} | changes


def broadcast(**changes: Any) -> Row:
    row = {"storage": "nfs", "node": "pve1", "type": "storage", "plugintype": "nfs"}
    return (
        row | {"status": "available", "shared": "1", "disk": 6, "maxdisk": 9} | changes
    )


def test_a_storage_that_is_enabled_elsewhere_is_not_on_this_node() -> None:
    rows = [store(enabled=0, node="pve1"), store(node="pve2")]
    (storage,) = merge_storages([], rows, set(), set())
    assert storage.nodes == ["pve2"]


def test_a_shared_storage_has_the_figures_of_a_node_where_it_is_active() -> None:
    rows = [store(active=0, total=0, used=0, avail=0), store(node="pve2")]
    (storage,) = merge_storages([], rows, set(), set())
    assert vars(storage) == {
        "storage": "nfs",
        "type": "nfs",
        "nodes": ["pve1", "pve2"],
        "shared": True,
        "active": True,
        "content": ["images", "iso"],
        "used": 60,
        "total": 100,
        "available": 30,
    }


def test_a_local_storage_is_one_on_each_node() -> None:
    rows = [store(shared=0, node=node, storage="local") for node in ("pve2", "pve1")]
    assert [s.nodes for s in merge_storages([], rows, set(), set())] == [
        ["pve1"],
        ["pve2"],
    ]


def test_a_node_that_did_not_answer_has_what_was_broadcast() -> None:
    (storage,) = merge_storages([broadcast(shared=0)], [], {"pve1"}, set())
    assert (storage.active, storage.used, storage.total) == (True, 6, 9)
    assert storage.available is None
    (storage,) = merge_storages([broadcast(status="unknown")], [], {"pve1"}, set())
    assert storage.active is storage.total is None


def test_a_storage_on_an_offline_node_is_unknown() -> None:
    (storage,) = merge_storages([broadcast()], [], set(), {"pve1"})
    assert storage.active is storage.used is storage.total is None


def test_the_broadcast_of_a_node_that_answered_does_not_count() -> None:
    assert merge_storages([broadcast()], [], set(), set()) == []
    assert merge_storages([{"type": "sdn", "node": "pve1"}], [], {"pve1"}, set()) == []


def test_a_storage_that_is_dead_on_one_node_only_stays_active() -> None:
    rows = [store(), store(node="pve2", active=0)]
    (storage,) = merge_storages([], rows, set(), set())
    assert storage.active is True


# --- Texts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "used", "text"),
    [
        (63 * GIB, 12.4 * GIB, "12.4/63.0 GiB"),
        (512 * 1024**2, None, "512.0 MiB"),
        (10 << 40, 6 << 40, "6.0/10.0 TiB"),
        (1024**2, 0, "0.0/1.0 MiB"),
        (0, 0, "0.0/0.0 MiB"),
        (GIB, GIB, "1.0/1.0 GiB"),
    ],
)
def test_sizes(total: float, used: float | None, text: str) -> None:
    assert size(total, used) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m 0s"),
        (3600, "1h 0m"),
        (86_400 + 3600 * 4 + 59, "1d 4h"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_storages_are_shown_fullest_first() -> None:
    rows = [
        store(storage="a", used=1),
        store(storage="b", used=99),
        store(storage="c", active=0),
    ]
    text = storage_text(Storages(merge_storages([], rows, set(), set()), []))
    assert [line.split(",")[0] for line in text.splitlines()[1:]] == ["b", "a", "c"]


@given(
    rows=st.lists(st.text("x", min_size=1, max_size=300), max_size=400),
    top=st.lists(st.text("t", max_size=50), min_size=1, max_size=5),
)
def test_a_text_never_gets_longer_than_it_may(rows: list[str], top: list[str]) -> None:
    rows = [f"{n:>3} {row}" for n, row in enumerate(rows)]
    whole = len("\n".join([*top, *rows]))
    text = fit(list(top), rows, ["summary"], "Do something.")
    assert len(text) <= 40_000
    if whole <= 40_000:
        assert text.splitlines() == "\n".join([*top, *rows]).splitlines()
    else:
        shown = [line for line in text.splitlines() if line in rows]
        assert shown == rows[: len(shown)]
        missing = len(rows) - len(shown)
        assert text.endswith(f"{missing:,} more rows are not shown. Do something.")
        assert len(text) > 39_000


def test_every_figure_of_a_node_is_read_from_its_own_key() -> None:
    row = {"node": "pve1", "status": "online", "cpu": "0.5", "maxcpu": 2, "mem": 3}
    row |= {"maxmem": 4, "disk": 5, "maxdisk": 6, "uptime": 7}
    assert read_node(row) == Node("pve1", "online", 0.5, 2, 3, 4, 5, 6, 7, None, None)


def test_storages_that_do_not_fit_are_counted() -> None:
    rows = [store(storage=f"s{n}", shared=0, node="x" * 60) for n in range(500)]
    text = storage_text(Storages(merge_storages([], rows, set(), set()), ["A note."]))
    assert len(text) <= 40_000
    assert text.startswith("500 storages: 500 active\nA note.\n")
    assert text.endswith(
        " more rows are not shown. The fullest are above; the structured content has "
        "them all."
    )


def test_a_machine_without_statistics_in_the_broadcast_runs_if_its_node_says_so() -> (
    None
):
    (machine,) = lay([GROUND | {"status": "unknown"}], [LIVE])
    assert machine.status == "running"


def test_a_machine_that_only_the_broadcast_knows_has_its_figures_from_there() -> None:
    (machine,) = lay([GROUND | {"maxcpu": 4, "mem": 1, "maxmem": 2, "uptime": 3}], [])
    assert (machine.cpus, machine.memory_used, machine.memory_total) == (4, 1, 2)
    assert (machine.status, machine.uptime) == ("running", 3)


def test_a_status_that_no_machine_has_names_those_there_are() -> None:
    found = Machines(lay([], [LIVE]), [])
    assert machines_text(found, [], None, "paused") == (
        "No machine is paused. There are: 1 running."
    )
    assert machines_text(found, [], "pve1", "paused") == (
        "No machine on pve1 is paused. There are: 1 running."
    )
    assert machines_text(Machines([], []), [], None, "paused") == "No machines."
