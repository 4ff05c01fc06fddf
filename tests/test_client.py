"""The client by itself, with proxmoxer mocked: what it asks for and what it hands on."""

import socket
import ssl
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
import requests
from proxmoxer import ResourceException

from src.advice import obstacle
from src.api import check_target
from src.client import ProxmoxClient
from src.errors import ProxmoxError
from src.models import Machine
from src.rows import read_machine
from src.settings import Settings
from tests.cluster import GIB, SECRET, node_status

SETTINGS = Settings("pve.lan", 8006, "", "mcp@pve", "t", SECRET, True)
UPID = "UPID:pve1:000003E8:00001B58:6B02F2C6:qmstart:100:mcp@pve!t:"


@pytest.fixture
def api() -> Iterator[MagicMock]:
    with patch("src.client.ProxmoxAPI") as proxmox_api:
        yield proxmox_api.return_value


@pytest.fixture
def client(api: MagicMock) -> ProxmoxClient:
    return ProxmoxClient(SETTINGS)


def machine(**status: Any) -> dict[str, Any]:
    return {"vmid": 100, "name": "web", "status": "stopped", "uptime": 0} | status


@pytest.fixture
def one_vm(api: MagicMock) -> MagicMock:
    """A cluster of pve1 and pve2 with VM 100 on pve1; returns the VM's resource."""
    api.cluster.resources.get.return_value = [
        {"type": "node", "node": "pve1", "status": "online"},
        {"type": "node", "node": "pve2", "status": "online"},
        {"type": "qemu", "vmid": 100, "node": "pve1", "name": "web"},
    ]
    vm: MagicMock = api.nodes("pve1").qemu(100)
    vm.status.current.get.return_value = machine()
    return vm


@pytest.mark.parametrize("verify", [True, False, "/ca.pem"])
@pytest.mark.parametrize(("prefix", "handed"), [("", None), ("pve-a", "pve-a")])
def test_what_proxmoxer_is_handed(
    verify: bool | str,
    prefix: str,
    handed: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with patch("src.client.ProxmoxAPI") as proxmox_api:
        ProxmoxClient(Settings("pve.lan", 443, prefix, "mcp@pve", "t", SECRET, verify))
    proxmox_api.assert_called_once_with(
        "pve.lan",
        port=443,
        path_prefix=handed,
        user="mcp@pve",
        token_name="t",
        token_value=SECRET,
        verify_ssl=verify,
        proxies={},
    )


def test_the_environment_of_requests_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.lan:3128")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/company.pem")
    with patch("src.client.ProxmoxAPI") as proxmox_api:
        ProxmoxClient(SETTINGS)
        monkeypatch.setenv("NO_PROXY", "pve.lan")
        ProxmoxClient(SETTINGS)
    proxied, direct = (call.kwargs for call in proxmox_api.call_args_list)
    assert proxied["verify_ssl"] == "/company.pem"
    assert proxied["proxies"]["https"] == "http://proxy.lan:3128"
    assert "https" not in direct["proxies"]


def test_get_nodes(client: ProxmoxClient, api: MagicMock) -> None:
    api.nodes.get.return_value = [
        {"node": "pve2", "status": "offline", "maxcpu": 8},
        {"node": "pve1", "status": "online", "cpu": 0.5, "maxcpu": 4, "uptime": 7},
        {"status": "broken"},
    ]
    one, two = client.get_nodes()
    assert (one.node, one.status, one.cpu, one.cpus, one.uptime) == (
        "pve1",
        "online",
        0.5,
        4,
        7,
    )
    assert (two.node, two.status, two.cpu, two.cpus) == ("pve2", "offline", None, 8)
    assert one.load is one.version is None


def test_get_node_resources(client: ProxmoxClient, api: MagicMock) -> None:
    usage = {"cpu": 0.2, "maxcpu": 16, "mem": 25 * GIB, "maxmem": 63 * GIB}
    usage |= {"disk": 9 * GIB, "maxdisk": 94 * GIB, "uptime": 100}
    api.nodes("pve1").status.get.return_value = node_status(usage)
    resources = client.get_node_resources("pve1")
    api.nodes.assert_called_with("pve1")
    assert vars(resources) == {
        "node": "pve1",
        "status": "online",
        "cpu": 0,
        "cpus": 16,
        "memory_used": 25 * GIB,
        "memory_total": 63 * GIB,
        "disk_used": 9 * GIB,
        "disk_total": 94 * GIB,
        "uptime": 100,
        "load": [0.52, 0.40, 0.31],
        "version": "9.1.2",
        "swap_used": GIB,
        "swap_total": 8 * GIB,
    }


