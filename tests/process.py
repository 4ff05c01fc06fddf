"""A server process that is spoken to in raw lines, to see every byte it writes."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.cluster import SECRET

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "src.server"]
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and keep what it wrote."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def environment(environ: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of the tests without settings of theirs, and with `environ`.

    Bytecode that is written, which some machines forbid, makes the next start faster.
    """
    drop = ("PROXMOX_", "PYTHONDONTWRITEBYTECODE")
    keep = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    return keep | (environ or {})


class Server:
    """A command that serves MCP over stdio; initialized, and killed, by `with`."""

    def __init__(
        self,
        command: list[str],
        environ: dict[str, str] | None = None,
        stderr: int = subprocess.PIPE,
        cwd: Path = ROOT,
    ) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        self.lines: list[bytes] = []
        self.answers: dict[Any, Any] = {}
        self.arrived = threading.Condition()
        self.errors = b""
        reads = (self._read, self._read_errors)
        self.readers = [threading.Thread(target=read, daemon=True) for read in reads]
        for reader in self.readers:
            reader.start()

    def __enter__(self) -> Self:
        self.initialize()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with self.arrived:
                self.lines.append(line)
                with contextlib.suppress(ValueError):  # told by leaves_within
                    message = json.loads(line)
                    self.answers[message.get("id")] = message
                self.arrived.notify_all()

    def _read_errors(self) -> None:
        if self.process.stderr:
            self.errors = self.process.stderr.read()

    def write(self, line: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, method: str, params: Any = None, **more: Any) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}} | more
        self.write(json.dumps(message).encode())

    def answer(self, number: int, timeout: float = 10) -> Any:
        """The answer to a request, waited for."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: number in self.answers, timeout)
            return self.answers[number]

    def initialize(self) -> None:
        self.send("initialize", INITIALIZE, id=0)
        self.answer(0, 60)
        self.send("notifications/initialized")

    def call(self, number: int, tool: str, **arguments: Any) -> None:
        self.send("tools/call", {"name": tool, "arguments": arguments}, id=number)

    def close(self) -> None:
        """Close its stdin, which tells it to leave."""
        assert self.process.stdin
        self.process.stdin.close()

    def leaves_within(self, seconds: float) -> bool:
        """Whether it ends in time; everything it wrote was the protocol or a log line."""
        try:
            assert self.process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        for reader in self.readers:
            reader.join(5)
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in self.lines)
        assert SECRET.encode() not in b"".join([*self.lines, self.errors])
        assert b"Traceback" not in self.errors
        return True
