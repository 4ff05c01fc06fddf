"""What the model reads of a list, to the letter."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import models
from src.lists import texts
from src.models import Machines, Node, Storage, Storages, Totals

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
ANY: texts.Filters = {"node": None, "status": None, "name": None}
MORE = " more rows are not shown. "


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


QUORUM = {True: ", quorate", False: ", NOT QUORATE", None: ""}


@pytest.mark.parametrize(("quorate", "quorum"), QUORUM.items())
def test_the_text_of_an_infrastructure(quorate: bool | None, quorum: str) -> None:
    load = [0.5, 0.25, 10.0]
    full = Node("a", "online", 0.0, 16, GIB, 2 * GIB, MIB, GIB, 0, load, "9.1.2", True)
    nodes, totals = [full, Node("b", "offline")], Totals(2, 1, 0.0, 16, GIB, 2 * GIB)
    shown = models.Infrastructure(["X.", "Y."], "demo", quorate, nodes, totals, ["N."])
    page = texts.infrastructure_page(shown)
    tally = (
        f"Cluster demo{quorum}: 1 of 2 nodes online, CPU 0 % of 16, memory 1.0/2.0 GiB"
    )
    assert page.text == (
        f"Needs attention:\n- X.\n- Y.\n{tally}\nN.\n"
        "a online, in HA maintenance, CPU 0 % of 16, memory 1.0/2.0 GiB, "
        "root disk 0.0/1.0 GiB, load 0.50 0.25 10.00, up 0s, version 9.1.2\n"
        "b offline"
    )
    assert page.notes == [tally, "N."]
    none = Totals(1, 0, None, None, None, None)
    bare = models.Infrastructure([], None, None, [], none, [])
    said = "Nothing needs attention.\n0 of 1 node online"
    assert texts.infrastructure_page(bare).text == said
    bare.notes = ["N."]
    said = "Nothing that could be seen needs attention.\n0 of 1 node online\nN."
    assert texts.infrastructure_page(bare).text == said


def test_the_text_of_machines() -> None:
    paused = replace(WEB, status="paused", cpus=1.5, tags=(), live=False, node="pve2")
    idle = replace(paused, cpu=0.0, uptime=0, lock="backup", type="lxc", live=True)
    unknown = dict.fromkeys(("cpus", "memory_total", "uptime", "name", "lock"))
    bare = replace(idle, **unknown)
    lost = replace(OFF, status="unknown", cpu=None, template=True, ha="error")
    machines = [WEB, OFF, paused, replace(paused, cpu=None), idle, bare, lost]
    found = Machines(machines, ["A note."])
    assert texts.machines_page(found, machines, ANY).text.splitlines() == [
        "7 machines on 2 nodes: 1 running, 1 stopped, 4 paused, 1 template",
        "A note.",
        "vm_id name, node, type, status, CPU, memory, uptime:",
        "100 web, pve1, qemu, running, 7 % of 4, 1.0/4.0 GiB, 1d 1h, tags prod front",
        "101 web, pve1, qemu, stopped, 4 CPU, 4.0 GiB, last known",
        "100 web, pve2, qemu, paused, 7 % of 1.5, 1.0/4.0 GiB, 1d 1h, last known",
        "100 web, pve2, qemu, paused, 1.5 CPU, 1.0/4.0 GiB, 1d 1h, last known",
        "100 web, pve2, lxc, paused, 0 % of 1.5, 1.0/4.0 GiB, 0s, locked (backup)",
        "100 (no name), pve2, lxc, paused",
        "101 web, pve1, qemu, unknown, 4 CPU, 4.0 GiB, template, HA error",
    ]
    one = replace(found, machines=[WEB])
    page = texts.machines_page(one, machines, {**ANY, "node": "pve1"})
    assert page.text.startswith("1 machine on pve1: 1 running\nA note.\nvm_id")
    assert page.notes == ["1 machine on pve1: 1 running", "A note."]


@pytest.mark.parametrize(
    ("filters", "which"),
    [
        ({"status": "x"}, " with status x. There are: 1 running."),
        ({"node": "a", "name": "y"}, " on a with name y. There are: 1 running."),
        (
            {"status": "x", "name": "y"},
            " with status x and name y. There are: 1 running.",
        ),
        ({"node": "a"}, " on a."),
        ({}, "."),
    ],
)
def test_a_filter_that_nothing_matches_names_what_there_is(
    filters: dict[str, str], which: str
) -> None:
    none = Machines([], ["A note."])
    wanted: texts.Filters = {**ANY, **filters}  # type: ignore[typeddict-item]
    page = texts.machines_page(none, [WEB], wanted)
    assert page.text == f"No machines{which}\nA note."
    bare = texts.machines_page(none, [], wanted).text
    assert bare == f"No machines{which.split('.')[0]}.\nA note."


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, "node or status or name"),
        ({"node": "a"}, "status or name"),
        ({"node": "a", "status": "a", "name": "a"}, "a longer name"),
    ],
)
def test_machines_that_do_not_fit_are_counted_by_node(
    filters: dict[str, str], left: str
) -> None:
    machines = [replace(WEB, node="pve2"), OFF, *[WEB] * 1000]
    wanted: texts.Filters = {**ANY, **filters}  # type: ignore[typeddict-item]
    page = texts.machines_page(Machines(machines, []), machines, wanted)
    assert "\npve1: 1,000 running, 1 stopped\npve2: 1 running\nvm_id" in page.text
    then = f"Call list_machines with {left} to see them."
    assert page.text.endswith(f"{MORE}{then}")
    assert page.note_of_missing == (
        f"Rows are left out here, there being too many. {then}"
    )


def test_the_text_of_storages_begins_with_the_fullest() -> None:
    shared: Any = {"type": "nfs", "nodes": ["a", "b"], "shared": True}
    figures = {"used": 1, "total": 4, "available": MIB, "content": ("iso", "images")}
    nfs = Storage(storage="nfs", active=True, **shared, **figures)
    full = {"used": 3 * GIB, "total": 4 * GIB, "available": 0, "content": ("iso",)}
    own: Any = {"type": "dir", "nodes": ["a"], "active": True}
    local = Storage(storage="local", **own, **full)
    dead = replace(nfs, storage="dead", active=False, used=None, total=None)
    lost = replace(dead, storage="lost", active=None, available=None)
    new = replace(nfs, storage="new", used=0, total=0, available=None)
    rows = texts.fullest_first([lost, new, dead, nfs, local])
    assert texts.storage_page(Storages(rows, ["A note."])).text.splitlines() == [
        "5 storages: 3 active, 1 inactive, 1 unknown",
        "A note.",
        "local, dir, active, 75 % of 4.0 GiB used, 0.0 MiB free, on a, for iso",
        "nfs, nfs, active, 25 % of 0.0 MiB used, 1.0 MiB free, shared by a b, for iso images",
        "new, nfs, active, 0 % of 0.0 MiB used, shared by a b, for iso images",
        "dead, nfs, inactive, 1.0 MiB free, shared by a b, for iso images",
        "lost, nfs, unknown, shared by a b, for iso images",
    ]
    none = texts.storage_page(Storages([], ["A note."]))
    assert none.text == "No storages.\nA note."
    text = texts.storage_page(Storages([nfs] * 1000, [])).text
    assert text.startswith("1,000 storages: 1,000 active\nnfs")
    assert text.endswith(f"{MORE}Those that are shown are the fullest.")


@pytest.mark.parametrize(("then", "left"), [("x" * 49, 1102), ("x" * 48, 1101)])
def test_as_many_whole_rows_are_shown_as_fit(then: str, left: int) -> None:
    text = texts.Page(["t"], ["r" * 99] * 1500, then=then).text
    shown = ["r" * 99] * (1500 - left)
    assert text.split("\n") == ["t", *shown, f"{left:,}{MORE}{then}"]


lines = st.integers(1, 300).map("x".__mul__)
tops = st.lists(lines, min_size=1, max_size=5)


@given(st.lists(lines, max_size=400), tops, st.integers(-2, 2))
def test_a_text_is_never_too_long(rows: list[str], top: list[str], spare: int) -> None:
    rows.append("x" * (40_000 + spare - len("\n".join([*top, *rows, ""]))))
    whole = "\n".join([*top, *rows])
    text = texts.Page(top, rows, summary=["summary"], then="Do this.").text
    assert len(text) <= 40_000
    if len(whole) > 40_000:
        shown = len(text.split("\n")) - len(top) - 2
        more = f"{len(rows) - shown:,}{MORE}Do this."
        whole = "\n".join([*top, "summary", *rows[:shown], more])
    assert text == whole


def test_notes_leave_room_for_the_rows() -> None:
    """A cluster of 32 nodes that all fail, each in its own way."""
    long = ["n" * 1001] * 31
    shown = [*["n" * 1000] * 30, "And 1 more notes."]
    assert texts.bounded(long) == shown
    assert texts.bounded(long[:30]) == shown[:30]
    none = Totals(1, 0, None, None, None, None)
    nodes = [Node(f"pve{n}", "unknown") for n in range(32)]
    found = models.Infrastructure([], None, None, nodes, none, long)
    text = texts.infrastructure_page(found).text
    assert len(text) <= 40_000
    assert text.endswith("\npve31 unknown")
    assert texts.storage_page(Storages([], long)).text.startswith("No storages.\nnnn")
