"""What the tools answer, and the bounds of what they are asked.

Node, NodeResources, Totals, Infrastructure    the physical servers
Machine, Machines                              VMs and containers
Storage, Storages                              storages
PowerResult, Action                            what a power action did; what there is
NODE_PATTERN, MAX_NODE_NAME, MIN_VM_ID, MAX_VM_ID    of names and ids

Sizes are bytes, CPU is a fraction 0..1, times are seconds; what is not known is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NODE_PATTERN = r"^[a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?$"
MAX_NODE_NAME = 63
MIN_VM_ID, MAX_VM_ID = 100, 999_999_999

Action = Literal["start", "stop", "shutdown", "reboot"]


@dataclass
class Node:
    """A physical server. Its figures are null while it is offline and without Sys.Audit
    on /nodes/NODE. cpu is a fraction of all cpus; memory and disk (the root file
    system) are bytes, uptime is seconds, load is the averages of 1, 5, 15 minutes."""

    node: str
    status: str  # online | offline | unknown (no statistics; usually it still answers)
    cpu: float | None = None
    cpus: int | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    disk_used: int | None = None
    disk_total: int | None = None
    uptime: int | None = None
    load: list[float] | None = None
    version: str | None = None


@dataclass
class NodeResources(Node):
    """What a node says of itself, with its swap in bytes."""

    swap_used: int | None = None
    swap_total: int | None = None


@dataclass
class Totals:
    """Sums over the online nodes; cpu is a fraction, weighted by each node's cpus."""

    nodes: int
    online: int
    cpu: float | None
    cpus: int | None
    memory_used: int | None
    memory_total: int | None


@dataclass
class Infrastructure:
    """The cluster. cluster and quorate are null on a standalone host and without
    Sys.Audit on /. notes say what could not be had."""

    cluster: str | None
    quorate: bool | None
    nodes: list[Node]
    totals: Totals
    notes: list[str]


@dataclass
class Machine:
    """A VM (qemu) or container (lxc). cpu is a fraction of its cpus, memory is bytes,
    uptime is seconds; null where unknown. status is running, stopped, unknown (its node
    is offline) or a QEMU state such as paused. live is false for the last known state
    of a machine whose node did not answer."""

    vm_id: int
    name: str | None
    node: str
    type: str
    status: str
    cpu: float | None
    cpus: float | None
    memory_used: int | None
    memory_total: int | None
    uptime: int | None
    template: bool
    lock: str | None
    tags: list[str]
    live: bool

    @property
    def label(self) -> str:
        kind = "VM" if self.type == "qemu" else "container"
        return f"{kind} {self.vm_id} ({self.name or 'no name'}) on {self.node}"


@dataclass
class Machines:
    """Every machine, by vm_id. notes say what could not be had."""

    machines: list[Machine]
    notes: list[str]


@dataclass
class Storage:
    """A storage: a shared one once with all its nodes, a local one for each node. Sizes
    are bytes, null while it is inactive; active is null where unknown."""

    storage: str
    type: str
    nodes: list[str]
    shared: bool
    active: bool | None
    content: list[str]
    used: int | None
    total: int | None
    available: int | None


@dataclass
class Storages:
    """Every storage, by name and node. notes say what could not be had."""

    storages: list[Storage]
    notes: list[str]


@dataclass
class PowerResult:
    """What a power action did. status is the state after it, read live; changed is
    false where nothing had to be done, finished is false where it still goes on; task
    is the UPID of Proxmox's task, null where there is none."""

    vm_id: int
    name: str | None
    node: str
    type: str
    action: str
    status: str
    changed: bool
    finished: bool
    task: str | None
    message: str
