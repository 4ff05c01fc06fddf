"""Test what a missing answer means, and proxies over a real connection."""

import errno
import re
import socket
import ssl
from dataclasses import replace
from http.client import BadStatusLine, LineTooLong, RemoteDisconnected
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import requests

from src import server
from src.config.settings import Address
from src.connection import no_answer, untrusted
from src.connection.no_answer import NoAnswer
from src.connection.route import BUNDLES, Route
from src.connection.sockets import Connection
from src.connection.transport import Transport
from src.errors import ProxmoxError
from tests.certificates import Authority
from tests.cluster import SETTINGS, Cluster
from tests.conftest import Call, Patch, Start
from tests.golden import compare


def broken(error: Exception, **attributes: Any) -> requests.ConnectionError:
    vars(error).update(attributes)
    return requests.ConnectionError(error)


def bad_certificate(code: int) -> requests.ConnectionError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    return broken(error, verify_code=code, verify_message="OpenSSL's words")


def nested() -> requests.ConnectionError:
    """Return an error whose innermost cause is a refused connection."""
    error = requests.ConnectionError("pool", "max retries")
    error.__cause__ = OSError("outer")
    error.__cause__.__context__ = ConnectionRefusedError(111, "refused")
    error.__context__ = socket.gaierror(-2, "unknown")
    return error


CODES = (2, 9, 10, 18, 19, 20, 21, 62, 64, 66)
NUMBERS = (
    *(errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN),
    *(errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL, errno.EMFILE),
    *(errno.ENFILE, errno.ENOBUFS, errno.EPERM, errno.EACCES, errno.ECONNRESET),
)
REFUSED = broken(OSError(111, "refused"))
ERRORS: dict[str, OSError] = {
    **{f"certificate, code {code}": bad_certificate(code) for code in CODES},
    "TLS, of another version": broken(ssl.SSLError(1, "x"), reason="WRONG_VERSION"),
    "TLS, without a reason": broken(ssl.SSLError()),
    "TLS, cut off": broken(ssl.SSLEOFError(8, "EOF")),
    "no DNS server": broken(socket.gaierror(socket.EAI_AGAIN, "failure")),
    "no such name": broken(socket.gaierror(-2, "unknown")),
    "a refused connection": REFUSED,
    "a refused connection, nested": nested(),
    "no connection": requests.ConnectTimeout(),
    **{errno.errorcode[n]: broken(OSError(n, "x")) for n in NUMBERS},
    "no answer": requests.ReadTimeout(),
    "no answer, of the system": broken(TimeoutError()),
    "hung up": broken(RemoteDisconnected("closed")),
    "SSH": broken(BadStatusLine("SSH-2.0")),
    "a header without end": broken(LineTooLong("header line")),
    "a wrong encoding": requests.exceptions.ContentDecodingError(),
}


def test_each_exception_becomes_a_cause_and_a_cure(monkeypatch: Patch) -> None:
    direct = Route(SETTINGS, SETTINGS.addresses[0], {}, True)
    proxied = replace(direct, proxies={"https": "http://127.0.0.1:1"})

    def unanswered(error: OSError, host: str = "pve.lan") -> ProxmoxError:
        return no_answer.unanswered(error, replace(direct, address=Address(host, 8006)), 0)

    def too_slow(route: Route, node: str = "") -> ProxmoxError:
        return no_answer.too_slow(route, 10, node)

    found = {
        case: no_answer.unanswered(error, direct, 2.6, "pve1") for case, error in ERRORS.items()
    }
    found["too slow"] = too_slow(direct)
    found["too slow, a node"] = too_slow(direct, "pve1")
    for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1"):
        found[f"a refused connection to {host}"] = unanswered(REFUSED, host)
    for number in (-9, socket.EAI_AGAIN):
        error = broken(socket.gaierror(number, "x"))
        found[f"IPv6, {number}"] = unanswered(error, "fd00::5")
    refused = requests.exceptions.ProxyError(OSError(111, "Connection refused"))
    found["a proxy of the system"] = no_answer.unanswered(refused, proxied, 0)
    monkeypatch.setenv("HTTPS_PROXY", proxied.proxies["https"])
    found["too slow, with a proxy"] = too_slow(proxied)
    found["too slow, a node, with a proxy"] = too_slow(proxied, "pve1")
    assert max(len(str(error)) for error in found.values()) <= 300
    compare("no-answer", {case: f"{e.code}: {e}" for case, e in found.items()})


