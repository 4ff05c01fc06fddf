"""Test that merged answers list every node, machine and storage once, with the best data."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.lists.answers import machines_answer
from src.lists.filters import Filters
from src.lists.merge import add_up, merge_machines, merge_nodes, merge_storages
from src.models import Machines, Node, Storage, Totals
from src.proxmox.rows import Row, read_machine

VM = {"vmid": 100, "node": "pve1", "type": "qemu", "status": "running"}


def test_totals_add_up_the_online_nodes_and_weight_cpu() -> None:
    nodes = [Node("a", "online", 1.0, 4, 1, 2), Node("b", "online", 0.0, 12, 3, 4)]
    nodes += [Node("c", "online", 0.5), Node("d", "online", None, 8)]
    nodes += [Node("e", "unknown", 1.0, 64, 100), Node("f", "offline", 0.5, 64, 100)]
    assert add_up(nodes) == Totals(6, 4, 0.25, 24, 4, 6)
    assert add_up([]) == Totals(0, 0, None, None, None, None)
    assert add_up([Node("a", "online", cpu=1.0, cpus=0)]).cpu is None


def test_a_nodes_own_figures_take_precedence_except_status_and_cpu() -> None:
    row = {"node": "a", "status": "unknown", "cpu": 0.2, "maxcpu": 16, "mem": 25}
    row |= {"maxmem": 63, "disk": 9, "maxdisk": 94, "uptime": 100}
    live = {"cpu": 0, "cpuinfo": {"cpus": 8}, "memory": {"used": 1}, "uptime": 4}
    live |= {"rootfs": {"used": 2, "total": 3}, "loadavg": [1, 2, 3]}
    merged = Node("a", "unknown", 0.2, 8, 1, 63, 2, 3, 4, [1, 2, 3])
    assert merge_nodes({"a": row}, {"a": live}, (), []) == [merged]
    listed = Node("a", "unknown", 0.2, 16, 25, 63, 9, 94, 100)
    assert merge_nodes({"a": row}, {}, (), []) == [listed]
    for cpu, expected in ((None, 0), (0.0, 0), (0.5, 0.5)):
        (node,) = merge_nodes({"a": row | {"cpu": cpu}}, {"a": live}, (), [])
        assert node.cpu == expected


def test_a_node_that_does_not_answer_is_unknown_whatever_others_report() -> None:
    rows = {name: {"node": name, "status": "online", "cpu": 1} for name in ("b", "a")}
    one, two = merge_nodes(rows, {}, {"b"}, [])
    assert (one, two) == (Node("a", "online", 1), Node("b", "unknown"))
    resources = [{"type": "node", "node": "a", "hastate": "maintenance"}]
    resources += [{"type": "node", "node": "b", "hastate": "online"}]
    resources += [{"type": "qemu", "node": "b", "hastate": "maintenance"}]
    found = merge_nodes(rows, {}, (), resources)
    assert [node.maintenance for node in found] == [True, False]


def test_only_rows_of_machines_are_merged() -> None:
    """An older Proxmox returns a container's vmid as a string, without node and type."""
    rows: list[Row] = [{"type": "storage", "vmid": 1, "node": "pve1"}, {"type": "sdn"}]
    rows += [{"type": "qemu", "vmid": 5}, {"type": "lxc", "node": "pve1"}]
    rows += [VM | {"vmid": 200, "type": "lxc", "name": "dns", "cpu": 0.5}]
    live = {("pve1", "lxc"): [{"vmid": "200", "status": "running"}, {"status": "x"}]}
    (machine,) = merge_machines(rows, live, ())
    assert machine.label == "container 200 (dns) on pve1"
    assert (machine.cpu, machine.live) == (0.5, True)


@pytest.mark.parametrize("nodes", [("pve1", "pve2"), ("pve2", "pve1")])
def test_a_migrating_machine_is_on_the_node_that_resources_name(nodes: list[str]) -> None:
    live = {(node, "qemu"): [{"vmid": 100}] for node in nodes}
    for node in nodes:
        (machine,) = merge_machines([VM | {"node": node}], live, ())
        assert machine.node == node
    assert [each.node for each in merge_machines([], live, ())] == [nodes[0]]
    (machine,) = merge_machines([VM], {}, ())  # between the nodes: the last known state
    assert (machine.status, machine.live) == ("running", False)


keys = "name status lock tags qmpstatus template cpu cpus maxcpu mem maxmem uptime"
anything = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.floats())
vm_ids = {"vmid": st.integers(100, 105) | st.integers(100, 105).map(str)}
nodes = st.sampled_from(["pve1", "pve2", "pve3"])
kinds = st.sampled_from(["qemu", "lxc"])
more = dict.fromkeys(keys.split(), anything)
live_rows = st.fixed_dictionaries(vm_ids, optional=more)
rows = st.fixed_dictionaries({**vm_ids, "node": nodes, "type": kinds}, optional=more)


