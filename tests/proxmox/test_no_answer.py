"""What it means that no answer came, to the letter, and proxies over a real connection."""

import errno
import socket
import ssl
from http.client import BadStatusLine, LineTooLong, RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest
import requests

from src import server
from src.config.settings import Settings
from src.proxmox import no_answer
from src.proxmox.network import BUNDLES
from tests.certificates import Authority
from tests.cluster import SECRET, Cluster
from tests.conftest import Call, Start

SETTINGS = Settings("pve.lan", 8006, "", "mcp@pve", "t", SECRET, True)
NO_CONNECTION = "no connection in 3 s. Check PROXMOX_URL, the network and the firewall."
NO_ROUTE = (
    "no route to host. Check PROXMOX_URL, the network and VPN; on macOS allow the client "
    "under System Settings > Privacy & Security > Local Network."
)
UNTRUSTED = "refused: its certificate is not trusted: "
UNVERIFIED = "; or, on a network you trust, PROXMOX_VERIFY_SSL=false."
UNKNOWN_CA = (
    "no CA that is known here signed it, as with Proxmox's own. Set PROXMOX_VERIFY_SSL to the "
    f"path of a copy of Proxmox's CA, /etc/pve/pve-root-ca.pem{UNVERIFIED}"
)
RENEW = f"Renew it, or the CA that signed it{UNVERIFIED}"


def broken(error: Exception, **attributes: Any) -> requests.ConnectionError:
    vars(error).update(attributes)
    return requests.ConnectionError(error)


def untrusted(code: int, reason: str = "x") -> requests.ConnectionError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    return broken(error, verify_code=code, verify_message=reason)


UNANSWERED = {  # code: cause and advice
    untrusted(
        9
    ): f"{UNTRUSTED}it is not valid yet, so one of the two clocks is wrong. Compare "
    f"`date` here and on the node, and set the one that is wrong{UNVERIFIED}",
    untrusted(
        10
    ): f"{UNTRUSTED}it has expired. Renew it on the node: pvecm updatecerts "
    f"--force (one that ACME made: pvenode acme cert renew){UNVERIFIED}",
    untrusted(
        18
    ): f"{UNTRUSTED}it is self-signed. Check PROXMOX_URL. If it is right, set "
    "PROXMOX_VERIFY_SSL to the path of a copy of that certificate (Proxmox VE's own needs "
    f"/etc/pve/pve-root-ca.pem){UNVERIFIED}",
    **{untrusted(code): f"{UNTRUSTED}{UNKNOWN_CA}" for code in (2, 19, 20, 21)},
    **{
        untrusted(
            code, "wrong_name"
        ): f"{UNTRUSTED}wrong_name. Put a name that the certificate "
        f"has into PROXMOX_URL: the node's, or its IP address{UNVERIFIED}"
        for code in (62, 64)
    },
    untrusted(
        66, "EE certificate key too weak"
    ): f"{UNTRUSTED}EE certificate key too weak. {RENEW}",
    broken(ssl.SSLError(1, "x"), reason="WRONG_VERSION"): "broken: no TLS connection "
    "(wrong version). Check the port in PROXMOX_URL, usually 8006.",
    broken(ssl.SSLError()): "broken: no TLS connection (it broke). Check the "
    "port in PROXMOX_URL, usually 8006.",
    broken(
        socket.gaierror(socket.EAI_AGAIN, "failure")
    ): "refused: its name does not resolve, "
    "for no DNS server answers. Check the network, or put the IP address into PROXMOX_URL.",
    broken(socket.gaierror(-2, "unknown")): "refused: its name does not resolve. Check "
    "the host in PROXMOX_URL.",
    broken(OSError(111, "refused")): "refused: connection refused, nothing listens "
    "there. Check PROXMOX_URL, and that pveproxy runs.",
    requests.ConnectTimeout(): f"refused: {NO_CONNECTION}",
    broken(OSError(113, "No route to host")): f"broken: {NO_ROUTE}",
    **{
        broken(OSError(number, "x")): f"broken: {NO_ROUTE}"
        for number in (errno.ENETUNREACH, errno.EINVAL, errno.EADDRNOTAVAIL)
    },
    broken(
        PermissionError(1, "not permitted")
    ): "broken: this system forbids the connection. "
    "Check its firewall, and what the client that started this server may reach.",
    **dict.fromkeys(
        (broken(TimeoutError()), requests.ReadTimeout()),
        "timeout: no answer within 3 s. Proxmox may be overloaded: try again in a minute.",
    ),
    **dict.fromkeys(
        (broken(OSError(104, "reset")), broken(ssl.SSLEOFError(8, "EOF"))),
        "dropped: it closed the connection without an answer. Try again; if it stays so, check "
        "ALLOW_FROM in /etc/default/pveproxy.",
    ),
}


