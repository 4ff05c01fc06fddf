"""Replay a recording of a real cluster (see tests/recordings/README.md) in simulated time.

On the simulated clock, a request takes as long as it took the cluster, and a sleep as long as
was requested. Nobody really waits, so a call always returns the same answer to the letter.
"""

import io
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from tests.cluster import SECRET, variables

RECORDINGS = Path(__file__).parent / "recordings"
ENVIRON = variables("https://pve1.example.com:8006", "mcp@pve", "mcp-token", SECRET, "true")
ROUND_TRIP = 0.01
GOALS = defaultdict(lambda: "stopped", start="running", reboot="running")
ACTIVE = {1: "active", 0: "inactive", None: "unknown"}

Row = dict[str, Any]


def recording(name: str) -> Row:
    read: Row = json.loads((RECORDINGS / f"{name}.json").read_text())
    return read


def key(path: str, query: str = "") -> str:
    """Return the path as a key of the recording: without `limit` and `start`."""
    path, _, more = path.partition("?")
    pairs = [*parse_qsl(more), *parse_qsl(query)]
    kept = sorted(pair for pair in pairs if pair[0] not in ("limit", "start"))
    return "?".join([path, *("&".join(f"{k}={v}" for k, v in kept) for _ in kept[:1])])


class Clock:
    """Stand in for the module `time`; each thread has its own time."""

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
        """Return a pool whose calls begin at the time they were submitted."""
        clock = self

        class Pool(ThreadPoolExecutor):
            def submit(self, call: Any, /, *args: Any, **options: Any) -> Any:
                submitted = clock.monotonic()

                def run() -> Any:
                    clock.set(submitted)
                    return call(*args, **options)

                return super().submit(run)

        return Pool(workers)

    def wait(self, futures: Any, timeout: float) -> Any:
        """Wait for all futures, in simulated time for at most `timeout` seconds."""
        done: tuple[set[Future[Any]], set[Future[Any]]] = wait(futures)
        self.set(max(self.monotonic(), min(self.latest, self.monotonic() + timeout)))
        return done


