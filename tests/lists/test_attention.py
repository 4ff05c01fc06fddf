"""Test what needs attention, in cases that no recording shows."""

import re
from typing import Any

from src.lists.attention import needs_attention
from src.models import Node
from src.proxmox.rows import Row
from tests.golden import compare

OK = Node("a", "online", memory_used=89, memory_total=100, disk_used=0, disk_total=9)
VM: Row = {"type": "qemu", "vmid": 100, "name": "web", "node": "a", "status": "running"}
NFS: Row = {"type": "storage", "storage": "nfs", "node": "a", "status": "available"}
NFS |= {"shared": 1, "disk": 89, "maxdisk": 100}
FULL, DEAD = NFS | {"disk": 90}, NFS | {"status": "unknown"}


def attention(*resources: Row, nodes: list[Node] | None = None, **more: Any) -> list[str]:
    given: dict[str, Any] = {"quorate": True, "silent": ()} | more
    return needs_attention(nodes or [OK], given["quorate"], given["silent"], [*resources])


def test_a_healthy_cluster_needs_no_attention() -> None:
    paused = [VM | {"status": state} for state in ("paused", "suspended", "prelaunch")]
    managed = VM | {"hastate": "started"}
    assert attention(VM, NFS, managed, *paused) == []
    assert attention(quorate=None) == []


def test_a_lost_quorum_comes_first_then_nodes_then_the_rest_each_once() -> None:
    nodes = [OK, Node("b", "online", memory_used=90, memory_total=100)]
    nodes += [Node("c", "online", disk_used=96, disk_total=100)]
    nodes += [Node("d", "offline"), Node("e", "unknown")]
    fenced = {"type": "node", "node": "d", "hastate": "fence"}
    own = FULL | {"shared": 0, "storage": "local"}
    # The dead storage of the offline node needs no line.
    storages = [FULL, FULL | {"node": "b"}, own, DEAD | {"node": "d"}]
    storages += [DEAD | {"node": node, "storage": "x"} for node in ("c", "b")]
    lines = attention(VM, fenced, *storages, nodes=nodes, quorate=False, silent={"e"})
    compare("attention", {"a cluster in trouble": "\n".join(lines)})


def test_a_frozen_guest_needs_attention() -> None:
    for state in ("watchdog", "shutdown"):
        (line,) = attention(VM | {"status": state})
        assert re.search(rf"VM 100 \(web\) on a.*\b{state}\b", line)


def test_attention_has_at_most_21_lines() -> None:
    nodes = [Node(f"n{n}", "offline") for n in range(20)]
    assert len(attention(nodes=nodes)) == 20
    found = attention(nodes=[*nodes, Node("x", "offline"), Node("y", "offline")])
    assert len(found) == 21
    assert "2 more" in found[-1]