@given(
    resources=st.lists(rows, unique_by=lambda row: int(row["vmid"])),
    live=st.dictionaries(st.tuples(nodes, kinds), st.lists(live_rows)),
    offline=st.sets(nodes),
)
def test_every_machine_is_listed_exactly_once_whatever_is_missing(
    resources: list[Row], live: dict[tuple[str, str], list[Row]], offline: set[str]
) -> None:
    machines = merge_machines(resources, live, offline)
    answered = {int(row["vmid"]) for rows in live.values() for row in rows}
    expected = answered | {int(row["vmid"]) for row in resources}
    assert [machine.vm_id for machine in machines] == sorted(expected)
    text, _ = machines_answer(Machines(machines, []))
    text = f"\n{text}"
    for machine in machines:
        assert f"\n{machine.vm_id} " in text
        assert machine.live is (machine.vm_id in answered)
        if not machine.live and machine.node in offline:
            assert machine.status == "unknown"
            assert machine.cpu is machine.memory_used is machine.uptime is None


def storage(**changes: Any) -> Row:
    row = {"storage": "nfs", "type": "nfs", "content": "iso", "active": 1, "shared": 1}
    return row | {"total": 100, "used": 60, "avail": 30} | changes


def resource(node: str, kind: str = "storage") -> Row:
    row = {"storage": "nfs", "node": node, "type": kind, "shared": 1}
    return row | {"status": "available", "disk": 6, "maxdisk": 9}


def merged(live: dict[str, list[Row]], *resources: Row) -> list[Storage]:
    """Merge the storages of a cluster whose pve1 does not answer and whose pve2 is offline."""
    return merge_storages(list(resources), live, {"pve1"}, {"pve2"})


def test_a_shared_storage_is_listed_once_with_the_figures_of_an_active_node() -> None:
    dead = storage(active=0, total=0, used=0, avail=0)
    figures = {"used": 60, "total": 100, "available": 30, "content": ("iso",)}
    where: Any = {"nodes": ["pve3", "pve4"], "shared": True, "active": True}
    nfs = Storage(storage="nfs", type="nfs", **where, **figures)
    assert merged({"pve4": [dead], "pve3": [storage()]}) == [nfs]
    assert merged({"pve3": [storage()], "pve4": [dead]}) == [nfs]
    (found,) = merged({"pve3": [dead]}, resource("pve2"))  # pve2 does not know
    assert (found.nodes, found.active) == (["pve2", "pve3"], False)
    (found,) = merged({"pve3": [dead]}, resource("pve1"))  # what pve1 last knew is older
    assert (found.active, found.used) == (False, None)
    (found,) = merged({}, resource("pve2"), resource("pve1"))
    assert (found.active, found.used) == (None, 6)


def test_a_local_storage_is_listed_for_each_node_that_enables_it() -> None:
    rows = [storage(shared=0), storage(shared=0, storage="a", enabled=1), {"type": "x"}]
    found = merged({"pve4": rows, "pve3": [*rows, storage(storage="b", enabled=0)]})
    pairs = [("a", "pve3"), ("a", "pve4"), ("nfs", "pve3"), ("nfs", "pve4")]
    assert [(each.storage, *each.nodes) for each in found] == pairs


def test_storages_of_silent_nodes_come_from_resources() -> None:
    found = [merged({}, resource(node)) for node in ("pve1", "pve2", "pve3")]
    used = [[(each.active, each.used) for each in storages] for storages in found]
    assert used == [[(None, 6)], [(None, None)], []]
    assert merged({}, resource("pve1", "sdn")) == []


def test_a_name_filter_ignores_case_and_a_missing_name() -> None:
    web, bare = (read_machine(1, VM | row, {}) for row in ({"name": "Web"}, {"tags": "x;PROD"}))
    found = [[Filters(name=n).match(m) for m in (web, bare)] for n in ("wE", "prod", "None", "1")]
    assert found == [[True, False], [False, False], [False, False], [True, True]]
    tagged = [[Filters(tag=t).match(m) for m in (web, bare)] for t in ("pRod", "pro", "X")]
    assert tagged == [[False, True], [False, False], [False, True]]


def test_a_name_filter_is_no_part_of_an_id_and_a_pool_filter_is_the_whole_pool() -> None:
    machine = read_machine(101, VM, {"pool": "Infra"})
    found = [Filters(name=name).match(machine) for name in ("101", "10", "01")]
    assert found == [True, False, False]
    found = [Filters(pool=pool).match(machine) for pool in ("inFra", "infr", "x")]
    assert found == [True, False, False]


def test_a_machine_that_has_no_name_can_be_matched() -> None:
    """Its own node says so; only of a lost one the name may be unknown."""
    there, lost = read_machine(100, VM, {}), read_machine(100, None, VM)
    assert [Filters(name="web").cannot_match(each) for each in (there, lost)] == [False, True]
