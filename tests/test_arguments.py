"""Test every argument: what is accepted, and what is rejected before anything is sent."""

import contextlib
import re
from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcp.server.mcpserver.exceptions import ToolError

from src import server
from src.arguments import READERS, read_arguments
from src.client import ProxmoxClient
from src.errors import ProxmoxError
from src.models import NODE_PATTERN
from src.proxmox.api import check_target
from tests.cluster import Cluster
from tests.conftest import Call
from tests.golden import compare

NODES = [
    *("pve 1", "pve1\r\nX-Header: x", "..", ".", "../cluster", "pve1/..", "pve1\\.."),
    *("%2e%2e", "pve1%2fqemu", "pve1/qemu/105/status/stop?x=", "pve1?", "pve1#"),
    *("pve1/qemu/105/status/stop#", "pve1\x00", "pve1;", "pve1&x=1", "-pve1", "pve1-"),
    *("pve_1", "a" * 300, "pv\xe91", "\u7bc0\u9ede"),
    *("\u0440ve1", "\uff11\uff12"),  # a Cyrillic letter, full-width digits
]
BAD_NODES = [*NODES, True, 1, ["pve1"], {"node": "pve1"}]
VM_IDS = [0, -1, 5, 99, 10**9, 10**18]
BAD_VM_IDS = [
    *VM_IDS,
    *("0x64", "100/status/stop", "100?x", "../100", "abc", "\u0967\u0966\u0966"),
    *("0100", "1_00", "100.5", "99", "1000000000", "+100", "1e2"),
    *(True, False, 100.5, 99.0, 1e300, [100], {"id": 100}),
]
BAD_FORCES = ["maybe", "yes", "true", "True", "on", "1", 1, 0, 2, [True], "force"]


@pytest.mark.parametrize("tool", ["start_machine", "stop_machine", "reboot_machine"])
def test_no_hostile_argument_reaches_proxmox(call: Call, demo: Cluster, tool: str) -> None:
    right = {"vm_id": 100, "node": "pve1"}
    wrong = [("node", node) for node in BAD_NODES]
    wrong += [("vm_id", vm_id) for vm_id in BAD_VM_IDS]
    wrong += [("force", force) for force in BAD_FORCES if tool == "stop_machine"]
    for name, value in wrong:
        answer = call(tool, **right | {name: value})
        assert answer.is_error, value
        assert f": {name} " in answer.text, value
    for name in right:
        blank = (None, "", " ", "null")
        (text,) = {call(tool, **right | {name: value}).text for value in blank}
        assert f": {name} " in text
    assert demo.sent == []


def test_no_hostile_filter_reaches_proxmox(call: Call, demo: Cluster) -> None:
    wrong = [("node", node) for node in BAD_NODES]
    wrong += [("status", status) for status in ("a b", "x" * 31, 1, ["running"], "-x")]
    wrong += [(k, name) for k in ("name", "tag", "pool") for name in (1.5, True, ["x"], "x" * 101)]
    for name, value in wrong:
        answer = call("list_machines", **{name: value})
        assert answer.is_error, value
        assert f": {name} " in answer.text
    assert demo.sent == []


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("stop_machine", {"vm_id": 5, "node": "a/b", "force": 1}),
    ("stop_machine", {"vm_id": 100, "node": "pve1", "dry_run": True}),
    ("start_machine", {}),
    ("start_machine", {"vm_id": "", "node": "null"}),
    ("list_machines", {"state": "stopped"}),
    ("list_machines", {"status": 1, "name": 2.5, "tag": True, "pool": []}),
    ("list_storage", {"node": "pve1"}),
    ("list_storage", {"x" * 41: 1}),
]


def test_one_error_lists_every_wrong_argument(call: Call, demo: Cluster) -> None:
    compare("arguments", {f"{t}({a})": call(t, **a).text for t, a in WRONG})
    assert demo.sent == []


def test_every_parameter_has_a_reader() -> None:
    tools = anyio.run(server.mcp.list_tools)
    assert {name for tool in tools for name in tool.input_schema["properties"]} == {*READERS}


def test_a_misspelt_force_does_not_force(call: Call, demo: Cluster) -> None:
    answer = call("stop_machine", vm_id=100, node="pve1", Force=True)
    assert answer.is_error
    assert "'Force'" in answer.text
    assert demo.sent == []


