"""Test a list's text and structured content: no default values, and never too long."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from src.lists.answers import MAX_CONTENT, MAX_TEXT, machines_answer, storages_answer, to_json
from src.models import Machine, Machines, Node, Storage, Storages

VM = Machine(vm_id=100, node="a", type="qemu", status="stopped", cpus=4.0, live=False)


def test_a_machine_omits_keys_with_default_values() -> None:
    row = {"vm_id": 100, "node": "a", "type": "qemu", "status": "stopped", "cpus": 4}
    assert to_json(VM) == row | {"live": False}
    assert isinstance(to_json(VM)["cpus"], int)
    full = Machine(vm_id=1, node="a", type="lxc", status="x", cpu=0.5, tags=("b",))
    assert (to_json(full)["tags"], to_json(full)["cpu"]) == (["b"], 0.5)


def test_nodes_and_storages_keep_every_key() -> None:
    assert to_json([Node("a", "online")])[0]["cpu"] is None
    storage = to_json(Storage(storage="s", type="dir", nodes=["a"]))
    assert (storage["active"], storage["content"], storage["shared"]) == (None, [], False)


def test_text_and_content_have_the_same_notes() -> None:
    text, content = machines_answer(Machines([VM], ["tally", "a note"], 1))
    assert text.splitlines()[:2] == content["notes"] == ["tally", "a note"]
    assert content["machines"] == [to_json(VM)]
    assert (content["total"], content["not_shown"]) == (1, 0)
    assert machines_answer(Machines([], ["No machines."]))[0] == "No machines."


@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=200), st.integers(0, 9), st.integers(-3, 3)
)
def test_an_answer_is_as_long_as_its_limit_allows(sizes: list[int], notes: int, spare: int) -> None:
    kind: Any = {"node": "a", "type": "qemu", "status": "running"}
    machines = [Machine(vm_id=n, name="x" * s, **kind) for n, s in enumerate(sizes)]
    for fill in (MAX_TEXT, MAX_CONTENT):  # slightly too long, or just short enough
        missing = fill + spare - sum(size + 70 for size in sizes)
        last = Machine(vm_id=999, name="x" * max(missing, 1), **kind)
        found = Machines([*machines, last], ["note"] * notes, len(machines) + 1)
        text, content = machines_answer(found)
        written = json.dumps(content, separators=(",", ":"))
        assert len(text) <= MAX_TEXT
        assert len(written) <= MAX_CONTENT
        shown = content["machines"]
        assert shown == to_json(found.machines)[: len(shown)]
        assert len(shown) + content["not_shown"] == content["total"]
        if content["not_shown"]:
            row = len(json.dumps(to_json(found.machines[len(shown)])))
            assert len(written) + row > MAX_CONTENT - 20  # as many as fit
            tally, more = content["notes"][-2:]
            assert tally == f"a: {len(found.machines)} running"
            assert more.startswith(f"{content['not_shown']} more row")
        rows = [line for line in text.splitlines() if ", a, qemu, running" in line]
        if len(rows) < content["total"]:
            omitted = content["total"] - len(rows)
            note = f"{omitted} more row{' is' if omitted == 1 else 's are'} not shown."
            assert f"\n{note} Narrow the list by" in text
            assert len(text) + len(found.machines[len(rows)].name or "") > MAX_TEXT - 40


def test_many_short_rows_are_not_too_long_either() -> None:
    text, content = machines_answer(Machines([VM] * 3000, [], 3000))
    assert MAX_TEXT - 100 < len(text) <= MAX_TEXT
    written = json.dumps(content, separators=(",", ":"))
    assert MAX_CONTENT - 200 < len(written) <= MAX_CONTENT


def test_the_least_full_storages_are_omitted_first() -> None:
    storage = Storage(storage="nfs", type="nfs", nodes=["a"] * 40)
    text, content = storages_answer(Storages([storage] * 1000, ["tally"], 1000))
    for place in (text, content["notes"][-1]):
        assert "more rows are not shown. The fullest are shown." in place
