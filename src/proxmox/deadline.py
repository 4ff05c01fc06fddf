"""How long things may take: one deadline for all that is asked within a block."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from src.errors import ProxmoxError

T = TypeVar("T")

# Tells that something is still waited for: seconds so far, seconds at most, what for.
Progress = Callable[[float, float, str], None]

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0  # pveproxy gives up on another node after 30 s too
ATTEMPT_TIMEOUT = 10.0

log = logging.getLogger("mcp-proxmox")

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """A block whose requests end in `seconds`.

    A thread does not inherit it: submit `copy_context().run` to a pool.
    """
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def time_left() -> float:
    """The seconds until the deadline of the block around."""
    return _deadline.get() - time.monotonic()


def attempt(call: Callable[..., T], *args: Any, **options: Any) -> T | ProxmoxError:
    """What a call within a longer wait returns, or the error that it raises.

    It may not use up the whole wait, unless it is the last one in it.
    """
    with within(max(min(time_left(), ATTEMPT_TIMEOUT), CONNECT_TIMEOUT)):
        try:
            return call(*args, **options)
        except ProxmoxError as error:
            log.debug("%s", error)
            return error
