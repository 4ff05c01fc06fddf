"""A tool's answer to a list: text and structured content, shortened if too long."""

import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from itertools import accumulate
from typing import Any

from src.lists.overview import NEVER_SEEN
from src.lists.texts import count, machine_line, node_line, storage_line, tally
from src.models import Infrastructure, Machine, Machines, Storages

MAX_TEXT = 39_900  # characters: clients cut or refuse more than 40,000, and some count their own
MAX_CONTENT = 60_000  # characters of JSON: some clients hand the model only that
COLUMNS = "vm_id name, node, type, status, CPU, memory, uptime:"

Answer = tuple[str, dict[str, Any]]
DEFAULTS = {field.name: field.default for field in fields(Machine)}


def infrastructure_answer(found: Infrastructure) -> Answer:
    """Answer with what needs attention, the notes, and a line for each node."""
    lines = [node_line(node) for node in found.nodes]
    return _answer(found, "nodes", lines, top=attention_lines(found))


def attention_lines(found: Infrastructure) -> list[str]:
    """Return what needs attention. notes[0] is the head, further ones are what is missing."""
    unseen = f"Not seen: {', '.join(found.not_seen)}."
    if found.attention:
        return ["Needs attention:", *(f"- {line}" for line in found.attention), unseen]
    is_limited = found.notes[1:] or set(found.not_seen) - set(NEVER_SEEN)
    return [f"Nothing{' that could be seen' if is_limited else ''} needs attention.", unseen]


def machines_answer(found: Machines) -> Answer:
    """Answer with the notes and a line for each machine. Count those left out by node."""
    by_node: dict[str, list[Machine]] = {}
    for machine in found.machines:
        by_node.setdefault(machine.node, []).append(machine)
    return _answer(
        found,
        "machines",
        [machine_line(machine) for machine in found.machines],
        columns=[COLUMNS] if found.machines else [],
        summary=[f"{name}: {tally(by_node[name])}" for name in sorted(by_node)],
        advice="Narrow the list by node, status, name, tag or pool to see them.",
    )


def storages_answer(found: Storages) -> Answer:
    """Answer with the notes and a line for each storage."""
    lines = [storage_line(storage) for storage in found.storages]
    advice = "The fullest are shown."
    return _answer(found, "storages", lines, advice=advice)


def _answer(
    found: Any,
    key: str,
    lines: list[str],
    top: Sequence[str] = (),
    columns: Sequence[str] = (),
    summary: Sequence[str] = (),
    advice: str = "",
) -> Answer:
    """Return the text and the structured content. `lines` are the rows of found's `key`.

    If not all rows fit, add `summary` in their place and `advice` on how to see them.
    """
    whole = to_json(found)

    def notes(shown: int) -> list[str]:
        if shown == len(lines):
            return list(found.notes)
        left = len(lines) - shown
        more = f"{count(left, 'more row')} {'is' if left == 1 else 'are'} not shown. {advice}"
        return [*found.notes, *summary, more]

    def text(shown: int) -> str:
        return "\n".join([*top, *notes(shown), *columns, *lines[:shown]])

    def content(shown: int) -> dict[str, Any]:
        cut = {"notes": notes(shown), "not_shown": len(lines) - shown}
        return {**whole, **cut, key: whole[key][:shown]}

    rows = whole[key]
    shown = _rows_that_fit(MAX_CONTENT, rows, _json, lambda n: _json(content(n)))
    return text(_rows_that_fit(MAX_TEXT, lines, str, text)), content(shown)


def _rows_that_fit(
    room: int, rows: list[Any], to_text: Callable[[Any], str], write: Callable[[int], str]
) -> int:
    """Return how many rows fit into `room` characters, each as `to_text` writes it."""
    if len(write(len(rows))) <= room:
        return len(rows)
    left = room - len(write(0))
    return sum(total <= left for total in accumulate(len(to_text(row)) + 1 for row in rows))


def to_json(value: Any) -> Any:
    """Turn dataclasses into objects and tuples into lists.

    Machines are many, so they are written without the keys that have their default value.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    if isinstance(value, Machine):
        given = {k: v for k, v in vars(value).items() if v != DEFAULTS.get(k, MISSING)}
        return {key: to_json(each) for key, each in given.items()}
    return {key: to_json(each) for key, each in vars(value).items()}


def _json(value: Any) -> str:
    """Write JSON as it is sent: without blanks, and without escapes."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
