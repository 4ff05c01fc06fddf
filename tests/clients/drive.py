"""What the drivers in Python share: make the calls that stdin names, print the answers."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

Call = Callable[[str, dict[str, Any]], Awaitable[tuple[str, bool | None]]]
Connect = Callable[[str, list[str]], AbstractAsyncContextManager[tuple[list[str], Call]]]


async def make(connect: Connect, command: str, args: list[str], calls: list[Any]) -> None:
    answers = []
    async with connect(command, args) as (tools, call):
        for tool, arguments in calls:
            try:
                text, error = await call(tool, arguments)
            except Exception as failure:  # noqa: BLE001 - some raise what a server answers
                text, error = f"{type(failure).__name__}: {failure}", True
            answers.append({"text": text, "error": error})
    print(json.dumps({"tools": tools, "answers": answers}))


def drive(connect: Connect) -> None:
    """Run a client: `connect` launches the server and yields its tools and how to call one."""
    asyncio.run(make(connect, **json.load(sys.stdin)))
