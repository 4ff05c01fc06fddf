"""A recording of a real cluster, played as tests/recordings/README.md says, in no time.

The clock is made up: a request takes as many of its seconds as it took the cluster, a pause
as many as it was to, and nobody waits for either. So the same call gives the same answer,
to the letter, however busy the machine is.
"""

import io
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from tests.cluster import SECRET

RECORDINGS = Path(__file__).parent / "recordings"
ENVIRON = {
    "PROXMOX_URL": "https://pve1.example.com:8006",
    "PROXMOX_USER": "mcp@pve",
    "PROXMOX_TOKEN_ID": "mcp-token",
    "PROXMOX_TOKEN_SECRET": SECRET,
    "PROXMOX_VERIFY_SSL": "true",
}
ROUND_TRIP = 0.01

Row = dict[str, Any]


def recording(name: str) -> Row:
    read: Row = json.loads((RECORDINGS / f"{name}.json").read_text())
    return read


def key(path: str, query: str = "") -> str:
    """A path as it is looked up: `limit` and `start` are free."""
    path, _, more = path.partition("?")
    pairs = [*parse_qsl(more), *parse_qsl(query)]
    kept = sorted(pair for pair in pairs if pair[0] not in ("limit", "start"))
    return "?".join([path, *("&".join(f"{k}={v}" for k, v in kept) for _ in kept[:1])])


class Clock:
    """Python's `time` for the modules that wait; each thread is as far as it has waited."""

    def __init__(self) -> None:
        self.latest = 0.0
        self._own = threading.local()

    def monotonic(self) -> float:
        return getattr(self._own, "now", 0.0)

    def sleep(self, seconds: float) -> None:
        self.set(self.monotonic() + seconds)

    def set(self, now: float) -> None:
        self._own.now = now
        self.latest = max(self.latest, now)

    def pool(self, workers: int) -> ThreadPoolExecutor:
        """A pool whose calls begin when they were submitted."""
        clock = self

        class Pool(ThreadPoolExecutor):
            def submit(self, call: Any, /, *args: Any, **options: Any) -> Any:
                began = clock.monotonic()

                def run() -> Any:
                    clock.set(began)
                    return call(*args, **options)

                return super().submit(run)

        return Pool(workers)

    def wait(self, futures: Any, timeout: float) -> Any:
        """Wait for all; it took as long as the slowest, but not longer than `timeout`."""
        done: tuple[set[Future[Any]], set[Future[Any]]] = wait(futures)
        self.set(max(self.monotonic(), min(self.latest, self.monotonic() + timeout)))
        return done


