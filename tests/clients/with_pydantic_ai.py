"""Pydantic AI: an agent whose model makes the one call."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from drive import Call, drive
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ToolReturnPart
from pydantic_ai.models.function import FunctionModel


@asynccontextmanager
async def connect(command: str, args: list[str]) -> AsyncIterator[tuple[list[str], Call]]:
    async with MCPToolset(StdioTransport(command=command, args=args)) as toolset:

        async def call(tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
            read: list[Any] = []

            def model(messages: list[Any], _: Any) -> ModelResponse:
                read.extend(messages[-1].parts)
                done = isinstance(read[-1], ToolReturnPart)
                return ModelResponse([TextPart("done") if done else ToolCallPart(tool, arguments)])

            await Agent(FunctionModel(model), toolsets=[toolset]).run("")
            return json.dumps(read[-1].content, ensure_ascii=False), read[-1].outcome != "success"

        yield [tool.name for tool in await toolset.list_tools()], call


drive(connect)
