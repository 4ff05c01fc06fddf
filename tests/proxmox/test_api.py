"""Test requests over real HTTPS: errors of other servers, and what is never sent."""

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from src import server
from src.client import ProxmoxClient
from src.connection import deadline, transport
from src.connection.deadline import time_left, within
from src.errors import ProxmoxError
from src.lists import ask_nodes
from tests.cluster import SECRET, Cluster
from tests.conftest import Call, Patch, Start
from tests.golden import compare
from tests.process import wait_for

Point = Callable[[str], str]


@pytest.fixture
def point(call: Call, monkeypatch: Patch) -> Point:
    """Point PROXMOX_URL somewhere else, and return the error of list_infrastructure."""

    def point(url: str) -> str:
        monkeypatch.setenv("PROXMOX_URL", url)
        server.client.forget()
        answer = call("list_infrastructure")
        assert answer.is_error
        assert len(answer.text) <= 330
        assert "?" not in answer.text
        return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8006", answer.text)

    return point


def test_requests_lists_and_actions_have_time_limits() -> None:
    assert (deadline.CONNECT_TIMEOUT, deadline.READ_TIMEOUT) == (5, 30)
    assert (deadline.LIST_TIMEOUT, deadline.POWER_TIMEOUT) == (10, 45)


# --- No answer, and answers of other servers ------------------------------------------


def test_a_connection_that_nobody_accepts_times_out(point: Point, monkeypatch: Any) -> None:
    """A full queue of connections gives no answer, like an address without a host."""
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.6)
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        text = point(f"https://127.0.0.1:{listener.getsockname()[1]}")
    assert "no connection within" in text


OK = "HTTP/1.1 200 OK\n"
JSON = "HTTP/1.1 {}\nContent-Type: application/json\n\n{}"
NOT_THE_API = [
    OK + "Content-Type: text/html\n\n<html>Please log in</html>",
    *(OK + "\n", OK + "\n\x80\xff", "HTTP/1.1 204 No Content\n\n"),
    *(JSON.format("200 OK", body) for body in ("[]", "null", "1", '{"hello": 1}')),
    *(JSON.format("200 OK", f'{{"data": {x}}}') for x in ('"x"', "[1, 2]", "null")),
    "HTTP/1.1 301 Moved\nLocation: https://127.0.0.1:1/login\n\n",
    "HTTP/1.1 302 Found\nLocation: /login\n\n",
    "HTTP/1.1 307 Temporary Redirect\nLocation: https://evil.example/\n\n",
    "HTTP/1.1 301 Moved\n\n",
    "HTTP/1.1 404 Not Found\n\n<html>nothing here</html>",
    "HTTP/1.1 501 Method not implemented\n\n",
    JSON.format("404 Not Found", '["an", "array"]'),
    JSON.format("418 Teapot", "null"),
]
NOT_PROXMOX = [  # a reverse proxy, a web firewall, a Backup Server, another API
    "HTTP/1.1 401 Unauthorized\n\n<html>401 Authorization Required</html>",
    "HTTP/1.1 403 Forbidden\n\n<html>Request blocked</html>",
    "HTTP/1.1 403 Forbidden\n\n",
    JSON.format("401 Unauthorized", "authentication failed - no credentials"),
    JSON.format("401 Unauthorized", '{"error": "login required"}'),
    JSON.format("403 Forbidden", '["no"]'),
    "HTTP/1.1 401 Unauthorized\nWWW-Authenticate: Basic\n\n",
    "HTTP/1.1 500 Internal Server Error\n\nInternal Server Error",
    "HTTP/1.1 400 Bad Request\n\n<html>",
]

OTHERS: dict[str, list[tuple[str | None, bool]]] = {  # the answers, and TLS or not
    "silence": [(None, True)],
    "silence before TLS": [(None, False)],
    "a hang-up": [*(("", True), ("", False)), (OK + "Content-Length: 100\n\nbroken off", True)],
    "HTTP without TLS": [("HTTP/1.1 400 Bad Request\n\n", False)],
    "another service": [(answer, True) for answer in NOT_THE_API],
    **{
        f"a proxy that answers {status}": [(f"HTTP/1.1 {status} x\n\n<html>", True)]
        for status in (502, 503, 504)
    },
    **{
        f"a {status} that is not Proxmox's": [
            (answer, True) for answer in NOT_PROXMOX if f" {status} " in answer
        ]
        for status in (400, 401, 403, 500)
    },
}


def test_a_longer_deadline_within_another_passes_it_by_its_grace_only() -> None:
    with within(1, 0.5):
        assert 0.9 < time_left() <= 1
        with within(5):
            assert 1.4 < time_left() <= 1.5
            with within(0.2, 5), within(9):
                assert 1.4 < time_left() <= 1.5
        assert time_left() <= 1
    with within(1), within(5):
        assert time_left() > 4


def test_other_servers_are_recognized(point: Point, peer: Start, monkeypatch: Any) -> None:
    monkeypatch.setattr(ask_nodes, "LIST_TIMEOUT", 1.4)
    assert "not resolve" in point("https://no-such-host.invalid")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    texts = {"no listener": point(url)}
    for case, answers in OTHERS.items():
        for answer, tls in answers:
            text = point(peer(answer, tls)[0])
            text = re.sub(r"within \d s", "within 1 s", text)
            text = re.sub(r"TLS connection \([^)]*\)", "TLS connection (REASON)", text)
            assert texts.setdefault(case, text) == text, answer
    compare("other-servers", texts)


def test_http_is_not_contacted(point: Point, cluster: Cluster) -> None:
    assert "http://" in point(cluster.pve.url.replace("https", "http"))
    assert cluster.sent == []