class Replay:
    """What Proxmox answered.

    The recording's time begins with the POST; where none is expected, with the first
    request, at `at` seconds. `sent` lists what was asked, `posts` what was sent. `change`
    has answers by path that are given in place of the recorded ones, `then` what is called
    before the answer of a path is given.
    """

    def __init__(self, recorded: Row, at: float | None = None) -> None:
        self.clock = Clock()
        self.at = at
        self.zero: float | None = None  # when the recording's time is 0, by the clock
        self.sent: list[str] = []
        self.posts: list[tuple[str, Row]] = []
        self.change: dict[str, Row] = {}
        self.then: dict[str, Callable[[], object]] = {}
        self.before = {key(p): a for p, a in recorded.get("before", {}).items()}
        self.after: dict[str, list[Row]] = {}
        for answer in recorded.get("after", []):
            self.after.setdefault(key(answer["path"]), []).append(answer)
        first = [recorded["post"]] if recorded.get("post") else []
        self.known_posts = first + recorded.get("earlier", [])
        events = recorded.get("events", [])
        self.dead = {
            word
            for event in events
            if "power" in event["what"]
            for word in event["what"].replace(",", " ").split()
            if word.startswith("pve")
        }

    def start(self, patch: pytest.MonkeyPatch) -> None:
        """Answer all requests of this process from now on."""
        for name, value in ENVIRON.items():
            patch.setenv(name, value)
        for module in ("proxmox.api", "proxmox.deadline", "power.action", "power.outcome"):
            patch.setattr(f"src.{module}.time", self.clock)
        patch.setattr("src.lists.ask_nodes.ThreadPoolExecutor", self.clock.pool)
        patch.setattr("src.lists.ask_nodes.wait", self.clock.wait)
        patch.setattr(HTTPAdapter, "send", self.answer)

    @property
    def now(self) -> float | None:
        """Seconds since the POST, None before it."""
        return None if self.zero is None else self.clock.monotonic() - self.zero

    def answer(
        self, request: requests.PreparedRequest, *, timeout: Any, **_: Any
    ) -> requests.Response:
        self.clock.sleep(ROUND_TRIP)
        url = urlsplit(request.url or "")
        path = url.path.removeprefix("/api2/json")
        if request.method == "POST":
            answer, since = (self._post(path, dict(parse_qsl(str(request.body or "")))), 0.0)
        else:
            assert request.method == "GET"
            if self.zero is None and self.at is not None:
                self.zero = self.clock.monotonic() - self.at
            self.sent.append(key(path, url.query))
            answer, since = self._newest(self.sent[-1], self.now)
            since = since if "uptime" in str(answer) else 0
        if path in self.then:
            self.then[path]()
        seconds = 3600 if answer.get("hangs") else answer.get("seconds", 0)
        if seconds > timeout[1]:
            self.clock.sleep(timeout[1])
            raise requests.ReadTimeout
        self.clock.sleep(seconds)
        return HTTPAdapter().build_response(request, self._response(answer, since, path))

    @property
    def end(self) -> float | None:
        """When the last answer came, in the recording's time."""
        return None if self.zero is None else self.clock.latest - self.zero

    def recorded(self, path: str, now: float | None) -> Row:
        """Return what the recording answers at a path at a moment."""
        return self._newest(key(path), now)[0]

    def rows(self, path: str, now: float | None) -> list[Row]:
        """Return the rows of a recorded answer; none where it is no list."""
        return self.recorded(path, now).get("data") or []

    def quorate(self, now: float | None) -> bool:
        """Whether the recorded cluster has quorum; true where it cannot be read."""
        return all(row.get("quorate", 1) for row in self.rows("/cluster/status", now))

    def power_tasks(self, node: str, vm_id: int, now: float | None) -> list[Row]:
        """Return the recorded power tasks of a machine, the oldest first."""
        rows = self.rows(f"/nodes/{node}/tasks?vmid={vm_id}&source=all", now)[::-1]
        return [r for r in rows if re.match("(qm|vz|ha)(st[ao]|shut|reb)", r["type"])]

    @staticmethod
    def state(answer: Row) -> str:
        """Return the state in an answer of status/current, unknown where it failed."""
        row = answer.get("data") or {} if answer.get("status") == 200 else {}
        return str(row.get("qmpstatus") or row.get("status") or "unknown")

    def reply(self, path: str, body: Row) -> Row:
        """Return what the recording answers to a POST."""
        for known in self.known_posts:
            texts = {k: str(v) for k, v in known["body"].items()}
            if known["path"] == path and texts == body:
                return known
        return {"status": 501, "reason": "not recorded"}

    def _post(self, path: str, body: Row) -> Row:
        self.posts.append((path, body))
        known = self.reply(path, body)
        if self.zero is None and known in self.known_posts[:1]:
            self.zero = self.clock.monotonic() - (self.at or 0)
        return known | {"body": known.get("body_of_answer")}

    def _newest(self, path: str, now: float | None) -> tuple[Row, float]:
        """The answer of a moment, and how long before it became the answer."""
        if path in self.change:
            return self.change[path], 0
        answer, since = self.before.get(path), now or 0
        for later in self.after.get(path, []):
            if now is not None and later["t"] <= now:
                answer, since = later, now - later["t"]
        if answer is None and path.startswith("/cluster/resources?type="):
            whole, since = self._newest("/cluster/resources", now)
            kinds = {"vm": ("qemu", "lxc")}.get(path[24:], (path[24:],))
            if "data" in whole:
                rows = [row for row in whole["data"] if row["type"] in kinds]
                answer = whole | {"data": rows}
        if answer is None:
            answer = {"status": 501, "reason": f"Method 'GET {path}' not implemented"}
            answer["body"] = {"data": None}
        return answer, since

    def _response(self, answer: Row, since: float, path: str) -> HTTPResponse:
        body = answer.get("body")
        if answer["status"] == 200:
            data = answer.get("data")
            rows = data if isinstance(data, list) else [data]
            broadcast = path in ("/nodes", "/cluster/resources")
            aged = [
                row | {"uptime": row["uptime"] + int(since)}
                if isinstance(row, dict)
                and (row.get("uptime") or 0) > 0
                and not (broadcast and row.get("node") in self.dead)
                else row
                for row in rows
            ]
            body = {"data": aged if isinstance(data, list) else aged[0]}
        content = b"" if body is None else json.dumps(body).encode()
        return HTTPResponse(
            io.BytesIO(content),
            {"Content-Type": "application/json"} if content else {},
            status=answer["status"],
            reason=answer.get("reason"),
            preload_content=False,
        )
