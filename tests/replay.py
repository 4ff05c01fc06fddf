"""A recording of a real cluster, served over HTTPS as tests/recordings/README.md says."""

import asyncio
import concurrent.futures
import json
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from fakepve.certs import make_cert
from requests.adapters import HTTPAdapter

from tests.cluster import SECRET

RECORDINGS = Path(__file__).parent / "recordings"

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


class Replay:
    """What Proxmox answered, `speed` times as fast.

    The clock starts with the POST; where none is expected, with the first request, at
    `at` seconds. `sent` lists what was asked, `posts` what was sent. `change` has
    answers by path that are given in place of the recorded ones.
    """

    def __init__(self, recorded: Row, speed: float, at: float | None = None) -> None:
        self.speed = speed
        self.at = at
        self.began: float | None = None
        self.sent: list[str] = []
        self.posts: list[tuple[str, Row]] = []
        self.change: dict[str, Row] = {}
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

    @property
    def now(self) -> float | None:
        """Seconds since the POST, None before it."""
        if self.began is None:
            return None
        return (time.monotonic() - self.began) * self.speed + (self.at or 0)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/api2/json")
        if self.began is None and self.at is not None:
            self.began = time.monotonic()
        if request.method == "POST":
            return await self._post(path, dict(await request.post()))
        assert request.method == "GET"
        self.sent.append(key(path, request.query_string))
        answer, since = self._newest(self.sent[-1])
        if answer is None:
            reason = f"Method 'GET {path}' not implemented"
            return web.json_response({"data": None}, status=501, reason=reason)
        return await self._send(answer, since if "uptime" in str(answer) else 0, path)

    async def _post(self, path: str, body: Row) -> web.StreamResponse:
        self.posts.append((path, body))
        for known in self.known_posts:
            texts = {k: str(v) for k, v in known["body"].items()}
            if known["path"] == path and texts == body:
                if known is self.known_posts[0] and self.began is None:
                    self.began = time.monotonic()
                answer = known | {"body": known.get("body_of_answer")}
                return await self._send(answer, 0, path)
        return web.Response(status=501, reason="not recorded")

    def _newest(self, path: str) -> tuple[Row | None, float]:
        """The answer of this moment, and how long ago it was one."""
        if path in self.change:
            return self.change[path], 0
        now = self.now
        answer, since = self.before.get(path), now or 0
        for later in self.after.get(path, []):
            if now is not None and later["t"] <= now:
                answer, since = later, now - later["t"]
        if answer is None and path.startswith("/cluster/resources?type="):
            whole, since = self._newest("/cluster/resources")
            kinds = {"vm": ("qemu", "lxc")}.get(path[24:], (path[24:],))
            if whole is not None and "data" in whole:
                rows = [row for row in whole["data"] if row["type"] in kinds]
                answer = whole | {"data": rows}
        return answer, since

    async def _send(self, answer: Row, since: float, path: str) -> web.StreamResponse:
        if answer.get("hangs"):
            await asyncio.sleep(3600)
        await asyncio.sleep(answer.get("seconds", 0) / self.speed)
        status, reason = answer["status"], answer.get("reason")
        if status != 200:
            body = answer.get("body")
            if body is None:
                return web.Response(status=status, reason=reason)
            return web.json_response(body, status=status, reason=reason)
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
        return web.json_response({"data": aged if isinstance(data, list) else aged[0]})


@contextmanager
def serving(replay: Replay) -> Iterator[dict[str, str]]:
    """Serve it in a thread of its own; yields the five variables that point to it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start(certificate: str, keyfile: str) -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", replay.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None)
        await runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, keyfile)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        return runner, runner.addresses[0][1]

    async def stop(runner: web.AppRunner) -> None:
        await runner.cleanup()
        hanging = asyncio.all_tasks() - {asyncio.current_task()}
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

    with tempfile.TemporaryDirectory(prefix="replayed-proxmox-") as folder:
        certificate, keyfile, _ = make_cert(folder, hosts=("127.0.0.1",))
        started = start(str(certificate), str(keyfile))
        runner, port = asyncio.run_coroutine_threadsafe(started, loop).result(10)
        try:
            yield {
                "PROXMOX_URL": f"https://127.0.0.1:{port}",
                "PROXMOX_USER": "mcp@pve",
                "PROXMOX_TOKEN_ID": "mcp-token",
                "PROXMOX_TOKEN_SECRET": SECRET,
                "PROXMOX_VERIFY_SSL": str(certificate),
            }
        finally:
            asyncio.run_coroutine_threadsafe(stop(runner), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)


class Clock:
    """Python's `time`, `speed` times as fast, for the rooms that wait."""

    def __init__(self, speed: float) -> None:
        self.speed = speed

    def monotonic(self) -> float:
        return time.monotonic() * self.speed

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / self.speed)

    def hasten(self, patch: Any) -> None:
        """Patch what waits: the rooms' clocks, and the time-outs of requests and lists."""
        for room in ("api", "fanout", "outcome", "power"):
            patch(f"src.{room}.time", self, raising=False)
        send, wait = HTTPAdapter.send, concurrent.futures.wait

        def faster_send(adapter: Any, request: Any, **options: Any) -> Any:
            options["timeout"] = tuple(t / self.speed for t in options["timeout"])
            return send(adapter, request, **options)

        def faster_wait(futures: Any, timeout: float) -> Any:
            return wait(futures, timeout / self.speed)

        patch("requests.adapters.HTTPAdapter.send", faster_send)
        patch("src.fanout.wait", faster_wait)
