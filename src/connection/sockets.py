"""One connection: made to whichever address of a name accepts it, and trusted while fresh."""

import errno
import os
import re
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError
from urllib3.util.connection import allowed_gai_family

# pveproxy closes a connection that was idle for 5 s. A request that meets the end is lost.
MAX_IDLE = 4.0
HEAD_START = 0.25  # seconds for one address before the next is tried beside it (RFC 8305)


class HandshakeTimeout(ConnectTimeoutError):
    """The server accepted the connection, but did not complete the TLS handshake in time."""


class Dialog(threading.local):
    """What is known of the request that this thread sends now.

    `handshake_ends` and `ends` are on the monotonic clock: when TLS must be ready, and when
    the answer must be here. While it is `connecting`, nothing of the request was sent.
    """

    handshake_ends = 0.0
    ends = 0.0
    connecting = False

    def time_left(self) -> float:
        """Return the seconds in which the answer must be here."""
        return self.ends - time.monotonic()


def _clocks() -> tuple[float, float]:
    """Return both clocks: the first stands still while a laptop sleeps, the second may be set."""
    return time.monotonic(), time.time()


class Trust:
    """Which idle connections may be used again: those that are fresh.

    After a failure none that was opened before it is trusted, because they share its fate.
    """

    def __init__(self) -> None:
        self._opened_after = 0.0

    def withdraw(self) -> None:
        self._opened_after = time.monotonic()

    def covers(self, opened: float, used: tuple[float, float]) -> bool:
        idle = max(abs(now - then) for now, then in zip(_clocks(), used, strict=True))
        return opened > self._opened_after and idle <= MAX_IDLE


class Connection(HTTPSConnection):
    """A connection to an address of PROXMOX_URL; `connection_class` makes a class for each."""

    dialog: Dialog
    trust: Trust
    order: dict[Any, int]  # by IP address: the lower, the earlier it is tried
    opened = 0.0
    used = (0.0, 0.0)
    untried: Sequence[Any] = ()  # what is left of a name's addresses
    ip: Any = None

    @property
    def is_connected(self) -> bool:
        return super().is_connected and self.trust.covers(self.opened, self.used)

    def connect(self) -> None:
        """Connect and complete the handshake, with the next of a name's addresses if it hangs."""
        self.dialog.connecting = True
        host, port = self._dns_host.strip("[]"), self.port
        found = resolve(host, port, self.timeout)
        self.untried = sorted(found, key=lambda each: self.order.get(each[-1], 0))
        while self.untried:
            with suppress(TimeoutError):
                super().connect()
                self.opened, self.used = time.monotonic(), _clocks()
                self.order[self.ip] = -1
                return
            self.order[self.ip] = 1  # it accepts connections, and hangs
        raise HandshakeTimeout(self, "TLS")

    def _new_conn(self) -> socket.socket:
        late = False
        try:
            sock, index = first_to_accept(self.untried, self.timeout, self.socket_options)
        except TimeoutError:
            late = True  # raised below, where no other exception hides it
        if late:
            raise ConnectTimeoutError(self, "TCP")
        self.ip = self.untried[index][-1]
        self.untried = [each for each in self.untried if each[-1] != self.ip]
        left = self.dialog.handshake_ends - time.monotonic()
        sock.settimeout(max(0.01, left / (len(self.untried) + 1)))
        return sock

    def request(self, *args: Any, **options: Any) -> None:
        if time.monotonic() >= self.dialog.ends:  # a name may have taken long to resolve
            raise ConnectTimeoutError(self, "late")
        self.dialog.connecting = False
        super().request(*args, **options)

    def getresponse(self) -> Any:
        response = super().getresponse()
        self.used = _clocks()
        return response


def connection_class(dialog: Dialog, trust: Trust) -> type[Connection]:
    """Return the class of all connections to one address of PROXMOX_URL."""
    own = {"dialog": dialog, "trust": trust, "order": {}}
    return type("ConnectionToAddress", (Connection,), own)


def resolve(host: str, port: int, timeout: Any) -> list[Any]:
    """Return the addresses of a name. Raises gaierror, also if no DNS server answers in time."""
    answer: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM)
            answer.set_result(list(found))
        except (OSError, UnicodeError) as error:
            answer.set_exception(error)

    if re.fullmatch(r"[\d.]+|.*:.*", host):  # an IP address, which nobody need be asked for
        ask()
    else:
        threading.Thread(target=ask, daemon=True).start()
    with suppress(TimeoutError):
        return answer.result(timeout)
    raise socket.gaierror(socket.EAI_AGAIN, "no DNS server answers")


def first_to_accept(found: Sequence[Any], timeout: Any, options: Any) -> tuple[socket.socket, int]:
    """Return a socket that is connected to the first of the addresses that accepts, and its index.

    Each has HEAD_START before the next is tried beside it. Raises TimeoutError, or the
    OSError of the last one if all fail.
    """
    ends = time.monotonic() + timeout
    waiting, error = list(enumerate(found)), OSError(errno.EADDRNOTAVAIL, "no address")
    with selectors.DefaultSelector() as pending:
        try:
            while waiting or pending.get_map():
                if waiting:
                    error = _begin(*waiting.pop(0), options, pending) or error
                turn = time.monotonic() + HEAD_START if waiting else ends
                while pending.get_map() and (left := min(turn, ends) - time.monotonic()) > 0:
                    for key, _ in pending.select(left):
                        sock: Any = pending.unregister(key.fileobj).fileobj
                        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                        if not code:
                            return sock, key.data
                        error = OSError(code, os.strerror(code))
                        sock.close()
                        turn = 0
                if time.monotonic() >= ends and pending.get_map():
                    raise TimeoutError
        finally:
            for key in list(pending.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    raise error


def _begin(
    index: int, address: Any, options: Any, pending: selectors.BaseSelector
) -> OSError | None:
    """Begin to connect to one address, or return why that fails at once."""
    family, kind, protocol, _, where = address
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        return error
    sock.setblocking(False)
    try:
        for option in options or ():
            sock.setsockopt(*option)
        sock.connect(where)
    except BlockingIOError:
        pass
    except OSError as error:
        sock.close()
        return error
    pending.register(sock, selectors.EVENT_WRITE, index)
    return None
