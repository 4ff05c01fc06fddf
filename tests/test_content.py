"""Structured content: lean, and never too long."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from src.lists.answers import MAX_CONTENT, lean, structured
from src.models import Machine, Machines, Node, Storage
from src.lists.texts import Page

VM = Machine(vm_id=100, node="a", type="qemu", status="stopped", cpus=4.0, live=False)


def test_a_machine_has_no_keys_that_hold_their_default() -> None:
    row = {"vm_id": 100, "node": "a", "type": "qemu", "status": "stopped", "cpus": 4}
    assert lean(VM) == row | {"live": False}
    assert isinstance(lean(VM)["cpus"], int)
    full = Machine(vm_id=1, node="a", type="lxc", status="x", cpu=0.5, tags=("b",))
    assert lean(full)["tags"] == ["b"]
    assert lean(full)["cpu"] == 0.5


def test_nodes_and_storages_are_whole() -> None:
    assert lean([Node("a", "online")])[0]["cpu"] is None
    storage = lean(Storage(storage="s", type="dir", nodes=["a"]))
    assert (storage["active"], storage["content"], storage["shared"]) == (
        None,
        [],
        False,
    )


def test_the_notes_are_those_of_the_page() -> None:
    page = Page(["tally", "a note"], [])
    content = structured(page, Machines([VM], ["a note"], 1), "machines")
    assert content == {
        "machines": [lean(VM)],
        "notes": ["tally", "a note"],
        "total": 1,
        "not_shown": 0,
    }


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=200), st.integers(0, 9))
def test_it_is_never_too_long(sizes: list[int], notes: int) -> None:
    machines = [
        Machine(vm_id=n, name="x" * size, node="a", type="qemu", status="running")
        for n, size in enumerate(sizes)
    ]
    page = Page(["note"] * notes, [], summary=["a: 1 running"], then="Ask again.")
    found = Machines(machines, [], len(machines))
    content: dict[str, Any] = structured(page, found, "machines")
    size = len(json.dumps(content, separators=(",", ":")))
    assert size <= MAX_CONTENT
    shown = content["machines"]
    assert shown == lean(machines)[: len(shown)]
    assert len(shown) + content["not_shown"] == content["total"] == len(machines)
    if content["not_shown"]:
        assert content["notes"][-2:] == ["a: 1 running", page.note_of_missing]
        row = len(json.dumps(lean(machines[len(shown)]), separators=(",", ":")))
        assert size + row > MAX_CONTENT - 250  # as many as fit
    else:
        assert content["notes"] == page.notes
