"""The tools' parameters: how the model sees them, and how a wrong argument is answered.

The schema has no bounds, because some clients silently replace a value with one that fits.
"""

import math
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from src.foreign import clean, quote
from src.models import MAX_VM_ID, MIN_VM_ID
from src.schemas import plain

VmId = Annotated[int, Field(description="The machine's id, e.g. 100")]
NodeName = Annotated[
    str, Field(description="The node the machine is on, as list_machines shows it")
]
Force = Annotated[
    bool,
    Field(
        description="Cut the power: unsaved data is lost. Unless the user has just asked "
        "for exactly that, ask first"
    ),
]
OptionalNode = Annotated[str | None, Field(description="Only machines on this node")]
OptionalStatus = Annotated[
    str | None,
    Field(description="Only with this status: running, stopped, paused, io-error, unknown, ..."),
]
OptionalName = Annotated[str | None, Field(description="Only with this in their name, or this id")]
OptionalTag = Annotated[str | None, Field(description="Only with this whole tag, in any case")]
OptionalPool = Annotated[str | None, Field(description="Only in this pool")]

IGNORED = ("toolCallId", "task_progress")  # n8n and Cline add them by themselves
NODE = r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?"


def _vm_id(value: Any) -> int | None:
    """Read 100, 100.0 or "100"."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and re.fullmatch("[1-9][0-9]{2,8}", value.strip()):
        value = int(value)
    fits = isinstance(value, int) and MIN_VM_ID <= value <= MAX_VM_ID
    return value if fits else None


def _node(value: Any) -> str | None:
    """Read a name. A full name, with dots, is answered later with the nodes' names."""
    fits = isinstance(value, str) and re.fullmatch(NODE, value.strip())
    return value.strip() if fits else None


def _status(value: Any) -> str | None:
    word = value.strip().lower() if isinstance(value, str) else ""
    return word if re.fullmatch("[a-z][a-z-]{0,29}", word) else None


def _name(value: Any) -> str | None:
    """Read a name, or an id that came as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value.strip() if isinstance(value, str) and len(value) <= 100 else None


def _force(value: Any) -> bool | None:
    """Accept nothing that only resembles true: it cuts the power."""
    return value if isinstance(value, bool) else None


# Each parameter's reader, which returns None for a wrong value, and what is expected.
Reader = Callable[[Any], Any]
READERS: dict[str, tuple[Reader, str]] = {
    "vm_id": (_vm_id, f"a whole number from {MIN_VM_ID} to {MAX_VM_ID}"),
    "node": (_node, "a node's name (letters, digits and hyphens)"),
    "status": (_status, "a word such as running, stopped, unknown or paused"),
    "name": (_name, "part of a machine's name, or its id"),
    "tag": (_name, "a tag"),
    "pool": (_name, "a pool's name"),
    "force": (_force, "true or false"),
}


def read_arguments(
    tool: str, given: dict[str, Any], known: Iterable[str], required: Iterable[str]
) -> dict[str, Any]:
    """Return the arguments as the tool takes them. Raises ToolError for wrong ones.

    An unknown argument is wrong: ignoring a `dry_run` would stop a machine. An optional one
    that is null, "", blank or "null" counts as missing.
    """
    known, wrong, read = list(known), [], {}
    for name in given:
        if name not in known and name not in IGNORED:
            names = f"its arguments are {', '.join(known)}" if known else "it has none"
            wrong.append(f"{tool} has no argument {name[:40]!r}; {names}")
    for name in known:
        value = given.get(name)
        blank = value is None or (isinstance(value, str) and value.strip() in ("", "null"))
        if blank and name in required:
            wrong.append(f"{name} is missing")
        elif not blank:
            reader, kind = READERS[name]
            read[name] = reader(value)
            if read[name] is None:
                wrong.append(f"{name} must be {kind}")
    if wrong:
        raise ToolError(
            f"Nothing was sent to Proxmox: {'; '.join(wrong)}. list_machines without "
            "filters shows the vm_id, node and status of every machine."
        )
    return read


class Server(MCPServer[Any]):
    """MCPServer whose errors are plain text, without prefixes and class names."""

    async def list_tools(self) -> Any:
        tools = await super().list_tools()
        for tool in tools:
            tool.input_schema = plain(tool.input_schema, nullable=False)
            tool.input_schema["additionalProperties"] = False
            if tool.output_schema:
                tool.output_schema = plain(tool.output_schema, nullable=True)
        return tools

    async def call_tool(self, name: str, arguments: Any, context: Any = None) -> Any:
        schemas = {tool.name: tool.input_schema for tool in await self.list_tools()}
        if name not in schemas:
            # Not "unknown tool" or "not found": mcporter would call the one with the nearest name.
            raise ToolError(
                f"Nothing was sent to Proxmox: there is no tool {quote(clean(name))}. The tools "
                f"are: {', '.join(schemas)}."
            )
        known = schemas[name].get("properties", {})
        required = schemas[name].get("required", [])
        arguments = read_arguments(name, arguments or {}, known, required)
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, ToolError):
                raise error.__cause__ from None
            raise
