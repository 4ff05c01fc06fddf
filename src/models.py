"""What the tools answer, and the bounds of what they are asked.

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
    """A physical server. Its figures are null while it is offline or does not answer,
    and without Sys.Audit on /nodes/NODE. cpu is a fraction of all cpus; memory and disk
    (the root file system) are bytes, uptime is seconds, load is the averages of 1, 5, 15
    minutes. In (HA) maintenance HA moves its machines away."""

    node: str
    status: str  # online | offline | unknown (no statistics, or it does not answer)
    cpu: float | None = None
    cpus: int | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    disk_used: int | None = None
    disk_total: int | None = None
    uptime: int | None = None
    load: list[float] | None = None
    version: str | None = None
    maintenance: bool = False


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
    """The cluster. attention says what a person should look at. cluster and quorate are
    null on a standalone host and without Sys.Audit on /. notes have the tally and say what
    could not be had; not_shown counts the nodes that are left out, there being too many.
    Keys that are left out hold their default."""

    attention: list[str]
    cluster: str | None
    quorate: bool | None
    nodes: list[Node]
    totals: Totals
    notes: list[str]
    not_shown: int = 0


@dataclass(kw_only=True)
class Machine:
    """A VM (qemu) or container (lxc). cpu is a fraction of its cpus, memory is bytes,
    uptime is seconds; null where unknown, and while it is stopped. status is running,
    stopped, unknown (its node is offline) or a QEMU state such as paused. ha is its state
    in HA, null where HA does not manage it. live is false for the last known state of a
    machine whose node did not answer. Keys that are left out hold their default."""

    vm_id: int
    name: str | None = None
    node: str
    type: str
    status: str
    cpu: float | None = None
    cpus: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    uptime: int | None = None
    template: bool = False
    lock: str | None = None
    tags: tuple[str, ...] = ()
    ha: str | None = None
    live: bool = True

    @property
    def managed(self) -> bool:
        """Whether HA starts and stops it: what is asked of it is only a request then."""
        return self.ha not in (None, "ignored")

    @property
    def label(self) -> str:
        kind = "VM" if self.type == "qemu" else "container"
        return f"{kind} {self.vm_id} ({self.name or 'no name'}) on {self.node}"

    @property
    def subject(self) -> str:
        """The label at the beginning of a sentence."""
        return self.label[0].upper() + self.label[1:]


@dataclass
class Machines:
    """The machines that match, by vm_id. notes have the tally and say what could not be
    had. total counts the matching machines, not_shown those left out, there being too
    many: a filter brings them."""

    machines: list[Machine]
    notes: list[str]
    total: int = 0
    not_shown: int = 0


@dataclass(kw_only=True)
class Storage:
    """A storage: a shared one once with all its nodes, a local one for each node. Sizes
    are bytes, null while it is inactive; active is null where unknown."""

    storage: str
    type: str
    nodes: list[str]
    shared: bool = False
    active: bool | None = None
    content: tuple[str, ...] = ()
    used: int | None = None
    total: int | None = None
    available: int | None = None

    @property
    def fullness(self) -> float:
        return self.used / self.total if self.used and self.total else 0.0


@dataclass
class Storages:
    """Every storage, fullest first. notes have the tally and say what could not be had.
    total counts the storages, not_shown those left out, there being too many."""

    storages: list[Storage]
    notes: list[str]
    total: int = 0
    not_shown: int = 0


@dataclass
class PowerResult:
    """What a power action did. status is the state after it, read live; changed is
    false where it is what it was before, finished is false where it still goes on; task
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


def goal(action: Action) -> str:
    """The state of a machine that the action is to bring about."""
    return "stopped" if action in ("stop", "shutdown") else "running"
