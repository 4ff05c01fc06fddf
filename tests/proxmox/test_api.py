"""Wrong ends of the wire: what is said, in which time, and what never leaves."""

import contextlib
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from src import server
from src.client import ProxmoxClient
from src.errors import ProxmoxError
from src.lists import ask_nodes
from src.power import outcome
from src.proxmox import deadline, transport
from src.proxmox.deadline import time_left, within
from tests.cluster import SECRET, Cluster
from tests.conftest import Call, Start
from tests.process import wait_for

Point = Callable[[str], str]


@pytest.fixture
def point(call: Call, monkeypatch: pytest.MonkeyPatch) -> Point:
    """What list_infrastructure tells with PROXMOX_URL pointed somewhere else."""

    def point(url: str) -> str:
        monkeypatch.setenv("PROXMOX_URL", url)
        server.client.cache_clear()
        answer = call("list_infrastructure")
        assert answer.is_error
        assert answer.seconds < 2
        assert len(answer.text) <= 300
        assert "?" not in answer.text
        return answer.text

    return point


def test_the_patience_of_a_request_a_list_and_an_action() -> None:
    assert (deadline.CONNECT_TIMEOUT, deadline.READ_TIMEOUT) == (5, 30)
    assert (ask_nodes.LIST_PATIENCE, outcome.POWER_PATIENCE) == (10, 45)


# --- No answer, and answers of something else -----------------------------------------


def test_nothing_listens_there(point: Point) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    assert f"Cannot talk to {url}: connection refused" in point(url)


def test_an_address_without_a_host(point: Point, monkeypatch: Any) -> None:
    """A queue of connections that is full does not answer either."""
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.6)
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        text = point(f"https://127.0.0.1:{listener.getsockname()[1]}")
    assert "no connection in 1 s" in text


def test_a_name_that_does_not_exist(point: Point) -> None:
    assert "does not resolve" in point("https://no-such-host.invalid")