def test_get_storage_status(client: ProxmoxClient, api: MagicMock) -> None:
    row = {"type": "dir", "enabled": 1, "active": 1, "shared": 0, "total": 9, "used": 1}
    api.nodes("pve1").storage.get.return_value = [
        row | {"storage": "local", "avail": 8, "content": "iso"},
        row | {"storage": "elsewhere", "enabled": 0},
    ]
    (storage,) = client.get_storage_status("pve1")
    assert (storage.storage, storage.nodes, storage.available) == ("local", ["pve1"], 8)


def test_get_all_machines(client: ProxmoxClient, api: MagicMock) -> None:
    api.nodes.get.return_value = [{"node": "pve1", "status": "online"}]
    api.cluster.resources.get.return_value = []
    api.nodes("pve1").qemu.get.return_value = [machine()]
    api.nodes("pve1").lxc.get.return_value = [{"vmid": "101", "status": "running"}]
    found = client.get_all_machines()
    assert [(m.vm_id, m.type, m.status) for m in found.machines] == [
        (100, "qemu", "stopped"),
        (101, "lxc", "running"),
    ]
    api.cluster.resources.get.assert_called_once_with(type="vm")


def test_get_machine_status(client: ProxmoxClient, one_vm: MagicMock) -> None:
    one_vm.status.current.get.return_value = machine(status="running", uptime=5)
    found = client.get_machine_status("pve1", 100)
    assert (found.vm_id, found.type, found.status) == (100, "qemu", "running")
    assert found.uptime == 5
    assert found.live is True
    with pytest.raises(ProxmoxError, match="is not on pve2 but on pve1"):
        client.get_machine_status("pve2", 100)
    with pytest.raises(ProxmoxError, match="vm_id must be a whole number"):
        client.get_machine_status("pve1", 99)


def test_set_machine_state_posts_once_and_looks(
    client: ProxmoxClient, api: MagicMock, one_vm: MagicMock
) -> None:
    one_vm.status.current.get.side_effect = [machine(), machine(status="running")]
    one_vm.status("start").post.return_value = UPID
    task = api.nodes("pve1").tasks(UPID)
    task.status.get.side_effect = [
        {"status": "running"},
        {"status": "stopped", "exitstatus": "OK"},
    ]
    result = client.set_machine_state("pve1", 100, "start")
    assert (result.status, result.changed, result.finished) == ("running", True, True)
    assert result.task == UPID
    one_vm.status("start").post.assert_called_once_with()
    assert task.status.get.call_count == 2


def test_the_task_is_asked_of_the_node_that_has_it(
    client: ProxmoxClient, api: MagicMock, one_vm: MagicMock
) -> None:
    elsewhere = UPID.replace("pve1", "pve2")
    one_vm.status.current.get.side_effect = [machine(), machine(status="running")]
    one_vm.status("start").post.return_value = elsewhere
    ok = {"status": "stopped", "exitstatus": "OK"}
    api.nodes("pve1").tasks(elsewhere).status.get.return_value = ok
    api.nodes.reset_mock()
    client.set_machine_state("pve1", 100, "start")
    assert [call.args for call in api.nodes.call_args_list].count(("pve2",)) == 1


@pytest.mark.parametrize(
    "answer", ["", "OK", None, {}, "UPID:pve1", UPID + "/..", UPID.replace(":", "/", 1)]
)
def test_a_task_that_is_none_is_not_asked_for(
    client: ProxmoxClient, api: MagicMock, one_vm: MagicMock, answer: Any
) -> None:
    one_vm.status("start").post.return_value = answer
    with pytest.raises(ProxmoxError, match="its outcome is unknown"):
        client.set_machine_state("pve1", 100, "start")
    api.nodes("pve1").tasks.assert_not_called()


def test_a_post_that_could_not_leave_is_a_plain_failure(
    client: ProxmoxClient, one_vm: MagicMock
) -> None:
    refused = requests.ConnectionError(ConnectionRefusedError(111, "refused"))
    one_vm.status("start").post.side_effect = refused
    with pytest.raises(ProxmoxError) as caught:
        client.set_machine_state("pve1", 100, "start")
    assert str(caught.value) == (
        "The start of VM 100 (web) on pve1 failed: Cannot talk to https://pve.lan:8006: "
        "connection refused, nothing listens there. It is stopped now. Check "
        "PROXMOX_URL, and that pveproxy runs."
    )