class Replay:
    """Answer requests as the recorded cluster did.

    The recording's time begins with the POST or, if `at` is given, stands at `at` seconds at
    the first request. `sent` lists the GETs, `posts` the POSTs. `change` replaces answers by
    path; `hooks` has functions by path, called before the answer is given.
    """

    def __init__(self, recorded: Row, at: float | None = None) -> None:
        self.clock = Clock()
        self.at = at
        self.zero: float | None = None  # the clock's time at second 0 of the recording
        self.sent: list[str] = []
        self.posts: list[tuple[str, Row]] = []
        self.change: dict[str, Row] = {}
        self.hooks: dict[str, Callable[[], object]] = {}
        self.before = {key(p): a for p, a in recorded.get("before", {}).items()}
        self.after: dict[str, list[Row]] = {}
        for answer in recorded.get("after", []):
            self.after.setdefault(key(answer["path"]), []).append(answer)
        first = [recorded["post"]] if recorded.get("post") else []
        self.known_posts = first + recorded.get("earlier", [])
        events = recorded.get("events", [])
        dying = [event["what"] for event in events if "power" in event["what"]]
        self.dead = {*re.findall(r"\bpve\w*", " ".join(dying))}

    def start(self, patch: pytest.MonkeyPatch) -> None:
        """Answer every request of this process from now on."""
        for name, value in ENVIRON.items():
            patch.setenv(name, value)
        for module in (
            "connection.transport",
            "connection.addresses",
            "connection.deadline",
            "power.action",
            "power.outcome",
        ):
            patch.setattr(f"src.{module}.time", self.clock)
        for module in ("lists.ask_nodes", "power.guest"):
            patch.setattr(f"src.{module}.ThreadPoolExecutor", self.clock.pool)
            patch.setattr(f"src.{module}.wait", self.clock.wait)
        patch.setattr("src.power.outcome.wait", self.clock.wait)
        patch.setattr(HTTPAdapter, "send", self.answer)

    @property
    def now(self) -> float | None:
        """Return the seconds since the POST, None before it."""
        return None if self.zero is None else self.clock.monotonic() - self.zero

    def answer(self, request: Any, *, timeout: Any, **_: Any) -> requests.Response:
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
        if path in self.hooks:
            self.hooks[path]()
        if answer["status"] == 0:  # the client's own error
            self.clock.sleep(min(answer.get("seconds", 0), timeout[0]))
            raise requests.ConnectTimeout if "113" in answer["error"] else requests.ConnectionError
        seconds = 3600 if answer.get("hangs") else answer.get("seconds", 0)
        if seconds > timeout[1]:
            self.clock.sleep(timeout[1])
            raise requests.ReadTimeout
        self.clock.sleep(seconds)
        return HTTPAdapter().build_response(request, self._response(answer, since, path))

    @property
    def end(self) -> float | None:
        """Return when the last answer came, in the recording's time."""
        return None if self.zero is None else self.clock.latest - self.zero

    def recorded(self, path: str, now: float | None) -> Row:
        """Return what the recording answers at a path at a moment."""
        return self._newest(key(path), now)[0]

    def rows(self, path: str, now: float | None) -> list[Row]:
        """Return the rows of a recorded answer, none if it is not a list."""
        return self.recorded(path, now).get("data") or []

    def quorate(self, now: float | None) -> bool:
        """Return whether the recorded cluster has quorum, True if that cannot be read."""
        return all(row.get("quorate", 1) for row in self.rows("/cluster/status", now))

    def power_tasks(self, node: str, vm_id: int, now: float | None) -> list[Row]:
        """Return the recorded power tasks of a machine, the oldest first."""
        rows = self.rows(f"/nodes/{node}/tasks?vmid={vm_id}&source=all", now)[::-1]
        return [r for r in rows if re.match("(qm|vz|ha)(st[ao]|shut|reb)", r["type"])]

    def clock_at(self, now: float | None) -> float:
        """Return the node's time at a moment, by the UPID of the recorded POST."""
        upids = [post["data"] for post in self.known_posts[:1] if "data" in post]
        return sum(int(upid.split(":")[4], 16) for upid in upids) + (now or 0)

    @staticmethod
    def under_way(machine: Row, tasks: list[Row], when: float) -> tuple[str, str | None]:
        """Return the action that a task or HA is carrying out, or "", and the task's UPID.

        `when` is the time by the node's clock.
        """
        for task in tasks:
            if task["status"] == "RUNNING":
                return task["type"][2:], task["upid"]
        ha = machine.get("ha") or {}
        state = str(ha.get("state")).replace("started", "request_start")
        newest = ""  # HA's own task begins seconds after a request, or never
        if tasks and when - tasks[-1].get("endtime", when) <= 60:
            newest = tasks[-1]["type"]
        asked = re.findall(r"\b(?:ha|request_)(stop|start)\b", f"{newest} {state}")
        is_able = asked and ha.get("managed") and state not in ("error", "freeze")
        return asked[0] if is_able and GOALS[asked[0]] != machine["status"] else "", None

    def list_rows(
        self, resources: list[Row], nodes: dict[str, str], paths: list[str], now: float
    ) -> tuple[list[Row], set[str], set[str]]:
        """Return the rows of resources, updated by each node; the nodes that failed; the silent."""
        known: dict[Any, Row] = {}
        failed, silent = set(), set()
        took = self.recorded("/nodes", now).get("seconds", 0)
        online = [node for node, status in nodes.items() if status != "offline"]
        for row in resources:
            is_known = "vmid" in row and nodes.get(row["node"]) != "offline"
            key = row.get("vmid") or row["node"] + row.get("storage", "")
            known[key] = row if is_known else row | {"status": "unknown"}
        for node, path in product(online, paths):
            reply = self.recorded(f"/nodes/{node}/{path}", now + took)
            is_late = took + reply.get("seconds", 0) > self.clock.latest
            if is_late or reply.get("status") != 200:
                failed.add(node)
                silent |= {node} if reply.get("status") != 403 else set()
            for row in reply["data"] if path != "status" and node not in failed else ():
                key = row.get("vmid") or node + row["storage"]
                old, status = known.get(key, {}), row.get("status") or ACTIVE[row["active"]]
                finer = row.get("qmpstatus") or old.get("status") or "stopped"
                status = finer if status == "running" and finer != "stopped" else status
                live = {"node": node, "type": path, "status": status, "live": True}
                known[key] = old | row | live
        return [*known.values()], failed, silent

    @staticmethod
    def state(answer: Row) -> str:
        """Return the state in an answer of status/current, unknown if it failed."""
        row = answer.get("data") or {} if answer.get("status") == 200 else {}
        return str(row.get("qmpstatus") or row.get("status") or "unknown")

    def reply(self, path: str, body: Row) -> Row:
        """Return what the recording answers to a POST."""
        for known in self.known_posts:
            texts = {k: str(v) for k, v in known["body"].items()}
            # Recorded without it, where it changes nothing: no shutdown was under way.
            plain = {k: v for k, v in body.items() if k != "overrule-shutdown"}
            if known["path"] == path and texts in (body, plain):
                return known
        return {"status": 501, "reason": "not recorded"}

    def _post(self, path: str, body: Row) -> Row:
        self.posts.append((path, body))
        known = self.reply(path, body)
        if self.zero is None and known in self.known_posts[:1]:
            self.zero = self.clock.monotonic() - (self.at or 0)
        return known | {"body": known.get("body_of_answer")}

    def _newest(self, path: str, now: float | None) -> tuple[Row, float]:
        """Return the answer at a moment, and for how long it had been the answer."""
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
