"""The tools' arguments: their types, and what a wrong one gets.

VmId, NodeName, Force, OptionalNode, OptionalStatus    parameters, as the model sees them
Server                                                 MCPServer whose errors are ours
"""

from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field, ValidationError

from src.models import MAX_NODE_NAME, MAX_VM_ID, MIN_VM_ID, NODE_PATTERN

NODE: Any = {"pattern": NODE_PATTERN, "max_length": MAX_NODE_NAME}
ITS_ID = "The machine's id, e.g. 100"
ITS_NODE = "The node the machine is on, as list_machines says"
ITS_STATUS = "Only machines that are running, stopped, unknown, paused, ..."
POWER_CUT = "Cut the power: loses what is not saved. Ask the user first"

VmId = Annotated[int, Field(ge=MIN_VM_ID, le=MAX_VM_ID, description=ITS_ID)]
NodeName = Annotated[str, Field(**NODE, description=ITS_NODE)]
Force = Annotated[bool, Field(description=POWER_CUT)]
OptionalNode = Annotated[
    str | None, Field(**NODE, description="Only machines on this node")
]
OptionalStatus = Annotated[
    str | None, Field(pattern="^[a-z-]{1,30}$", description=ITS_STATUS)
]
EXPECTED = {
    "vm_id": f"a whole number from {MIN_VM_ID} to {MAX_VM_ID}",
    "node": "a node's name (letters, digits and hyphens)",
    "status": "a word such as running, stopped, unknown or paused",
    "force": "true or false",
}


class Server(MCPServer[Any]):
    """MCPServer whose errors are bare text: no prefix, no pydantic, no class names."""

    async def call_tool(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().call_tool(*args, **kwargs)
        except ToolError as error:
            if isinstance(error.__cause__, ToolError):
                raise error.__cause__ from None
            if not isinstance(error.__cause__, ValidationError):
                raise
            names = dict.fromkeys(str(e["loc"][0]) for e in error.__cause__.errors())
            wrong = "; ".join(f"{name} must be {EXPECTED[name]}" for name in names)
            raise ToolError(
                f"Nothing was sent to Proxmox: {wrong}. list_machines without filters "
                "shows the vm_id, node and status of every machine."
            ) from None