def test_a_get_is_sent_once_more_after_a_dropped_connection_and_no_more(
    client: ProxmoxClient, api: MagicMock
) -> None:
    dropped = requests.ConnectionError(ConnectionResetError(104, "reset"))
    api.nodes.get.side_effect = [dropped, []]
    assert client.get_nodes() == []
    api.nodes.get.side_effect = [dropped, dropped, []]
    with pytest.raises(ProxmoxError) as caught:
        client.get_nodes()
    assert caught.value.code == "dropped"
    assert api.nodes.get.call_count == 4


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ResourceException(400, "", "wrong"), 400),
        (ResourceException(401, "", "No ticket"), 401),
        (ResourceException(403, "", "no (/vms/1, VM.Audit)"), 403),
        (ResourceException(403, "", "no"), 403),
        (ResourceException(500, "", "got timeout"), 500),
        (ResourceException(502, "", "Bad Gateway"), 502),
        (ResourceException(595, "", "No route to host"), 595),
        (ResourceException(599, "", "other"), 599),
        (ResourceException(600, "", "other"), "not the API"),
        (ResourceException(404, "", "Not Found"), "not the API"),
        (requests.ReadTimeout(), "timeout"),
        (requests.ConnectTimeout(), "refused"),
        (requests.TooManyRedirects(), "not the API"),
        (requests.exceptions.ProxyError(), "refused"),
        (requests.ConnectionError(socket.gaierror(-2, "unknown")), "refused"),
        (requests.ConnectionError(OSError(113, "No route to host")), "broken"),
        (requests.ConnectionError(OSError(101, "unreachable")), "broken"),
    ],
)
def test_a_get_that_failed_otherwise_is_not_repeated(
    client: ProxmoxClient, api: MagicMock, error: Exception, code: int | str
) -> None:
    api.nodes.get.side_effect = error
    with pytest.raises(ProxmoxError) as caught:
        client.get_nodes()
    assert caught.value.code == code
    assert api.nodes.get.call_count == 1


def test_a_node_that_cannot_be_reached_is_named_where_it_is_known(
    client: ProxmoxClient, api: MagicMock
) -> None:
    gone = ResourceException(595, "", "No route to host")
    api.nodes.get.side_effect = gone
    api.nodes("pve1").status.get.side_effect = gone
    with pytest.raises(ProxmoxError) as caught:
        client.get_nodes()
    assert str(caught.value) == (
        "Proxmox could not reach a node (595 No route to host). Call list_infrastructure "
        "to see the nodes."
    )
    with pytest.raises(ProxmoxError, match="could not reach node pve1"):
        client.get_node_resources("pve1")


def test_a_401_without_a_reason_says_so(client: ProxmoxClient, api: MagicMock) -> None:
    api.nodes.get.side_effect = ResourceException(401, "", None)
    with pytest.raises(ProxmoxError, match=r"mcp@pve!t \(no reason\)"):
        client.get_nodes()


def verification(code: int, message: str) -> requests.exceptions.SSLError:
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_code, error.verify_message = code, message
    return requests.exceptions.SSLError(error)


HANDSHAKE = ssl.SSLError(1, "wrong version")
HANDSHAKE.reason = "WRONG_VERSION_NUMBER"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            requests.TooManyRedirects(),
            (
                "https://pve.lan:8006 answers, but not as a Proxmox VE API: it is a login "
                "page, a proxy or another service. Correct PROXMOX_URL: the API's port is "
                "usually 8006."
            ),
        ),
        (
            requests.exceptions.ProxyError(ConnectionRefusedError(111, "refused")),
            (
                "Cannot talk to https://pve.lan:8006: the proxy of HTTPS_PROXY does not "
                "answer. Check HTTPS_PROXY, or put the host into NO_PROXY."
            ),
        ),
        (
            verification(18, "self-signed certificate"),
            (
                "Cannot talk to https://pve.lan:8006: its certificate is not trusted "
                "(self-signed certificate). Set PROXMOX_VERIFY_SSL to the path of a copy of "
                "Proxmox's CA, /etc/pve/pve-root-ca.pem; or, only on a network you trust, "
                "PROXMOX_VERIFY_SSL=false."
            ),
        ),
        (
            verification(62, "Hostname mismatch"),
            (
                "Cannot talk to https://pve.lan:8006: its certificate is not trusted "
                "(Hostname mismatch). Put a name that the certificate has into PROXMOX_URL; "
                "or, only on a network you trust, PROXMOX_VERIFY_SSL=false."
            ),
        ),
        (
            requests.exceptions.SSLError(HANDSHAKE),
            (
                "Cannot talk to https://pve.lan:8006: no TLS connection (wrong version "
                "number). Check the port in PROXMOX_URL, usually 8006."
            ),
        ),
        (
            requests.ConnectionError(socket.gaierror(-2, "unknown")),
            (
                "Cannot talk to https://pve.lan:8006: its name does not resolve. Check the "
                "host in PROXMOX_URL."
            ),
        ),
        (
            requests.ConnectionError(OSError(113, "No route to host")),
            (
                "Cannot talk to https://pve.lan:8006: no connection in 0 s. Check "
                "PROXMOX_URL, the network and the firewall."
            ),
        ),
        (
            requests.ReadTimeout(),
            (
                "Cannot talk to https://pve.lan:8006: no answer within 0 s. Proxmox may be "
                "overloaded: try again in a minute."
            ),
        ),
        (
            requests.exceptions.SSLError(ssl.SSLEOFError(8, "EOF")),
            (
                "Cannot talk to https://pve.lan:8006: it closed the connection without an "
                "answer. Try again; if it stays so, check ALLOW_FROM in "
                "/etc/default/pveproxy."
            ),
        ),
    ],
)
def test_what_no_answer_means(
    client: ProxmoxClient, api: MagicMock, error: Exception, says: str
) -> None:
    api.nodes.get.side_effect = error
    with pytest.raises(ProxmoxError) as caught:
        client.get_nodes()
    assert str(caught.value) == says
    assert len(says) <= 300


