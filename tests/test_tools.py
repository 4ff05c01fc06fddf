"""What the six tools answer about a cluster in good order, in both protocol eras."""

import json
import re
from typing import Any

import anyio
import pytest
from mcp import Client

from src import server
from src.client import ProxmoxClient
from tests.cluster import GIB, Cluster, Row
from tests.conftest import Call, caller


@pytest.fixture
def call(mode: str, configured: dict[str, str]) -> Call:
    """The tools in both eras of the protocol."""
    return caller(mode)


TOOLS = {
    # name: parameters, (read only, destructive, idempotent)
    "list_infrastructure": ([], (True, False, True)),
    "list_machines": (["node", "status", "name"], (True, False, True)),
    "list_storage": ([], (True, False, True)),
    "start_machine": (["vm_id", "node"], (False, False, True)),
    "stop_machine": (["vm_id", "node", "force"], (False, True, True)),
    "reboot_machine": (["vm_id", "node"], (False, True, False)),
}


def known(row: Row) -> Row:
    return {key: value for key, value in row.items() if value is not None}


MACHINES = """\
11 machines on 3 nodes: 5 running, 3 stopped, 1 paused, 1 unknown, 1 template
pve3 is offline: the state of its machines is unknown.
vm_id name, node, type, status, CPU, memory, uptime:
100 web, pve1, qemu, running, 7 % of 4, 2.0/4.0 GiB, 12d 0h, tags prod front
101 db, pve2, qemu, running, 12 % of 4, 3.0/4.0 GiB, 40d 0h, tags prod
102 broken, pve1, qemu, stopped, 4 CPU, 4.0 GiB
103 paused, pve1, qemu, paused, 22 % of 4, 2.0/4.0 GiB, 2d 0h
104 in-backup, pve2, qemu, running, 27 % of 4, 3.0/4.0 GiB, 3d 0h, locked (backup)
105 old-windows, pve1, qemu, running, 7 % of 4, 1.0/4.0 GiB, 90d 0h
106 build, pve2, qemu, stopped, 4 CPU, 4.0 GiB
107 (no name), pve3, qemu, unknown
200 dns, pve1, lxc, running, 2 % of 1, 64.0/512.0 MiB, 5d 0h
201 proxy, pve2, lxc, stopped, 1 CPU, 512.0 MiB
900 debian-13, pve1, qemu, stopped, 4 CPU, 4.0 GiB, template"""
STORAGES = """\
8 storages: 5 active, 1 inactive, 2 unknown
pve3 is offline: the state of its storages is unknown.
nfs1, nfs, active, 60 % of 10.0 TiB used, 4.0 TiB free, shared by pve1 pve2 pve3, for images iso
local, dir, active, 0 % of 50.0 GiB used, 50.0 GiB free, on pve1, for backup iso vztmpl
local, dir, active, 0 % of 50.0 GiB used, 50.0 GiB free, on pve2, for backup iso vztmpl
local-lvm, lvmthin, active, 0 % of 100.0 GiB used, 100.0 GiB free, on pve1, for images rootdir
local-lvm, lvmthin, active, 0 % of 100.0 GiB used, 100.0 GiB free, on pve2, for images rootdir
old-nas, cifs, inactive, shared by pve1 pve2 pve3, for backup
local, dir, unknown, on pve3, for backup iso vztmpl
local-lvm, lvmthin, unknown, on pve3, for images rootdir"""


