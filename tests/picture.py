"""Draw the README's picture of a session: `python -m tests.picture` writes tests/demo.svg."""

import asyncio
import contextlib
import io
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests import demo

PICTURE = Path(__file__).parent / "demo.svg"
SHOWN = (
    "The physical servers",
    "Everything that runs on them",
    "A machine is started",
    "One that ignores its shutdown",
    "A start that fails",
)


def session() -> str:
    """Return what the demo prints for these calls."""
    printed = io.StringIO()
    calls = [call for call in demo.CALLS if call[0] in SHOWN]
    with contextlib.redirect_stdout(printed):
        asyncio.run(demo.main(calls=calls))
    text, _, _ = printed.getvalue().partition("\n# What the server left on stderr")
    return text.strip()


def draw(text: str) -> str:
    console = Console(record=True, width=120, file=io.StringIO())
    styles = {"#": "bright_black", ">": "bold green", "E": "red"}
    for line in text.splitlines():
        console.print(Text(line, styles.get(line[:1], "")))
    console.print()  # or the picture's edge cuts the underscores of the last line
    return console.export_svg(title="mcp-proxmox", unique_id="demo")


if __name__ == "__main__":
    PICTURE.write_text(draw(session()))