@pytest.mark.parametrize(("error", "says"), UNANSWERED.items())
def test_what_no_answer_means(error: OSError, says: str) -> None:
    found = no_answer.unanswered(error, SETTINGS, 2.6, "pve1")
    code, _, said = says.partition(": ")
    through = "node pve1 through " if code == "timeout" else ""
    assert str(found) == f"Cannot talk to {through}https://pve.lan:8006: {said}"
    assert found.code == code
    assert len(str(found)) <= 300


def test_the_innermost_exception_tells_what_happened() -> None:
    error = requests.ConnectionError("pool", "max retries")
    error.__cause__ = OSError("outer")
    error.__cause__.__context__ = ConnectionRefusedError(111, "refused")
    error.__context__ = socket.gaierror(-2, "unknown")
    assert "nothing listens" in str(no_answer.unanswered(error, SETTINGS, 0))


def test_what_is_too_slow_and_what_leads_somewhere_else() -> None:
    slow = no_answer.too_slow(SETTINGS, 10)
    assert "to https://pve.lan:8006: no answer within 10 s" in slow.cause
    assert "to node pve1 through" in no_answer.too_slow(SETTINGS, 10, "pve1").cause
    redirected = no_answer.unanswered(requests.TooManyRedirects(), SETTINGS, 1)
    assert (slow.code, redirected.code) == ("timeout", "not the API")
    assert "answers, but not as a Proxmox VE API" in redirected.cause


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_in_a_container_this_computer_is_the_container(host: str) -> None:
    here = Settings(host, 8006, "", "mcp@pve", "t", SECRET, True)
    error = no_answer.unanswered(broken(OSError(111, "refused")), here, 0)
    assert error.advice == (
        f"In a container {host} is the container itself: put the Proxmox host's name or address "
        "into PROXMOX_URL. Elsewhere check that pveproxy, or the tunnel, runs."
    )


def test_an_address_of_ipv6_is_no_name() -> None:
    six = Settings("fd00::5", 8006, "", "mcp@pve", "t", SECRET, True)
    for number in (-9, socket.EAI_AGAIN):
        error = no_answer.unanswered(broken(socket.gaierror(number, "x")), six, 0)
        assert str(error) == (
            "Cannot talk to https://[fd00::5]:8006: no IPv6 here. Put a name or an IPv4 address "
            "into PROXMOX_URL; in a container Docker's network must have IPv6."
        )


def test_a_node_that_is_slow_is_not_the_proxys_fault(monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert "proxy" not in str(no_answer.too_slow(SETTINGS, 10, "pve1"))
    assert "the proxy of HTTPS_PROXY" in str(no_answer.too_slow(SETTINGS, 10))


def test_what_is_none_of_https_words_is_another_service() -> None:
    for error in (
        broken(BadStatusLine("SSH-2.0")),
        broken(LineTooLong("header line")),
        requests.exceptions.ContentDecodingError(),
    ):
        found = no_answer.unanswered(error, SETTINGS, 1)
        assert "answers, but not as a Proxmox VE API" in found.cause
    hung_up = broken(RemoteDisconnected("closed"))
    assert no_answer.unanswered(hung_up, SETTINGS, 1).code == "dropped"


# --- Proxies --------------------------------------------------------------------------

REFUSES = "HTTP/1.1 {}\n\n<html>"
PAST = "Put 127.0.0.1 into NO_PROXY to go past it"
LETS_NOT = "the proxy of HTTPS_PROXY does not let it through ({}). " + PAST


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            REFUSES.format("407 Proxy Authentication Required"),
            ("the proxy of HTTPS_PROXY wants a login (407 Proxy Authentication Required). "
            f"{PAST}, or user and password into HTTPS_PROXY."),
        ),
        (REFUSES.format("302 hunter2"), LETS_NOT.format("302 Found")),
        (REFUSES.format("403 Forbidden"), LETS_NOT.format("403 Forbidden")),
        (REFUSES.format("502 Bad Gateway"), LETS_NOT.format("502 Bad Gateway")),
        ("", ("it closed the connection without an answer, on the way through the proxy of "
         "HTTPS_PROXY.")),
        (None, "no answer within 1 s, on the way through the proxy of HTTPS_PROXY."),
    ],
)  # fmt: skip
def test_a_proxy_that_is_in_the_way_is_told_by_its_variable(
    call: Call, peer: Start, monkeypatch: Any, answer: str | None, says: str
) -> None:
    monkeypatch.setattr("src.lists.ask_nodes.LIST_PATIENCE", 0.8)
    url, _ = peer(answer, tls=False)
    proxy = url.replace("https://", "http://me:hunter2@")
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    text = call("list_infrastructure").text
    assert says in text
    assert PAST in text
    assert "hunter2" not in text
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.client.cache_clear()
    assert not call("list_infrastructure").is_error


