"""Run a server process and exchange raw lines with it, to see every byte it writes."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any, Self

from tests.cluster import SECRET

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "src.server"]
INITIALIZE = {"protocolVersion": "2025-06-18", "capabilities": {}}
INITIALIZE |= {"clientInfo": {"name": "test", "version": "1"}}


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it wrote."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def environment(environ: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment without Proxmox settings, updated with `environ`.

    Python may write bytecode, which some machines forbid, because the next start is faster.
    """
    drop = ("PROXMOX_", "PYTHONDONTWRITEBYTECODE")
    keep = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    return keep | (environ or {})


class Server:
    """Run a command that serves MCP over stdio; `with` initializes and kills it."""

    def __init__(
        self,
        command: list[str],
        environ: Any = None,
        stderr: int = PIPE,
        cwd: Path = ROOT,
    ) -> None:
        pipes = {"stdin": PIPE, "stdout": PIPE, "stderr": stderr}
        self.process = subprocess.Popen(command, cwd=cwd, env=environment(environ), **pipes)
        self.lines: list[bytes] = []
        self.answers: dict[Any, Any] = {}
        self.arrived = threading.Condition()
        self.errors = b""
        targets = (self._read, self._read_errors)
        self.readers = [threading.Thread(target=each, daemon=True) for each in targets]
        for reader in self.readers:
            reader.start()

    def __enter__(self) -> Self:
        self.request("initialize", INITIALIZE)
        self.send("notifications/initialized")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with self.arrived:
                self.lines.append(line)
                with contextlib.suppress(ValueError):  # leaves_within reports it
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
        """Wait for the answer to a request, and return it."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: number in self.answers, timeout)
            return self.answers[number]

    def request(self, method: str, params: Any = None) -> Any:
        """Send a request, wait for the answer, and return its result."""
        number = len(self.answers)
        self.send(method, params, id=number)
        return self.answer(number, 60)["result"]

    def result(self, tool: str, **arguments: Any) -> Any:
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def call(self, number: int, tool: str, **arguments: Any) -> None:
        self.send("tools/call", {"name": tool, "arguments": arguments}, id=number)

    def close(self) -> None:
        """Close its stdin, which tells it to exit."""
        assert self.process.stdin
        self.process.stdin.close()

    def leaves_within(self, seconds: float) -> bool:
        """Return whether it exits in time; check that it wrote only protocol and log lines."""
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