def test_arguments_that_clients_add_are_ignored(call: Call, demo: Cluster) -> None:
    added = {"toolCallId": "x", "task_progress": "- [ ] stop it"}
    assert not call("start_machine", vm_id=106, node="pve2", **added).is_error
    assert not call("list_infrastructure", **added).is_error


def read(**given: Any) -> dict[str, Any]:
    return read_arguments("x", given, given, ["vm_id"])


def test_an_id_is_accepted_in_every_form_that_clients_send() -> None:
    for value in (100, 100.0, "100", " 100 "):
        vm_id = read(vm_id=value)["vm_id"]
        assert (vm_id, type(vm_id)) == (100, int)
    assert read(vm_id=999_999_999)["vm_id"] == 999_999_999
    for infinite in (float("inf"), float("nan")):
        with pytest.raises(ToolError):
            read(vm_id=infinite)


def test_an_empty_optional_argument_is_ignored() -> None:
    empty = {"node": "", "status": " ", "name": None, "force": "null"}
    assert read(**empty) == {}
    blanks = {"node": " pve1 ", "status": " RUNNING", "name": " Web ", "force": False}
    stripped = {"node": "pve1", "status": "running", "name": "Web", "force": False}
    assert read(**blanks) == stripped
    assert read(name="x" * 100, node="pve1.lan") == {"name": "x" * 100, "node": "pve1.lan"}


@given(st.text())
def test_an_accepted_id_is_the_number_in_the_text(text: str) -> None:
    with contextlib.suppress(ToolError):
        assert str(read(vm_id=text)["vm_id"]) == text.strip()


def test_no_machine_but_the_one_named_is_switched(call: Call, demo: Cluster) -> None:
    guests = [*demo.pve.vms, *demo.pve.cts]
    before = {guest.vmid: guest.status for guest in guests}
    call("stop_machine", vm_id=100, node="pve1")
    assert [g.vmid for g in guests if g.status != before[g.vmid]] == [100]


def test_the_client_rejects_hostile_arguments(proxmox: ProxmoxClient, cluster: Cluster) -> None:
    for node in ["", " ", *NODES]:
        for method, *more in (
            (proxmox.get_all_machines,),
            (proxmox.get_storage_status,),
            (proxmox.get_node_resources,),
            (proxmox.get_machine_status, 100),
            (proxmox.set_machine_state, 100, "stop"),
        ):
            with pytest.raises(ProxmoxError, match=r"^node "):
                method(node, *more)
    for vm_id in (*VM_IDS, 10**400):
        with pytest.raises(ProxmoxError, match=r"^vm_id "):
            proxmox.set_machine_state("pve1", vm_id, "stop")
    with pytest.raises(ProxmoxError, match=r"^action "):
        proxmox.set_machine_state("pve1", 100, "reset")  # type: ignore[arg-type]
    assert cluster.sent == []


def test_the_error_of_an_unknown_node_names_all(proxmox: ProxmoxClient, cluster: Cluster) -> None:
    cluster.pve.add_vm(100, "web", status="running")
    for node in ("pve1.example.com", "PVE1"):
        for method, *more in (
            (proxmox.get_all_machines,),
            (proxmox.get_machine_status, 100),
            (proxmox.set_machine_state, 100, "stop"),
        ):
            with pytest.raises(ProxmoxError, match="The nodes are: pve1"):
                method(node, *more)
    assert not [path for _, path in cluster.sent if "/nodes/" in path]


def accepted(node: str) -> bool:
    try:
        check_target(node)
    except ProxmoxError:
        return False
    return True


@given(st.text())
@example("pve1\n")
def test_an_accepted_node_name_has_no_character_special_in_a_url(node: str) -> None:
    if accepted(node):
        assert re.fullmatch(r"[a-zA-Z0-9-]+", node)
        assert node[0] != "-"
        assert node[-1] != "-"
        assert len(node) <= 63


@given(st.from_regex(NODE_PATTERN.replace("$", r"\Z"), fullmatch=True))
def test_every_node_name_that_proxmox_allows_is_accepted(node: str) -> None:
    assert accepted(node) is (len(node) <= 63)
