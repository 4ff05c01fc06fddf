"""Test the six tools' answers about a healthy cluster, in both protocol eras."""

import json
import re
from base64 import b64decode
from typing import Any
from xml.etree import ElementTree

import anyio
import pytest
from mcp import Client

from src import server
from src.lists import answers
from tests.cluster import GIB, Cluster, Row
from tests.conftest import Call, caller


@pytest.fixture
def call(mode: str, configured: dict[str, str]) -> Call:
    """Call one tool, in both protocol eras."""
    return caller(mode)


TOOLS = {
    # name: parameters, (read only, destructive, idempotent)
    "list_infrastructure": ([], (True, False, True)),
    "list_machines": (["node", "status", "name", "tag", "pool"], (True, False, True)),
    "list_storage": ([], (True, False, True)),
    "start_machine": (["vm_id", "node"], (False, False, True)),
    "stop_machine": (["vm_id", "node", "force"], (False, True, True)),
    "reboot_machine": (["vm_id", "node"], (False, True, False)),
}


def known(row: Row) -> Row:
    return {key: value for key, value in row.items() if value is not None}


def listed(mode: str = "legacy") -> tuple[dict[str, Any], Any, str]:
    async def ask() -> tuple[dict[str, Any], Any, str]:
        async with Client(server.mcp, mode=mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            return tools, client.server_info, client.instructions or ""

    return anyio.run(ask)


def test_the_tools_may_be_cached_and_no_subscription_is_announced(cluster: Cluster) -> None:
    async def ask() -> tuple[Any, Any]:
        async with Client(server.mcp, mode="auto") as client:
            return await client.list_tools(), client.server_capabilities

    tools, capabilities = anyio.run(ask)
    assert (tools.ttl_ms, tools.cache_scope) == (3_600_000, "public")
    assert not capabilities.tools.list_changed
    assert not capabilities.resources or not capabilities.resources.subscribe


def test_a_wrong_tool_name_is_answered_with_the_names(call: Call, cluster: Cluster) -> None:
    answer = call("delete_machine", vm_id=100)
    begin = 'Nothing was sent to Proxmox: there is no tool "delete_machine". The tools are: '
    assert answer.text == f"{begin}{', '.join(TOOLS)}."
    assert answer.is_error
    assert 'no tool "a b". The' in call("a\n\x1b[31mb").text
    assert not cluster.sent


def test_the_six_tools_describe_themselves_and_their_parameters(
    mode: str, configured: dict[str, str], cluster: Cluster
) -> None:
    tools, info, instructions = listed(mode)
    names = (info.name, info.title, info.version)
    assert names == ("mcp-proxmox", "Proxmox VE", "1.0.0")
    assert instructions
    assert info.description
    assert info.website_url is None  # until the image sets it
    (icon,) = info.icons
    kind, _, picture = icon.src.partition(",")
    assert (kind, icon.mime_type) == ("data:image/svg+xml;base64", "image/svg+xml")
    assert ElementTree.fromstring(b64decode(picture)).tag == "{http://www.w3.org/2000/svg}svg"
    assert list(tools) == list(TOOLS)
    for name, (parameters, hints) in TOOLS.items():
        tool, annotations = tools[name], tools[name].annotations
        given = (annotations.read_only_hint, annotations.destructive_hint)
        assert (*given, annotations.idempotent_hint) == hints
        assert annotations.open_world_hint is False
        assert tool.title
        assert tool.icons is None
        assert "\n" not in tool.description
        assert tool.output_schema["properties"]
        schema = tool.input_schema
        assert list(schema["properties"]) == parameters
        assert all(each["description"] for each in schema["properties"].values())
        assert schema["additionalProperties"] is False
        # With bounds some clients silently send the nearest value within them.
        assert not re.search("minimum|maximum|pattern|Length", json.dumps(schema))
        if "vm_id" in parameters:
            assert schema["required"] == ["vm_id", "node"]
            assert schema["properties"]["vm_id"]["type"] == "integer"
        else:
            assert "required" not in schema, name
    read = [(tool.name, tool.description, tool.input_schema) for tool in tools.values()]
    assert sum(len(json.dumps(each)) for each in read) <= 3000
    assert cluster.sent == []


@pytest.mark.parametrize("tool", TOOLS)
def test_any_client_can_read_the_schemas(tool: str, mode: str, configured: dict[str, str]) -> None:
    """Some clients throw at a reference, and lose the type of a union or of what may be null."""

    def check(schema: Any, is_input: bool) -> None:
        assert not schema.keys() & {"$ref", "$defs", "anyOf", "oneOf", "title", "default"}
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert not is_input or kinds[1:] == []
        assert [kind for kind in kinds if kind != "null"] == kinds[:1]
        for each in [*schema.get("properties", {}).values(), schema.get("items")]:
            if each is not None:
                check(each, is_input)

    found = listed(mode)[0][tool]
    check(found.input_schema, True)
    check(found.output_schema, False)


def test_the_output_schemas_are_short(configured: dict[str, str]) -> None:
    schemas = [tool.output_schema for tool in listed()[0].values()]
    assert sum(len(json.dumps(each, separators=(",", ":"))) for each in schemas) <= 5500


def test_claude_code_shows_long_lists_whole(mode: str, configured: dict[str, str]) -> None:
    for name, tool in listed(mode)[0].items():
        most = (tool.meta or {}).get("anthropic/maxResultSizeChars", 50_000)
        assert (most > answers.MAX_CONTENT) is name.startswith("list_")


def test_list_infrastructure(call: Call, demo: Cluster) -> None:
    content = call("list_infrastructure").data
    assert (content["cluster"], content["quorate"]) == ("demo", True)
    node, storage, paused, locked = content["attention"]
    assert "pve3" in node
    assert "old-nas" in storage
    assert "103" in paused
    assert "104" in locked
    assert content["not_seen"] == ["inside guests", "disks' health", "updates", "replication"]
    memory = {"memory_used": 36 * GIB, "memory_total": 126 * GIB}
    cpu = {"cpu": pytest.approx(0.125), "cpus": 32}
    assert content["totals"] == {"nodes": 3, "online": 2} | cpu | memory
    pve1, _, pve3 = content["nodes"]
    assert pve1 == (
        {"node": "pve1", "status": "online"}
        | {"cpu": 0.2, "cpus": 16}  # from /nodes: the node's own first answer is 0
        | {"memory_used": 25 * GIB, "memory_total": 63 * GIB}
        | {"disk_used": 9 * GIB, "disk_total": 94 * GIB}
        | {"uptime": 1_052_000, "load": [0.52, 0.40, 0.31], "version": "9.1.2"}
        | {"maintenance": False}
    )
    offline = {"node": "pve3", "status": "offline", "maintenance": False}
    assert known(pve3) == offline


def test_list_machines(call: Call, demo: Cluster) -> None:
    answer = call("list_machines")
    content = answer.data
    machines = {each["vm_id"]: each for each in content["machines"]}
    assert list(machines) == sorted(machines)
    ids = re.findall(r"^\d+(?= .+, pve\d,)", answer.text, re.MULTILINE)
    assert ids == list(map(str, machines))
    assert machines[100] == (
        {"vm_id": 100, "name": "web", "node": "pve1", "type": "qemu"}
        | {"status": "running", "cpu": pytest.approx(0.07), "cpus": 4}
        | {"memory_used": 2 * GIB, "memory_total": 4 * GIB}
        | {"uptime": pytest.approx(12 * 86_400, abs=5), "tags": ["prod", "front"]}
    )
    lost = {"vm_id": 107, "node": "pve3", "type": "qemu", "status": "unknown"}
    assert machines[107] == lost | {"live": False}
    schema = listed()[0]["list_machines"].output_schema["properties"]["machines"]["items"]
    assert not machines[107].keys() - schema["properties"].keys()
    assert "A missing key is null, false" in schema["description"]
    assert content["notes"] == answer.text.splitlines()[:3]
    assert (content["total"], content["not_shown"]) == (11, 0)


def test_filters_narrow_the_list_of_machines(call: Call, demo: Cluster) -> None:
    ids: list[int]
    demo.pve.pools["lab"] = {106}
    demo.pve.guest(106).pool = "lab"
    for filters, ids in (
        ({"status": "paused"}, [103]),
        ({"status": " Paused ", "node": "", "name": " "}, [103]),
        ({"name": "PROD"}, []),
        ({"tag": "PROD"}, [100, 101]),
        ({"tag": "pro"}, []),
        ({"pool": "LAB"}, [106]),
        ({"pool": "la"}, []),
        ({"name": "101"}, [101]),
        ({"name": 101}, [101]),
        ({"name": "10"}, []),
        ({"name": "win", "node": "null"}, [105]),
        ({"node": "pve3", "status": None}, [107]),
        ({"node": "pve2"}, [101, 104, 106, 201]),
        ({"node": "pve2", "status": "stopped"}, [106, 201]),
        ({"node": "pve2", "status": "paused"}, []),
    ):
        content = call("list_machines", **filters).data
        assert [each["vm_id"] for each in content["machines"]] == ids, filters
        assert content["total"] == len(ids)


def test_a_node_filter_asks_only_that_node_if_it_exists(call: Call, demo: Cluster) -> None:
    call("list_machines", node="pve2")
    for name in ("pve9", "PVE1", "pve1.example.com"):
        answer = call("list_machines", node=name)
        assert answer.is_error
        assert name in answer.text
        assert "pve1, pve2, pve3" in answer.text
    paths = [path for _, path in demo.sent]
    assert {path.split("/")[4] for path in paths if "/nodes/" in path} == {"pve2"}


def test_a_list_that_is_too_long_says_how_many_rows_it_omits(call: Call, cluster: Cluster) -> None:
    cluster.pve.add_node("pve2")
    for n in range(100, 1400):
        cluster.pve.add_vm(n, f"machine-number-{n}", node=f"pve{n % 2 + 1}")
    content = call("list_machines").data
    assert content["total"] == len(content["machines"]) + content["not_shown"] == 1300
    assert content["notes"][1:3] == ["pve1: 650 stopped", "pve2: 650 stopped"]
    assert content["notes"][-1].startswith(f"{content['not_shown']:,} ")


def test_list_storage(call: Call, demo: Cluster) -> None:
    content = call("list_storage").data
    storages = {(s["storage"], *s["nodes"]): s for s in content["storages"]}
    nodes = ["pve1", "pve2", "pve3"]
    order = "nfs1 local local local-lvm local-lvm old-nas local local-lvm"
    assert " ".join(name for name, *_ in storages) == order
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
    answer = call("start_machine", vm_id="106", node="pve2")  # a string is accepted
    assert answer.data == (
        {"vm_id": 106, "name": "build", "node": "pve2", "type": "qemu"}
        | {"action": "start", "status": "running", "changed": True, "finished": True}
        | {"task": demo.pve.tasklog[-1]["upid"], "message": answer.text}
    )
    assert len(demo.sent) == 6  # where it is, its state, pending changes, POST, task, its state
    again = call("start_machine", vm_id=106, node="pve2")
    unchanged = {"changed": False, "task": None, "message": again.text}
    assert again.data == answer.data | unchanged
    assert demo.posts == ["/pve2/qemu/106/status/start"]
    tasks = "/api2/json/nodes/pve2/tasks?vmid=106&limit=20&source=all"
    assert ("GET", tasks) in demo.sent


def test_a_standalone_host_has_no_cluster(call: Call, cluster: Cluster) -> None:
    cluster.edit["/cluster/status"] = lambda rows: [rows[1] | {"nodeid": 0}]
    cluster.pve.add_vm(100, "web", status="running")
    answer = call("list_infrastructure")
    assert answer.data["cluster"] is answer.data["quorate"] is None
    assert answer.data["totals"]["nodes"] == answer.data["totals"]["online"] == 1
    assert list(call("list_machines").data["machines"][0].values())[:2] == [100, "web"]
    assert not call("stop_machine", vm_id=100, node="pve1").is_error
