"""Structured content, lean and bounded: pure functions.

structured    a result as the object that programs, and some models, read
lean          dataclasses as objects, machines without the keys that hold their default
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

from src.models import Machine
from src.texts import Page

MAX_CONTENT = 60_000  # characters of JSON: some clients hand the model only that


def lean(value: Any) -> Any:
    """Dataclasses as objects, tuples as lists; a machine, of which there are many,
    without the keys that hold their default."""
    if isinstance(value, list | tuple):
        return [lean(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not is_dataclass(value):
        return value
    return {
        field.name: lean(found)
        for field in fields(value)
        if (found := getattr(value, field.name)) != field.default
        or not isinstance(value, Machine)
    }


def structured(page: Page, found: Any, rows: str) -> dict[str, Any]:
    """`found` without its last `rows` where they are too many, and the page's notes."""
    content: dict[str, Any] = {**lean(found), "notes": page.notes}
    sizes = [_size(row) + 1 for row in content[rows]]
    room = MAX_CONTENT - _size({**content, rows: []}) - 100
    if sum(sizes) <= room:
        return content
    note = page.note_of_missing
    room -= _size([note, *page.summary])
    shown = 0
    while sizes[shown] <= room:
        room -= sizes[shown]
        shown += 1
    content["not_shown"] = len(sizes) - shown
    content["notes"] = [*page.notes, *page.summary, note]
    content[rows] = content[rows][:shown]
    return content


def _size(value: Any) -> int:
    """In characters, as it is sent: without blanks, and as plain text."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
