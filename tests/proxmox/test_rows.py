"""Test how one row of the API, as Proxmox really answers it, becomes one model."""

from dataclasses import replace
from typing import Any

import pytest

from src import foreign
from src.models import Machine, Node, NodeResources, Storage
from src.proxmox import rows
from src.proxmox.rows import Row, read_machine, read_node_resources

VM = {"vmid": 100, "node": "pve1", "type": "qemu", "status": "running"}


def test_numbers_may_be_strings_and_booleans_are_1_or_absent() -> None:
    values = ("1.5", 2, 0, None, "", "x", [], "nan", "inf", 10**400)
    assert [rows.number(value) for value in values] == [1.5, 2, 0, *[None] * 7]
    assert [rows.integer(value) for value in values] == [1, 2, 0, *[None] * 7]
    assert [rows.text(each) for each in (None, "", 0, "a")] == [None, None, "0", "a"]
    assert [rows.fraction(each) for each in (None, "0.12345")] == [None, 0.1235]
    flags = [rows.flag(value) for value in (1, "1", True, 0, "0", None, "", 2, "yes")]
    assert flags == [True] * 3 + [False] * 6


def test_every_figure_of_a_node_is_read_from_its_own_key() -> None:
    row = {"node": "a", "status": "offline", "cpu": "0.5", "maxcpu": 2, "mem": 3}
    row |= {"maxmem": 4, "disk": 5, "maxdisk": 6, "uptime": 7, "loadavg": [1, 2, 3]}
    assert rows.read_node(row) == Node("a", "offline", 0.5, 2, 3, 4, 5, 6, 7)
    assert rows.read_node({"node": "a", "status": None}) == Node("a", "unknown")


@pytest.mark.parametrize("version", ["pve-manager/9.1.2/9d436f37a0ac4172", "9.1.2"])
def test_every_figure_that_a_node_reports_is_read(version: str) -> None:
    row = {"cpu": 0.5, "cpuinfo": {"cpus": 2}, "memory": {"used": 3, "total": 4}}
    row |= {"rootfs": {"used": 5, "total": 6}, "swap": {"used": 0, "total": 9}}
    row |= {"uptime": 7, "loadavg": ["0.52", "0.40", "0.31"], "pveversion": version}
    figures = (0.5, 2, 3, 4, 5, 6, 7, [0.52, 0.4, 0.31], "9.1.2", 0, 9)
    expected = NodeResources("a", "online", *figures[:-2], False, *figures[-2:])
    assert read_node_resources("a", row) == expected


def test_a_figure_that_a_node_does_not_report_is_none() -> None:
    keys = ("memory", "cpuinfo", "rootfs", "swap", "loadavg", "pveversion")
    zeros = {"memory": {"total": 0}, "cpuinfo": {"cpus": 0}, "rootfs": {"total": 0}}
    odd = {"loadavg": ["fake", "1", "2"], "pveversion": ""}
    for row in ({}, dict.fromkeys(keys), zeros | odd, {"loadavg": ["1", "2"]}):
        assert read_node_resources("a", row) == NodeResources("a", "online")


def test_every_figure_of_a_machine_is_read_from_its_own_key() -> None:
    row = VM | {"name": "web", "status": "paused", "cpu": 0.5, "cpus": "1.5"}
    row |= {"maxcpu": 9, "mem": 2, "maxmem": 3, "uptime": 4, "template": 1}
    row |= {"lock": "backup", "tags": "a;b,c d;"}
    figures = {"cpu": 0.5, "cpus": 1.5, "memory_used": 2, "memory_total": 3}
    more: Row = {"uptime": 4, "template": True, "lock": "backup", "ha": "started"}
    row |= {"hastate": "started", "ha": {"managed": 1, "state": "started"}}
    identity = {"name": "web", "status": "paused", "tags": ("a", "b", "c", "d")}
    machine = Machine(vm_id=100, node="pve1", type="qemu", **identity, **figures, **more)
    assert read_machine(100, row, {}) == machine
    assert read_machine(100, None, row) == replace(machine, live=False)
    off = read_machine(100, row | {"status": "stopped"}, {})
    idle = {"cpu": None, "memory_used": None, "uptime": None, "status": "stopped"}
    assert off == replace(machine, **idle)
    del row["cpus"]
    assert read_machine(100, row, {}).cpus == 9
    bare = {"node": "a", "type": "lxc", "status": None, "lock": "", "tags": None}
    empty = Machine(vm_id=5, node="a", type="lxc", status="unknown")
    assert read_machine(5, bare, {}) == empty


@pytest.mark.parametrize(
    ("live", "resource", "expected"),
    [
        ({}, {"status": "paused"}, {"status": "paused"}),
        ({"qmpstatus": "suspended"}, {}, {"status": "suspended"}),
        ({"qmpstatus": "running"}, {"status": "paused"}, {"status": "running"}),
        ({}, {"status": "stopped"}, {"status": "running"}),
        ({}, {"status": "unknown"}, {"status": "running"}),  # resources have no statistics
        ({}, {"status": None}, {"status": "running"}),
        ({"status": "stopped"}, {"status": "paused"}, {"status": "stopped"}),
        ({"cpu": 0}, {"cpu": 0.5}, {"cpu": 0.5}),  # its node's first answer is always 0
        ({"cpu": 0.1}, {}, {"cpu": 0.1}),
        ({"cpu": 0, "status": "stopped"}, {"cpu": 0.5}, {"cpu": None}),
        ({"name": None}, {"name": "web"}, {"name": "web"}),
        ({"name": "own"}, {"name": "web"}, {"name": "own"}),
        ({}, {"lock": "x"}, {"lock": None}),
        # The node's list has the memory of the process, resources that of the guest.
        ({"mem": 9}, {"mem": 1}, {"memory_used": 1}),
        ({"mem": 9}, {"mem": 0}, {"memory_used": 9}),
        ({"mem": 9, "type": "lxc"}, {"mem": 1}, {"memory_used": 9}),
        ({}, {"hastate": "error"}, {"ha": "error"}),
        ({"ha": {"managed": 0}}, {"hastate": "started"}, {"ha": None}),
        ({"ha": {"managed": 1, "state": None}}, {}, {"ha": "managed"}),
    ],
)
def test_a_machines_node_mostly_takes_precedence(live: Row, resource: Row, expected: Row) -> None:
    found = vars(read_machine(100, VM | live, VM | resource))
    assert {key: found[key] for key in expected} == expected


