"""Wrong ends of the wire: what is said, in which time, and what is never said."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from src import api, fanout, server
from tests.cluster import SECRET, Cluster
from tests.conftest import Answer, Call

JSON = "Content-Type: application/json\r\n"


class Peer:
    """Something on a port that answers each connection in its own way."""

    def __init__(
        self, behave: Callable[[socket.socket], None], tls: Any = None
    ) -> None:
        self.behave, self.tls = behave, tls
        self.requests: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=[connection], daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self.tls:
                with self.tls.wrap_socket(connection, server_side=True) as secure:
                    self.requests.append(secure.recv(65536))
                    self.behave(secure)
            else:
                self.behave(connection)


Point = Callable[..., Answer]


@pytest.fixture
def point(call: Call, monkeypatch: pytest.MonkeyPatch) -> Point:
    """Call list_infrastructure with PROXMOX_URL pointed somewhere else."""

    def point(url: str) -> Answer:
        monkeypatch.setenv("PROXMOX_URL", url)
        server.client.cache_clear()
        answer = call("list_infrastructure")
        assert answer.is_error
        assert len(answer.text) <= 300
        assert "?" not in answer.text
        return answer

    return point


@pytest.fixture
def peer(_fakepve_pki: tuple[str, str]) -> Iterator[Callable[..., Peer]]:
    peers = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*_fakepve_pki)

    def start(answer: str | Callable[[socket.socket], None], tls: bool = True) -> Peer:
        behave = answer
        if isinstance(answer, str):
            head, _, body = answer.partition("\n\n")
            head = head.replace("\n", "\r\n")
            raw = f"{head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"

            def behave(connection: socket.socket) -> None:
                connection.sendall((raw + body).encode())

        peers.append(Peer(behave, context if tls else None))  # type: ignore[arg-type]
        return peers[-1]

    yield start
    for each in peers:
        each.listener.close()


def test_refused(point: Point) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = point(f"https://127.0.0.1:{port}")
    assert answer.text == (
        f"Cannot talk to https://127.0.0.1:{port}: connection refused, nothing listens "
        "there. Check PROXMOX_URL, and that pveproxy runs."
    )
    assert answer.seconds < 1


def test_unroutable(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of connections that is full answers as an address without a host does."""
    assert api.CONNECT_TIMEOUT == 5
    monkeypatch.setattr(api, "CONNECT_TIMEOUT", 1.0)
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        answer = point(f"https://127.0.0.1:{listener.getsockname()[1]}")
    assert "no connection in 1 s. Check PROXMOX_URL, the network and the firewall." in (
        answer.text
    )
    assert answer.seconds < 2


def test_no_such_name(point: Point) -> None:
    answer = point("https://no-such-host.invalid")
    assert answer.text == (
        "Cannot talk to https://no-such-host.invalid:8006: its name does not resolve. "
        "Check the host in PROXMOX_URL."
    )


