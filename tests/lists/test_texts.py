"""Test figures as text, and the line of each row."""

from dataclasses import replace
from typing import Any

from src import models
from src.lists import texts
from src.models import Node, Storage
from tests.golden import compare

MIB, GIB, TIB = 1024**2, 1024**3, 1024**4
VM: Any = {"vm_id": 100, "name": "web", "node": "pve1", "type": "qemu", "status": "running"}
FIGURES: Any = {"cpu": 0.074, "cpus": 4, "memory_used": GIB, "memory_total": 4 * GIB}
WEB = models.Machine(**VM, **FIGURES, uptime=90_000, tags=("prod", "front"))
OFF = replace(WEB, vm_id=101, status="stopped", tags=(), live=False)


def test_a_size_uses_the_unit_that_fits_its_total() -> None:
    assert texts.size(10 * TIB, 6 * TIB) == "6.0/10.0 TiB"
    assert [texts.size(each) for each in (TIB, MIB / 2)] == ["1.0 TiB", "0.5 MiB"]
    assert texts.size(TIB - GIB, 0) == "0.0/1023.0 GiB"
    assert texts.size(GIB, 0.4 * GIB) == "0.4/1.0 GiB"
    assert texts.size(GIB - MIB) == "1023.0 MiB"


def test_durations_percentages_and_counts_are_put_into_words() -> None:
    seconds = (0, 59, 60, 3599, 3600, 86_399, 86_400, 100 * 86_400 + 3659)
    words = ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "1d 0h", "100d 1h"]
    assert list(map(texts.duration, seconds)) == words
    assert [texts.percent(each) for each in (0, 0.126, 1.5)] == ["0 %", "13 %", "150 %"]
    assert texts.percent(-0.004) == "0 %"
    words = ["0 rows", "1 row", "2 rows", "1,234 rows"]
    assert [texts.count(each, "row") for each in (0, 1, 2, 1234)] == words
    states = ["unknown", "paused", "stopped", "io-error", *["running"] * 1000]
    machines = [replace(WEB, status=status) for status in states]
    counted = "1,000 running, 1 stopped, 1 io-error, 1 paused, 1 unknown"
    assert texts.tally(machines) == counted
    template = replace(OFF, template=True)  # not counted as stopped
    assert texts.tally([*machines, template]) == f"{counted}, 1 template"
    assert texts.tally([template] * 2) == "2 templates"


def test_each_row_becomes_a_line_with_only_the_known_figures() -> None:
    load = [0.5, 0.25, 10.0]
    full = Node("a", "online", 0.0, 16, GIB, 2 * GIB, MIB, GIB, 0, load, "9.1.2", True)
    paused = replace(WEB, status="paused", cpus=1.5, tags=(), live=False, node="pve2")
    idle = replace(paused, cpu=0.0, uptime=0, lock="backup", type="lxc", live=True)
    unknown: Any = dict.fromkeys(("cpus", "memory_total", "uptime", "name", "lock"))
    lost = replace(OFF, status="unknown", cpu=None, template=True, ha="error")
    machines = [WEB, OFF, paused, replace(paused, cpu=None)]
    machines += [idle, replace(idle, **unknown), lost]
    shared: Any = {"type": "nfs", "nodes": ["a", "b"], "shared": True}
    figures = {"used": 1, "total": 4, "available": MIB, "content": ("iso", "images")}
    nfs = Storage(storage="nfs", **shared, active=True, **figures)
    size = {"used": 3 * GIB, "total": 4 * GIB, "available": 0, "content": ("iso",)}
    local = Storage(storage="local", type="dir", nodes=["a"], active=True, **size)
    dead = replace(nfs, active=False, used=None, total=None)
    lost_storage = replace(dead, active=None, available=None)
    new = replace(nfs, used=0, total=0, available=None)
    lines = {
        "nodes": [texts.node_line(node) for node in (full, Node("b", "offline"))],
        "machines": [texts.machine_line(machine) for machine in machines],
        "storages": [
            *(texts.storage_line(each) for each in (local, nfs, new, dead)),
            texts.storage_line(lost_storage),
            texts.tally_storages([nfs, dead, lost_storage, nfs]),
        ],
    }
    compare("rows", {case: "\n".join(rows) for case, rows in lines.items()})
