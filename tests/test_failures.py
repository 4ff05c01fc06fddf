"""What goes wrong on the way to a machine, and what a list lacks, to the letter."""

import socket
import ssl
from typing import Any

import pytest
import requests
from proxmoxer import ResourceException

from src import failures
from src.settings import Settings
from tests.cluster import SECRET

SETTINGS = Settings("pve.lan", 8006, "", "mcp@pve", "t", SECRET, True)
NOT_THE_API = (
    "https://pve.lan:8006 answers, but not as a Proxmox VE API: it is a login page, a proxy or "
    "another service. Correct PROXMOX_URL: the API's port is usually 8006."
)
NO_CONNECTION = "no connection in 3 s. Check PROXMOX_URL, the network and the firewall."
UNREACHED = "Proxmox could not reach node pve1 ({} x). Call list_infrastructure to see the nodes."
PROXY = (
    "A proxy in front of https://pve.lan:8006 could not reach Proxmox ({}). Check that proxy, or "
    "point PROXMOX_URL at Proxmox itself."
)
UNVERIFIED = "; or, only on a network you trust, PROXMOX_VERIFY_SSL=false."


def broken(error: Exception, **attributes: Any) -> requests.ConnectionError:
    vars(error).update(attributes)
    return requests.ConnectionError(error)


def untrusted(code: int, reason: str) -> requests.ConnectionError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    return broken(error, verify_code=code, verify_message=reason)


UNANSWERED = {  # code: cause and advice
    requests.exceptions.ProxyError(OSError(111, "refused")): "refused: the proxy of "
    "HTTPS_PROXY does not answer. Check HTTPS_PROXY, or put the host into NO_PROXY.",
    **dict.fromkeys(
        (untrusted(62, "wrong_name"), untrusted(64, "wrong_name")),
        "refused: its certificate is not trusted (wrong_name). Put a name that the certificate "
        f"has into PROXMOX_URL{UNVERIFIED}",
    ),
    untrusted(18, "self-signed"): "refused: its certificate is not trusted "
    "(self-signed). Set PROXMOX_VERIFY_SSL to the path of a copy of Proxmox's CA, "
    f"/etc/pve/pve-root-ca.pem{UNVERIFIED}",
    broken(ssl.SSLError(1, "x"), reason="WRONG_VERSION"): "broken: no TLS connection "
    "(wrong version). Check the port in PROXMOX_URL, usually 8006.",
    broken(ssl.SSLError(1, "x")): "broken: no TLS connection (it broke). Check the "
    "port in PROXMOX_URL, usually 8006.",
    broken(socket.gaierror(-2, "unknown")): "refused: its name does not resolve. Check "
    "the host in PROXMOX_URL.",
    broken(OSError(111, "refused")): "refused: connection refused, nothing listens "
    "there. Check PROXMOX_URL, and that pveproxy runs.",
    requests.ConnectTimeout(): f"refused: {NO_CONNECTION}",
    broken(OSError(113, "No route to host")): f"broken: {NO_CONNECTION}",
    broken(OSError(101, "Network is unreachable")): f"broken: {NO_CONNECTION}",
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
    found = failures.unanswered(error, SETTINGS, 2.6, "pve1")
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
    assert "nothing listens" in str(failures.unanswered(error, SETTINGS, 0))


def test_what_is_too_slow_and_what_is_not_the_api() -> None:
    slow = failures.too_slow(SETTINGS, 10)
    assert "to https://pve.lan:8006: no answer within 10 s" in slow.cause
    assert "to node pve1 through" in failures.too_slow(SETTINGS, 10, "pve1").cause
    redirected = failures.unanswered(requests.TooManyRedirects(), SETTINGS, 1)
    assert (slow.code, redirected.code) == ("timeout", "not the API")
    assert str(redirected) == NOT_THE_API


REFUSED = {
    "401 No ticket": "Proxmox does not accept the API token mcp@pve!t (No ticket). Check "
    "PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET, and in Proxmox under Permissions > API Tokens "
    "that the token exists and has not expired.",
    "403 (/vms/1, VM.PowerMgmt)": "The token mcp@pve!t lacks VM.PowerMgmt on /vms/1. Grant it to "
    "user and token: pveum role add McpVMPowerMgmt --privs VM.Audit,VM.PowerMgmt; pveum acl "
    "modify /vms/1 --users mcp@pve --tokens 'mcp@pve!t' --roles McpVMPowerMgmt",
    "403 (/, Sys.Audit|Sys.Modify)": "The token mcp@pve!t lacks Sys.Audit on /. Grant it to user "
    "and token: pveum role add McpSysAudit --privs Sys.Audit; pveum acl modify / --users mcp@pve "
    "--tokens 'mcp@pve!t' --roles McpSysAudit",
    "403 not you": "Proxmox does not allow this to the token mcp@pve!t: not you. Grant the "
    "privilege to the user and to the token; the README lists them.",
    "400  got\n  timeout": "Proxmox says: got timeout.",
    "500 ": "Proxmox says: error 500.",
    "500 no quorum?": "Proxmox says: no quorum? Call list_infrastructure: a start needs most nodes "
    "to be online.",
    **{f"{code} x": UNREACHED.format(code) for code in (595, 599)},
    **{f"{code} x": PROXY.format(code) for code in (502, 503, 504)},
    **{f"{code} x": NOT_THE_API for code in (404, 501, 594, 600)},
}


@pytest.mark.parametrize(("answer", "says"), REFUSED.items())
def test_what_a_status_of_400_or_more_means(answer: str, says: str) -> None:
    code, _, content = answer.partition(" ")
    refusal = ResourceException(int(code), "", content)
    error = failures.refused(refusal, SETTINGS, "pve1")
    assert str(error) == says
    assert error.code == ("not the API" if says == NOT_THE_API else int(code))


def test_what_proxmox_says_is_told_whole_without_the_secret_and_cut() -> None:
    for code, words, says in (
        (400, ("Bad", {"a": "b", "c": b"", "d": SECRET}), "says: Bad a: b d: ***."),
        (500, ("x" * 501,), f"says: {'x' * 497}..."),
        (500, ("a\u202e\x1b\nb",), "says: a b."),
        (595, ("x",), "could not reach a node (595 x)."),
        (401, (None,), "the API token mcp@pve!t (no reason)."),
    ):
        error = failures.refused(ResourceException(code, "", *words), SETTINGS, "")
        assert error.cause.endswith(f" {says}")


def test_what_is_not_there_has_a_next_step() -> None:
    for error, says in {
        failures.invalid_target(
            "x is bad", "y", "zs"
        ): "x is bad. Call y to see the zs.",
        failures.unknown_node(
            "c", {"b": 1, "a": 2}
        ): "There is no node c. Nodes: a, b.",
        failures.unknown_machine(
            101, SETTINGS
        ): "There is no machine 101, or the token "
        "mcp@pve!t lacks VM.Audit on /vms/101. Call list_machines to see what there is.",
        failures.machine_elsewhere(
            9, "web", "a", "b"
        ): "Machine 9 (web) is not on a but "
        'on b. If you mean that one, call again with node="b".',
        failures.offline_node(9, "a"): "Node a is offline: machine 9 cannot be seen or "
        "switched. Call list_infrastructure to see when the node is back.",
    }.items():
        assert str(error) == says
