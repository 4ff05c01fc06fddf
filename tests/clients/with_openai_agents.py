"""The OpenAI Agents SDK: the function tools that an agent gets of a server's."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent, RunContextWrapper
from agents.mcp import MCPServerStdio
from agents.tool_context import ToolContext
from drive import Call, drive


@asynccontextmanager
async def connect(command: str, args: list[str]) -> AsyncIterator[tuple[list[str], Call]]:
    server = {"command": command, "args": args}
    async with MCPServerStdio(server, client_session_timeout_seconds=60) as proxmox:
        agent = Agent("test", mcp_servers=[proxmox])
        tools = {tool.name: tool for tool in await agent.get_mcp_tools(RunContextWrapper(None))}

        async def call(tool: str, arguments: dict[str, Any]) -> tuple[str, None]:
            given = json.dumps(arguments)
            context = ToolContext(None, tool_name=tool, tool_call_id="1", tool_arguments=given)
            answer = await tools[tool].on_invoke_tool(context, given)
            return answer if isinstance(answer, str) else answer["text"], None

        yield list(tools), call


drive(connect)
