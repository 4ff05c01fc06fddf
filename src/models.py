"""What the tools return, and what they accept.

Sizes are in bytes, CPU is a fraction from 0 to 1, times are in seconds. An unknown value
is None.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

NODE_PATTERN = r"^[a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?$"
MAX_NODE_NAME = 63
MIN_VM_ID, MAX_VM_ID = 100, 999_999_999

Action = Literal["start", "stop", "shutdown", "reboot"]

# The status that each action leads to.
GOALS: dict[Action, str] = {
    "start": "running",
    "stop": "stopped",
    "shutdown": "stopped",
    "reboot": "running",
}


class Kind(NamedTuple):
    """A kind of guest: what people call it, its command on a node, its tasks' prefix."""

    noun: str
    command: str
    task: str


# What a state of QEMU means, where the guest does not run although nobody stopped it.
STATES = {
    "io-error": "its storage has failed or is full, so QEMU froze it",
    "internal-error": "QEMU failed, and cannot resume it",
    "guest-panicked": "its operating system has crashed",
    "watchdog": "its watchdog stopped it, because the guest hung",
    "shutdown": "the guest is off, but its QEMU process is still running",
}
KINDS = {"qemu": Kind("VM", "qm", "qm"), "lxc": Kind("container", "pct", "vz")}


@dataclass
class Node:
    """A physical server. Its figures are null while it is offline or does not answer, and
    without Sys.Audit on /nodes/NODE. cpu is a fraction of all its cpus. memory and disk
    (the root file system) are in bytes, uptime is in seconds, load has the averages over
    1, 5 and 15 minutes. maintenance is true while it is in HA maintenance mode."""

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
    """A node's own live figures, with its swap in bytes."""

    swap_used: int | None = None
    swap_total: int | None = None


@dataclass
class Totals:
    """Sums over the online nodes. cpu is a fraction, weighted by each node's cpus."""

    nodes: int
    online: int
    cpu: float | None
    cpus: int | None
    memory_used: int | None
    memory_total: int | None


@dataclass
class Infrastructure:
    """The cluster. attention lists what a person should look at, worst first; not_seen what
    it says nothing about. cluster and quorate are null on a standalone host and without
    Sys.Audit on /. notes give the totals and say what could not be read. not_shown counts the
    nodes left out because the answer would be too long."""

    attention: list[str]
    not_seen: list[str]
    cluster: str | None
    quorate: bool | None
    nodes: list[Node]
    totals: Totals
    notes: list[str]
    not_shown: int = 0


@dataclass
class RunningTask:
    """A task that runs: its type in Proxmox, and since when, in seconds since 1970, null if
    unknown."""

    type: str
    since: int | None


@dataclass(kw_only=True)
class Machine:
    """A VM (qemu) or container (lxc). cpu is a fraction of its cpus, memory is in bytes,
    uptime is in seconds; they are null while it is stopped or if unknown. status is
    running, stopped, unknown (its node is offline) or a QEMU state such as paused. ha is
    its HA state, null or ignored if HA does not manage it. task runs on it now. live is false
    if its node did not answer: then its status is the last known one, or unknown if the node
    is offline. A missing key is null, false, [] or, for live, true."""

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
    pool: str | None = None
    ha: str | None = None
    task: RunningTask | None = None
    live: bool = True

    @property
    def managed(self) -> bool:
        """Whether HA starts and stops it, so that an action is only a request to HA."""
        return self.ha not in (None, "ignored", "ignore")

    @property
    def short(self) -> str:
        """VM 100 (web)"""
        return f"{KINDS[self.type].noun} {self.vm_id} ({self.name or self.nameless})"

    @property
    def nameless(self) -> str:
        """What to write for a missing name. Without a node's broadcast it is not known."""
        return "no name" if self.live else "name unknown"

    @property
    def condition(self) -> str:
        """The status, to write after "is": running, or in state io-error."""
        plain = ("running", "stopped", "paused", "suspended", "unknown")
        return self.status if self.status in plain else f"in state {self.status}"

    @property
    def title(self) -> str:
        """The short name, to begin a sentence with."""
        return self.short[0].upper() + self.short[1:]

    @property
    def label(self) -> str:
        """VM 100 (web) on pve1"""
        return f"{self.short} on {self.node}"

    @property
    def subject(self) -> str:
        """The label, to begin a sentence with."""
        return f"{self.title} on {self.node}"


@dataclass
class Machines:
    """The machines that match, by vm_id. notes give the totals and say what could not be
    read. total counts the matching machines, not_shown those left out because the answer
    would be too long: narrow the list to see them."""

    machines: list[Machine]
    notes: list[str]
    total: int = 0
    not_shown: int = 0


@dataclass(kw_only=True)
class Storage:
    """A storage. A shared one is listed once with all its nodes, a local one once for each
    node. Sizes are in bytes, null while it is inactive or if unknown. active is null if unknown."""

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
    """Every storage, fullest first. notes give the totals and say what could not be
    read. total counts the storages, not_shown those left out because the answer would be
    too long."""

    storages: list[Storage]
    notes: list[str]
    total: int = 0
    not_shown: int = 0


@dataclass
class PowerResult:
    """What a power action did. status is the machine's live status after it. changed is
    true if the action, or one already under way, changed the machine; a reboot counts.
    finished is false if the action still goes on. task is the UPID of Proxmox's task, null if
    there is none."""

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