def test_silent(
    point: Point, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert api.READ_TIMEOUT == 30
    monkeypatch.setattr(fanout, "LIST_PATIENCE", 1.0)
    hang = threading.Event()
    for tls in (True, False):
        silent = peer(lambda _: hang.wait(5), tls)
        answer = point(f"https://127.0.0.1:{silent.port}")
        assert "no answer within 1 s. Proxmox may be overloaded" in answer.text
        assert answer.seconds < 1.5


def test_untrusted(
    point: Point, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "true")
    answer = point(cluster.pve.url)
    assert "its certificate is not trusted (self-signed certificate)." in answer.text
    assert answer.text.index("pve-root-ca.pem") < answer.text.index("VERIFY_SSL=false")
    assert cluster.sent == []


def test_a_certificate_for_another_name(
    point: Point, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", to_loopback(socket.getaddrinfo))
    answer = point(f"https://pve.example.com:{cluster.pve.port}")
    assert "certificate is not valid for 'pve.example.com'" in answer.text
    assert "Put a name that the certificate has into PROXMOX_URL;" in answer.text


def to_loopback(original: Any) -> Any:
    return lambda host, *rest, **more: original("127.0.0.1", *rest, **more)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verification_can_be_switched_off(
    call: Call, demo: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "false")
    # Of no effect on it, as requests alone would have it.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    server.client.cache_clear()
    assert not call("list_infrastructure").is_error


def test_a_port_that_speaks_no_tls(point: Point, peer: Callable[..., Peer]) -> None:
    plain = peer("HTTP/1.1 400 Bad Request\n\n", tls=False)
    answer = point(f"https://127.0.0.1:{plain.port}")
    assert "no TLS connection" in answer.text
    assert "Check the port in PROXMOX_URL, usually 8006." in answer.text


def test_http_is_not_contacted(point: Point, cluster: Cluster) -> None:
    answer = point(cluster.pve.url.replace("https", "http"))
    assert "PROXMOX_URL starts with http://" in answer.text
    assert cluster.sent == []


NOT_THE_API = "answers, but not as a Proxmox VE API"


@pytest.mark.parametrize(
    "response",
    [
        "HTTP/1.1 200 OK\nContent-Type: text/html\n\n<html>Please log in</html>",
        f"HTTP/1.1 200 OK\n{JSON.strip()}\n\n" + '{"hello": "world"}',
        f"HTTP/1.1 200 OK\n{JSON.strip()}\n\n" + '{"data": "text"}',
        f"HTTP/1.1 200 OK\n{JSON.strip()}\n\n" + '{"data": [1, 2]}',
        f"HTTP/1.1 200 OK\n{JSON.strip()}\n\n" + '{"data": null}',
        f"HTTP/1.1 200 OK\n{JSON.strip()}\n\n[]",
        f"HTTP/1.1 200 OK\n{JSON.strip()}\n\nnull",
        f"HTTP/1.1 200 OK\n{JSON.strip()}\n\n1",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 OK\n\n\x80\xff",
        "HTTP/1.1 204 No Content\n\n",
        "HTTP/1.1 301 Moved\nLocation: https://127.0.0.1:1/login\n\n",
        "HTTP/1.1 302 Found\nLocation: /login\n\n",
        "HTTP/1.1 307 Temporary Redirect\nLocation: https://evil.example/\n\n",
        "HTTP/1.1 301 Moved\n\n",
        "HTTP/1.1 404 Not Found\n\n<html>nothing here</html>",
        "HTTP/1.1 501 Method not implemented\n\n",
        f"HTTP/1.1 404 Not Found\n{JSON.strip()}\n\n" + '["an", "array"]',
        f"HTTP/1.1 418 Teapot\n{JSON.strip()}\n\nnull",
    ],
)
def test_something_else_than_the_api(
    point: Point, peer: Callable[..., Peer], response: str
) -> None:
    other = peer(response)
    answer = point(f"https://127.0.0.1:{other.port}")
    assert NOT_THE_API in answer.text
    assert "Correct PROXMOX_URL" in answer.text


@pytest.mark.parametrize("code", [502, 503, 504])
def test_a_proxy_in_front_that_cannot_reach_proxmox(
    point: Point, peer: Callable[..., Peer], code: int
) -> None:
    proxy = peer(f"HTTP/1.1 {code} Bad Gateway\n\n<html>")
    answer = point(f"https://127.0.0.1:{proxy.port}")
    assert f"could not reach Proxmox ({code}). Check that proxy" in answer.text


def test_a_server_that_hangs_up(point: Point, peer: Callable[..., Peer]) -> None:
    for tls in (True, False):
        rude = peer(lambda _: None, tls)
        answer = point(f"https://127.0.0.1:{rude.port}")
        assert "it closed the connection without an answer" in answer.text
        assert "ALLOW_FROM in /etc/default/pveproxy" in answer.text


def test_an_answer_that_breaks_off(point: Point, peer: Callable[..., Peer]) -> None:
    rude = peer(
        lambda connection: connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
        )
    )
    answer = point(f"https://127.0.0.1:{rude.port}")
    assert "it closed the connection without an answer" in answer.text


def test_a_proxy_of_the_environment_that_is_dead(
    point: Point, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    answer = point(cluster.pve.url)
    assert "the proxy of HTTPS_PROXY does not answer. Check HTTPS_PROXY" in answer.text


# --- Statuses -------------------------------------------------------------------------


def answers(cluster: Cluster, status: int, reason: str, body: Any = None) -> None:
    async def respond(_: web.Request) -> web.Response:
        if body is None:
            return web.Response(status=status, reason=reason)
        return web.json_response(body, status=status, reason=reason)

    for path in ("/nodes", "/cluster/status"):
        cluster.raw[path] = respond


@pytest.mark.parametrize(
    "reason",
    [
        "Authentication failed!",
        "no such token 't' for user 'mcp@pve'",
        "token 't' access expired",
        "invalid token value!",
        "No ticket",
    ],
)
def test_401_in_the_old_and_the_new_wording(
    call: Call, cluster: Cluster, reason: str
) -> None:
    answers(cluster, 401, reason)
    answer = call("list_infrastructure")
    assert answer.is_error
    assert answer.text == (
        f"Proxmox does not accept the API token mcp@pve!t ({reason}). Check "
        "PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET, and in Proxmox under Permissions > "
        "API Tokens that the token exists and has not expired."
    )


def test_a_wrong_token(call: Call, cluster: Cluster) -> None:
    cluster.pve.apitokens.clear()
    answer = call("list_infrastructure")
    assert "does not accept the API token mcp@pve!t (authentication failure)" in (
        answer.text
    )


def test_403_without_a_path(call: Call, cluster: Cluster) -> None:
    answers(cluster, 403, "Permission check failed")
    cluster.raw.pop("/cluster/status")
    cluster.pve.fail("GET", "/cluster/status", 500, "down")
    assert call("list_infrastructure").text == (
        "Proxmox does not allow this to the token mcp@pve!t: Permission check failed. "
        "Grant the privilege to the user and to the token; the README lists them."
    )


def test_the_whole_message_is_in_the_body_where_proxmox_sends_one(
    call: Call, cluster: Cluster
) -> None:
    answers(
        cluster, 500, "first line", {"data": None, "message": "first line\nsecond\n"}
    )
    assert call("list_infrastructure").text == "Proxmox says: first line second."


def test_an_older_proxmox_says_it_in_the_reason(call: Call, cluster: Cluster) -> None:
    answers(cluster, 500, "got timeout")
    assert call("list_infrastructure").text == "Proxmox says: got timeout."
    answers(cluster, 500, "got timeout", {"data": None})
    assert call("list_infrastructure").text == "Proxmox says: got timeout."


def test_parameters_that_proxmox_refuses_are_named(
    call: Call, cluster: Cluster
) -> None:
    body = {"data": None, "message": "Parameter verification failed.\n"}
    answers(cluster, 400, "x", body | {"errors": {"type": "no such type\n"}})
    assert call("list_infrastructure").text == (
        "Proxmox says: Parameter verification failed. type: no such type."
    )


def test_an_error_without_any_words_is_told_by_its_number(
    call: Call, cluster: Cluster
) -> None:
    answers(cluster, 500, "")
    assert call("list_infrastructure").text.startswith("Proxmox says: ")


def test_a_secret_that_comes_back_in_an_error_is_not_passed_on(
    call: Call, cluster: Cluster
) -> None:
    answers(cluster, 500, "x", {"data": None, "message": f"bad header: {SECRET}"})
    assert call("list_infrastructure").text == "Proxmox says: bad header: ***."


def test_a_long_message_is_cut(call: Call, cluster: Cluster) -> None:
    answers(cluster, 500, "x", {"data": None, "message": "long " * 1000})
    assert len(call("list_infrastructure").text) < 550


def test_cookies_are_not_sent_back(point: Point, peer: Callable[..., Peer]) -> None:
    """A PVEAuthCookie would win over the token."""
    other = peer(
        "HTTP/1.1 500 no\nSet-Cookie: PVEAuthCookie=x; Path=/\n\n",
    )
    point(f"https://127.0.0.1:{other.port}")
    assert other.requests
    assert not any(b"Cookie" in request for request in other.requests)


def test_the_token_is_sent_as_proxmox_wants_it(
    point: Point, peer: Callable[..., Peer]
) -> None:
    other = peer("HTTP/1.1 500 no\n\n")
    point(f"https://127.0.0.1:{other.port}/behind/a/proxy")
    request = other.requests[0].decode()
    assert f"Authorization: PVEAPIToken=mcp@pve!t={SECRET}\r\n" in request
    assert request.startswith("GET /behind/a/proxy/api2/json/")