FORCE = (
    "The guest may still follow: call list_machines in a minute. If it does not, "
    "stop_machine(force=True) cuts its power{}; what is not saved is lost, so ask the "
    "user first."
)


@pytest.mark.parametrize(
    ("action", "status", "reason", "advice"),
    [
        ("start", "running", "failed", ""),
        (
            "start",
            "stopped",
            "failed",
            "Remove the cause, then call start_machine again.",
        ),
        ("start", "stopped", "", ""),
        ("stop", "stopped", "failed", ""),
        (
            "stop",
            "running",
            "failed",
            "Look at the node's tasks in Proxmox before you try again.",
        ),
        ("shutdown", "running", "failed", FORCE.format("")),
        ("shutdown", None, "", FORCE.format("")),
        ("shutdown", "stopped", "failed", ""),
        (
            "reboot",
            "running",
            "failed",
            FORCE.format(" and start_machine starts it again"),
        ),
        ("reboot", "stopped", "", "If it stays stopped, call start_machine."),
        (
            "shutdown",
            "running",
            "can't lock file 'x' - got timeout",
            "Another task is at work on it: look again in a minute.",
        ),
    ],
)
def test_what_is_advised(
    client: ProxmoxClient,
    action: Any,
    status: str | None,
    reason: str,
    advice: str,
) -> None:
    row = {"node": "pve1", "type": "qemu", "status": status}
    after = read_machine(100, row, {}) if status else None
    power = _PowerAction(client, "pve1", 100, action, None)
    assert power._advice(after, reason) == advice


def test_a_bug_is_not_taken_for_an_answer(
    client: ProxmoxClient, api: MagicMock
) -> None:
    api.nodes.get.side_effect = ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        client.get_nodes()


def test_requests_wait_for_a_place_and_not_for_ever(
    client: ProxmoxClient, api: MagicMock
) -> None:
    get = api.nodes("pve1").status.get
    for_ever = float("inf")
    with client._place("pve1", for_ever), client._place("pve1", for_ever):
        with pytest.raises(ProxmoxError, match="pve1 is still busy with earlier"):
            client._send(get, 0.0, "pve1")
        client._send(get, 0.0, "pve2")
    client._send(get, 0.0, "pve1")  # both places are free again
    assert get.call_count == 2


def a_machine(**row: Any) -> Machine:
    base = {"node": "pve1", "type": "qemu", "status": "stopped", "name": "web"}
    return read_machine(100, base | row, {})


