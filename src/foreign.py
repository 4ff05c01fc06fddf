"""Words that others wrote, such as names, logs and certificates, made safe to show."""

import re
import unicodedata
from typing import Any

# Colours and the like, as programs write them for a terminal.
ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]+[0-~]|\x1b[@-_]"
)
MAX_LINE = 200  # characters


def clean(value: Any, most: int = MAX_LINE) -> str:
    """Return one line, shortened, without control and bidirectional characters."""
    value = str(value)
    if value.isprintable():  # as nearly all are
        return shorten(" ".join(value.split()), most)
    value = ANSI.sub("", value)
    replaced = {"Cc": " ", "Cs": " ", "Co": " ", "Cf": ""}
    line = "".join(replaced.get(unicodedata.category(c), c) for c in value[: 4 * most])
    return shorten(" ".join(line.split()), most)


def shorten(line: str, most: int) -> str:
    """Return the line, with "..." in place of what is too long."""
    return line if len(line) <= most else f"{line[: most - 3]}..."


def quote(words: str) -> str:
    """Put another's words into quotes that they cannot end themselves."""
    return '"' + words.replace('"', "'") + '"'


def some_of(names: list[str]) -> str:
    """Return the first ten names, and how many more there are."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