def test_a_dead_proxy_of_the_environment(
    point: Point, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("HTTPS_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "")):
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    assert "HTTPS_PROXY does not answer" in point(cluster.pve.url)


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
NOT_ITS_OWN = [  # a reverse proxy, a web firewall, a Backup Server, another API
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


@pytest.mark.parametrize(
    ("response", "tls", "says"),
    [
        (None, True, "no answer within 1 s"),
        (None, False, "no answer within 1 s"),
        ("", True, "closed the connection"),
        ("", False, "closed the connection"),
        (OK + "Content-Length: 100\n\nbroken off", True, "closed the connection"),
        ("HTTP/1.1 400 Bad Request\n\n", False, "no TLS connection"),
        ("HTTP/1.1 502 Bad Gateway\n\n<html>", True, "not reach Proxmox (502)"),
        ("HTTP/1.1 503 Unavailable\n\n<html>", True, "not reach Proxmox (503)"),
        ("HTTP/1.1 504 Timeout\n\n<html>", True, "not reach Proxmox (504)"),
        *((response, True, "not as a Proxmox VE API") for response in NOT_THE_API),
        *((response, True, "answer is not Proxmox VE's") for response in NOT_ITS_OWN),
    ],
)
def test_something_else_than_the_api(
    point: Point, peer: Start, monkeypatch: Any, response: str, tls: bool, says: str
) -> None:
    monkeypatch.setattr(ask_nodes, "LIST_PATIENCE", 0.8)
    assert says in point(peer(response, tls)[0])


def test_a_self_signed_certificate(
    point: Point, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "true")
    text = point(cluster.pve.url)
    assert "not trusted: it is self-signed" in text
    assert text.index("pve-root-ca.pem") < text.index("VERIFY_SSL=false")
    assert cluster.sent == []


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verification_can_be_switched_off(
    call: Call, demo: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "false")
    # Of no effect on it, as requests alone would have it.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    server.client.cache_clear()
    assert not call("list_infrastructure").is_error


def test_http_is_not_contacted(point: Point, cluster: Cluster) -> None:
    assert "http://" in point(cluster.pve.url.replace("https", "http"))
    assert cluster.sent == []


# --- Proxmox's own words --------------------------------------------------------------

NO_TOKEN = {"data": None, "message": "invalid token value!"}
UNNAMED = {"message": "Verification failed.\n", "errors": {"type": "no such type\n"}}


@pytest.mark.parametrize(
    ("status", "reason", "body", "says"),
    [
        (401, "No ticket", {}, "not accept the API token mcp@pve!t (No ticket)"),
        (401, "x", NO_TOKEN, "(invalid token value!)"),
        (403, "Permission check failed", {}, "mcp@pve!t: Permission check failed."),
        (500, "first", {"message": "first line\nsecond\n"}, "says: first line second."),
        (500, "got timeout", {}, "says: got timeout."),  # as an older one does
        (500, "got timeout", {"data": None}, "says: got timeout."),
        (400, "x", UNNAMED, "says: Verification failed. type: no such type."),
        (500, "", {}, "says: "),
        (500, "x", {"message": f"bad header: {SECRET}"}, "says: bad header: ***."),
        (500, "x", {"message": "long " * 1000}, "says: long long "),
    ],
)
def test_proxmoxs_words_come_from_the_body_or_the_reason_without_the_secret(
    call: Call, cluster: Cluster, status: int, reason: str, body: Any, says: str
) -> None:
    async def respond(_: web.Request) -> web.Response:
        if not body:
            return web.Response(status=status, reason=reason)
        return web.json_response(body, status=status, reason=reason)

    cluster.raw = dict.fromkeys(
        ("/nodes", "/cluster/status", "/cluster/resources"), respond
    )
    answer = call("list_infrastructure")
    assert answer.is_error
    assert says in answer.text
    assert len(answer.text) < 550


def test_a_wrong_token(call: Call, cluster: Cluster) -> None:
    cluster.pve.apitokens.clear()
    assert "mcp@pve!t (authentication failure)" in call("list_infrastructure").text


# --- What leaves ----------------------------------------------------------------------


def test_the_token_is_sent_and_no_cookie(point: Point, peer: Start) -> None:
    """A PVEAuthCookie that came back would win over the token."""
    url, sent = peer("HTTP/1.1 500 no\nSet-Cookie: PVEAuthCookie=x; Path=/\n\n")
    point(f"{url}/behind/a/proxy")
    with pytest.raises(ProxmoxError):
        server.client().get_nodes()
    assert 2 <= len(sent) <= 4  # what was asked beside /nodes is not waited for
    for request in sent:
        assert b"Cookie" not in request
        assert f"Authorization: PVEAPIToken=mcp@pve!t={SECRET}\r\n".encode() in request
        assert request.startswith(b"GET /behind/a/proxy/api2/json/")


def test_nothing_but_reads_and_the_four_actions_can_leave(
    proxmox: ProxmoxClient, cluster: Cluster
) -> None:
    root = proxmox._api.root
    guest = root.nodes("pve1").qemu(100)
    for forbidden in (
        *(guest.delete, guest.config.put, guest.config.post, guest.status.start.put),
        *(guest.status.reset.post, guest.status.suspend.post, guest.status.post),
        guest.status("start/../../clone").post,
        *(root.nodes("pve1").status.post, root.access.users.post),
    ):
        with pytest.raises(ProxmoxError, match="never sends"):
            forbidden()
    assert cluster.sent == []


def test_a_request_ends_with_its_scope_and_none_leaves_after_it(
    proxmox: ProxmoxClient, cluster: Cluster
) -> None:
    cluster.delay["/nodes"] = 5
    began = time.monotonic()
    with within(0.3):
        with pytest.raises(ProxmoxError, match="no answer within"):
            proxmox.get_nodes()
        with pytest.raises(ProxmoxError, match="It was not sent") as caught:
            proxmox.get_nodes()
        assert not caught.value.answer_lost
    assert 0.3 < time.monotonic() - began < 2
    assert len(cluster.sent) == 1


def test_a_request_that_waits_for_its_place_is_not_sent_after_its_time(
    proxmox: ProxmoxClient, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty-two that hang take all places there are."""
    monkeypatch.setattr(transport, "READ_TIMEOUT", 1.0)
    cluster.delay["/nodes"] = 5
    with ThreadPoolExecutor(transport.MAX_REQUESTS) as pool:
        for _ in range(transport.MAX_REQUESTS):
            pool.submit(proxmox.get_nodes)
        wait_for(lambda: len(cluster.sent) == transport.MAX_REQUESTS)
        began = time.monotonic()
        with within(0.3), pytest.raises(ProxmoxError, match="It was not sent"):
            proxmox.get_machine_status("pve1", 100)
        assert time.monotonic() - began < 0.8
        assert len(cluster.sent) == transport.MAX_REQUESTS
    with pytest.raises(ProxmoxError, match="no machine 100"):  # they are free again
        proxmox.get_machine_status("pve1", 100)


def test_a_scope_ends_with_its_block_and_goes_along_into_another_thread() -> None:
    for_ever = float("inf")
    with ThreadPoolExecutor(1) as pool:
        with within(20):
            with within(10):
                call = partial(copy_context().run, time_left)
            assert time_left() == pytest.approx(20, abs=1)
            assert pool.submit(call).result() == pytest.approx(10, abs=1)
            assert pool.submit(time_left).result() == for_ever
        assert time_left() == for_ever


@pytest.mark.parametrize(("around", "left"), [(45, 10), (8, 8), (1, 5), (-1, 5)])
def test_an_attempt_has_ten_seconds_and_the_last_one_five(
    around: int, left: int
) -> None:
    with within(around):
        assert deadline.attempt(time_left) == pytest.approx(left, abs=0.5)
        assert time_left() == pytest.approx(around, abs=0.5)
