"""The Python SDK of the first protocol era: `mcp` 1."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from drive import Call, drive
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


@asynccontextmanager
async def connect(command: str, args: list[str]) -> AsyncIterator[tuple[list[str], Call]]:
    server = StdioServerParameters(command=command, args=args)
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()

        async def call(tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
            result = await session.call_tool(tool, arguments)
            return result.content[0].text, result.isError

        yield [tool.name for tool in (await session.list_tools()).tools], call


drive(connect)
