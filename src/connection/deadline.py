"""How long things may take: every time limit, and one deadline for a block of requests."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from src.errors import ProxmoxError

T = TypeVar("T")

# Reports that a call still waits: seconds so far, seconds at most, what for.
Progress = Callable[[float, float, str], None]

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0  # after 30 s pveproxy itself gives up waiting for another node
ATTEMPT_TIMEOUT = 10.0  # one request of many, which must not use up the time of all
LIST_TIMEOUT = 10.0
STORAGE_TIMEOUT = 30.0  # a node checks its storages one by one, a dead NFS server for 10 s
POWER_TIMEOUT = 45.0  # MCP clients commonly give up after 60 s
LOOK_TIMEOUT = 30.0  # what is read before a power action, so that time is left to send it

log = logging.getLogger("mcp-proxmox")

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)
_last: ContextVar[float] = ContextVar("last", default=math.inf)


@contextmanager
def within(seconds: float, grace: float = math.inf) -> Iterator[None]:
    """Run a block whose requests end within `seconds`, and those of blocks in it with longer
    deadlines no more than `grace` seconds after that.

    A thread does not inherit the deadline: submit `copy_context().run` to a pool.
    """
    ends = time.monotonic() + seconds
    last = min(_last.get(), ends + grace)
    tokens = _deadline.set(min(ends, last)), _last.set(last)
    try:
        yield
    finally:
        _deadline.reset(tokens[0])
        _last.reset(tokens[1])


def time_left() -> float:
    """Return the seconds until the deadline of the surrounding block."""
    return _deadline.get() - time.monotonic()


def attempt(call: Callable[..., T], *args: Any, **options: Any) -> T | ProxmoxError:
    """Return the result, or the ProxmoxError instead of raising it.

    For one call within a longer wait. It may not use up the whole wait, but always has
    the time to connect.
    """
    with within(max(min(time_left(), ATTEMPT_TIMEOUT), CONNECT_TIMEOUT)):
        try:
            return call(*args, **options)
        except ProxmoxError as error:
            log.debug("%s", error)
            return error
