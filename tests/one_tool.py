"""Serve one tool that does nothing: the benchmark compares start-up with it."""

import proxmoxer  # noqa: F401
import requests  # noqa: F401
from mcp.server import MCPServer

mcp = MCPServer("one-tool")


@mcp.tool()
def nothing() -> str:
    """Do nothing."""
    return "nothing"


if __name__ == "__main__":
    mcp.run()
