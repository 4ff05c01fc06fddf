"""Hostile arguments: refused with a next step, before anything is sent."""

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from src.api import check_target
from src.client import ProxmoxClient
from src.errors import ProxmoxError
from src.models import NODE_PATTERN
from tests.cluster import Cluster
from tests.conftest import Call

NODES = [
    "",
    " ",
    "pve1 ",
    " pve1",
    "pve 1",
    "..",
    ".",
    "../cluster",
    "pve1/..",
    "pve1/qemu/105/status/stop?x=",
    "pve1/qemu/105/status/stop#",
    "pve1?",
    "pve1#",
    "pve1%2fqemu",
    "%2e%2e",
    "pve1\\..",
    "pve1\n",
    "\npve1",
    "pve1\r\nX-Header: x",
    "pve1\x00",
    "pve1;",
    "pve1&x=1",
    "-pve1",
    "pve1-",
    "pve_1",
    "pve1.lan",
    "pv\xe91",
    "\u0440ve1",  # a Cyrillic letter
    "\u7bc0\u9ede",
    "\uff11\uff12",  # full-width digits
    "a" * 300,
    None,
    True,
    1,
    ["pve1"],
    {"node": "pve1"},
]
VM_IDS = [
    0,
    -1,
    99,
    10**9,
    10**18,
    10**400,
    "0x64",
    "100/status/stop",
    "100?x",
    "../100",
    "",
    "abc",
    "\u0967\u0966\u0966",
    True,
    False,
    None,
    100.5,
    1e300,
    [100],
    {"id": 100},
]
POWER_TOOLS = ["start_machine", "stop_machine", "reboot_machine"]


@pytest.mark.parametrize("tool", POWER_TOOLS)
def test_no_hostile_node_is_sent_anywhere(call: Call, demo: Cluster, tool: str) -> None:
    for node in NODES:
        answer = call(tool, vm_id=100, node=node)
        assert answer.is_error, node
        assert answer.text == (
            "Nothing was sent to Proxmox: node must be a node's name (letters, digits and "
            "hyphens). list_machines without filters shows the vm_id, node and status of "
            "every machine."
        )
    assert demo.sent == []


def test_no_hostile_filter_is_sent_anywhere(call: Call, demo: Cluster) -> None:
    for node in NODES:
        if node is not None:  # no filter
            assert call("list_machines", node=node).is_error, node
    for status in ("", "Running", "a b", "x" * 31, 1, ["running"]):
        answer = call("list_machines", status=status)
        assert "status must be a word such as running" in answer.text
    assert demo.sent == []


@pytest.mark.parametrize("tool", POWER_TOOLS)
def test_no_hostile_vm_id_is_sent_anywhere(
    call: Call, demo: Cluster, tool: str
) -> None:
    for vm_id in VM_IDS:
        if isinstance(vm_id, int) and vm_id > 10**100:
            continue  # not JSON that every client can write
        answer = call(tool, vm_id=vm_id, node="pve1")
        assert answer.is_error, vm_id
        assert answer.text.startswith(
            "Nothing was sent to Proxmox: vm_id must be a whole number from 100 to "
            "999999999."
        )
    assert demo.sent == []


def test_what_is_missing_is_told_together(call: Call, demo: Cluster) -> None:
    answer = call("start_machine")
    assert "vm_id must be" in answer.text
    assert "node must be" in answer.text
    assert demo.sent == []


@pytest.mark.parametrize("force", ["maybe", 2, [True], "force"])
def test_force_is_true_or_false(call: Call, demo: Cluster, force: Any) -> None:
    answer = call("stop_machine", vm_id=100, node="pve1", force=force)
    assert "force must be true or false" in answer.text
    assert demo.sent == []


def test_a_misspelt_force_does_not_force(call: Call, demo: Cluster) -> None:
    call("stop_machine", vm_id=100, node="pve1", Force=True)
    assert demo.posts == ["/pve1/qemu/100/status/shutdown"]


def test_no_machine_but_the_one_named_is_switched(call: Call, demo: Cluster) -> None:
    before = {guest.vmid: guest.status for guest in [*demo.pve.vms, *demo.pve.cts]}
    call("stop_machine", vm_id=100, node="pve1")
    after = {guest.vmid: guest.status for guest in [*demo.pve.vms, *demo.pve.cts]}
    assert {vm_id for vm_id in before if before[vm_id] != after[vm_id]} == {100}


# --- The client by itself is as strict ------------------------------------------------


def test_the_client_refuses_the_same_without_the_schema(
    proxmox: ProxmoxClient, cluster: Cluster
) -> None:
    for node in NODES:
        if isinstance(node, str):
            for method in (
                lambda node: proxmox.get_all_machines(node),
                proxmox.get_storage_status,
                proxmox.get_node_resources,
                lambda node: proxmox.get_machine_status(node, 100),
                lambda node: proxmox.set_machine_state(node, 100, "stop"),
            ):
                with pytest.raises(ProxmoxError, match="node must be a node's name"):
                    method(node)
    for vm_id in (-1, 0, 99, 10**9, 10**400):
        with pytest.raises(ProxmoxError, match="vm_id must be a whole number"):
            proxmox.set_machine_state("pve1", vm_id, "stop")
    with pytest.raises(ProxmoxError, match="action must be"):
        proxmox.set_machine_state("pve1", 100, "reset")  # type: ignore[arg-type]
    assert cluster.sent == []


def test_nothing_but_reads_and_the_four_actions_can_leave(
    proxmox: ProxmoxClient, cluster: Cluster
) -> None:
    api = proxmox._api
    proxmox._transport.limit.deadline = float("inf")
    guest = api.nodes("pve1").qemu(100)
    for forbidden in (
        guest.delete,
        guest.config.put,
        guest.config.post,
        guest.status.reset.post,
        guest.status.suspend.post,
        guest.status("start/../../clone").post,
        api.nodes("pve1").status.post,
        api.access.users.post,
    ):
        with pytest.raises(ProxmoxError, match="This server never sends"):
            forbidden()
    assert cluster.sent == []


# --- The pattern ----------------------------------------------------------------------


def accepted(node: str) -> bool:
    try:
        check_target(node)
    except ProxmoxError:
        return False
    return True


@given(st.text())
@example("pve1\n")
def test_an_accepted_name_has_nothing_that_means_something_in_a_url(node: str) -> None:
    if accepted(node):
        assert re.fullmatch(r"[a-zA-Z0-9-]+", node)
        assert node[0] != "-"
        assert node[-1] != "-"
        assert len(node) <= 63


@given(st.from_regex(NODE_PATTERN.replace("$", r"\Z"), fullmatch=True))
def test_every_name_that_proxmox_allows_is_accepted(node: str) -> None:
    assert accepted(node) is (len(node) <= 63)
