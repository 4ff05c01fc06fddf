"""The Proxmox VE side: settings, one door to the API, complete lists, honest power.

Nothing here knows of MCP, and nothing is contacted before the first call. Sizes are
bytes, CPU is a fraction 0..1, times are seconds; what Proxmox does not say is None.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
from proxmoxer import ProxmoxAPI, ResourceException  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter

log = logging.getLogger("mcp-proxmox")

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0  # pveproxy gives up on another node after 30 s too
LIST_PATIENCE = 10.0  # a node that has not answered by then counts as not answering
POWER_PATIENCE = 45.0  # MCP clients commonly give up at 60 s

# A node serves all its guests with three workers, the web interface's calls included.
MAX_REQUESTS = 8
MAX_REQUESTS_A_NODE = 2

NODE_PATTERN = r"^[a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?$"
MIN_VM_ID, MAX_VM_ID = 100, 999_999_999
UPID = re.compile(r"UPID:([a-zA-Z0-9-]+):[0-9A-Fa-f]{8}:[0-9A-Fa-f]{8,9}:[^/\s?#%]+:")

Action = Literal["start", "stop", "shutdown", "reboot"]
Row = dict[str, Any]  # an object as Proxmox answers it
Progress = Callable[[float, float, str], None]  # seconds so far, at most, what for


class ProxmoxError(Exception):
    """A failure that a user can meet; its text says what happened and what to do next.

    `code` is the HTTP status, or "refused", "dropped", "timeout" or "not the API".
    """

    def __init__(self, text: str, code: int | str = "") -> None:
        super().__init__(text)
        self.code = code


# After these nobody knows whether Proxmox carried out what it was sent.
ANSWER_LOST = {"dropped", "timeout", "not the API", 502, 504, *range(595, 600)}


# --- Settings -------------------------------------------------------------------------

PLACEHOLDERS = {  # .env.example's: copied and left as they are, they count as missing
    "PROXMOX_URL": "https://your-proxmox-host:8006",
    "PROXMOX_USER": "your-user@pve",
    "PROXMOX_TOKEN_ID": "your-token-id",
    "PROXMOX_TOKEN_SECRET": "your-token-secret",
}
VARIABLES = (*PLACEHOLDERS, "PROXMOX_VERIFY_SSL")


@dataclass(frozen=True)
class Settings:
    """Where the API is and who asks. Made by `from_env`; its repr hides the secret."""

    host: str
    port: int
    prefix: str  # of the path, behind a reverse proxy
    user: str
    token_name: str
    token_secret: str = field(repr=False)
    verify_ssl: bool | str  # a string is the path of a CA file

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}/{self.prefix}".rstrip("/")

    @property
    def token_id(self) -> str:
        return f"{self.user}!{self.token_name}"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the five PROXMOX_* variables.

        Raises ProxmoxError naming each variable that is missing or malformed.
        """
        problems = []
        values = {name: _unquoted(environ.get(name, "")) for name in VARIABLES}

        def read(name: str, pattern: str, example: str) -> str:
            value = values[name]
            if value in ("", PLACEHOLDERS[name]):
                problems.append(f"{name} is missing, e.g. {example}")
            elif not re.fullmatch(pattern, value):
                problems.append(f"{name} is malformed, e.g. {example}")
            else:
                return value
            return ""

        host, port, prefix = "", 0, ""
        if url := read("PROXMOX_URL", r"(?s:.+)", "https://pve.example.com:8006"):
            try:
                host, port, prefix = _parse_url(url)
            except ValueError as error:
                problems.append(f"PROXMOX_URL {error}, e.g. https://pve.example.com")
        user = read(
            "PROXMOX_USER",
            r'["-.0-9;-~]+@[A-Za-z][A-Za-z0-9._-]*',
            "mcp@pve or root@pam",
        )
        owner, _, token_name = read(
            "PROXMOX_TOKEN_ID",
            r"([!-~]+!)?[A-Za-z][A-Za-z0-9._-]*",
            "mcp-token or mcp@pve!mcp-token",
        ).rpartition("!")
        if owner and user and owner != user:
            problems.append(
                f"PROXMOX_TOKEN_ID names a token of {owner[:64]}, but PROXMOX_USER is "
                f"{user[:64]}: use the token's owner"
            )
        secret = read(
            "PROXMOX_TOKEN_SECRET", r"[!-~]+", "12345678-1234-1234-1234-1234567890ab"
        )
        verify = values["PROXMOX_VERIFY_SSL"] or "true"
        verify_ssl: bool | str = verify.lower() == "true"
        if verify.lower() not in ("true", "false"):
            verify_ssl = verify
            try:
                ssl.create_default_context(cafile=verify)
            except (OSError, ValueError):
                problems.append(
                    "PROXMOX_VERIFY_SSL is neither true nor false nor a CA file that "
                    "can be read here, e.g. /etc/pve/pve-root-ca.pem"
                )
        if problems:
            raise ProxmoxError(
                "The server is not configured. In the environment or in .env, set: "
                + "; ".join(problems)
            )
        return cls(host, port, prefix, user, token_name, secret, verify_ssl)


def _unquoted(value: str) -> str:
    """The value without the pair of quotes that `docker --env-file` leaves on it."""
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1].strip()
    return value


def _parse_url(url: str) -> tuple[str, int, str]:
    """Host, port and path prefix. ValueError says what is wrong with the URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme == "http":
        raise ValueError("starts with http://, which would send the token in clear")
    prefix = parts.path.strip("/").removesuffix("api2/json").rstrip("/")
    label = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    if (
        parts.scheme != "https"
        or "@" in parts.netloc
        or port == 0
        or not re.fullmatch(rf"{label}(\.{label})*\.?|[0-9a-f:]+[0-9.]*", host)
        or not re.fullmatch(
            r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*", prefix and f"/{prefix}"
        )
    ):
        raise ValueError("is not https://host:port")
    return host, port or 8006, prefix


# --- What the tools answer ------------------------------------------------------------


@dataclass
class Node:
    """A physical server. Its figures are null while it is offline, and without Sys.Audit
    on /nodes/NODE. cpu is a fraction of all cpus; memory and disk (the root file system)
    are bytes, uptime is seconds, load the averages over 1, 5 and 15 minutes."""

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
    is offline) or a QEMU state such as paused. live is false for the last known state of
    a machine whose node did not answer."""

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
    """What a power action did. status is the state after it, read live; changed is false
    where nothing had to be sent; finished is false where it still goes on; task is the
    UPID of Proxmox's task, null where there is none."""

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


