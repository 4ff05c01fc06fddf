"""Run each call into the client in a thread, so that the server answers others meanwhile."""

import math
import os
import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from src.client import ProxmoxClient
from src.config.env_file import EnvFile
from src.config.settings import Settings
from src.connection.deadline import Progress
from src.errors import ProxmoxError

T = TypeVar("T")

RESPONSIVE = 0.002  # seconds in which a thread reads a message while nothing holds it up
START_PATIENCE = 2.0

_starting = anyio.Lock()


class CurrentClient:
    """The client of the current settings: a correction in .env counts at the next call."""

    def __init__(self) -> None:
        self._client: ProxmoxClient | None = None
        self._file = EnvFile()
        self._versions: dict[str, tuple[int, int] | None] = {}

    def __call__(self) -> ProxmoxClient:
        """Return the client, a new one if the settings have changed. Raises ProxmoxError.

        If the file that it was made from is gone, it stays.
        """
        versions = EnvFile.versions()
        gone = self._file.exists and versions.get(self._file.path) is None
        if self._client and (gone or versions == self._versions):
            return self._client
        file = EnvFile.read()
        settings = Settings.from_env(os.environ, file)
        if self._client is None or self._client.settings != settings:
            self._client = ProxmoxClient(settings)
        self._file, self._versions = file, versions
        return self._client

    def forget(self) -> None:
        """Read the settings again at the next call."""
        self._client = None


class ProgressWriter:
    """Write the newest progress of a call without its thread waiting for the client."""

    def __init__(self) -> None:
        self._newest: tuple[float, float, str] = (0, 0, "")
        self._changed = anyio.Event()

    def report(self, done: float, total: float, message: str) -> None:
        """Note the newest progress. The call's thread calls this."""
        anyio.from_thread.run_sync(self._note, (done, total, message))

    def _note(self, newest: tuple[float, float, str]) -> None:
        self._newest = newest
        self._changed.set()

    async def write(self, ctx: Context) -> None:
        """Send progress to the client until cancelled. Skip what is outdated."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            await ctx.report_progress(*self._newest)


class Calls:
    """Calls of one kind, at most `limit` at once, each in a thread of its own.

    They do not use anyio's own 40 threads: the SDK needs those to read stdin and to write
    stdout.
    """

    def __init__(self, client: CurrentClient, limit: int) -> None:
        self._client = client
        self._limit = limit
        self._running = 0
        self._threads = anyio.CapacityLimiter(math.inf)

    async def run(self, call: Callable[[ProxmoxClient, Progress], T], ctx: Context) -> T:
        """Return what the call returns. Raises ToolError if it fails or cannot begin."""
        if self._running >= self._limit:
            raise ToolError(
                f"Nothing was sent to Proxmox: {self._limit} calls are under way already. Call "
                "again when some of them have ended."
            )
        self._running += 1
        try:
            return await self._run(call, ctx)
        finally:
            self._running -= 1

    async def _run(self, call: Callable[[ProxmoxClient, Progress], T], ctx: Context) -> T:
        progress, failure = ProgressWriter(), None
        async with anyio.create_task_group() as writer:
            writer.start_soon(progress.write, ctx)
            await _wait_until_responsive()
            try:
                result = await anyio.to_thread.run_sync(
                    call,
                    self._client(),  # in the event loop, so that only one is made
                    progress.report,
                    # A thread that waits would hold up the end of the process.
                    abandon_on_cancel=True,
                    limiter=self._threads,
                )
            except ProxmoxError as error:
                failure = str(error)
            writer.cancel_scope.cancel()
        if failure is not None:
            raise ToolError(failure)
        return result


async def _wait_until_responsive() -> None:
    """Wait until the server keeps up with its client, for START_PATIENCE at most.

    Python runs one thread at a time. The threads of many calls would delay the one that
    reads stdin, and with it pings.
    """
    with anyio.move_on_after(START_PATIENCE):
        async with _starting:
            while not await _is_responsive():
                await anyio.sleep(5 * RESPONSIVE)


async def _is_responsive() -> bool:
    """Whether a thread answers at once, as the SDK uses one for each line of stdin."""
    began = time.perf_counter()
    await anyio.to_thread.run_sync(int)
    return time.perf_counter() - began < RESPONSIVE
