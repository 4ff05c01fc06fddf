"""What a list lacks, and why, to the letter."""

from typing import Any

import pytest

from src.lists import notes
from src.errors import ProxmoxError
from src.lists.ask_nodes import Answers
from src.models import Machine, Storage

REFUSED = ProxmoxError("No right", "Grant it.", 403)
SILENT = ProxmoxError("No answer", "Try again.", "timeout")
NOTHING = (
    "Proxmox shows no {} to the token t!1. If there are some, it lacks {}: grant that to the "
    "user and, with privilege separation, to the token as well."
)
VM = Machine(vm_id=100, node="a", type="qemu", status="running")


def answers(**changes: Any) -> Answers:
    nothing: dict[str, Any] = {
        key: {} for key in ("nodes", "came", "errors", "cluster")
    }
    whole = {**nothing, "offline": set(), "cluster_errors": {}}
    return Answers(**{**whole, **changes})


def test_a_list_of_nodes_says_what_it_lacks() -> None:
    failed = answers(
        errors={"c": SILENT, "b": REFUSED, "a": SILENT},
        cluster_errors={"status": SILENT, "resources": SILENT},
    )
    assert notes.about_nodes(failed) == [
        (
            "a, c did not answer: load, version and fresh figures are missing. No answer. Try "
            "again."
        ),
        "b refused: load, version and fresh figures are missing. No right. Grant it.",
        "The cluster's name and quorum are missing. No answer.",
        "Storages and machines were not looked at for what needs attention. No answer.",
    ]
    refused = answers(cluster_errors={"status": REFUSED})
    assert notes.about_nodes(refused) == notes.about_nodes(answers()) == []


def test_a_list_of_machines_says_what_it_lacks() -> None:
    failed = answers(
        errors={"a": SILENT}, offline={"e", "d"}, cluster_errors={"resources": SILENT}
    )
    assert notes.about_machines(failed, [], None, "t!1") == [
        "a did not answer: machines there are shown as last known. No answer. Try again.",
        "d is offline: the state of its machines is unknown.",
        "e is offline: the state of its machines is unknown.",
        (
            "The cluster's broadcast is missing, and with it the machines of nodes that did not "
            "answer. No answer."
        ),
    ]
    assert notes.about_machines(answers(), [VM], None, "t!1") == []


def test_only_a_whole_empty_answer_is_a_sign_of_a_missing_right() -> None:
    nothing = [NOTHING.format("machines", "VM.Audit on /vms")]
    elsewhere = answers(cluster={"resources": [{"node": "b"}, {"node": "c"}, {}]})
    assert notes.about_machines(answers(), [], None, "t!1") == nothing
    assert notes.about_machines(answers(), [], "a", "t!1") == nothing
    there = ["There are machines on other nodes: b, c."]
    assert notes.about_machines(elsewhere, [], "a", "t!1") == there
    assert notes.about_machines(elsewhere, [], None, "t!1") == []
    only = answers(cluster={"resources": [{"node": "a"}]})
    assert notes.about_machines(only, [], "a", "t!1") == []


@pytest.mark.parametrize(("error", "likely"), [(SILENT, True), (REFUSED, False)])
def test_a_node_that_is_slow_with_its_storages_has_a_dead_one(
    error: ProxmoxError, likely: bool
) -> None:
    said = notes.about_storages(answers(errors={"a": error}), [], "t!1")
    assert "storages there are shown as last known" in said[0]
    cause = (
        "A node checks its storages one after another: a dead network storage (NFS, CIFS) is "
        "the likely cause where only this list waits for a node."
    )
    assert said[1:] == ([cause] if likely else [])
    nothing = [NOTHING.format("storages", "Datastore.Audit on /storage")]
    assert notes.about_storages(answers(), [], "t!1") == nothing


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
    found = notes.about_storages(answers(came=came), [*others, nfs], "t!1")
    assert found == ["nfs is not active on a, b."]
