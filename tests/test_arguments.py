"""Hostile arguments: refused with a next step, before anything is sent."""

import re

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
    *("", " ", "pve1 ", " pve1", "pve 1", "pve1\n", "\npve1", "pve1\r\nX-Header: x"),
    *("..", ".", "../cluster", "pve1/..", "pve1\\..", "%2e%2e", "pve1%2fqemu"),
    *("pve1/qemu/105/status/stop?x=", "pve1/qemu/105/status/stop#", "pve1?", "pve1#"),
    *("pve1\x00", "pve1;", "pve1&x=1", "-pve1", "pve1-", "pve_1", "pve1.lan"),
    *("a" * 300, "pv\xe91", "\u7bc0\u9ede"),
    *("\u0440ve1", "\uff11\uff12"),  # a Cyrillic letter, full-width digits
]
NO_NODES = [*NODES, None, True, 1, ["pve1"], {"node": "pve1"}]
VM_IDS = [0, -1, 99, 10**9, 10**18]
NO_VM_IDS = [
    *VM_IDS,
    *("0x64", "100/status/stop", "100?x", "../100", "", "abc", "\u0967\u0966\u0966"),
    *(True, False, None, 100.5, 1e300, [100], {"id": 100}),
]
NO_FORCES = ["maybe", 2, [True], "force"]


@pytest.mark.parametrize("tool", ["start_machine", "stop_machine", "reboot_machine"])
def test_nothing_hostile_is_sent_anywhere(call: Call, demo: Cluster, tool: str) -> None:
    right = {"vm_id": 100, "node": "pve1"}
    wrong = [("node", node) for node in NO_NODES]
    wrong += [("vm_id", vm_id) for vm_id in NO_VM_IDS]
    wrong += [("force", force) for force in NO_FORCES if tool == "stop_machine"]
    for name, value in wrong:
        answer = call(tool, **right | {name: value})
        assert answer.is_error, value
        assert f"{name} must be" in answer.text
    assert demo.sent == []


def test_no_hostile_filter_is_sent_anywhere(call: Call, demo: Cluster) -> None:
    for node in NO_NODES:
        if node is not None:  # no filter
            assert call("list_machines", node=node).is_error, node
    for status in ("", "Running", "a b", "x" * 31, 1, ["running"]):
        assert call("list_machines", status=status).is_error, status
    assert demo.sent == []


def test_all_that_is_wrong_is_told_at_once(call: Call, demo: Cluster) -> None:
    vm_id = "vm_id must be a whole number from 100 to 999999999"
    node = "node must be a node's name (letters, digits and hyphens)"
    force = "force must be true or false"
    status = "status must be a word such as running, stopped, unknown or paused"
    for tool, arguments, wrong in (
        ("stop_machine", {"node": "", "force": "x"}, f"{vm_id}; {node}; {force}"),
        ("list_machines", {"status": "Running"}, status),
    ):
        assert call(tool, **arguments).text == (
            f"Nothing was sent to Proxmox: {wrong}. list_machines without filters shows "
            "the vm_id, node and status of every machine."
        )
    assert demo.sent == []


def test_a_misspelt_force_does_not_force(call: Call, demo: Cluster) -> None:
    call("stop_machine", vm_id=100, node="pve1", Force=True)
    assert demo.posts == ["/pve1/qemu/100/status/shutdown"]


def test_no_machine_but_the_one_named_is_switched(call: Call, demo: Cluster) -> None:
    guests = [*demo.pve.vms, *demo.pve.cts]
    before = {guest.vmid: guest.status for guest in guests}
    call("stop_machine", vm_id=100, node="pve1")
    assert [g.vmid for g in guests if g.status != before[g.vmid]] == [100]


# --- The client by itself is as strict ------------------------------------------------


def test_nothing_hostile_gets_past_the_client_without_the_schema(
    proxmox: ProxmoxClient, cluster: Cluster
) -> None:
    for node in NODES:
        for method, *more in (
            (proxmox.get_all_machines,),
            (proxmox.get_storage_status,),
            (proxmox.get_node_resources,),
            (proxmox.get_machine_status, 100),
            (proxmox.set_machine_state, 100, "stop"),
        ):
            with pytest.raises(ProxmoxError, match="node must be"):
                method(node, *more)
    for vm_id in (*VM_IDS, 10**400):
        with pytest.raises(ProxmoxError, match="vm_id must be"):
            proxmox.set_machine_state("pve1", vm_id, "stop")
    with pytest.raises(ProxmoxError, match="action must be"):
        proxmox.set_machine_state("pve1", 100, "reset")  # type: ignore[arg-type]
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