def listed(mode: str = "legacy") -> tuple[dict[str, Any], Any, str]:
    async def ask() -> tuple[dict[str, Any], Any, str]:
        async with Client(server.mcp, mode=mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            return tools, client.server_info, client.instructions or ""

    return anyio.run(ask)


def test_there_are_six_tools_and_each_says_what_it_does(mode: str) -> None:
    tools, info, instructions = listed(mode)
    assert (info.name, info.title, info.version) == (
        "mcp-proxmox",
        "Proxmox VE",
        "1.0.0",
    )
    assert "List first" in instructions
    assert list(tools) == list(TOOLS)
    for name, (parameters, hints) in TOOLS.items():
        tool, given = tools[name], tools[name].annotations
        kind = (given.read_only_hint, given.destructive_hint, given.idempotent_hint)
        assert (kind, given.open_world_hint) == (hints, False)
        assert tool.title
        assert "\n" not in tool.description
        assert list(tool.input_schema["properties"]) == parameters
        for schema in tool.input_schema["properties"].values():
            assert schema["description"]
        assert tool.output_schema["properties"]


def test_no_bounds_are_in_the_schema_and_no_argument_is_beside_it(mode: str) -> None:
    """Clients turn what is out of bounds into what is within, silently."""
    for name, tool in listed(mode)[0].items():
        schema = tool.input_schema
        assert schema["additionalProperties"] is False
        assert not re.search("minimum|maximum|pattern|Length", json.dumps(schema))
        if "vm_id" in schema["properties"]:
            assert schema["required"] == ["vm_id", "node"]
            assert schema["properties"]["vm_id"]["type"] == "integer"
        else:
            assert "required" not in schema, name


def test_what_a_model_has_to_know_is_in_the_tools_and_the_instructions() -> None:
    tools, _, instructions = listed()
    said = {name: json.dumps(tool.model_dump()) for name, tool in tools.items()}
    for name, words in {
        "list_infrastructure": "needs attention",
        "list_machines": "uptime, lock, HA state, tags",
        "stop_machine": "HA cuts the power of a guest that has not obeyed after about 60 s",
        "reboot_machine": "killed by Proxmox and started again",
    }.items():
        assert words in said[name]
    assert (
        "Unless the user has just asked for exactly that, ask first"
        in said["stop_machine"]
    )
    for words in (
        "three lists",
        "inside a guest",
        "history",
        "disks of VMs",
        "deleted",
    ):
        assert words in instructions


def test_the_tools_are_short_to_read_and_listing_them_contacts_nothing(
    configured: dict[str, str], cluster: Cluster
) -> None:
    tools = listed()[0].values()
    read = [(tool.name, tool.description, tool.input_schema) for tool in tools]
    assert sum(len(json.dumps(each)) for each in read) <= 3000
    assert cluster.sent == []


def test_list_infrastructure(call: Call, demo: Cluster) -> None:
    answer = call("list_infrastructure")
    tally = (
        "Cluster demo, quorate: 2 of 3 nodes online, CPU 12 % of 32, "
        "memory 36.0/126.0 GiB"
    )
    assert answer.text == (
        "Needs attention:\n"
        "- Node pve3 is offline.\n"
        "- Storage old-nas is not active on pve1, pve2.\n"
        f"{tally}\n"
        "pve1 online, CPU 20 % of 16, memory 25.0/63.0 GiB, root disk 9.0/94.0 GiB, "
        "load 0.52 0.40 0.31, up 12d 4h, version 9.1.2\n"
        "pve2 online, CPU 5 % of 16, memory 11.0/63.0 GiB, root disk 9.0/94.0 GiB, "
        "load 0.52 0.40 0.31, up 12d 4h, version 9.1.2\n"
        "pve3 offline"
    )
    assert answer.data["cluster"] == "demo"
    assert answer.data["quorate"] is True
    assert answer.data["notes"] == [tally]
    assert answer.data["attention"][0] == "Node pve3 is offline."
    memory = {"memory_used": 36 * GIB, "memory_total": 126 * GIB}
    cpu = {"cpu": pytest.approx(0.125), "cpus": 32}
    assert answer.data["totals"] == {"nodes": 3, "online": 2} | cpu | memory
    pve1, _, pve3 = answer.data["nodes"]
    assert pve1 == (
        {"node": "pve1", "status": "online"}
        | {"cpu": 0.2, "cpus": 16}  # of /nodes: the node's own first answer is 0
        | {"memory_used": 25 * GIB, "memory_total": 63 * GIB}
        | {"disk_used": 9 * GIB, "disk_total": 94 * GIB}
        | {"uptime": 1_052_000, "load": [0.52, 0.40, 0.31], "version": "9.1.2"}
        | {"maintenance": False}
    )
    gone = {"node": "pve3", "status": "offline", "maintenance": False}
    assert known(pve3) == gone


def test_list_machines(call: Call, demo: Cluster) -> None:
    answer = call("list_machines")
    assert answer.text == MACHINES
    machines = {each["vm_id"]: each for each in answer.data["machines"]}
    assert list(machines) == sorted(machines)
    assert machines[100] == (
        {"vm_id": 100, "name": "web", "node": "pve1", "type": "qemu"}
        | {"status": "running", "cpu": pytest.approx(0.07), "cpus": 4}
        | {"memory_used": 2 * GIB, "memory_total": 4 * GIB}
        | {"uptime": pytest.approx(12 * 86_400, abs=5), "tags": ["prod", "front"]}
    )
    lost = {"vm_id": 107, "node": "pve3", "type": "qemu", "status": "unknown"}
    assert machines[107] == lost | {"live": False}
    schema = listed()[0]["list_machines"].output_schema["$defs"]["Machine"]
    left_out = schema["properties"].keys() - machines[107].keys()
    for key in left_out:  # the schema has what they hold
        assert "default" in schema["properties"][key], key
    assert answer.data["notes"] == MACHINES.splitlines()[:2]
    assert (answer.data["total"], answer.data["not_shown"]) == (11, 0)


@pytest.mark.parametrize(
    ("filters", "ids", "first"),
    [
        (
            {"node": "pve2"},
            [101, 104, 106, 201],
            "4 machines on pve2: 2 running, 2 stopped",
        ),
        ({"status": "paused"}, [103], "1 machine on 1 node: 1 paused"),
        ({"status": " Paused ", "node": "", "name": " "}, [103], "1 machine on 1 node"),
        ({"node": "pve2", "status": "stopped"}, [106, 201], "2 machines on pve2"),
        ({"node": "pve2", "status": "paused"}, [], "No machines on pve2 with status"),
        ({"node": "pve3", "status": None}, [107], "1 machine on pve3: 1 unknown"),
        ({"name": "PROD"}, [100, 101], "2 machines on 2 nodes"),
        ({"name": "win", "node": "null"}, [105], "1 machine on 1 node"),
    ],
)
def test_filters_narrow_the_list_of_machines(
    call: Call, demo: Cluster, filters: Row, ids: list[int], first: str
) -> None:
    answer = call("list_machines", **filters)
    assert [each["vm_id"] for each in answer.data["machines"]] == ids
    assert answer.text.startswith(first)
    assert answer.data["total"] == len(ids)


def test_a_filter_asks_no_other_node_and_one_that_is_none_names_those_there_are(
    call: Call, demo: Cluster
) -> None:
    call("list_machines", node="pve2")
    answer = call("list_machines", node="pve9")
    assert answer.is_error
    assert "no node pve9. Nodes: pve1, pve2, pve3." in answer.text
    for name in ("PVE1", "pve1.example.com"):
        assert f"no node {name}. Nodes: pve1," in call("list_machines", node=name).text
    assert not [path for _, path in demo.sent if "/nodes/pve1" in path]


def test_a_list_too_long_to_be_read_says_what_brings_the_rest(
    call: Call, cluster: Cluster
) -> None:
    cluster.pve.add_node("pve2")
    for n in range(100, 1400):
        cluster.pve.add_vm(n, f"machine-number-{n}", node=f"pve{n % 2 + 1}")
    answer = call("list_machines")
    assert 39_000 < len(answer.text) <= 40_000
    rows = [line for line in answer.text.splitlines() if "machine-number" in line]
    more = (
        "more rows are not shown. Narrow the list by node, status or name to see them."
    )
    assert f"\n{1300 - len(rows):,} {more}\n" in answer.text
    content = answer.data
    size = len(json.dumps(content, separators=(",", ":")))
    assert 59_000 < size <= 60_000
    assert content["total"] == len(content["machines"]) + content["not_shown"] == 1300
    assert content["notes"][1:3] == ["pve1: 650 stopped", "pve2: 650 stopped"]
    assert content["notes"][-1] == f"{content['not_shown']:,} {more}"


def test_list_storage(call: Call, demo: Cluster) -> None:
    answer = call("list_storage")
    assert answer.text == STORAGES
    storages = {(s["storage"], *s["nodes"]): s for s in answer.data["storages"]}
    assert [s for s, *_ in storages] == [
        row.partition(",")[0] for row in STORAGES.splitlines()[2:]
    ]
    nodes = ["pve1", "pve2", "pve3"]
    assert storages["nfs1", *nodes] == (
        {"storage": "nfs1", "type": "nfs", "nodes": nodes, "shared": True}
        | {"active": True, "content": ["images", "iso"]}
        | {"used": 6 << 40, "total": 10 << 40, "available": 4 << 40}
    )
    assert known(storages["old-nas", *nodes]) == (
        {"storage": "old-nas", "type": "cifs", "nodes": nodes, "shared": True}
        | {"active": False, "content": ["backup"]}
    )
    assert storages["local", "pve3"]["active"] is None


def test_start_machine(call: Call, demo: Cluster) -> None:
    answer = call("start_machine", vm_id="106", node="pve2")  # a string will do
    assert answer.text == "Started VM 106 (build) on pve2; it is running."
    assert demo.posts == ["/pve2/qemu/106/status/start"]
    assert answer.data == (
        {"vm_id": 106, "name": "build", "node": "pve2", "type": "qemu"}
        | {"action": "start", "status": "running", "changed": True, "finished": True}
        | {"task": demo.pve.tasklog[-1]["upid"], "message": answer.text}
    )


@pytest.mark.parametrize(
    ("tool", "more", "path", "says"),
    [
        ("stop_machine", {}, "lxc/200/status/shutdown", "Shut down container 200"),
        ("stop_machine", {"force": True}, "qemu/105/status/stop", "Cut the power"),
        ("reboot_machine", {}, "qemu/100/status/reboot", "Rebooted VM 100"),
        ("reboot_machine", {}, "lxc/200/status/reboot", "Rebooted container 200"),
    ],
)
def test_stop_and_reboot_machine(
    call: Call, demo: Cluster, tool: str, more: Any, path: str, says: str
) -> None:
    answer = call(tool, vm_id=int(path.split("/")[1]), node="pve1", **more)
    assert answer.text.startswith(says)
    assert demo.posts == [f"/pve1/{path}"]
    status = "running" if tool == "reboot_machine" else "stopped"
    assert answer.data["status"] == status
    assert answer.data["changed"] is answer.data["finished"] is True


def test_a_standalone_host_has_no_cluster(call: Call, cluster: Cluster) -> None:
    cluster.edit["/cluster/status"] = lambda rows: [rows[1] | {"nodeid": 0}]
    cluster.pve.add_vm(100, "web", status="running")
    answer = call("list_infrastructure")
    assert answer.data["cluster"] is answer.data["quorate"] is None
    assert "\n1 of 1 node online, CPU 2 % of 4" in answer.text
    assert list(call("list_machines").data["machines"][0].values())[:2] == [100, "web"]
    assert not call("stop_machine", vm_id=100, node="pve1").is_error


def test_the_client_by_itself(proxmox: ProxmoxClient, demo: Cluster) -> None:
    assert [node.node for node in proxmox.get_nodes()] == ["pve1", "pve2", "pve3"]
    assert proxmox.get_node_resources("pve1").swap_total == 8 * GIB
    names = [storage.storage for storage in proxmox.get_storage_status("pve1")]
    assert names == ["local", "local-lvm", "nfs1", "old-nas"]
    assert proxmox.get_machine_status("pve1", 103).status == "paused"
    assert len(proxmox.get_all_machines().machines) == 11
    assert proxmox.set_machine_state("pve2", 106, "start").status == "running"