@pytest.mark.parametrize(
    ("machine", "action", "says"),
    [
        (
            a_machine(template=1),
            "start",
            (
                "VM 100 (web) on pve1 is a template, which cannot run. Clone it in "
                "Proxmox and start the clone."
            ),
        ),
        (
            a_machine(),
            "reboot",
            "VM 100 (web) on pve1 is stopped. Call start_machine instead.",
        ),
        (
            a_machine(lock="backup"),
            "start",
            (
                "VM 100 (web) on pve1 is locked (backup). Try again when that task is "
                "over. If no such task runs, an administrator can remove the lock: qm "
                "unlock 100"
            ),
        ),
        (
            a_machine(type="lxc", name=None, lock="mounted", status="running"),
            "shutdown",
            (
                "container 100 (no name) on pve1 is locked (mounted). Try again when that "
                "task is over. If no such task runs, an administrator can remove the "
                "lock: pct unlock 100"
            ),
        ),
        (
            a_machine(status="running", qmpstatus="paused"),
            "shutdown",
            (
                "VM 100 (web) on pve1 is in state paused, in which shutdown does not "
                "work. Resume it in Proxmox; or call stop_machine(force=True), which "
                "cuts its power and loses what is not saved."
            ),
        ),
        (a_machine(lock="suspended"), "start", None),
        (a_machine(lock="mounted", type="lxc"), "start", None),
        (a_machine(lock="mounted", type="lxc", status="running"), "stop", None),
        (a_machine(lock="suspended", status="running"), "stop", "locked (suspended)"),
        (a_machine(status="running", qmpstatus="paused"), "stop", None),
        (a_machine(status="running"), "reboot", None),
        (a_machine(), "start", None),
    ],
)
def test_what_is_refused_and_why(
    machine: Machine, action: Any, says: str | None
) -> None:
    error = obstacle(machine, action)
    assert (says in str(error)) if says else error is None
    if says and says.startswith(machine.label):
        assert str(error) == says


def test_what_is_no_target_is_told_with_the_next_step() -> None:
    with pytest.raises(ProxmoxError) as caught:
        check_target("pve1/x")
    assert str(caught.value) == (
        "node must be a node's name (letters, digits and hyphens). Call "
        "list_infrastructure to see the nodes."
    )
    with pytest.raises(ProxmoxError) as caught:
        check_target("pve1", 99)
    assert str(caught.value) == (
        "vm_id must be a whole number from 100 to 999999999. Call list_machines to see "
        "the machines."
    )
    check_target("a" * 63, 100)
    check_target("a", 999_999_999)
    for node, vm_id in (("a" * 64, 100), ("a", 10**9)):
        with pytest.raises(ProxmoxError):
            check_target(node, vm_id)


def test_an_action_that_is_none_names_those_there_are(client: ProxmoxClient) -> None:
    with pytest.raises(ProxmoxError) as caught:
        client.set_machine_state("pve1", 100, "reset")  # type: ignore[arg-type]
    assert str(caught.value) == "action must be one of: start, stop, shutdown, reboot."


def test_why_a_machine_is_not_found_is_told(
    client: ProxmoxClient, api: MagicMock, one_vm: MagicMock
) -> None:
    rows = api.cluster.resources.get.return_value

    def told(node: str, vm_id: int) -> str:
        with pytest.raises(ProxmoxError) as caught:
            client.get_machine_status(node, vm_id)
        return str(caught.value)

    assert told("pve3", 100) == "There is no node pve3. Nodes: pve1, pve2."
    assert told("pve1", 101) == (
        "There is no machine 101, or the token mcp@pve!t lacks VM.Audit on /vms/101. Call "
        "list_machines to see what there is."
    )
    assert told("pve2", 100) == (
        "Machine 100 (web) is not on pve2 but on pve1. If you mean that one, call again "
        'with node="pve1".'
    )
    rows[2]["name"] = None
    assert "Machine 100 (no name) is not on" in told("pve2", 100)
    rows[0]["status"] = "offline"
    assert told("pve1", 100) == (
        "Node pve1 is offline: machine 100 cannot be seen or switched. Call "
        "list_infrastructure to see when the node is back."
    )
    one_vm.status.current.get.assert_not_called()


def test_an_action_that_a_bug_ends_is_audited_and_forgotten(
    client: ProxmoxClient, one_vm: MagicMock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mcp-proxmox")
    waited_for: list[int] = []

    def bug() -> None:
        waited_for.append(len(client._actions))
        raise ZeroDivisionError

    one_vm.status.current.get.side_effect = bug
    with pytest.raises(ZeroDivisionError):
        client.set_machine_state("pve1", 100, "start")
    assert waited_for == [1]
    assert client._actions == set()
    assert 'outcome="failed unexpectedly"' in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError(OSError(113, "No route to host")),
        requests.ConnectionError(OSError(101, "unreachable")),
        requests.exceptions.SSLError(ssl.SSLError(1, "bad record mac")),
    ],
)
def test_a_line_that_breaks_after_the_post_left_makes_its_outcome_unknown(
    client: ProxmoxClient, one_vm: MagicMock, error: Exception
) -> None:
    post = one_vm.status("start").post
    post.side_effect = error
    with pytest.raises(ProxmoxError, match="so its outcome is unknown"):
        client.set_machine_state("pve1", 100, "start")
    post.assert_called_once_with()
