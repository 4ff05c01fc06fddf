"""Test the client alone, with proxmoxer mocked: what it requests and what it returns."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
import requests
from proxmoxer import ResourceException

from src.client import ProxmoxClient
from src.config.settings import Address
from src.errors import ProxmoxError
from tests.cluster import SECRET, SETTINGS
from tests.conftest import Patch

UPID = "UPID:pve2:000003E8:00001B58:6B02F2C6:qmstart:100:mcp@pve!t:"
STOPPED = {"vmid": 100, "name": "web", "status": "stopped", "uptime": 0}
RUNNING = STOPPED | {"status": "running"}


@pytest.fixture
def api() -> Iterator[MagicMock]:
    """Mock a cluster of pve1 and pve2; VM 100 on pve1 is stopped."""
    with patch("src.client.ProxmoxAPI") as proxmox_api:
        api = proxmox_api.return_value
        vm = {"type": "qemu", "vmid": 100, "node": "pve1", "name": "web"}
        nodes = [{"type": "node", "node": name} for name in ("pve1", "pve2")]
        api.cluster.resources.get.return_value = [*nodes, vm]
        api.nodes("pve1").qemu(100).status.current.get.return_value = STOPPED
        api.nodes.reset_mock()
        yield api


@patch.dict("os.environ", clear=True)
def test_the_client_passes_the_settings_to_proxmoxer() -> None:
    for prefix, verify in (("", True), ("pve-a", False), ("", "/ca.pem")):
        settings = replace(
            SETTINGS, addresses=(Address("pve.lan", 443, prefix),), verify_ssl=verify
        )
        with patch("src.client.ProxmoxAPI") as proxmox_api:
            ProxmoxClient(settings)
        passed = {"port": 443, "path_prefix": prefix or None, "user": "mcp@pve"}
        passed |= {"token_name": "t", "token_value": SECRET, "verify_ssl": verify}
        proxmox_api.assert_called_once_with("pve.lan", **passed, proxies={})


def test_the_client_honors_the_environment_variables_of_requests(monkeypatch: Patch) -> None:
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


def test_each_method_reads_live_data_from_the_named_node(api: MagicMock) -> None:
    client, pve1 = ProxmoxClient(SETTINGS), api.nodes("pve1")
    offline = {"node": "pve2", "status": "offline"}
    api.nodes.get.return_value = [offline, {"node": "pve1", "cpu": 0.5}, {"cpu": 1}]
    nodes = [(node.node, node.status, node.cpu) for node in client.get_nodes()]
    assert nodes == [("pve1", "unknown", 0.5), ("pve2", "offline", None)]
    pve1.status.get.return_value = {"uptime": 7}
    resources = client.get_node_resources("pve1")
    assert (resources.node, resources.uptime) == ("pve1", 7)
    storages = [{"storage": "nfs"}, {"storage": "a"}, {"storage": "b", "enabled": 0}]
    pve1.storage.get.return_value = storages
    found = [(each.storage, each.nodes) for each in client.get_storage_status("pve1")]
    assert found == [("a", ["pve1"]), ("nfs", ["pve1"])]
    pve1.qemu(100).status.current.get.return_value = RUNNING
    machine = client.get_machine_status("pve1", 100)
    assert (machine.label, machine.status) == ("VM 100 (web) on pve1", "running")
    assert {call.args for call in api.nodes.call_args_list} == {("pve1",)}
    pve1.qemu.get.return_value = [STOPPED]
    pve1.lxc.get.return_value = [{"vmid": "101", "status": "running"}]
    machines = client.get_all_machines("pve1").machines
    assert [each.status for each in machines] == ["stopped", "running"]
    api.cluster.resources.get.assert_called_with(type="vm")


def test_a_machine_that_is_not_on_the_node_is_not_requested(api: MagicMock) -> None:
    api.cluster.resources.get.return_value[-1]["name"] = None
    for node, vm_id, words in (
        ("pve2", 100, r'100 \(name unknown\) .* node="pve1"'),
        ("pve1", 999_999_999, "999999999.* mcp@pve!t"),
        ("pve1", 10**9, "100 to 999999999.* list_machines .* machines"),
        ("pve1", 99, "^vm_id .* 100 "),
        ("a" * 64, 100, "^node .* list_infrastructure .* nodes"),
    ):
        with pytest.raises(ProxmoxError, match=words):
            ProxmoxClient(SETTINGS).get_machine_status(node, vm_id)
    api.nodes.assert_not_called()


def test_an_action_is_posted_once_and_followed_on_the_node_of_its_task(api: Any) -> None:
    vm, task = api.nodes("pve1").qemu(100), api.nodes("pve2").tasks(UPID)
    vm.status.current.get.side_effect = [STOPPED, RUNNING]
    vm.status("start").post.return_value = UPID
    ok = {"status": "stopped", "exitstatus": "OK"}
    task.status.get.side_effect = [{"status": "running"}, ok]
    api.nodes.reset_mock()
    result = ProxmoxClient(SETTINGS).set_machine_state("pve1", 100, "start")
    assert (result.status, result.changed, result.finished) == ("running", True, True)
    assert result.task == UPID
    vm.status("start").post.assert_called_once_with()
    nodes = [call.args[0] for call in api.nodes.call_args_list]
    assert sorted(nodes) == [*["pve1"] * 4, "pve2", "pve2"]


NOT_SENT, NO_ROUTE, DROPPED = (
    requests.ConnectionError(OSError(number, "")) for number in (111, 113, 104)
)
NOT_TASKS = ["", "OK", None, {}, "UPID:pve1", f"{UPID}/..", UPID.replace(":", "/", 1)]


@pytest.mark.parametrize("answer", [NOT_SENT, NO_ROUTE, *NOT_TASKS])
def test_a_post_that_may_have_been_sent_has_an_unknown_outcome(api: MagicMock, answer: Any) -> None:
    post = api.nodes("pve1").qemu(100).status("start").post
    post.side_effect = [answer]
    words = "Nothing was done" if answer is NOT_SENT else "unknown"
    with pytest.raises(ProxmoxError, match=words):
        ProxmoxClient(SETTINGS).set_machine_state("pve1", 100, "start")
    post.assert_called_once_with()
    api.nodes("pve1").tasks.assert_not_called()


def test_a_get_is_retried_once_and_only_after_a_dropped_connection(api: Any) -> None:
    get, client = api.nodes("pve1").status.get, ProxmoxClient(SETTINGS)
    get.side_effect = [DROPPED, {"uptime": 7}]
    assert client.get_node_resources("pve1").uptime == 7
    for code, *answers in (
        ("dropped", DROPPED, DROPPED),
        ("timeout", requests.ReadTimeout()),
        ("broken", NO_ROUTE),
        ("not the API", KeyError("data")),
        (595, ResourceException(595, "", "No route to host")),
    ):
        get.side_effect = [*answers, {}]
        with pytest.raises(ProxmoxError) as caught:
            client.get_node_resources("pve1")
        assert caught.value.code == code
        assert code not in (595, "timeout") or "node pve1" in str(caught.value)
    get.side_effect = ZeroDivisionError  # a bug is not mistaken for an answer
    with pytest.raises(ZeroDivisionError):
        client.get_node_resources("pve1")