def test_what_was_not_sent_is_refused_and_of_several_failures_the_unknown_counts() -> None:
    route = Route(SETTINGS, SETTINGS.addresses[0], {}, True)
    cut_off = no_answer.unanswered(ERRORS["TLS, cut off"], route, 0, "pve1", sent=False)
    assert isinstance(cut_off, NoAnswer)
    assert cut_off.code == "refused"
    assert cut_off.broke_off
    late = no_answer.unanswered(requests.ReadTimeout(), route, 3, "pve1", sent=False)
    assert "node pve1 through" not in str(late)
    lost = no_answer.too_slow(route, 3)
    assert [no_answer.from_none(each).code for each in ([cut_off, lost], [cut_off])] == [
        "timeout",
        "refused",
    ]


def test_a_certificate_is_not_looked_at_past_a_proxy(monkeypatch: Patch) -> None:
    look = MagicMock(return_value=[])
    monkeypatch.setattr(untrusted, "presented_by", look)
    direct = Route(SETTINGS, SETTINGS.addresses[0], {}, True)
    for route in (direct, replace(direct, proxies={"https": "http://127.0.0.1:1"})):
        no_answer.unanswered(ERRORS["certificate, code 20"], route, 0)
    assert look.call_count == 1


def test_connections_through_a_proxy_are_ours_too() -> None:
    proxied = Transport(Route(SETTINGS, SETTINGS.addresses[0], {}, True))
    pools = proxied.proxy_manager_for("http://127.0.0.1:1")
    assert issubclass(pools.connection_from_host("pve", 8006, "https").ConnectionCls, Connection)
    proxied._on_handshake("proxy.lan", MagicMock())
    assert proxied.peer is None


# --- Proxies and bundles of CAs -------------------------------------------------------

REFUSES = "HTTP/1.1 {}\n\n<html>"
PROXIES: dict[str, str | None] = {
    "wants a login": REFUSES.format("407 Proxy Authentication Required"),
    "redirects": REFUSES.format("302 hunter2"),
    "forbids": REFUSES.format("403 Forbidden"),
    "reaches nothing": REFUSES.format("502 Bad Gateway"),
    "hangs up": "",
    "is silent": None,
}
ODD = (
    *("socks5://127.0.0.1:1", "socks5h://x", "http://", "http://a b:1", "ftp://x:1"),
    *("http://a..b:3128", "http://me:p€@h:1"),
)


def test_each_failing_proxy_and_bundle_is_named_by_its_variable(
    call: Call, cluster: Cluster, peer: Start, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr("src.lists.ask_nodes.LIST_TIMEOUT", 1.4)

    def text_with(**environ: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            server.client.forget()
            text = call("list_infrastructure").text
        assert "hunter2" not in text
        assert len(text) <= 400, text
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8006", text)
        return re.sub(r"within \d s", "within 1 s", text).replace(str(tmp_path), "/here")

    def through(answer: str | None) -> str:
        url, _ = peer(answer, tls=False)
        return url.replace("https://", "http://me:hunter2@")

    ours, other = Authority(tmp_path), Authority(tmp_path, "other")
    forbids = "HTTP/1.1 403 Forbidden\n\n"
    tls = peer(forbids, ours.server())[0]
    plain = peer("HTTP/1.1 400 Bad Request\n\n", tls=False)[0]
    dead = "http://127.0.0.1:1"
    texts = {
        f"it {case}": text_with(HTTPS_PROXY=through(answer)) for case, answer in PROXIES.items()
    } | {
        "it does not run": text_with(HTTPS_PROXY=dead),
        "it is one for all": text_with(all_proxy=dead),
        "beside no_proxy": text_with(HTTPS_PROXY=dead, no_proxy="localhost"),
        "it speaks no TLS": text_with(HTTPS_PROXY=plain),
        "it speaks TLS": text_with(HTTPS_PROXY=tls, PROXMOX_VERIFY_SSL=ours.path),
        "not trusted": text_with(HTTPS_PROXY=tls, PROXMOX_VERIFY_SSL=other.path),
        "a key log": text_with(SSLKEYLOGFILE="/no/such/keys.log"),
        "a key log, and the public CAs": text_with(
            SSLKEYLOGFILE="/no/such/keys.log", PROXMOX_VERIFY_SSL="true"
        ),
    }
    for name in BUNDLES:
        bundle = {name: "/no/such.pem", "PROXMOX_VERIFY_SSL": "true"}
        texts[f"{name} is not there"] = text_with(**bundle)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        (texts[f"{name} is none"],) = {text_with(**{name: value}) for value in ODD}
    assert cluster.sent == []
    compare("proxies", texts)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HTTPS_PROXY", dead)
    server.client.forget()
    assert not call("list_infrastructure").is_error
