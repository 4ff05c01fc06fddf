"""What a list lacks, and why, to the letter."""

from typing import Any

import pytest

from src.errors import ProxmoxError
from src.lists import notes
from src.lists.ask_nodes import Answers
from src.lists.filters import Filters
from src.models import Machine, Storage, Totals

REFUSED = ProxmoxError("No right", "Grant it.", 403)
SILENT = ProxmoxError("No answer", "Try again.", "timeout")
NOTHING = (
    "Proxmox shows no {} to the token t!1. If there are some, it lacks {}: grant that to the "
    "user and, with privilege separation, to the token as well."
)
NONE = (None,) * 4
VM = Machine(vm_id=100, node="a", type="qemu", status="running")


def answers(**changes: Any) -> Answers:
    return Answers(nodes={}, **changes)


def of_nodes(found: Answers) -> list[str]:
    nothing = Totals(1, 0, None, None, None, None)
    return notes.about_nodes(found, None, None, nothing)[1:]


def of_machines(
    found: Answers, node: str | None = None, *machines: Machine
) -> list[str]:
    shown = [*machines]
    return notes.about_machines(found, shown, shown, Filters(node), "t!1")[1:]


def test_a_list_of_nodes_says_what_it_lacks() -> None:
    failed = answers(
        errors={"c": SILENT, "b": REFUSED, "a": SILENT},
        cluster_errors={"status": SILENT, "resources": SILENT},
    )
    assert of_nodes(failed) == [
        (
            "a, c did not answer: load, version and fresh figures are missing. No answer. Try "
            "again."
        ),
        "b refused: load, version and fresh figures are missing. No right. Grant it.",
        "The cluster's name and quorum are missing. No answer.",
        "Storages and machines were not looked at for what needs attention. No answer.",
    ]
    refused = answers(cluster_errors={"status": REFUSED})
    assert of_nodes(refused) == of_nodes(answers()) == []


def test_a_list_of_machines_says_what_it_lacks() -> None:
    failed = answers(
        errors={"a": SILENT}, offline={"e", "d"}, cluster_errors={"resources": SILENT}
    )
    assert of_machines(failed) == [
        "a did not answer: machines there are shown as last known. No answer. Try again.",
        "d is offline: the state of its machines is unknown.",
        "e is offline: the state of its machines is unknown.",
        (
            "The cluster's broadcast is missing, and with it the machines of nodes that did not "
            "answer. No answer."
        ),
    ]
    assert of_machines(answers(), None, VM) == []


def test_only_a_whole_empty_answer_is_a_sign_of_a_missing_right() -> None:
    nothing = [NOTHING.format("machines", "VM.Audit on /vms")]
    elsewhere = answers(cluster={"resources": [{"node": "b"}, {"node": "c"}, {}]})
    assert of_machines(answers()) == nothing
    assert of_machines(answers(), "a") == nothing
    there = ["There are machines on other nodes: b, c."]
    assert of_machines(elsewhere, "a") == there
    assert of_machines(elsewhere) == []
    only = answers(cluster={"resources": [{"node": "a"}]})
    assert of_machines(only, "a") == []


@pytest.mark.parametrize(("error", "likely"), [(SILENT, True), (REFUSED, False)])
def test_a_node_that_is_slow_with_its_storages_has_a_dead_one(
    error: ProxmoxError, likely: bool
) -> None:
    said = notes.about_storages(answers(errors={"a": error}), [], "t!1")[1:]
    assert "storages there are shown as last known" in said[0]
    cause = (
        "A node checks its storages one after another: a dead network storage (NFS, CIFS) is "
        "the likely cause where only this list waits for a node."
    )
    assert said[1:] == ([cause] if likely else [])
    nothing = [NOTHING.format("storages", "Datastore.Audit on /storage")]
    assert notes.about_storages(answers(), [], "t!1") == ["No storages.", *nothing]


def test_a_shared_storage_that_some_of_its_nodes_cannot_use_is_noted() -> None:
    shared: Any = {"type": "nfs", "nodes": ["a"], "shared": True, "active": True}
    nfs = Storage(storage="nfs", **shared)
    dead = {"storage": "nfs", "active": 0}
    came = {
        ("b", "storage"): [dead, {"storage": "other"}],
        ("a", "storage"): [dead],
        ("c", "storage"): [{"storage": "nfs", "active": 1}],
        ("d", "storage"): [dead | {"enabled": 0}],  # not assigned to it
    }
    others = [Storage(storage="nfs", **shared | {"shared": False})]
    others += [Storage(storage="nfs", **shared | {"active": False})]
    others += [Storage(storage="good", **shared)]
    found = notes.about_storages(answers(live=came), [*others, nfs], "t!1")[1:]
    assert found == ["nfs is not active on a, b."]


@pytest.mark.parametrize(
    ("quorate", "quorum"), [(True, ", quorate"), (False, ", NOT QUORATE"), (None, "")]
)
def test_a_list_of_nodes_begins_with_the_totals(quorate: Any, quorum: str) -> None:
    totals = Totals(2, 1, 0.0, 16, 2**30, 2**31)
    assert notes.about_nodes(answers(), "demo", quorate, totals) == [
        f"Cluster demo{quorum}: 1 of 2 nodes online, CPU 0 % of 16, memory 1.0/2.0 GiB"
    ]
    bare = Totals(1, 0, None, None, None, None)
    assert notes.about_nodes(answers(), None, None, bare) == ["0 of 1 node online"]


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (Filters(status="x"), "No machines with status x. There are: 1 running."),
        (Filters("a", name="y"), "No machines on a with name y. There are: 1 running."),
        (Filters("b"), "No machines on b."),
    ],
)
def test_a_filter_that_nothing_matches_names_what_there_is(
    filters: Filters, said: str
) -> None:
    elsewhere = answers(cluster={"resources": [{"node": "a"}]})
    assert notes.about_machines(elsewhere, [VM], [], filters, "t!1")[0] == said


def test_notes_leave_room_for_the_rows() -> None:
    """A cluster of 32 nodes that all fail, each in its own way."""
    errors = {f"a{n:02}": ProxmoxError("n" * 1001, "", n) for n in range(32)}
    said = notes.about_nodes(answers(errors=errors), None, None, Totals(1, 0, *NONE))
    assert {len(line) for line in said[1:-1]} == {1000}
    assert (len(said), said[-1]) == (31, "And 3 more notes.")
