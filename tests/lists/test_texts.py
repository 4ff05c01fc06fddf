"""Figures in words, and the line of each row, to the letter."""

from dataclasses import replace
from typing import Any

from src import models
from src.lists import texts
from src.models import Node, Storage

MIB, GIB, TIB = 1024**2, 1024**3, 1024**4
WEB = models.Machine(
    vm_id=100,
    name="web",
    node="pve1",
    type="qemu",
    status="running",
    cpu=0.074,
    cpus=4,
    memory_used=GIB,
    memory_total=4 * GIB,
    uptime=90_000,
    tags=("prod", "front"),
)
OFF = replace(WEB, vm_id=101, status="stopped", tags=(), live=False)


def test_a_size_is_in_the_unit_that_fits_the_total() -> None:
    assert texts.size(10 * TIB, 6 * TIB) == "6.0/10.0 TiB"
    assert [texts.size(each) for each in (TIB, MIB / 2)] == ["1.0 TiB", "0.5 MiB"]
    assert texts.size(TIB - GIB, 0) == "0.0/1023.0 GiB"
    assert texts.size(GIB, 0.4 * GIB) == "0.4/1.0 GiB"
    assert texts.size(GIB - MIB) == "1023.0 MiB"


def test_figures_in_words() -> None:
    seconds = (0, 59, 60, 3599, 3600, 86_399, 86_400, 100 * 86_400 + 3659)
    said = ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "1d 0h", "100d 1h"]
    assert list(map(texts.duration, seconds)) == said
    assert [texts.percent(each) for each in (0, 0.126, 1.5)] == ["0 %", "13 %", "150 %"]
    assert texts.percent(-0.004) == "0 %"
    said = ["0 rows", "1 row", "2 rows", "1,234 rows"]
    assert [texts.count(each, "row") for each in (0, 1, 2, 1234)] == said
    states = ["unknown", "paused", "stopped", "io-error", *["running"] * 1000]
    machines = [replace(WEB, status=status) for status in states]
    counted = "1,000 running, 1 stopped, 1 io-error, 1 paused, 1 unknown"
    assert texts.tally(machines) == counted
    template = replace(OFF, template=True)  # it is none that is stopped
    assert texts.tally([*machines, template]) == f"{counted}, 1 template"
    assert texts.tally([template] * 2) == "2 templates"


def test_the_line_of_a_node() -> None:
    load = [0.5, 0.25, 10.0]
    full = Node("a", "online", 0.0, 16, GIB, 2 * GIB, MIB, GIB, 0, load, "9.1.2", True)
    assert texts.node_line(full) == (
        "a online, in HA maintenance, CPU 0 % of 16, memory 1.0/2.0 GiB, "
        "root disk 0.0/1.0 GiB, load 0.50 0.25 10.00, up 0s, version 9.1.2"
    )
    assert texts.node_line(Node("b", "offline")) == "b offline"


def test_the_line_of_a_machine() -> None:
    paused = replace(WEB, status="paused", cpus=1.5, tags=(), live=False, node="pve2")
    idle = replace(paused, cpu=0.0, uptime=0, lock="backup", type="lxc", live=True)
    unknown: Any = dict.fromkeys(("cpus", "memory_total", "uptime", "name", "lock"))
    lost = replace(OFF, status="unknown", cpu=None, template=True, ha="error")
    for machine, line in (
        (
            WEB,
            "100 web, pve1, qemu, running, 7 % of 4, 1.0/4.0 GiB, 1d 1h, tags prod front",
        ),
        (OFF, "101 web, pve1, qemu, stopped, 4 CPU, 4.0 GiB, last known"),
        (
            paused,
            "100 web, pve2, qemu, paused, 7 % of 1.5, 1.0/4.0 GiB, 1d 1h, last known",
        ),
        (
            replace(paused, cpu=None),
            "100 web, pve2, qemu, paused, 1.5 CPU, 1.0/4.0 GiB, 1d 1h, last known",
        ),
        (
            idle,
            "100 web, pve2, lxc, paused, 0 % of 1.5, 1.0/4.0 GiB, 0s, locked (backup)",
        ),
        (replace(idle, **unknown), "100 (no name), pve2, lxc, paused"),
        (lost, "101 web, pve1, qemu, unknown, 4 CPU, 4.0 GiB, template, HA error"),
    ):
        assert texts.machine_line(machine) == line


def test_the_line_of_a_storage() -> None:
    shared: Any = {"type": "nfs", "nodes": ["a", "b"], "shared": True}
    figures = {"used": 1, "total": 4, "available": MIB, "content": ("iso", "images")}
    nfs = Storage(storage="nfs", **shared, active=True, **figures)
    full = {"used": 3 * GIB, "total": 4 * GIB, "available": 0, "content": ("iso",)}
    own: Any = {"type": "dir", "nodes": ["a"], "active": True}
    local = Storage(storage="local", **own, **full)
    dead = replace(nfs, active=False, used=None, total=None)
    lost = replace(dead, active=None, available=None)
    new = replace(nfs, used=0, total=0, available=None)
    for storage, line in (
        (
            local,
            "local, dir, active, 75 % of 4.0 GiB used, 0.0 MiB free, on a, for iso",
        ),
        (
            nfs,
            "nfs, nfs, active, 25 % of 0.0 MiB used, 1.0 MiB free, shared by a b, for iso images",
        ),
        (new, "nfs, nfs, active, 0 % of 0.0 MiB used, shared by a b, for iso images"),
        (dead, "nfs, nfs, inactive, 1.0 MiB free, shared by a b, for iso images"),
        (lost, "nfs, nfs, unknown, shared by a b, for iso images"),
    ):
        assert texts.storage_line(storage) == line
    counted = texts.tally_storages([nfs, dead, lost, nfs])
    assert counted == "2 active, 1 inactive, 1 unknown"