# --- Reading rows: pure functions -----------------------------------------------------


def _number(value: Any) -> float | None:
    """A finite number; Proxmox sends some as strings (load, cpus of a container)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _int(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _flag(value: Any) -> bool:
    """Proxmox's booleans are 1 or "1", and 0 or absent."""
    return value in (1, "1")


def read_node(row: Row) -> Node:
    """A Node from a row of /nodes."""
    return Node(
        node=str(row["node"]),
        status=str(row.get("status") or "unknown"),
        cpu=_number(row.get("cpu")),
        cpus=_int(row.get("maxcpu")),
        memory_used=_int(row.get("mem")),
        memory_total=_int(row.get("maxmem")),
        disk_used=_int(row.get("disk")),
        disk_total=_int(row.get("maxdisk")),
        uptime=_int(row.get("uptime")),
    )


def read_node_resources(node: str, row: Row) -> NodeResources:
    """A NodeResources from /nodes/{node}/status."""
    memory, swap, disk = (row.get(key) or {} for key in ("memory", "swap", "rootfs"))
    load = [
        number
        for text in row.get("loadavg") or ()
        if (number := _number(text)) is not None
    ]
    version = str(row.get("pveversion") or "").split("/")  # pve-manager/9.1.2/hash
    return NodeResources(
        node=node,
        status="online",
        cpu=_number(row.get("cpu")),
        cpus=_int((row.get("cpuinfo") or {}).get("cpus")) or None,
        memory_used=_int(memory.get("used")),
        memory_total=_int(memory.get("total")),
        disk_used=_int(disk.get("used")),
        disk_total=_int(disk.get("total")),
        uptime=_int(row.get("uptime")),
        load=load if len(load) == 3 else None,
        version=version[min(1, len(version) - 1)] or None,
        swap_used=_int(swap.get("used")),
        swap_total=_int(swap.get("total")),
    )


