"""What the model reads of a list, to the letter."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import models, texts
from src.models import Machines, Node, Storage, Storages, Totals

MIB, GIB, TIB = 1024**2, 1024**3, 1024**4
FIGURES = (0.074, 4, GIB, 4 * GIB, 90_000, False, None, ["prod", "front"], True)
WEB = models.Machine(100, "web", "pve1", "qemu", "running", *FIGURES)
OFF = replace(WEB, vm_id=101, status="stopped", tags=[], live=False)
MORE = " more rows are not shown. "


def test_figures_in_words() -> None:
    assert texts.size(10 * TIB, 6 * TIB) == "6.0/10.0 TiB"
    assert [texts.size(each) for each in (TIB, MIB / 2)] == ["1.0 TiB", "0.5 MiB"]
    assert texts.size(TIB - GIB, 0) == "0.0/1023.0 GiB"
    assert texts.size(GIB, 0.4 * GIB) == "0.4/1.0 GiB"
    assert texts.size(GIB - MIB) == "1023.0 MiB"
    seconds = (0, 59, 60, 3599, 3600, 86_399, 86_400, 100 * 86_400 + 3659)
    said = ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "1d 0h", "100d 1h"]
    assert list(map(texts.duration, seconds)) == said
    assert [texts.percent(each) for each in (0, 0.126, 1.5)] == ["0 %", "13 %", "150 %"]
    said = ["0 rows", "1 row", "2 rows", "1,234 rows"]
    assert [texts.count(each, "row") for each in (0, 1, 2, 1234)] == said
    states = ["unknown", "watchdog", "stopped", "io-error", *["running"] * 1000]
    tally = texts.tally([replace(WEB, status=status) for status in states])
    assert tally == "1,000 running, 1 stopped, 1 io-error, 1 watchdog, 1 unknown"


QUORUM = {
    True: ", quorate",
    False: ", NOT QUORATE, so nothing can be started",
    None: "",
}


@pytest.mark.parametrize(("quorate", "quorum"), QUORUM.items())
def test_the_text_of_an_infrastructure(quorate: bool | None, quorum: str) -> None:
    load = [0.5, 0.25, 10.0]
    full = Node("a", "online", 0.0, 16, GIB, 2 * GIB, MIB, GIB, 0, load, "9.1.2")
    nodes, totals = [full, Node("b", "offline")], Totals(2, 1, 0.0, 16, GIB, 2 * GIB)
    found = models.Infrastructure("demo", quorate, nodes, totals, ["A note."])
    assert texts.infrastructure_text(found) == (
        f"Cluster demo{quorum}: 1 of 2 nodes online, CPU 0 % of 16, memory 1.0/2.0 GiB\n"
        "A note.\n"
        "a online, CPU 0 % of 16, memory 1.0/2.0 GiB, root disk 0.0/1.0 GiB, "
        "load 0.50 0.25 10.00, up 0s, version 9.1.2\n"
        "b offline"
    )
    bare = models.Infrastructure(
        None, None, [], Totals(1, 0, None, None, None, None), []
    )
    assert texts.infrastructure_text(bare) == "0 of 1 node online"


def test_the_text_of_machines() -> None:
    paused = replace(WEB, status="paused", cpus=1.5, tags=[], live=False, node="pve2")
    idle = replace(paused, cpu=0.0, uptime=0, lock="backup", type="lxc", live=True)
    unknown = dict.fromkeys(("cpus", "memory_total", "uptime", "name", "lock"))
    bare = replace(idle, **unknown)
    lost = replace(OFF, status="unknown", cpu=None, template=True, name="a\n b")
    machines = [WEB, OFF, paused, replace(paused, cpu=None), idle, bare, lost]
    found = Machines(machines, ["A note."])
    assert texts.machines_text(found, machines, None, None).splitlines() == [
        "7 machines on 2 nodes: 1 running, 1 stopped, 4 paused, 1 unknown",
        "A note.",
        "vm_id name, node, type, status, CPU, memory, uptime:",
        "100 web, pve1, qemu, running, 7 % of 4, 1.0/4.0 GiB, 1d 1h, tags prod front",
        "101 web, pve1, qemu, stopped, 4 CPU, 4.0 GiB, last known",
        "100 web, pve2, qemu, paused, 7 % of 1.5, 1.0/4.0 GiB, 1d 1h, last known",
        "100 web, pve2, qemu, paused, 1.5 CPU, 1.0/4.0 GiB, 1d 1h, last known",
        "100 web, pve2, lxc, paused, 0 % of 1.5, 1.0/4.0 GiB, 0s, locked (backup)",
        "100 (no name), pve2, lxc, paused",
        "101 a b, pve1, qemu, unknown, 4 CPU, 4.0 GiB, template",
    ]
    text = texts.machines_text(found, [WEB], "pve1", None)
    assert text.startswith("1 machine on pve1: 1 running\nA note.\nvm_id")


def test_a_status_that_no_machine_has_names_those_there_are() -> None:
    found = Machines([WEB], ["A note."])
    said = "is x. There are: 1 running.\nA note."
    assert texts.machines_text(found, [], None, "x") == f"No machine {said}"
    assert texts.machines_text(found, [], "pve1", "x") == f"No machine on pve1 {said}"
    assert texts.machines_text(Machines([], []), [], None, "x") == "No machines."


def test_machines_that_do_not_fit_are_counted_by_node() -> None:
    shown = [replace(WEB, node="pve2"), OFF, *[WEB] * 1000]
    found = Machines(shown, [])
    text = texts.machines_text(found, shown, "a", "b")
    assert "\npve1: 1,000 running, 1 stopped\npve2: 1 running\nvm_id" in text
    assert text.endswith(f"{MORE}The structured content has them all.")
    wider = {"node or status": (None, None), "status": ("a", None), "node": (None, "b")}
    for filters, values in wider.items():
        text = texts.machines_text(found, shown, *values)
        assert text.endswith(f"{MORE}Call list_machines with {filters} to see them.")


def test_the_text_of_storages_begins_with_the_fullest() -> None:
    nfs = Storage("nfs", "nfs", ["a", "b"], True, True, ["iso", "images"], 1, 4, MIB)
    local = Storage("local", "dir", ["a"], False, True, ["iso"], 3 * GIB, 4 * GIB, 0)
    dead = replace(nfs, storage="dead", active=False, used=None, total=None)
    lost = replace(dead, storage="lost", active=None, available=None)
    new = replace(nfs, storage="new", used=0, total=0, available=None)
    found = Storages([lost, new, dead, nfs, local], ["A note."])
    assert texts.storage_text(found).splitlines() == [
        "5 storages: 3 active, 1 inactive, 1 unknown",
        "A note.",
        "local, dir, active, 75 % of 4.0 GiB used, 0.0 MiB free, on a, for iso",
        "nfs, nfs, active, 25 % of 0.0 MiB used, 1.0 MiB free, shared by a b, for iso images",
        "new, nfs, active, 0 % of 0.0 MiB used, shared by a b, for iso images",
        "dead, nfs, inactive, 1.0 MiB free, shared by a b, for iso images",
        "lost, nfs, unknown, shared by a b, for iso images",
    ]
    assert texts.storage_text(Storages([], ["A note."])) == "No storages.\nA note."
    text = texts.storage_text(Storages([nfs] * 1000, []))
    assert text.startswith("1,000 storages: 1,000 active\nnfs")
    then = "The fullest are above; the structured content has them all."
    assert text.endswith(MORE + then)


@pytest.mark.parametrize(("then", "left"), [("x" * 49, 1102), ("x" * 48, 1101)])
def test_as_many_whole_rows_are_shown_as_fit(then: str, left: int) -> None:
    text = texts.fit(["t"], ["r" * 99] * 1500, [], then)
    shown = ["r" * 99] * (1500 - left)
    assert text.split("\n") == ["t", *shown, f"{left:,}{MORE}{then}"]


lines = st.integers(1, 300).map("x".__mul__)
tops = st.lists(lines, min_size=1, max_size=5)


@given(st.lists(lines, max_size=400), tops, st.integers(-2, 2))
def test_a_text_is_never_too_long(rows: list[str], top: list[str], spare: int) -> None:
    rows.append("x" * (40_000 + spare - len("\n".join([*top, *rows, ""]))))
    whole = "\n".join([*top, *rows])
    text = texts.fit(list(top), rows, ["summary"], "Do this.")
    assert len(text) <= 40_000
    if len(whole) > 40_000:
        shown = len(text.split("\n")) - len(top) - 2
        more = f"{len(rows) - shown:,}{MORE}Do this."
        whole = "\n".join([top[0], "summary", *top[1:], *rows[:shown], more])
    assert text == whole
