"""Test the notes on what a list lacks, and why."""

from typing import Any

from src.errors import ProxmoxError
from src.lists import notes
from src.lists.ask_nodes import Answers
from src.lists.filters import Filters
from src.models import Machine, Storage, Totals
from tests.golden import compare

REFUSED = ProxmoxError("No right", "Grant it.", 403)
SILENT = ProxmoxError("No answer", "Try again.", "timeout")
NOTHING = Totals(1, 0, None, None, None, None)
VM = Machine(vm_id=100, node="a", type="qemu", status="running")
ELSEWHERE = {"resources": [{"node": "b"}, {"node": "c"}, {}]}


def answers(**changes: Any) -> Answers:
    return Answers(nodes={}, **changes)


def of_nodes(found: Answers, *about: Any, totals: Totals = NOTHING) -> list[str]:
    return notes.about_nodes(found, *(about or (None, None)), totals)


def of_machines(found: Answers, *machines: Machine, **filters: str) -> list[str]:
    narrow = Filters(**filters)
    shown = [machine for machine in machines if narrow.match(machine)]
    return notes.about_machines(found, [*machines], shown, narrow, "t!1")


def of_storages(found: Answers, *storages: Storage) -> list[str]:
    return notes.about_storages(found, [*storages], "t!1")


def test_each_list_begins_with_its_tally_and_names_what_is_missing() -> None:
    errors = {"c": SILENT, "b": REFUSED, "a": SILENT}
    lost = {"status": SILENT, "resources": SILENT}
    failed = answers(errors=errors, offline={"e", "d"}, cluster_errors=lost)
    totals = Totals(2, 1, 0.0, 16, 2**30, 2**31)
    found = {
        f"nodes, quorate {quorate}": of_nodes(answers(), "demo", quorate, totals=totals)
        for quorate in (True, False, None)
    } | {
        "nodes, failed": of_nodes(failed),
        "machines, failed": of_machines(failed),
        "storages, failed": of_storages(failed),
        "machines, none": of_machines(answers()),
        "storages, none": of_storages(answers()),
        "machines, elsewhere": of_machines(answers(cluster=ELSEWHERE), node="a"),
        "machines, so none": of_machines(answers(), VM, status="x", name="y"),
        "machines, there none": of_machines(answers(), VM, node="a", name="y"),
    }
    compare("notes", {case: "\n".join(lines) for case, lines in found.items()})


def test_an_expected_gap_gets_no_note() -> None:
    """A standalone host has no cluster status, so a refused one needs no note either."""
    only = answers(cluster={"resources": [{"node": "a"}]})
    for lines in (
        of_nodes(answers(cluster_errors={"status": REFUSED})),
        of_machines(answers(), VM),
        of_machines(answers(cluster=ELSEWHERE)),
        of_machines(only, node="a"),
    ):
        assert len(lines) == 1


def test_a_node_or_a_source_that_failed_is_told_once() -> None:
    both = answers(errors={"a": SILENT}, optional_errors={("a", "disks/zfs"): SILENT})
    assert len(of_nodes(both)) == 2
    lost = of_machines(answers(cluster_errors={"resources": SILENT}), VM, pool="x")
    assert "Pool.Audit" not in " ".join(lost)  # where pools could not be read at all


def test_only_a_node_that_times_out_is_suspected_of_a_dead_storage() -> None:
    slow, refused = (of_storages(answers(errors={"a": e})) for e in (SILENT, REFUSED))
    assert (len(slow), len(refused)) == (3, 2)


def test_only_a_complete_empty_answer_suggests_a_missing_privilege() -> None:
    (_, note) = of_machines(answers(), node="a")
    assert "VM.Audit on /vms" in note
    (_, note) = of_machines(answers(errors={"a": SILENT}), node="a")
    assert "VM.Audit" not in note


def test_a_note_names_the_nodes_that_cannot_use_a_shared_storage() -> None:
    shared: Any = {"type": "nfs", "nodes": ["a"], "shared": True, "active": True}
    dead = {"storage": "nfs", "active": 0}
    live = {
        ("b", "storage"): [dead, {"storage": "other"}],
        ("a", "storage"): [dead],
        ("c", "storage"): [{"storage": "nfs", "active": 1}, {"storage": "data"}],
        ("d", "storage"): [dead | {"enabled": 0}],  # not assigned to it
    }
    storages = [Storage(storage="nfs", **shared | {key: False}) for key in ("shared", "active")]
    storages += [Storage(storage=name, **shared) for name in ("good", "nfs")]
    (_, note) = of_storages(answers(live=live), *storages)
    assert "nfs" in note
    assert " a, b." in note


def test_notes_leave_room_for_the_rows() -> None:
    """A cluster of 30 nodes that all fail, each in its own way."""
    errors = {f"a{n:02}": ProxmoxError("n" * 1001, "", n) for n in range(30)}
    *lines, more = of_nodes(answers(errors=errors))
    assert [len(line) for line in lines[1:]] == [1000] * 29
    assert more == "And 1 more note."
    del errors["a29"]
    assert of_nodes(answers(errors=errors)) == lines


def test_filters_are_put_into_words() -> None:
    filters = (Filters("b", "x", "y"), Filters(tag="x", pool="z"), Filters("b"), Filters())
    words = ["status x, name y", "tag x, pool z", "", ""]
    assert [each.words for each in filters] == words
