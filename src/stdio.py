"""stdin and stderr of the process, as clients use them: early ends, and nobody who reads."""

import io
import logging
import sys
import threading
from collections import deque

PATIENCE = 2.0  # seconds that anything waits for a client that does not read stderr
MAX_LINES = 1000  # that wait for it


class Stdin(io.BufferedReader):
    """stdin, and whether anything was `received`."""

    received = False

    def read1(self, size: int = -1) -> bytes:
        data = super().read1(size)
        self.received = self.received or bool(data.strip())
        return data

    def fileno(self) -> int:
        """Refuse, so that the SDK reads this object, not a duplicate of the descriptor."""
        raise io.UnsupportedOperation("fileno")


class _Line:
    """A line for stderr, and the `problem` with it: none once it is written."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.ended = threading.Event()
        self.problem = "the client does not read it"


class Stderr(logging.Handler):
    """Write log lines to stderr in a thread of its own.

    A client that never reads stderr fills its pipe, and then blocks whoever writes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[_Line] = deque()
        self._changed = threading.Condition()
        self._latest = threading.local()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        line = _Line(self.format(record))
        self._latest.line = line
        with self._changed:
            if len(self._lines) < MAX_LINES:
                self._lines.append(line)
                self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, daemon=True)
                self._thread.start()

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    self._changed.wait()
                line = self._lines[0]
            line.problem = _written(line.text)
            line.ended.set()
            with self._changed:
                self._lines.popleft()

    def problem(self) -> str:
        """Return why this thread's latest line is not on stderr after PATIENCE, or ""."""
        line: _Line | None = getattr(self._latest, "line", None)
        if line is None:
            return ""
        line.ended.wait(PATIENCE)
        return line.problem

    def drain(self, seconds: float) -> None:
        """Wait until all lines so far are written, for so many seconds at most."""
        with self._changed:
            last = self._lines[-1] if self._lines else None
        if last:
            last.ended.wait(seconds)


def _written(text: str) -> str:
    """Write a line to stderr, and return why that failed, or ""."""
    try:
        if not sys.stderr:
            return "it is closed"
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        return "nobody reads it any more"
    except OSError as error:
        return f"of an error: {error.strerror}"
    except ValueError:
        return "it is closed"
    return ""


STDERR = Stderr()
