"""What a person should look at, to the letter."""

from typing import Any

import pytest

from src.lists.attention import needs_attention
from src.models import Node
from src.proxmox.rows import Row

OK = Node("a", "online", memory_used=89, memory_total=100, disk_used=0, disk_total=9)
VM: Row = {"type": "qemu", "vmid": 100, "name": "web", "node": "a", "status": "running"}
NFS: Row = {"type": "storage", "storage": "nfs", "node": "a", "status": "available"}
NFS |= {"shared": 1, "disk": 89, "maxdisk": 100}
WEB = "VM 100 (web) on a"


def told(*resources: Row, nodes: list[Node] | None = None, **more: Any) -> list[str]:
    given: dict[str, Any] = {"quorate": True, "silent": ()} | more
    return needs_attention(
        nodes or [OK], given["quorate"], given["silent"], [*resources]
    )


def test_a_cluster_in_good_order_needs_none() -> None:
    paused = [VM | {"status": state} for state in ("paused", "suspended", "prelaunch")]
    managed = VM | {"hastate": "started"}
    assert told(VM, NFS, managed, *paused) == []
    assert told(quorate=None) == []


def test_no_quorum_comes_first_and_then_the_nodes() -> None:
    full = Node("b", "online", memory_used=90, memory_total=100)
    disk = Node("c", "online", disk_used=96, disk_total=100)
    nodes = [OK, full, disk, Node("d", "offline"), Node("e", "unknown")]
    fenced = {"type": "node", "node": "d", "hastate": "fence"}
    found = told(VM, fenced, nodes=nodes, quorate=False, silent={"e"})
    assert found == [
        "The cluster has NO QUORUM: nothing can be started.",
        "The memory of node b is 90 % full.",
        "The root disk of node c is 96 % full.",
        "Node d is offline.",
        "Node e does not answer: it may just have died, or hang.",
        "HA is fencing node d: its machines move to other nodes.",
    ]


@pytest.mark.parametrize(
    "state", ["io-error", "internal-error", "guest-panicked", "watchdog", "shutdown"]
)
def test_a_frozen_guest_is_told(state: str) -> None:
    assert told(VM | {"status": state}) == [f"{WEB} is in state {state}."]


def test_what_ha_gave_up_is_told() -> None:
    assert told(VM | {"hastate": "error"}) == [
        f"HA has {WEB} in the state error: it must be disabled in HA and fixed first."
    ]


def test_full_and_inactive_storages_are_told_once() -> None:
    full = NFS | {"disk": 90}
    assert told(full, full | {"node": "b"}) == ["Storage nfs is 90 % full."]
    own = full | {"shared": 0, "storage": "local"}
    assert told(own) == ["Storage local on a is 90 % full."]
    dead = NFS | {"status": "unknown"}
    both = [dead | {"node": "b"}, dead]
    assert told(*both) == ["Storage nfs is not active on a, b."]
    nodes = [OK, Node("b", "offline")]
    assert told(both[0], nodes=nodes) == ["Node b is offline."]


def test_it_is_never_too_long_to_be_read() -> None:
    nodes = [Node(f"n{n}", "offline") for n in range(20)]
    assert len(told(nodes=nodes)) == 20
    found = told(nodes=[*nodes, Node("x", "offline"), Node("y", "offline")])
    assert len(found) == 21
    assert found[-1] == "And 2 more."