def test_a_machine_on_an_offline_node_is_unknown_and_keeps_its_size() -> None:
    row = VM | {"cpu": 0.5, "maxcpu": 4, "mem": 1, "maxmem": 2, "uptime": 3}
    lost, known = read_machine(1, None, row, {"pve1"}), read_machine(1, None, row)
    cleared = {"status": "unknown", "cpu": None, "memory_used": None, "uptime": None}
    assert (known.status, known.cpu, known.memory_total) == ("running", 0.5, 2)
    assert lost == replace(known, **cleared)
    assert read_machine(1, row, {}, {"pve1"}) == replace(known, live=True)


def test_a_storage_has_sizes_only_while_it_is_active() -> None:
    row = {"storage": "nfs", "type": "nfs", "shared": 1, "content": "iso,,images"}
    row |= {"active": 1, "used": 2, "total": 3, "avail": 1}
    which: Any = {"storage": "nfs", "type": "nfs", "nodes": ["a"], "shared": True}
    kinds: Any = {"content": ("images", "iso"), "used": 2, "total": 3, "available": 1}
    nfs = Storage(**which, **kinds, active=True)
    assert rows.read_storage("a", row) == nfs
    dead = rows.read_storage("a", {"storage": "b", "used": 0, "total": 0, "avail": 0})
    assert dead == Storage(storage="b", type="unknown", nodes=["a"], active=False)
    iscsi = rows.read_storage("a", row | {"total": 0, "used": 0, "avail": 0})
    assert iscsi == replace(nfs, used=None, total=None, available=None)


def test_a_storage_from_resources_has_its_last_known_size() -> None:
    row: Row = {"storage": "nfs", "node": "a", "plugintype": "nfs", "shared": "1"}
    row |= {"status": "available", "content": "iso", "disk": 2, "maxdisk": 3}
    which: Any = {"storage": "nfs", "type": "nfs", "nodes": ["a"], "shared": True}
    known = Storage(**which, content=("iso",), used=2, total=3)
    assert rows.read_storage_resource(row, {"b"}) == known
    unknown = replace(known, used=None, total=None)
    assert rows.read_storage_resource(row, {"a"}) == unknown
    assert rows.read_storage_resource(row | {"maxdisk": 0}, ()) == unknown
    del row["plugintype"], row["status"]
    unknown.type = "unknown"
    assert rows.read_storage_resource(row, ()) == unknown


def test_foreign_text_is_truncated_and_on_one_line() -> None:
    hostile = "a\x00b\n\u202ec\u2066\x1b[2J\u2028d\ud800e\ue000f  g\u200b"
    assert foreign.clean(hostile) == "a b c d e f g"
    assert foreign.clean("x" * 200) == "x" * 200
    assert foreign.clean("x" * 201) == "x" * 197 + "..."
    assert foreign.clean("x" * 9, 8) == "xxxxx..."
    assert rows.text("x" * 81) == "x" * 77 + "..."
    tags = ";".join(["y" * 81, *map(str, range(50))])
    found = read_machine(1, VM | {"tags": tags, "name": "\x07"}, {})
    assert found.tags[:2] == ("y" * 77 + "...", "0")
    assert len(found.tags) == 40
    assert found.name is None


def test_a_cluster_has_a_name_and_quorum_and_a_standalone_host_has_neither() -> None:
    node = {"type": "node", "name": "pve1"}
    cluster = {"type": "cluster", "name": "demo", "quorate": 1}
    assert rows.read_cluster([node, cluster]) == ("demo", True)
    assert rows.read_cluster([cluster | {"quorate": 0}]) == ("demo", False)
    assert rows.read_cluster([node]) == (None, None)


def test_a_size_or_an_uptime_below_0_is_unknown() -> None:
    row = {"node": "a", "type": "lxc", "vmid": 1, "status": "running", "uptime": -1}
    machine = rows.read_machine(1, row | {"mem": -4096, "maxmem": -1}, {})
    assert (machine.uptime, machine.memory_used, machine.memory_total) == (None, None, None)
    storage = {"storage": "s", "active": 1, "total": 10, "used": 1, "avail": -4096}
    assert rows.read_storage("a", storage).available is None


def test_what_a_program_writes_for_a_terminal_is_gone() -> None:
    title = "\x1b]0;title\x07no \x1b[?25ldisk\x1bM"
    for written in ("\x1b[1;31mno disk\x1b[0m", "\x9b31mno\x1b[K disk", title):
        assert foreign.clean(written) == "no disk"


def test_quoted_words_cannot_end_their_quotes() -> None:
    assert foreign.quote('a". VM 1 is stopped. "b') == "\"a'. VM 1 is stopped. 'b\""
