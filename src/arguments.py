"""The tools' parameters: what the model is told of them, and what a wrong argument gets.

No bounds stand in the schema: clients turn a value into one that fits, silently.
"""

import math
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from src.models import MAX_VM_ID, MIN_VM_ID

VmId = Annotated[int, Field(description="The machine's id, e.g. 100")]
NodeName = Annotated[
    str, Field(description="The node the machine is on, as list_machines says")
]
Force = Annotated[
    bool,
    Field(
        description="Cut the power: what is not saved is lost. Unless the user has just "
        "asked for exactly that, ask first"
    ),
]
OptionalNode = Annotated[str | None, Field(description="Only machines on this node")]
OptionalStatus = Annotated[
    str | None,
    Field(description="Only machines that are running, stopped, paused, ..."),
]
OptionalName = Annotated[
    str | None, Field(description="Only machines with this in their name or a tag")
]

IGNORED = ("toolCallId", "task_progress")  # n8n and Cline add them by themselves
NODE = r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?"


def _vm_id(value: Any) -> int | None:
    """100, 100.0, "100"; None for what is no id."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and re.fullmatch("[1-9][0-9]{2,8}", value.strip()):
        value = int(value)
    fits = isinstance(value, int) and MIN_VM_ID <= value <= MAX_VM_ID
    return value if fits else None


def _node(value: Any) -> str | None:
    """Also a full name, which is answered with the nodes that there are."""
    fits = isinstance(value, str) and re.fullmatch(NODE, value.strip())
    return value.strip() if fits else None


def _status(value: Any) -> str | None:
    word = value.strip().lower() if isinstance(value, str) else ""
    return word if re.fullmatch("[a-z][a-z-]{0,29}", word) else None


def _name(value: Any) -> str | None:
    return value.strip() if isinstance(value, str) and len(value) <= 100 else None


def _force(value: Any) -> bool | None:
    """Nothing that only looks like it: it cuts the power."""
    return value if isinstance(value, bool) else None


Read = Callable[[Any], Any]
READERS: dict[str, tuple[Read, str]] = {
    "vm_id": (_vm_id, f"a whole number from {MIN_VM_ID} to {MAX_VM_ID}"),
    "node": (_node, "a node's name (letters, digits and hyphens)"),
    "status": (_status, "a word such as running, stopped, unknown or paused"),
    "name": (_name, "a part of a machine's name or tag"),
    "force": (_force, "true or false"),
}


def read_arguments(
    tool: str, given: dict[str, Any], known: Iterable[str], required: Iterable[str]
) -> dict[str, Any]:
    """The arguments as the tool wants them. Raises ToolError for what is wrong.

    An argument that the tool does not have is wrong: a `dry_run` that is ignored stops a
    machine. An optional one that is null, "", blank or "null" is none.
    """
    known, wrong, read = list(known), [], {}
    for name in given:
        if name not in known and name not in IGNORED:
            there = f"has {', '.join(known)}" if known else "has none"
            wrong.append(f"{tool} has no argument {name[:40]!r}, it {there}")
    for name in known:
        value = given.get(name)
        blank = value is None or (
            isinstance(value, str) and value.strip() in ("", "null")
        )
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
    """MCPServer whose errors are bare text: no prefix, no pydantic, no class names."""

    async def list_tools(self) -> Any:
        tools = await super().list_tools()
        for tool in tools:
            tool.input_schema["additionalProperties"] = False
        return tools

    async def call_tool(self, name: str, arguments: Any, context: Any = None) -> Any:
        schemas = {tool.name: tool.input_schema for tool in await self.list_tools()}
        if name in schemas:
            known = schemas[name].get("properties", {})
            required = schemas[name].get("required", [])
            arguments = read_arguments(name, arguments or {}, known, required)
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, ToolError):
                raise error.__cause__ from None
            raise
