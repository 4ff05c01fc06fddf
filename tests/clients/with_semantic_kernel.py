"""Semantic Kernel: the kernel functions that its plugin makes of a server's tools."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from drive import Call, drive
from semantic_kernel import Kernel
from semantic_kernel.connectors.mcp import MCPStdioPlugin
from semantic_kernel.functions import KernelArguments


@asynccontextmanager
async def connect(command: str, args: list[str]) -> AsyncIterator[tuple[list[str], Call]]:
    async with MCPStdioPlugin("proxmox", command=command, args=args) as server:
        kernel = Kernel()
        functions = kernel.add_plugin(server).functions

        async def call(tool: str, arguments: dict[str, Any]) -> tuple[str, None]:
            answer = await kernel.invoke(functions[tool], KernelArguments(**arguments))
            return answer.value[0].text, None

        yield list(functions), call


drive(connect)
