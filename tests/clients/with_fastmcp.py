"""The client of FastMCP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from drive import Call, drive
from fastmcp import Client
from fastmcp.client.transports import StdioTransport


@asynccontextmanager
async def connect(command: str, args: list[str]) -> AsyncIterator[tuple[list[str], Call]]:
    async with Client(StdioTransport(command=command, args=args)) as client:

        async def call(tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
            result = await client.call_tool(tool, arguments, raise_on_error=False)
            return result.content[0].text, result.is_error

        yield [tool.name for tool in await client.list_tools()], call


drive(connect)
