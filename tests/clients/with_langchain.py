"""LangChain: the tools that langchain-mcp-adapters makes of a server's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from drive import Call, drive
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools


@asynccontextmanager
async def connect(command: str, args: list[str]) -> AsyncIterator[tuple[list[str], Call]]:
    server = {"transport": "stdio", "command": command, "args": args}
    async with MultiServerMCPClient({"proxmox": server}).session("proxmox") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}

        async def call(tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
            request = {"type": "tool_call", "id": "1", "name": tool, "args": arguments}
            message = await tools[tool].ainvoke(request)
            return message.text, message.status == "error"

        yield list(tools), call


drive(connect)
