"""One connection: made to whichever address of a name accepts it, and trusted while fresh."""

import errno
import os
import selectors
import socket
import threading
import time
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
    preferred: dict[str, Any]  # by name: the address that accepted a connection last
    opened = 0.0
    used = (0.0, 0.0)

    @property
    def is_connected(self) -> bool:
        return super().is_connected and self.trust.covers(self.opened, self.used)

    def connect(self) -> None:
        self.dialog.connecting, late = True, False
        try:
            super().connect()
        except TimeoutError:
            late = True  # raised below, where no other exception hides it
        if late:
            raise HandshakeTimeout(self, "TLS")
        self.opened, self.used = time.monotonic(), _clocks()

    def _new_conn(self) -> socket.socket:
        host, port = self._dns_host.strip("[]"), self.port
        found = socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM)
        found.sort(key=lambda each: each[-1] != self.preferred.get(host))
        late = False
        try:
            sock = first_to_accept(found, self.timeout, self.socket_options)
        except TimeoutError:
            late = True
        if late:
            raise ConnectTimeoutError(self, "TCP")
        self.preferred[host] = sock.getpeername()
        sock.settimeout(max(0.01, self.dialog.handshake_ends - time.monotonic()))
        return sock

    def request(self, *args: Any, **options: Any) -> None:
        self.dialog.connecting = False
        super().request(*args, **options)

    def getresponse(self) -> Any:
        self.timeout = max(0.01, self.dialog.ends - time.monotonic())
        response = super().getresponse()
        self.used = _clocks()
        return response


def connection_class(dialog: Dialog, trust: Trust) -> type[Connection]:
    """Return the class of all connections to one address of PROXMOX_URL."""
    own = {"dialog": dialog, "trust": trust, "preferred": {}}
    return type("ConnectionToAddress", (Connection,), own)


def first_to_accept(found: list[Any], timeout: Any, options: Any) -> socket.socket:
    """Return a socket that is connected to the first of the addresses that accepts.

    Each has HEAD_START before the next is tried beside it. Raises TimeoutError, or the
    OSError of the last one if all fail.
    """
    ends = time.monotonic() + timeout
    waiting, error = list(found), OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    with selectors.DefaultSelector() as pending:
        try:
            while waiting or pending.get_map():
                if waiting:
                    error = _begin(waiting.pop(0), options, pending) or error
                turn = time.monotonic() + HEAD_START if waiting else ends
                while pending.get_map() and (left := min(turn, ends) - time.monotonic()) > 0:
                    for key, _ in pending.select(left):
                        sock: Any = pending.unregister(key.fileobj).fileobj
                        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                        if not code:
                            return sock  # type: ignore[no-any-return]
                        error = OSError(code, os.strerror(code))
                        sock.close()
                        turn = 0
                if time.monotonic() >= ends and pending.get_map():
                    raise TimeoutError
        finally:
            for key in list(pending.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    raise error


def _begin(address: Any, options: Any, pending: selectors.BaseSelector) -> OSError | None:
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
    pending.register(sock, selectors.EVENT_WRITE)
    return None