# --- Proxmox's own words --------------------------------------------------------------

NO_TOKEN = {"data": None, "message": "invalid token value!"}
UNNAMED = {"message": "Verification failed.\n", "errors": {"type": "no such type\n"}}


@pytest.mark.parametrize(
    ("status", "reason", "body", "words"),
    [
        (401, "No ticket", {}, '"No ticket"'),
        (401, "x", NO_TOKEN, '"invalid token value!"'),
        (403, "Permission check failed", {}, 'to do this. Proxmox says: "Permission check failed"'),
        (500, "first", {"message": "first line\nsecond\n"}, ': "first line second"'),
        (500, "got timeout", {}, ': "got timeout"'),  # as an older Proxmox answers
        (500, "got timeout", {"data": None}, ': "got timeout"'),
        (400, "x", UNNAMED, ': "Verification failed. type: no such type"'),
        (500, "x", {"message": f"bad header: {SECRET}"}, ': "bad header: ***"'),
        (500, "x", {"message": "long " * 1000}, ': "long long '),
    ],
)
def test_an_error_quotes_the_body_or_the_reason_without_the_secret(
    call: Call, cluster: Cluster, status: int, reason: str, body: Any, words: str
) -> None:
    async def respond(_: web.Request) -> web.Response:
        if not body:
            return web.Response(status=status, reason=reason)
        return web.json_response(body, status=status, reason=reason)

    paths = ("/nodes", "/cluster/status", "/cluster/resources")
    cluster.raw = dict.fromkeys(paths, respond)
    answer = call("list_infrastructure")
    assert answer.is_error
    assert words in answer.text
    assert len(answer.text) < 550


# --- What is sent ---------------------------------------------------------------------


def test_each_request_sends_the_token_and_no_cookie(point: Point, peer: Start) -> None:
    """A PVEAuthCookie would take precedence over the token."""
    url, sent = peer("HTTP/1.1 500 no\nSet-Cookie: PVEAuthCookie=x; Path=/\n\n")
    point(f"{url}/behind/a/proxy")
    with pytest.raises(ProxmoxError):
        server.client().get_nodes()
    assert 2 <= len(sent) <= 7  # nobody waits for the requests beside /nodes
    for request in sent:
        assert b"Cookie" not in request
        assert f"Authorization: PVEAPIToken=mcp@pve!t={SECRET}\r\n".encode() in request
        assert request.startswith(b"GET /behind/a/proxy/api2/json/")


def test_only_reads_and_four_actions_can_leave(proxmox: ProxmoxClient, cluster: Cluster) -> None:
    root = proxmox._api.root
    guest = root.nodes("pve1").qemu(100)
    for forbidden in (
        *(guest.delete, guest.config.put, guest.config.post, guest.status.start.put),
        *(guest.status.reset.post, guest.status.suspend.post, guest.status.post),
        *(guest.status(path).post for path in ("start/../../clone", "start/x", "starts")),
        *(root.nodes("pve1").status.post, root.access.users.post),
    ):
        with pytest.raises(ProxmoxError, match=r"(DELETE|POST|PUT) "):
            forbidden()
    assert cluster.sent == []


def test_no_request_runs_or_begins_too_late(proxmox: ProxmoxClient, cluster: Cluster) -> None:
    cluster.delay["/nodes"] = 5
    with within(0.4):
        for code in ("timeout", "refused"):
            with pytest.raises(ProxmoxError) as caught:
                proxmox.get_nodes()
            assert caught.value.code == code
    assert len(cluster.sent) == 1


def test_a_request_whose_turn_is_late_is_not_sent(proxmox: ProxmoxClient, cluster: Cluster) -> None:
    """All 32 requests that may run at once hang."""
    answer = threading.Event()

    async def hang(request: web.Request) -> web.Response:
        while not answer.is_set():
            await asyncio.sleep(0.02)
        return web.json_response({"data": []})

    cluster.raw["/nodes"] = hang
    with ThreadPoolExecutor(transport.MAX_REQUESTS) as pool:
        hung = [pool.submit(proxmox.get_nodes) for _ in range(transport.MAX_REQUESTS)]
        wait_for(lambda: len(cluster.sent) == transport.MAX_REQUESTS)
        with within(0.3), pytest.raises(ProxmoxError) as caught:
            proxmox.get_machine_status("pve1", 100)
        assert caught.value.code == "refused"
        assert len(cluster.sent) == transport.MAX_REQUESTS
        answer.set()
    assert [each.result() for each in hung] == [[]] * transport.MAX_REQUESTS
    with pytest.raises(ProxmoxError, match="machine 100"):  # now it gets its turn
        proxmox.get_machine_status("pve1", 100)


@pytest.fixture
def _clock_that_stands_still(monkeypatch: Patch) -> None:
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: 100.0))


@pytest.mark.usefixtures("_clock_that_stands_still")
def test_a_deadline_ends_with_its_block_and_applies_in_other_threads() -> None:
    unlimited = float("inf")
    with ThreadPoolExecutor(1) as pool:
        with within(20):
            with within(10):
                call = partial(copy_context().run, time_left)
            assert (time_left(), pool.submit(call).result()) == (20, 10)
            assert pool.submit(time_left).result() == unlimited
        assert time_left() == unlimited


@pytest.mark.usefixtures("_clock_that_stands_still")
@pytest.mark.parametrize(("around", "left"), [(45, 10), (8, 8), (1, 5), (-1, 5)])
def test_an_attempt_has_ten_seconds_and_the_last_one_five(around: int, left: int) -> None:
    with within(around):
        assert deadline.attempt(time_left) == left
        assert time_left() == around
