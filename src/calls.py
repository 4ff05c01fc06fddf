"""Calls into the client, each in a thread: pings and other calls are answered meanwhile.

Calls       how many at once, and what they raise
Progress    how such a call tells that it still waits
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from src.client import ProxmoxClient
from src.errors import ProxmoxError

T = TypeVar("T")

PROMPT = 0.002  # s that it takes to read a message where nothing holds that up
START_PATIENCE = 2.0

_starting = anyio.Lock()


class Progress:
    """The newest progress of a call, which the event loop writes while the call runs.

    The call's thread never waits for a client to read it.
    """

    def __init__(self) -> None:
        self._newest: tuple[float, float, str] = (0, 0, "")
        self._changed = anyio.Event()

    def report(self, done: float, total: float, message: str) -> None:
        """Take note of the newest progress. Called in the call's thread."""
        self._newest = done, total, message
        anyio.from_thread.run_sync(lambda: self._changed.set())

    async def write(self, ctx: Context) -> None:
        """Send each progress to the client, until cancelled; skip what is outdated."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            await ctx.report_progress(*self._newest)


class Calls:
    """Calls of one kind, each in a thread of its own, `at_most` so many at once.

    Not in anyio's own 40 threads: the SDK reads stdin and writes stdout in those.
    """

    def __init__(self, client: Callable[[], ProxmoxClient], at_most: int) -> None:
        self._client = client
        self._threads = anyio.CapacityLimiter(at_most)

    async def run(
        self, call: Callable[[ProxmoxClient, Progress], T], ctx: Context
    ) -> T:
        """Return what the call returns. Raises ToolError where it fails or cannot begin."""
        if self._threads.available_tokens < 1:
            raise ToolError(
                f"Nothing was sent to Proxmox: {self._threads.total_tokens:.0f} calls are "
                "under way already. Call again when some of them have ended."
            )
        progress, error = Progress(), None
        async with anyio.create_task_group() as writer:
            writer.start_soon(progress.write, ctx)
            await _let_messages_in()
            try:
                result = await anyio.to_thread.run_sync(
                    call,
                    self._client(),  # here, so that calls at once do not make one each
                    progress,
                    # A thread that waits would hold up the end of the process.
                    abandon_on_cancel=True,
                    limiter=self._threads,
                )
            except ProxmoxError as failure:
                error = str(failure)
            writer.cancel_scope.cancel()
        if error is not None:
            raise ToolError(error)
        return result


async def _let_messages_in() -> None:
    """Wait until the server keeps up with its client, but not for long.

    Python runs one thread at a time. With many calls at once their threads would keep the one
    that reads stdin waiting, and pings with it.
    """
    with anyio.move_on_after(START_PATIENCE):
        async with _starting:
            while not await _reads_promptly():
                await anyio.sleep(5 * PROMPT)


async def _reads_promptly() -> bool:
    """Whether a thread answers at once; the SDK reads each line of stdin in one."""
    began = time.perf_counter()
    await anyio.to_thread.run_sync(int)
    return time.perf_counter() - began < PROMPT