def add_up(nodes: list[Node]) -> Totals:
    """The totals of the online nodes; a sum over nothing is None."""
    online = [node for node in nodes if node.status == "online"]
    busy = [(n.cpu, n.cpus) for n in online if n.cpu is not None and n.cpus]
    weight = sum(cpus for _, cpus in busy)

    def total(values: Iterable[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return Totals(
        nodes=len(nodes),
        online=len(online),
        cpu=sum(cpu * cpus for cpu, cpus in busy) / weight if weight else None,
        cpus=total(node.cpus for node in online),
        memory_used=total(node.memory_used for node in online),
        memory_total=total(node.memory_total for node in online),
    )


def lay_machines(
    ground: list[Row], live: list[Row], offline: set[str]
) -> list[Machine]:
    """Every machine exactly once: what its node said live, on the broadcast as ground.

    `ground` is /cluster/resources?type=vm; `live` are rows of /nodes/{node}/qemu and
    /lxc, with "node" and "type" added.
    """
    known: dict[int, Row] = {}
    for row in ground:
        vm_id = _int(row.get("vmid"))
        if row.get("type") in ("qemu", "lxc") and row.get("node") and vm_id is not None:
            known[vm_id] = row
    answered: dict[int, Row] = {}
    for row in live:
        vm_id = _int(row.get("vmid"))
        if vm_id is None:
            continue
        # A machine that migrates between two answers is in both, or in none.
        if vm_id not in answered or known.get(vm_id, {}).get("node") == row["node"]:
            answered[vm_id] = row
    return [
        read_machine(vm_id, answered.get(vm_id), known.get(vm_id, {}), offline)
        for vm_id in sorted(known.keys() | answered.keys())
    ]


def read_machine(
    vm_id: int, live: Row | None, ground: Row, offline: Iterable[str] = ()
) -> Machine:
    """A Machine from its node's row, if that answered, and its row of the broadcast."""
    row = ground if live is None else live
    node = str(row["node"])
    lost = live is None and node in offline
    status = str(row.get("status") or "unknown")
    cpu = row.get("cpu")
    if lost:
        status = "unknown"  # the broadcast keeps "running" for five minutes
    elif live is not None and status == "running":
        # The lists know only running and stopped; a row of status/current and the
        # broadcast tell a paused VM. The first live cpu after a while is always 0.
        finer = live.get("qmpstatus") or ground.get("status")
        status = status if finer in (None, "stopped", "unknown") else str(finer)
        cpu = ground.get("cpu", cpu)
    return Machine(
        vm_id=vm_id,
        name=row.get("name") or ground.get("name"),
        node=node,
        type=str(row["type"]),
        status=status,
        cpu=None if lost else _number(cpu),
        cpus=_number(row.get("cpus", row.get("maxcpu"))),
        memory_used=None if lost else _int(row.get("mem")),
        memory_total=_int(row.get("maxmem")),
        uptime=None if lost else _int(row.get("uptime")),
        template=_flag(row.get("template")),
        lock=row.get("lock") or None,
        tags=re.findall(r"[^;, ]+", str(row.get("tags") or "")),
        live=live is not None,
    )


def lay_storages(
    ground: list[Row], live: list[Row], silent: set[str], offline: set[str]
) -> list[Storage]:
    """Every storage once, a local one once a node.

    `live` are rows of /nodes/{node}/storage, with "node" added. The nodes in `silent`
    and `offline` have their rows of `ground`, /cluster/resources?type=storage.
    """
    rows = [
        _read_storage(row, row.get("type"), _flag(row.get("active")))
        for row in live
        # Not enabled: disabled, or assigned to other nodes only.
        if row.get("storage") and _flag(row.get("enabled", 1))
    ] + [
        _read_storage(
            row,
            row.get("plugintype"),
            row.get("status") == "available" and row["node"] in silent or None,
        )
        for row in ground
        if row.get("type") == "storage"
        and row.get("storage")
        and row.get("node") in silent | offline
    ]
    stores: dict[tuple[str, str], list[Storage]] = {}
    for row in rows:
        stores.setdefault((row.storage, "" if row.shared else row.nodes[0]), []).append(
            row
        )
    rank = {True: 0, False: 1, None: 2}
    return [
        replace(
            min(store, key=lambda row: rank[row.active]),
            nodes=sorted(row.nodes[0] for row in store),
        )
        for _, store in sorted(stores.items())
    ]


def _read_storage(row: Row, type_: Any, active: bool | None) -> Storage:
    return Storage(
        storage=str(row["storage"]),
        type=str(type_ or "unknown"),
        nodes=[str(row["node"])],
        shared=_flag(row.get("shared")),
        active=active,
        content=sorted(filter(None, str(row.get("content") or "").split(","))),
        # An inactive storage shows zeros.
        used=_int(row.get("used", row.get("disk"))) if active else None,
        total=_int(row.get("total", row.get("maxdisk"))) if active else None,
        available=_int(row.get("avail")) if active else None,
    )


# --- Power: what is checked and said, pure --------------------------------------------


@dataclass(eq=False)
class _Power:
    """One power action on its way."""

    node: str
    vm_id: int
    action: Action
    progress: Progress | None = None
    label: str = ""
    task: str | None = None
    sent: float | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def deadline(self) -> float:
        return self.began + POWER_PATIENCE

    @property
    def goal(self) -> str:
        return "stopped" if self.action in ("stop", "shutdown") else "running"

    def soon(self) -> float:
        """A deadline for one look: none may use up the whole wait."""
        now = time.monotonic()
        return max(min(self.deadline, now + LIST_PATIENCE), now + CONNECT_TIMEOUT)

    def ticks(self) -> Iterator[None]:
        """Yield at once, then after growing pauses of at most 1 s, until the deadline."""
        pause, told = 0.05, time.monotonic()
        while True:
            yield
            now = time.monotonic()
            if now >= self.deadline:
                return
            if self.progress and now - told >= 0.7:
                told = now
                self.progress(
                    now - self.began, POWER_PATIENCE, f"{self.action} {self.label}"
                )
            time.sleep(min(pause, self.deadline - now))
            pause = min(2 * pause, 1.0)

    def rebooted(self, before: Machine, after: Machine) -> bool:
        """It runs for less long than before, or than since the request was sent."""
        since = time.monotonic() - (self.sent or self.began)
        return after.uptime is not None and (
            after.uptime < (before.uptime or 0) or after.uptime <= since
        )

    def result(
        self,
        machine: Machine,
        message: str,
        changed: bool = True,
        finished: bool = True,
    ) -> PowerResult:
        return PowerResult(
            vm_id=machine.vm_id,
            name=machine.name,
            node=machine.node,
            type=machine.type,
            action=self.action,
            status=machine.status,
            changed=changed,
            finished=finished,
            task=self.task,
            message=message,
        )

    def audit(self, outcome: str) -> None:
        log.info(
            "audit action=%s machine=%s node=%s task=%s outcome=%s",
            self.action,
            self.vm_id,
            json.dumps(self.node),
            self.task or "none",
            json.dumps(outcome.splitlines()[0][:400] if outcome else ""),
        )

    def done(self, machine: Machine) -> str:
        said = {
            "start": "Started {}; it is running.",
            "stop": "Cut the power of {}; it is stopped.",
            "shutdown": "Shut down {}; it is stopped.",
            "reboot": "Rebooted {}; it is running again.",
        }
        return said[self.action].format(machine.label)

    def unfinished(self, machine: Machine | None) -> str:
        """Where things stand when the wait is over; `machine` is None if it cannot be seen."""
        seen = f"it is {machine.status}" if machine else "it cannot be seen"
        return (
            f"The {self.action} of {self.label} is not finished after "
            f"{POWER_PATIENCE:.0f} s: {seen}, and task {self.task} may still go on. Call "
            f'list_machines(node="{self.node}") in a minute. {self.advice(machine)}'
        ).rstrip()

    def advice(self, machine: Machine | None, reason: str = "") -> str:
        """What to do about an action that failed for a reason, or goes on."""
        status = machine.status if machine else "unknown"
        if status == self.goal and self.action != "reboot":
            return ""
        if "lock" in reason:
            return "Another task is at work on it: look again in a minute."
        if self.action == "start":
            return (
                "Remove the cause before you call start_machine again."
                if reason
                else ""
            )
        if self.action == "stop":
            return "Look at the node's tasks in Proxmox before you try again."
        if status == "stopped":
            return "If it stays stopped, call start_machine."
        then = " and start_machine" if self.action == "reboot" else ""
        return (
            f"A guest that ignores this takes stop_machine(force=True){then}: it cuts the "
            "power and loses what is not saved. Ask the user first."
        )


def check_target(node: str, vm_id: int = MIN_VM_ID) -> None:
    """Refuse what must not get into a URL; nothing is sent before this."""
    if not re.fullmatch(NODE_PATTERN, node):
        raise ProxmoxError(
            "node is not a node's name: letters, digits and hyphens only, e.g. pve1. Call "
            "list_infrastructure to see the nodes."
        )
    if not MIN_VM_ID <= vm_id <= MAX_VM_ID:
        raise ProxmoxError(
            f"vm_id is not from {MIN_VM_ID} to {MAX_VM_ID}. Call list_machines to see them."
        )


def unknown_node(node: str, nodes: Iterable[str]) -> ProxmoxError:
    return ProxmoxError(
        f"There is no node {node}. The nodes are: {', '.join(sorted(nodes))}."
    )


def refusal(machine: Machine, action: Action) -> str | None:
    """Why the action cannot work on a machine in this state, and what to do; or None."""
    label, lock = machine.label, machine.lock
    if machine.template:
        return f"{label} is a template, which never runs. Clone it in Proxmox, start the clone."
    if action == "reboot" and machine.status == "stopped":
        return f"{label} is stopped and cannot reboot. Call start_machine instead."
    # A hibernated VM has the lock suspended, and starting resumes it.
    exempt = {("start", "suspended"), ("start", "mounted"), ("stop", "mounted")}
    if lock and (action, lock) not in exempt:
        tool = "qm" if machine.type == "qemu" else "pct"
        return (
            f"{label} is locked ({lock}). Wait until that task is over and try again; if none "
            f"runs, an administrator removes the lock with: {tool} unlock {machine.vm_id}"
        )
    if machine.status not in ("running", "stopped") and action != "stop":
        return (
            f"{label} is {machine.status}: its guest does not run, so a {action} cannot work. "
            "Resume it in Proxmox, or call stop_machine(force=True), which cuts its power and "
            "loses what it has not saved."
        )
    return None


# --- Lists: what came of asking -------------------------------------------------------


@dataclass
class _Survey:
    """What every node and the broadcast answered."""

    nodes: dict[str, Row]
    offline: set[str]
    answers: dict[str, Any] = field(default_factory=dict)
    silent: dict[str, ProxmoxError] = field(default_factory=dict)
    ground: list[Row] = field(default_factory=list)
    ground_error: ProxmoxError | None = None

    def raise_if_empty(self) -> None:
        """Raise what went wrong where nothing at all could be had."""
        if self.ground_error and len(self.silent) == len(self.nodes) - len(
            self.offline
        ):
            raise self.ground_error

    def failures(self, consequence: str) -> list[str]:
        """A note for each kind of failure, naming the nodes that had it."""
        kinds: dict[int | str, list[str]] = {}
        for name, error in sorted(self.silent.items()):
            kinds.setdefault(error.code, []).append(name)
        return [
            f"{', '.join(names)} did not answer: {consequence}. {self.silent[names[0]]}"
            for names in kinds.values()
        ]

    def notes(self, things: str) -> list[str]:
        """What a list of machines or storages is missing, and why."""
        notes = self.failures(f"its {things} are shown as last known")
        notes += [
            f"{name} is offline: the state of its {things} is unknown."
            for name in sorted(self.offline)
        ]
        if self.ground_error:
            notes.append(
                f"The cluster's broadcast is missing, and with it the {things} of nodes "
                f"that did not answer. {self.ground_error}"
            )
        return notes


def _result(future: Future[Any]) -> Any:
    """A future's result; one that is not there yet counts as not answering."""
    if not future.done() or future.cancelled():
        raise ProxmoxError(f"It gave no answer within {LIST_PATIENCE:.0f} s.", "timeout")
    return future.result()


def _row_of(vm_id: int, rows: list[Row]) -> Row | None:
    """The machine's row among those of /cluster/resources."""
    guests = (row for row in rows if row.get("type") in ("qemu", "lxc"))
    return next((row for row in guests if _int(row.get("vmid")) == vm_id), None)


def overlay(node: Node, live: NodeResources | None) -> Node:
    """A node of /nodes with what it says of itself; cpu stays, where known."""
    if live is None:
        return node
    known = {k: v for k in vars(node) if (v := getattr(live, k)) is not None}
    if node.cpu is not None:
        known["cpu"] = node.cpu
    return replace(node, **known)


def _root_cause(error: BaseException) -> BaseException:
    """The innermost of the exceptions that requests and urllib3 wrap in each other."""
    inner = (
        *error.args,
        getattr(error, "reason", None),
        error.__cause__,
        error.__context__,
    )
    cause = next((each for each in inner if isinstance(each, BaseException)), None)
    return error if cause is None else _root_cause(cause)


# --- The door -------------------------------------------------------------------------


class _Transport(HTTPAdapter):
    """What proxmoxer leaves out: a gate, a deadline and Proxmox's own words."""

    def __init__(self) -> None:
        super().__init__(pool_maxsize=MAX_REQUESTS)
        self.limit = threading.local()  # .deadline of the request this thread sends

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        path = urlsplit(request.url or "").path
        if request.method != "GET" and not (
            request.method == "POST"
            and re.search(r"/(qemu|lxc)/\d+/status/(start|stop|shutdown|reboot)$", path)
        ):
            raise ProxmoxError(
                f"{request.method} {path} is not for this server; not sent."
            )
        left = self.limit.deadline - time.monotonic()
        if left <= 0:
            raise requests.Timeout
        timeouts = (min(CONNECT_TIMEOUT, left), min(READ_TIMEOUT, left))
        response = super().send(request, stream, timeouts, verify, cert, proxies)
        if response.status_code >= 400:
            # proxmoxer tells the reason phrase, which is the first line only and is lost
            # behind HTTP/2; Proxmox's whole text is in the body, since PVE 8.3.
            try:
                response.reason = response.json()["message"].strip() or response.reason
            except (ValueError, KeyError, TypeError, AttributeError):
                pass  # an older Proxmox, or an empty body: the reason phrase stays
        return response


class ProxmoxClient:
    """A thin client of the Proxmox VE API, safe to use from several threads.

    Every method raises ProxmoxError, and nothing else, for what a user can meet.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._api = ProxmoxAPI(
            settings.host,
            port=settings.port,
            path_prefix=settings.prefix or None,
            user=settings.user,
            token_name=settings.token_name,
            token_value=settings.token_secret,
            verify_ssl=settings.verify_ssl,
            timeout=READ_TIMEOUT,
        )
        self._transport = _Transport()
        session = self._api._store["session"]  # proxmoxer has no public way to it
        session.mount("https://", self._transport)
        session.max_redirects = 0  # the API never redirects; a login page does
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._gate = threading.BoundedSemaphore(MAX_REQUESTS)
        self._node_gates: dict[str, threading.BoundedSemaphore] = {}
        self._actions: set[_Power] = set()

    # Requests

    def _get(
        self, resource: Any, deadline: float, node: str = "", **params: Any
    ) -> Any:
        """GET, once more where the connection was dropped: pveproxy closes idle ones."""
        try:
            return self._send(resource.get, deadline, node, **params)
        except ProxmoxError as error:
            if error.code != "dropped":
                raise
            return self._send(resource.get, deadline, node, **params)

    def _rows(
        self, resource: Any, deadline: float, node: str = "", **params: Any
    ) -> list[Row]:
        """GET of a list of objects."""
        rows = self._get(resource, deadline, node, **params)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._not_the_api()
        return rows

    def _object(self, resource: Any, deadline: float, node: str) -> Row:
        """GET of one object."""
        row = self._get(resource, deadline, node)
        # proxmoxer wraps an answer that is not JSON in a dict of its own.
        if not isinstance(row, dict) or isinstance(row.get("errors"), bytes):
            raise self._not_the_api()
        return row

    def _send(
        self, method: Callable[..., Any], deadline: float, node: str = "", **params: Any
    ) -> Any:
        """The one door: every request goes out here, every error comes back from here."""
        began = time.monotonic()
        with self._turn(node, deadline):
            self._transport.limit.deadline = deadline
            try:
                return method(**params)
            except ResourceException as error:
                raise self._refused(error, node) from None
            except OSError as error:  # all of requests' errors are OSErrors
                raise self._unanswered(error, time.monotonic() - began) from None
            except (KeyError, TypeError, AttributeError, ValueError):
                # proxmoxer's, for JSON that is not Proxmox's
                raise self._not_the_api() from None

    @contextmanager
    def _turn(self, node: str, deadline: float) -> Iterator[None]:
        """Wait for a place among the requests in flight, to this node and in all."""
        gates = [self._gate]
        if node:
            mine = threading.BoundedSemaphore(MAX_REQUESTS_A_NODE)
            gates.insert(0, self._node_gates.setdefault(node, mine))
        taken = []
        try:
            for gate in gates:
                if not gate.acquire(timeout=max(0.0, deadline - time.monotonic())):
                    raise ProxmoxError(
                        f"{node or 'Proxmox'} is still busy with earlier requests. "
                        "Try again in a minute.",
                        "busy",
                    )
                taken.append(gate)
            yield
        finally:
            for gate in taken:
                gate.release()

    # Errors

    def _not_the_api(self) -> ProxmoxError:
        return ProxmoxError(
            f"{self.settings.address} answers, but not as a Proxmox VE API: a login page, a "
            "proxy or another service. Correct PROXMOX_URL; the API's port is usually 8006.",
            "not the API",
        )

    def _refused(self, error: ResourceException, node: str) -> ProxmoxError:
        """What an HTTP status of 400 or more means."""
        code, who = int(error.status_code), self.settings.token_id
        said = (
            str(error.content or "").replace(self.settings.token_secret, "***").strip()
        )
        if isinstance(error.errors, dict):
            details = (f"{key}: {value}" for key, value in error.errors.items())
            said = " ".join((said + " " + "; ".join(details)).split())
        said = said[:600]
        if code == 401:
            return ProxmoxError(
                f"Proxmox does not accept the API token {who} ({said or 'no reason given'}). "
                "Check PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET, and under Datacenter > "
                "Permissions > API Tokens that the token exists and has not expired.",
                code,
            )
        if code == 403:
            return ProxmoxError(self._not_allowed(said), code)
        if 595 <= code <= 599:
            return ProxmoxError(
                f"Proxmox could not reach {f'node {node}' if node else 'the node'} "
                f"({code} {said}). Look at it with list_infrastructure.",
                code,
            )
        if code in (400, 500):
            return ProxmoxError(
                f"Proxmox says: {said or f'HTTP {code}, no reason'}.", code
            )
        if code in (502, 503, 504):
            return ProxmoxError(
                f"The proxy in front of {self.settings.address} could not pass the request "
                f"on ({code} {said}). Check that proxy, or point PROXMOX_URL at Proxmox.",
                code,
            )
        error = self._not_the_api()
        return ProxmoxError(f"{error} (HTTP {code})", error.code)

    def _not_allowed(self, said: str) -> str:
        user, who = self.settings.user, self.settings.token_id
        match = re.search(r"\((/[^,\s]*), ([A-Za-z.]+)", said)
        if not match:
            return (
                f"Proxmox refuses the token {who}: {said}. Grant the missing privilege to "
                "the user and to the token; the README lists them."
            )
        path, privilege = match.groups()
        privileges = (
            "VM.Audit,VM.PowerMgmt" if privilege.startswith("VM.") else privilege
        )
        role = "Mcp" + privileges.split(",")[-1].replace(".", "")
        return (
            f"The token {who} lacks {privilege} on {path}. Grant it to user and token: "
            f"pveum role add {role} --privs {privileges}; pveum acl modify {path} "
            f"--users {user} --tokens '{who}' --roles {role}"
        )

    def _unanswered(self, error: OSError, seconds: float) -> ProxmoxError:
        """What it means that no answer came."""
        root = _root_cause(error)
        address = self.settings.address
        if isinstance(error, requests.TooManyRedirects):
            return self._not_the_api()
        if isinstance(error, requests.exceptions.ProxyError):
            why, code = "the proxy that HTTPS_PROXY names does not answer", "refused"
            then = "Check HTTPS_PROXY, or name the host in NO_PROXY."
        elif isinstance(root, ssl.SSLCertVerificationError):
            why, code = (
                f"its certificate is not trusted: {root.verify_message}",
                "refused",
            )
            then = (
                "Set PROXMOX_VERIFY_SSL to the path of Proxmox's CA file (a copy of "
                "/etc/pve/pve-root-ca.pem) and use a name that is in the certificate; or, "
                "on a network you trust, PROXMOX_VERIFY_SSL=false."
            )
        elif isinstance(root, ssl.SSLError) and not isinstance(root, ssl.SSLEOFError):
            why, code = (
                f"no TLS connection: {(root.reason or 'failed').lower()}",
                "refused",
            )
            then = "Check that PROXMOX_URL names the API's port, usually 8006."
        elif isinstance(root, socket.gaierror):
            why, code = "the name does not resolve", "refused"
            then = "Check the host in PROXMOX_URL."
        elif isinstance(root, ConnectionRefusedError):
            why, code = "connection refused, nothing listens there", "refused"
            then = "Check PROXMOX_URL, and that pveproxy runs."
        elif isinstance(error, requests.ConnectTimeout) or (
            isinstance(root, OSError)
            and root.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH)
        ):
            why, code = f"no route, tried for {seconds:.0f} s", "refused"
            then = "Check PROXMOX_URL, the network and the firewall."
        elif isinstance(root, TimeoutError) or isinstance(error, requests.Timeout):
            why, code = f"no answer within {seconds:.0f} s", "timeout"
            then = "Proxmox may be overloaded: try again in a minute."
        else:
            why, code = "it closed the connection without an answer", "dropped"
            then = "Try again; if it stays, check ALLOW_FROM in /etc/default/pveproxy."
        return ProxmoxError(f"Cannot talk to {address}: {why}. {then}", code)

    # Reading

    def get_nodes(self) -> list[Node]:
        """Every node of the cluster, offline ones too, by name; load and version are None.

        GET /nodes. Broadcast by each node every 10 s; without Sys.Audit on /nodes/NODE a
        node's figures are None. Raises ProxmoxError.
        """
        rows = self._rows(self._api.nodes, time.monotonic() + READ_TIMEOUT)
        nodes = (read_node(row) for row in rows if row.get("node"))
        return sorted(nodes, key=lambda node: node.node)

    def get_node_resources(self, node: str) -> NodeResources:
        """CPU, memory, swap, root disk, load and version of one physical server, live.

        GET /nodes/{node}/status. cpu is 0 in the first answer after a while: get_nodes
        knows better. Raises ProxmoxError, with code 403 without Sys.Audit on the node.
        """
        check_target(node)
        return self._node_resources(node, time.monotonic() + READ_TIMEOUT)

    def _node_resources(self, node: str, deadline: float) -> NodeResources:
        row = self._object(self._api.nodes(node).status, deadline, node)
        return read_node_resources(node, row)

    def get_overview(self) -> Infrastructure:
        """The cluster's name and quorum, every node, and the totals of the online ones.

        GET /nodes, /cluster/status, and /nodes/{node}/status of every node that is not
        offline, all at once. Raises ProxmoxError where nothing at all could be had.
        """
        survey = self._survey(
            lambda deadline: self._rows(self._api.cluster.status, deadline),
            self._node_resources,
        )
        nodes = [
            overlay(read_node(row), survey.answers.get(name))
            for name, row in sorted(survey.nodes.items())
        ]
        cluster = [row for row in survey.ground if row.get("type") == "cluster"]
        notes = survey.notes(
            "load and version are missing, other figures some seconds old"
        )
        # Without the right to ask (403) quorum is null, as on a standalone host.
        if survey.ground_error and survey.ground_error.code != 403:
            notes.append(
                f"The cluster's name and quorum are missing. {survey.ground_error}"
            )
        return Infrastructure(
            cluster=cluster[0].get("name") if cluster else None,
            quorate=_flag(cluster[0].get("quorate")) if cluster else None,
            nodes=nodes,
            totals=add_up(nodes),
            notes=notes,
        )

    def get_all_machines(self, node: str | None = None) -> Machines:
        """Every VM and container on every node, or on one, by vm_id.

        GET /nodes/{node}/qemu and /lxc of every node that is not offline, all nodes at
        once, laid on /cluster/resources?type=vm. Machines without VM.Audit on /vms/ID are
        left out by Proxmox. Raises ProxmoxError where nothing at all could be had, and
        for a node that does not exist.
        """
        errors: dict[str, ProxmoxError] = {}

        def ask(name: str, deadline: float) -> list[Row]:
            # One after the other: a node that hangs holds up one request, not two.
            rows: list[Row] = []
            for kind in ("qemu", "lxc"):
                resource = getattr(self._api.nodes(name), kind)
                try:
                    try:
                        found = self._rows(resource, deadline, name)
                    except ProxmoxError as error:
                        # A VM that is removed meanwhile fails the whole list, once.
                        if error.code != 500:
                            raise
                        found = self._rows(resource, deadline, name)
                except ProxmoxError as error:
                    errors[name] = error
                    if error.code != 500:
                        break
                else:
                    rows += [{**row, "node": name, "type": kind} for row in found]
            return rows

        survey = self._survey(
            lambda deadline: self._rows(
                self._api.cluster.resources, deadline, type="vm"
            ),
            ask,
            node,
        )
        survey.silent |= errors
        survey.raise_if_empty()
        rows = [row for answer in survey.answers.values() for row in answer]
        machines = lay_machines(survey.ground, rows, survey.offline)
        if node is not None:
            machines = [machine for machine in machines if machine.node == node]
        notes = survey.notes("its machines are shown as last known (live: false)")
        notes += [
            f"{name} is offline: what its machines do is unknown."
            for name in sorted(survey.offline)
        ]
        if survey.ground_error:
            notes.append(
                "The cluster's broadcast is missing, and with it the machines of nodes that "
                f"did not answer. {survey.ground_error}"
            )
        if not machines:
            notes.append(self._nothing_seen("machines", "VM.Audit on /vms"))
        return Machines(machines, notes)

    def get_storage_status(self, node: str) -> list[Storage]:
        """The storages of one node, by name: capacity, use, whether active.

        GET /nodes/{node}/storage, live; a dead NFS server can take it 10 s. Storages
        without Datastore.Audit on /storage/ID are left out. Raises ProxmoxError.
        """
        check_target(node)
        rows = self._storage_rows(node, time.monotonic() + READ_TIMEOUT)
        return lay_storages([], rows, set(), set())

    def _storage_rows(self, node: str, deadline: float) -> list[Row]:
        rows = self._rows(self._api.nodes(node).storage, deadline, node)
        return [{**row, "node": node} for row in rows]

    def get_all_storage(self) -> Storages:
        """Every storage of every node: a shared one once, a local one for each node.

        GET /nodes/{node}/storage of every node that is not offline, all nodes at once,
        and /cluster/resources?type=storage for the others. Storages without
        Datastore.Audit on /storage/ID are left out by Proxmox. Raises ProxmoxError where
        nothing at all could be had.
        """
        survey = self._survey(
            lambda deadline: self._rows(
                self._api.cluster.resources, deadline, type="storage"
            ),
            self._storage_rows,
        )
        survey.raise_if_empty()
        rows = [row for answer in survey.answers.values() for row in answer]
        storages = lay_storages(survey.ground, rows, set(survey.silent), survey.offline)
        notes = survey.notes("its storages are shown as last known")
        notes += [
            f"{name} is offline: what its storages hold is unknown."
            for name in sorted(survey.offline)
        ]
        dead: dict[str, list[str]] = {}
        for row in rows:
            if _flag(row.get("enabled", 1)) and not _flag(row.get("active")):
                dead.setdefault(str(row.get("storage")), []).append(row["node"])
        notes += [
            f"{name} is not active on {', '.join(dead[name])}." for name in sorted(dead)
        ]
        if not storages:
            notes.append(self._nothing_seen("storages", "Datastore.Audit on /storage"))
        return Storages(storages, notes)

    def _nothing_seen(self, what: str, privilege: str) -> str:
        return (
            f"Proxmox shows no {what} to the token {self.settings.token_id}. If there are "
            f"some, it lacks {privilege}: grant it to the user and, with privilege "
            "separation, to the token as well."
        )

    def _survey(
        self,
        ground: Callable[[float], list[Row]],
        ask: Callable[[str, float], Any],
        only: str | None = None,
    ) -> _Survey:
        """Ask the broadcast and every node that is not offline, all at once."""
        if only is not None:
            check_target(only)
        deadline = time.monotonic() + LIST_PATIENCE
        pool = ThreadPoolExecutor(MAX_REQUESTS)
        try:
            broadcast = pool.submit(ground, deadline)
            try:
                rows = self._rows(self._api.nodes, deadline)
            except ProxmoxError as error:
                # The broadcast names the nodes as well: rows of /cluster/status, or the
                # rows of machines and storages, which say what they are on.
                try:
                    rows = [
                        {
                            "node": row.get("node", row.get("name")),
                            "status": "offline"
                            if row.get("online") == 0
                            else "unknown",
                        }
                        for row in broadcast.result(max(0, deadline - time.monotonic()))
                        if row.get("type") != "cluster"
                    ]
                except (ProxmoxError, TimeoutError):
                    raise error from None
            nodes = {str(row["node"]): row for row in rows if row.get("node")}
            if only is not None and only not in nodes:
                raise unknown_node(only, nodes)
            wanted = sorted(nodes) if only is None else [only]
            offline = {
                name for name in wanted if nodes[name].get("status") == "offline"
            }
            asked = {
                name: pool.submit(ask, name, deadline)
                for name in wanted
                if name not in offline
            }
            wait([broadcast, *asked.values()], deadline - time.monotonic())
        finally:
            # What still hangs ends by its own timeout; nobody waits for it.
            pool.shutdown(wait=False, cancel_futures=True)
        survey = _Survey(nodes, offline)
        for name, future in asked.items():
            try:
                survey.answers[name] = _result(future)
            except ProxmoxError as error:
                survey.silent[name] = error
        try:
            survey.ground = _result(broadcast)
        except ProxmoxError as error:
            survey.ground_error = error
        return survey

    # Power

    def get_machine_status(self, node: str, vm_id: int) -> Machine:
        """The live state of one machine, VM or container.

        GET /cluster/resources, which tells what it is and where, then
        /nodes/{node}/{qemu|lxc}/{vm_id}/status/current. Raises ProxmoxError, which names
        the right node where it is on another one.
        """
        check_target(node, vm_id)
        deadline = time.monotonic() + READ_TIMEOUT
        return self._state(self._find(node, vm_id, deadline), deadline)

    def _find(self, node: str, vm_id: int, deadline: float) -> Row:
        """The machine's row of /cluster/resources; an error says why it is not there."""
        rows = self._rows(self._api.cluster.resources, deadline)
        nodes = {str(row["node"]): row for row in rows if row.get("type") == "node"}
        if node not in nodes:
            raise unknown_node(node, nodes)
        machine = _row_of(vm_id, rows)
        if machine is None:
            raise ProxmoxError(
                f"There is no machine {vm_id}, or the token {self.settings.token_id} lacks "
                f"VM.Audit on /vms/{vm_id}. Call list_machines to see what there is."
            )
        if machine["node"] != node:
            raise ProxmoxError(
                f"Machine {vm_id} ({machine.get('name') or 'no name'}) is not on {node} but "
                f"on {machine['node']}. If that is the one, call again with "
                f'node="{machine["node"]}".'
            )
        if nodes[node].get("status") == "offline":
            raise ProxmoxError(
                f"Node {node} is offline, so machine {vm_id} cannot be seen or switched. "
                "Call list_infrastructure to see when the node is back."
            )
        return machine

    def _state(self, found: Row, deadline: float) -> Machine:
        """GET .../status/current of a machine that /cluster/resources told."""
        node, kind, vm_id = str(found["node"]), str(found["type"]), int(found["vmid"])
        resource = getattr(self._api.nodes(node), kind)(vm_id).status.current
        row = self._object(resource, deadline, node)
        return read_machine(vm_id, {**row, "node": node, "type": kind}, {})

    def set_machine_state(
        self, node: str, vm_id: int, action: Action, progress: Progress | None = None
    ) -> PowerResult:
        """Start, stop (cut the power), shut down or reboot a machine, and wait for it.

        POST /nodes/{node}/{qemu|lxc}/{vm_id}/status/{action}, once; then the task, then the
        live state, 45 s in all, with `progress` called about every second. Raises
        ProxmoxError where it was refused, failed, or its outcome is unknown.
        """
        power = _Power(node, vm_id, action, progress)
        self._actions.add(power)
        outcome = "failed unexpectedly"
        try:
            check_target(node, vm_id)
            result = self._carry_out(power)
            outcome = result.message
        except ProxmoxError as error:
            outcome = f"error: {error}"
            raise
        finally:
            self._actions.discard(power)
            power.audit(outcome)
        return result

    def abandon(self) -> None:
        """Leave an audit line for each action that was sent and is still waited for."""
        for power in list(self._actions):
            if power.sent:
                power.audit("outcome unknown: the server stopped while waiting")

    def _carry_out(self, power: _Power) -> PowerResult:
        found = self._find(power.node, power.vm_id, power.deadline)
        before = self._state(found, power.deadline)
        power.label = before.label
        if before.status == power.goal and power.action != "reboot":
            return power.result(
                before,
                f"{before.label} is already {power.goal}; nothing was sent.",
                changed=False,
            )
        if why := refusal(before, power.action):
            raise ProxmoxError(why)
        power.sent = time.monotonic()
        try:
            power.task = self._post(power, before.type)
        except ProxmoxError as error:
            if error.code in ANSWER_LOST:
                raise ProxmoxError(
                    f"The answer to the {power.action} of {before.label} was lost, so whether "
                    f"it happens is unknown. ({error}) Call "
                    f'list_machines(node="{power.node}") before you try again.',
                    error.code,
                ) from None
            return self._failed(power, found, str(error), error.code)
        exit_status = self._await_task(power)
        if (
            exit_status
            and exit_status != "OK"
            and not exit_status.startswith("WARNINGS")
        ):
            return self._failed(power, found, exit_status)
        return self._confirm(power, found, before, exit_status)

    def _post(self, power: _Power, kind: str) -> str:
        """Send the action, once; the UPID of its task."""
        status = getattr(self._api.nodes(power.node), kind)(power.vm_id).status
        post = status(power.action).post
        if power.action == "stop":
            # A shutdown that is under way holds the guest's lock, and a plain stop fails
            # on it. PVE before 8.2 does not know the parameter, HA refuses it: both 400.
            try:
                task = self._send(
                    post, power.deadline, power.node, **{"overrule-shutdown": 1}
                )
            except ProxmoxError as error:
                if error.code != 400:
                    raise
                task = self._send(post, power.deadline, power.node)
        else:
            task = self._send(post, power.deadline, power.node)
        if not isinstance(task, str) or not UPID.fullmatch(task):
            raise self._not_the_api()
        return task

    def _await_task(self, power: _Power) -> str | None:
        """The task's exit status; None where it goes on past the wait or cannot be read."""
        match = UPID.fullmatch(power.task or "")
        assert match  # _post checked it
        node = match[1]
        for _ in power.ticks():
            try:
                row = self._object(
                    self._api.nodes(node).tasks(power.task).status, power.soon(), node
                )
            except ProxmoxError as error:
                if error.code not in ANSWER_LOST:
                    return None  # the live state will tell
            else:
                if row.get("status") == "stopped":
                    return str(row.get("exitstatus") or "no exit status")
        return None

    def _confirm(
        self, power: _Power, found: Row, before: Machine, exit_status: str | None
    ) -> PowerResult:
        """Wait until the machine itself shows the outcome.

        A qemu reboot's task ends when the guest is down, and a task for an HA-managed
        guest when the request is queued; HA may also start the guest on another node.
        """
        after: Machine | None = None
        for _ in power.ticks():
            try:
                after = self._state(found, power.soon())
            except ProxmoxError as error:
                if error.code == 500:
                    found = self._moved(power, found)
                continue
            if after.status == power.goal and (
                power.action != "reboot" or power.rebooted(before, after)
            ):
                message = power.done(after)
                if exit_status and exit_status != "OK":
                    message += (
                        f" Its task ended with {exit_status}.{self._log_of(power)}"
                    )
                return power.result(after, message)
        return power.result(
            after or replace(before, status="unknown"),
            finished=False,
            message=power.unfinished(after),
        )

    def _moved(self, power: _Power, found: Row) -> Row:
        """Where the machine is now, as far as that can be told."""
        try:
            rows = self._rows(self._api.cluster.resources, power.soon(), type="vm")
        except ProxmoxError:
            return found  # asked again at the next tick
        return _row_of(power.vm_id, rows) or found

    def _failed(
        self, power: _Power, found: Row, reason: str, code: int | str = ""
    ) -> PowerResult:
        """Raise what a refused or failed action means, unless the goal is reached anyway."""
        try:
            after = self._state(found, power.soon())
            now = f"It is {after.status} now."
        except ProxmoxError as error:
            after, now = None, f"Its state could not be read: {error}"
        if (
            after
            and after.status == power.goal
            and re.search("already running|not running", reason)
        ):
            return power.result(
                after,
                f"{after.label} is already {power.goal}: something else was faster.",
                changed=False,
            )
        raise ProxmoxError(
            f"The {power.action} of {power.label} failed: {reason.rstrip('.')}. {now} "
            f"{power.advice(after, reason)}".rstrip()
            + self._log_of(power),
            code,
        )

    def _log_of(self, power: _Power) -> str:
        """The last lines of the task's log, to be added to a text."""
        if not power.task:
            return ""
        match = UPID.fullmatch(power.task)
        node = match[1] if match else power.node
        try:
            rows = self._rows(
                self._api.nodes(node).tasks(power.task).log,
                power.soon(),
                node,
                limit=1000,
            )
        except ProxmoxError as error:
            return f"\nThe log of task {power.task} could not be read. {error}"
        lines = [str(row.get("t") or "") for row in rows]
        tail = "\n".join(line[:200] for line in lines[-5:] if line.strip())
        return f"\nTask {power.task} ended its log with\n{tail}"
