"""The Python SDK, `mcp` 2."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from drive import Call, drive
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client


@asynccontextmanager
async def connect(command: str, args: list[str]) -> AsyncIterator[tuple[list[str], Call]]:
    async with Client(stdio_client(StdioServerParameters(command=command, args=args))) as client:

        async def call(tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
            result = await client.call_tool(tool, arguments)
            return result.content[0].text, result.is_error

        yield [tool.name for tool in (await client.list_tools()).tools], call


drive(connect)