def test_a_proxy_that_speaks_no_tls_and_one_that_is_not_trusted(
    call: Call, peer: Start, monkeypatch: Any, tmp_path: Path
) -> None:
    url, _ = peer("HTTP/1.1 400 Bad Request\n\n", tls=False)
    monkeypatch.setenv("HTTPS_PROXY", url)
    assert (
        "the proxy of HTTPS_PROXY speaks no TLS. Write http:// in HTTPS_PROXY, or put "
        "127.0.0.1 into NO_PROXY"
    ) in call("list_machines").text
    authority = Authority(tmp_path)
    url, _ = peer("HTTP/1.1 403 Forbidden\n\n", authority.server())
    monkeypatch.setenv("HTTPS_PROXY", url)
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", authority.path)
    server.client.cache_clear()
    assert "does not let it through (403 Forbidden)" in call("list_machines").text
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", Authority(tmp_path, "other").path)
    server.client.cache_clear()
    assert (
        "the proxy of HTTPS_PROXY has a certificate that is not trusted (unable to get local "
        "issuer certificate)"
    ) in call("list_machines").text


def test_no_proxy_in_lower_case_wins(call: Call, monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "localhost")
    assert "Put 127.0.0.1 into no_proxy to go" in call("list_machines").text


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "proxy",
    [
        *(
            "socks5://127.0.0.1:1",
            "socks5h://x",
            "http://",
            "http://a b:1",
            "ftp://x:1",
        ),
        *("http://a..b:3128", "http://me:p€@h:1"),
    ],
)
def test_a_proxy_that_cannot_be_used(
    call: Call, cluster: Cluster, monkeypatch: Any, name: str, proxy: str
) -> None:
    monkeypatch.setenv(name, proxy)
    assert (
        f"the proxy of {name} cannot be used: it must be http://host:port, and no SOCKS. "
        f"{PAST}, or correct {name}."
    ) in call("list_machines").text
    assert cluster.sent == []


def test_a_proxy_of_the_system_has_no_variable(monkeypatch: Any) -> None:
    found = {"https": "http://127.0.0.1:1"}
    monkeypatch.setattr("src.proxmox.network.get_environ_proxies", lambda _: found)
    error = requests.exceptions.ProxyError(OSError(111, "Connection refused"))
    assert (
        "the proxy of the system's settings does not answer (connection refused)"
        in str(no_answer.unanswered(error, SETTINGS, 0))
    )


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_of_cas_that_is_not_there(
    call: Call, cluster: Cluster, monkeypatch: Any, name: str
) -> None:
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "true")
    monkeypatch.setenv(name, "/no/such/bundle.pem")
    text = call("list_storage").text
    assert text.startswith(f"{name} is /no/such/bundle.pem, which is not there: ")
    assert text.endswith(
        f"Or unset {name}, and set PROXMOX_VERIFY_SSL to the path of Proxmox's own CA."
    )
    assert cluster.sent == []


def test_a_bundle_that_did_not_sign_it_is_named(
    call: Call, peer: Start, monkeypatch: Any, tmp_path: Path
) -> None:
    url, _ = peer("", Authority(tmp_path).server())
    bundle = Authority(tmp_path, "company").path
    monkeypatch.setenv("PROXMOX_URL", url)
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "true")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    assert (
        f"the CAs in {bundle} of REQUESTS_CA_BUNDLE did not sign it. Set PROXMOX_VERIFY_SSL to "
        "the path of a copy of Proxmox's CA"
    ) in call("list_machines").text


@pytest.mark.parametrize("verify", ["true", ""])
def test_a_key_log_that_cannot_be_written_is_named(
    call: Call, cluster: Cluster, configured: Any, monkeypatch: Any, verify: str
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", "/no/such/folder/keys.log")
    if verify:
        monkeypatch.setenv("PROXMOX_VERIFY_SSL", verify)
    assert call("list_machines").text == (
        "SSLKEYLOGFILE is /no/such/folder/keys.log, which cannot be written. Unset it."
    )
    assert cluster.sent == []
