"""Pass TCP connections on to a server, and let them die as networks do."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


class Relay:
    """Listen on 127.0.0.1, and pass each connection on to `port`, `delay` seconds late.

    `swallow` keeps the connections so far open and passes nothing on, `reset` resets them, and
    `mine` resets each when it is used.
    """

    def __init__(self, port: int, delay: float = 0) -> None:
        self.delay = delay
        self.accepted = 0
        self._target = port
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._swallowed: set[socket.socket] = set()
        self._mined: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while client := self._listener.accept()[0]:
                self.accepted += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        time.sleep(self.delay)
        with contextlib.suppress(OSError):
            server = socket.socket()  # a test may change how names are resolved
            server.connect(("127.0.0.1", self._target))
            self._pairs.append((client, server))
            if self._listener.fileno() < 0:  # closed meanwhile
                client.close()
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source in self._mined:
                    self._reset(source)
                elif source not in self._swallowed:
                    sink.sendall(data)
            if source not in self._swallowed:
                sink.shutdown(socket.SHUT_WR)

    def swallow(self) -> None:
        self._swallowed |= {end for pair in self._pairs for end in pair}

    def mine(self) -> None:
        self._mined |= {client for client, _ in self._pairs}

    def reset(self) -> None:
        self.each(self._reset)

    @staticmethod
    def _reset(end: socket.socket) -> None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.shutdown(socket.SHUT_RD)  # wakes the thread that reads
        end.close()

    def each(self, do: Callable[[socket.socket], object]) -> None:
        for client, _ in self._pairs:
            with contextlib.suppress(OSError):
                do(client)

    def close(self) -> None:
        """Refuse connections from now on, and close those that there are."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.each(lambda end: end.shutdown(socket.SHUT_RDWR))
