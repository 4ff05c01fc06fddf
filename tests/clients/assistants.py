"""Assistants on the command line: add the server as README.md does, and see what they list.

They have no account here, so no model calls a tool; for two of them, a driver beside this file
makes the calls. An entry that cannot start shows that "Connected" means something.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.clients.running import PYTHON, finish, home, install_from_npm, server

COLUMNS = ["version", "mcp list", "mcp get", "mcp list, cannot start"]
ENTRIES = {"proxmox": PYTHON, "broken": "/no/such/python"}


@dataclass(frozen=True)
class Assistant:
    """An assistant: its package, its commands, and what it says about an entry.

    NAME, PYTHON and SERVER stand for what an entry has. `listed` and `got` are patterns around
    the state of an entry, which must be `works` or, if it cannot start, `fails`.
    """

    package: str
    add: str
    listed: str
    got: str
    works: str
    fails: str


ASSISTANTS = {
    "Claude Code": Assistant(
        "@anthropic-ai/claude-code@latest",  # without, npm takes one for the Node.js it runs on
        "claude mcp add --scope user NAME -- PYTHON SERVER",
        "^NAME: PYTHON SERVER - . (.+?)(?: — .*)?$",
        "^  Status: . (.+)",
        "Connected",
        "Failed to connect",
    ),
    "Codex": Assistant(
        "@openai/codex@latest",
        "codex mcp add NAME -- PYTHON SERVER",
        "^NAME +PYTHON +SERVER .* (enabled) ",
        "^  (enabled): true",
        "enabled",
        "enabled",
    ),
    "Gemini CLI": Assistant(
        "@google/gemini-cli@latest",
        "gemini mcp add --scope user NAME PYTHON -- SERVER",
        r"^. NAME: PYTHON SERVER \(stdio\) - (.+)",
        "",
        "Connected",
        "Disconnected",
    ),
}


def fill(text: str, name: str, folder: Path, quote: Callable[[str], str] = str) -> str:
    for word, value in (("NAME", name), ("PYTHON", ENTRIES[name]), ("SERVER", server(folder))):
        text = text.replace(word, quote(value))
    return text


def tell(line: str, name: str, folder: Path) -> str:
    """Run an assistant's command in a home of its own, and return all that it prints."""
    # Nothing of this environment, which may have keys. Gemini CLI trusts the folder.
    environ = home(folder) | {"GEMINI_CLI_TRUST_WORKSPACE": "true"}
    done = finish([fill(word, name, folder) for word in line.split()], folder, environ)
    return done.stdout + done.stderr


def look(assistant: Assistant, line: str, pattern: str, name: str, folder: Path) -> str:
    """Return what a command says about an entry."""
    if not pattern:
        return "no such command"
    printed = tell(f"{assistant.add.split()[0]} {line}", name, folder)
    found = re.search(fill(pattern, name, folder, re.escape), printed, re.MULTILINE)
    if not found or found[1] != (assistant.works if name == "proxmox" else assistant.fails):
        return f"WRONG: {printed[-300:]}"
    return found[1] if assistant.works != assistant.fails else f"{found[1]}: it does not try"


def row(assistant: Assistant, folder: Path) -> dict[str, str]:
    version = install_from_npm((assistant.package,), folder)
    for name in ENTRIES:
        tell(assistant.add, name, folder)
    listed = [look(assistant, "mcp list", assistant.listed, name, folder) for name in ENTRIES]
    got = look(assistant, "mcp get NAME", assistant.got, "proxmox", folder)
    return dict(zip(COLUMNS, (version, listed[0], got, listed[1]), strict=True))


async def attempt(assistant: Assistant, folder: Path) -> dict[str, str]:
    """Install an assistant and let it add the server; return what it says, by column."""
    return await asyncio.to_thread(row, assistant, folder)
