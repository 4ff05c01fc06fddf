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
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import requests
from proxmoxer import ProxmoxAPI, ResourceException  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter

log = logging.getLogger("mcp-proxmox")

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0  # pveproxy gives up on another node after 30 s too
LIST_PATIENCE = 10.0  # a node that has not answered by then counts as not answering
POWER_PATIENCE = 45.0  # MCP clients commonly give up at 60 s

# A node serves its guests with three workers, and the web interface needs some too.
MAX_REQUESTS = 8
MAX_REQUESTS_A_NODE = 2

NODE_PATTERN = r"^[a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?$"
MAX_NODE_NAME = 63
MIN_VM_ID, MAX_VM_ID = 100, 999_999_999
UPID = re.compile(r"UPID:([a-zA-Z0-9-]+)(:[0-9A-Fa-f]{8,9}){3}:[^/\s?#%]+:")

Action = Literal["start", "stop", "shutdown", "reboot"]
Row = dict[str, Any]  # an object as Proxmox answers it
Progress = Callable[[float, float, str], None]  # seconds so far, at most, what for


class ProxmoxError(Exception):
    """A failure that a user can meet: what happened, and what to do next.

    `code` is the HTTP status, or "refused" (it never left), "dropped", "broken" (the
    line, perhaps after it left), "timeout" or "not the API".
    """

    def __init__(self, cause: str, advice: str = "", code: int | str = "") -> None:
        self.cause = cause if cause[-1:] in ".?!" else f"{cause}."
        self.advice = advice
        self.code = code
        super().__init__(f"{self.cause} {advice}".rstrip())


# After these nobody knows whether Proxmox carried out what it was sent.
ANSWER_LOST = {
    "dropped",
    "broken",
    "timeout",
    "not the API",
    502,
    504,
    *range(595, 600),
}


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


# --- Reading what Proxmox answers: pure functions -------------------------------------


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


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


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
        memory_total=_int(memory.get("total")) or None,
        disk_used=_int(disk.get("used")),
        disk_total=_int(disk.get("total")) or None,
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


def overlay(node: Node, live: NodeResources | None) -> Node:
    """A node of /nodes with its own live figures; its status and cpu stay."""
    if live is None:
        return node
    known = {
        key: value for key in vars(node) if (value := getattr(live, key)) is not None
    }
    known["status"] = node.status
    if node.cpu is not None:
        known["cpu"] = node.cpu
    return replace(node, **known)


def nodes_named_by(ground: list[Row]) -> list[Row]:
    """Rows like those of /nodes, from a broadcast that names nodes.

    /cluster/status has rows of nodes, the others have rows that lie on nodes.
    """
    online: dict[Any, str] = {0: "offline", 1: "online"}
    return [
        {
            "node": row.get("node") or row.get("name"),
            "status": online.get(row.get("online"), "unknown"),
        }
        for row in ground
        if row.get("type") != "cluster"
    ]


def row_of(vm_id: int, rows: list[Row]) -> Row | None:
    """The machine's row among those of /cluster/resources."""
    guests = (
        row for row in rows if row.get("type") in ("qemu", "lxc") and "node" in row
    )
    return next((row for row in guests if _int(row.get("vmid")) == vm_id), None)


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
        name=_text(row.get("name")) or _text(ground.get("name")),
        node=node,
        type=str(row["type"]),
        status=status,
        cpu=None if lost else _number(cpu),
        cpus=_number(row.get("cpus", row.get("maxcpu"))),
        memory_used=None if lost else _int(row.get("mem")),
        memory_total=_int(row.get("maxmem")),
        uptime=None if lost else _int(row.get("uptime")),
        template=_flag(row.get("template")),
        lock=_text(row.get("lock")),
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
    ]
    for row in ground:
        if row.get("type") == "storage" and row.get("node") in silent | offline:
            up = row.get("status") == "available" and row["node"] in silent
            rows.append(_read_storage(row, row.get("plugintype"), up or None))
    stores: dict[tuple[str, str], list[Storage]] = {}
    for storage in rows:
        key = (storage.storage, "" if storage.shared else storage.nodes[0])
        stores.setdefault(key, []).append(storage)
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


# --- The client -----------------------------------------------------------------------


class ProxmoxClient:
    """A thin client of the Proxmox VE API, to be used from several threads at once.

    Every method raises ProxmoxError, and nothing else, for what a user can meet.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # HTTPS_PROXY and the like, once: with each request it is a quarter of the work.
        environment = requests.Session().merge_environment_settings(
            settings.address, {}, None, settings.verify_ssl, None
        )
        self._api = ProxmoxAPI(
            settings.host,
            port=settings.port,
            path_prefix=settings.prefix or None,
            user=settings.user,
            token_name=settings.token_name,
            token_value=settings.token_secret,
            verify_ssl=environment["verify"],
            proxies=environment["proxies"],
        )
        self._transport = _Transport()
        session = self._api._store["session"]  # proxmoxer has no public way to it
        session.trust_env = False
        session.mount("https://", self._transport)
        session.max_redirects = 0  # the API never redirects; a login page does
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._places = threading.BoundedSemaphore(MAX_REQUESTS)
        self._places_at: dict[str, threading.BoundedSemaphore] = {}
        self._actions: set[_PowerAction] = set()

    # The door

    def _send(
        self, method: Callable[..., Any], deadline: float, node: str = "", **params: Any
    ) -> Any:
        """Every request goes out here, and every error comes back from here."""
        began = time.monotonic()
        with self._place(node, deadline):
            self._transport.limit.deadline = deadline
            try:
                return method(**params)
            except ResourceException as error:
                raise refused(error, self.settings, node) from None
            except OSError as error:  # as all of requests' are
                seconds = time.monotonic() - began
                raise unanswered(error, self.settings, seconds, node) from None
            except (KeyError, TypeError, AttributeError):
                # proxmoxer's own, for JSON that is not Proxmox's.
                raise not_the_api(self.settings) from None

    @contextmanager
    def _place(self, node: str, deadline: float) -> Iterator[None]:
        """A place among the requests in flight: to this node, then in all."""
        at_node = threading.BoundedSemaphore(MAX_REQUESTS_A_NODE)
        places = [self._places_at.setdefault(node, at_node)] if node else []
        taken = []
        try:
            for place in [*places, self._places]:
                if not place.acquire(timeout=max(0.0, deadline - time.monotonic())):
                    raise ProxmoxError(
                        f"{node or 'Proxmox'} is still busy with earlier requests",
                        "Try again in a minute.",
                        "refused",
                    )
                taken.append(place)
            yield
        finally:
            for place in taken:
                place.release()

    def _get(
        self, resource: Any, deadline: float, node: str = "", **params: Any
    ) -> Any:
        """GET, and once more after a dropped connection: pveproxy closes idle ones."""
        try:
            return self._send(resource.get, deadline, node, **params)
        except ProxmoxError as error:
            if error.code != "dropped":
                raise
            return self._send(resource.get, deadline, node, **params)

    def _rows(
        self, resource: Any, deadline: float, node: str = "", **params: Any
    ) -> list[Row]:
        """GET a list of objects."""
        rows = self._get(resource, deadline, node, **params)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise not_the_api(self.settings)
        return rows

    def _object(self, resource: Any, deadline: float, node: str) -> Row:
        """GET one object."""
        row = self._get(resource, deadline, node)
        # proxmoxer makes {"errors": b"..."} of an answer that is not JSON.
        if not isinstance(row, dict) or isinstance(row.get("errors"), bytes):
            raise not_the_api(self.settings)
        return row

    # Nodes

    def get_nodes(self) -> list[Node]:
        """Every node of the cluster, offline ones too, by name.

        GET /nodes, which each node broadcasts every 10 s. load and version are None;
        without Sys.Audit on /nodes/NODE so are the figures. Raises ProxmoxError.
        """
        rows = self._rows(self._api.nodes, time.monotonic() + READ_TIMEOUT)
        nodes = [read_node(row) for row in rows if row.get("node")]
        return sorted(nodes, key=lambda node: node.node)

    def get_node_resources(self, node: str) -> NodeResources:
        """CPU, memory, swap, root disk, load and version of one node, live.

        GET /nodes/{node}/status. cpu is 0 in the first answer after a while: get_nodes
        knows better. Raises ProxmoxError, with code 403 without Sys.Audit.
        """
        check_target(node)
        return self._ask_resources(node, time.monotonic() + READ_TIMEOUT)

    def _ask_resources(self, node: str, deadline: float) -> NodeResources:
        row = self._object(self._api.nodes(node).status, deadline, node)
        return read_node_resources(node, row)

    def get_overview(self) -> Infrastructure:
        """The cluster's name and quorum, every node, and the totals of the online ones.

        GET /nodes, /cluster/status, and /nodes/{node}/status of every node that is not
        offline. Raises ProxmoxError where nothing at all could be had.
        """
        survey = _Survey(
            self,
            lambda deadline: self._rows(self._api.cluster.status, deadline),
            self._ask_resources,
        )
        nodes = [
            overlay(read_node(row), survey.answers.get(name))
            for name, row in sorted(survey.nodes.items())
        ]
        clusters = [row for row in survey.ground if row.get("type") == "cluster"]
        cluster = clusters[0] if clusters else {}
        notes = survey.failures("load, version and fresh figures are missing")
        # Without the right to ask (403) both are null, as on a standalone host.
        if survey.ground_error and survey.ground_error.code != 403:
            cause = survey.ground_error.cause
            notes.append(f"The cluster's name and quorum are missing. {cause}")
        return Infrastructure(
            cluster=cluster.get("name"),
            quorate=_flag(cluster.get("quorate")) if cluster else None,
            nodes=nodes,
            totals=add_up(nodes),
            notes=notes,
        )

    # Machines and storages

    def get_all_machines(self, node: str | None = None) -> Machines:
        """Every VM and container of every node, or of one, by vm_id.

        GET /nodes/{node}/qemu and /lxc of every node that is not offline, laid on
        /cluster/resources?type=vm. Proxmox leaves out those without VM.Audit on
        /vms/ID. Raises ProxmoxError where nothing at all could be had, and for a node
        that does not exist.
        """
        failed: dict[str, ProxmoxError] = {}

        def ask(name: str, deadline: float) -> list[Row]:
            rows: list[Row] = []
            # One after the other: a node that hangs holds up one request, not two.
            for kind in ("qemu", "lxc"):
                resource = getattr(self._api.nodes(name), kind)
                try:
                    try:
                        found = self._rows(resource, deadline, name)
                    except ProxmoxError as error:
                        # A VM that vanishes meanwhile fails the whole list, once.
                        if error.code != 500:
                            raise
                        found = self._rows(resource, deadline, name)
                except ProxmoxError as error:
                    failed[name] = error
                    if error.code != 500:
                        break
                else:
                    rows += [{**row, "node": name, "type": kind} for row in found]
            return rows

        survey = _Survey(
            self,
            lambda end: self._rows(self._api.cluster.resources, end, type="vm"),
            ask,
            node,
        )
        survey.silent |= failed
        survey.raise_if_empty()
        live = [row for rows in survey.answers.values() for row in rows]
        machines = [
            machine
            for machine in lay_machines(survey.ground, live, survey.offline)
            if node in (None, machine.node)
        ]
        notes = survey.notes("machines")
        if not machines and not survey.silent:
            notes.append(self._nothing("machines", "VM.Audit on /vms"))
        return Machines(machines, notes)

    def get_storage_status(self, node: str) -> list[Storage]:
        """The storages of one node, by name: capacity, use, whether active.

        GET /nodes/{node}/storage, live; a dead NFS server makes it take 10 s. Proxmox
        leaves out those without Datastore.Audit on /storage/ID. Raises ProxmoxError.
        """
        check_target(node)
        rows = self._ask_storage(node, time.monotonic() + READ_TIMEOUT)
        return lay_storages([], rows, set(), set())

    def _ask_storage(self, node: str, deadline: float) -> list[Row]:
        rows = self._rows(self._api.nodes(node).storage, deadline, node)
        return [{**row, "node": node} for row in rows]

    def get_all_storage(self) -> Storages:
        """Every storage of every node, a shared one once, by name and node.

        GET /nodes/{node}/storage of every node that is not offline, and for the others
        /cluster/resources?type=storage. Proxmox leaves out those without
        Datastore.Audit on /storage/ID. Raises ProxmoxError where nothing at all could
        be had.
        """
        survey = _Survey(
            self,
            lambda end: self._rows(self._api.cluster.resources, end, type="storage"),
            self._ask_storage,
        )
        survey.raise_if_empty()
        live = [row for rows in survey.answers.values() for row in rows]
        silent = set(survey.silent)
        storages = lay_storages(survey.ground, live, silent, survey.offline)
        notes = survey.notes("storages")
        for storage in storages:
            dead = [
                row["node"]
                for row in live
                if row.get("storage") == storage.storage
                and not _flag(row.get("active"))
            ]
            if storage.active and storage.shared and dead:
                notes.append(
                    f"{storage.storage} is not active on {', '.join(sorted(dead))}."
                )
        if not storages and not survey.silent:
            notes.append(self._nothing("storages", "Datastore.Audit on /storage"))
        return Storages(storages, notes)

    def _nothing(self, things: str, privilege: str) -> str:
        return (
            f"Proxmox shows no {things} to the token {self.settings.token_id}. If "
            f"there are some, it lacks {privilege}: grant that to the user and, with "
            "privilege separation, to the token as well."
        )

    # Power

    def get_machine_status(self, node: str, vm_id: int) -> Machine:
        """The live state of one machine, VM or container.

        GET /cluster/resources, which tells what it is and where it is, then
        /nodes/{node}/{qemu|lxc}/{vm_id}/status/current. Raises ProxmoxError, which
        names the right node where it is on another one.
        """
        check_target(node, vm_id)
        deadline = time.monotonic() + READ_TIMEOUT
        return self._state(self._find(node, vm_id, deadline), deadline)

    def set_machine_state(
        self,
        node: str,
        vm_id: int,
        action: Action,
        progress: Progress | None = None,
    ) -> PowerResult:
        """Start, stop (cut the power), shut down or reboot a machine, and wait for it.

        POST /nodes/{node}/{qemu|lxc}/{vm_id}/status/{action}, once; then its task and
        the live state are read, 45 s in all, and `progress` is called about every
        second. Writes one audit line. Raises ProxmoxError where the action was refused
        or failed, or where its outcome is unknown.
        """
        power = _PowerAction(self, node, vm_id, action, progress)
        self._actions.add(power)
        outcome = "failed unexpectedly"
        try:
            check_target(node, vm_id)
            if action not in get_args(Action):
                actions = ", ".join(get_args(Action))
                raise ProxmoxError(f"action must be one of: {actions}")
            result = power.run()
            outcome = result.message
        except ProxmoxError as error:
            outcome = f"error: {error}"
            raise
        finally:
            self._actions.discard(power)
            power.audit(outcome)
        return result

    def abandon(self) -> None:
        """Write an audit line for each action that was sent and is still waited for."""
        for power in list(self._actions):
            if power.sent:
                power.audit("unknown: the server ended before the action did")

    def _find(self, node: str, vm_id: int, deadline: float) -> Row:
        """The machine's row of /cluster/resources; an error says why there is none."""
        rows = self._rows(self._api.cluster.resources, deadline)
        nodes = {str(row["node"]): row for row in rows if row.get("type") == "node"}
        if node not in nodes:
            raise unknown_node(node, nodes)
        machine = row_of(vm_id, rows)
        if machine is None:
            raise ProxmoxError(
                f"There is no machine {vm_id}, or the token {self.settings.token_id} "
                f"lacks VM.Audit on /vms/{vm_id}",
                "Call list_machines to see what there is.",
            )
        if machine["node"] != node:
            raise ProxmoxError(
                f"Machine {vm_id} ({machine.get('name') or 'no name'}) is not on "
                f"{node} but on {machine['node']}",
                f'If you mean that one, call again with node="{machine["node"]}".',
            )
        if nodes[node].get("status") == "offline":
            raise ProxmoxError(
                f"Node {node} is offline: machine {vm_id} cannot be seen or switched",
                "Call list_infrastructure to see when the node is back.",
            )
        return machine

    def _state(self, found: Row, deadline: float) -> Machine:
        """The live state of a machine that a row of /cluster/resources names."""
        node, kind, vm_id = str(found["node"]), str(found["type"]), int(found["vmid"])
        guest = getattr(self._api.nodes(node), kind)(vm_id)
        row = self._object(guest.status.current, deadline, node)
        return read_machine(vm_id, {**row, "node": node, "type": kind}, {})


class _Transport(HTTPAdapter):
    """What proxmoxer leaves out: a gate, a deadline, and Proxmox's own words."""

    def __init__(self) -> None:
        super().__init__(pool_maxsize=MAX_REQUESTS)
        self.limit = threading.local()  # its deadline is that of this thread's request

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        path = urlsplit(request.url or "").path
        power = r".*/nodes/[\w-]+/(qemu|lxc)/\d+/status/(start|stop|shutdown|reboot)"
        if request.method != "GET" and not (
            request.method == "POST" and re.fullmatch(power, path)
        ):
            raise ProxmoxError(f"This server never sends {request.method} {path}")
        left = self.limit.deadline - time.monotonic()
        if left <= 0:
            raise requests.Timeout
        kwargs["timeout"] = (min(CONNECT_TIMEOUT, left), min(READ_TIMEOUT, left))
        response = super().send(request, *args, **kwargs)
        if response.status_code >= 400:
            # proxmoxer tells the reason phrase, the first line only and lost on the way
            # through some proxies. PVE 8.3 and later have the whole text in the body.
            try:
                response.reason = str(response.json()["message"]).strip()
            except (ValueError, KeyError, TypeError):
                log.debug("an error without a message in its body")
        return response


class _Survey:
    """What the nodes that are not offline answered, and what the cluster broadcasts.

    All are asked at once, and none is waited for longer than LIST_PATIENCE.
    """

    def __init__(
        self,
        client: ProxmoxClient,
        ground: Callable[[float], list[Row]],
        ask: Callable[[str, float], Any],
        only: str | None = None,
    ) -> None:
        if only is not None:
            check_target(only)
        self.ground: list[Row] = []
        self.ground_error: ProxmoxError | None = None
        self.answers: dict[str, Any] = {}
        self.silent: dict[str, ProxmoxError] = {}

        deadline = time.monotonic() + LIST_PATIENCE
        pool = ThreadPoolExecutor(MAX_REQUESTS)
        try:
            listing = pool.submit(client._rows, client._api.nodes, deadline)
            broadcast = pool.submit(persistently, ground, deadline)
            wait([listing], deadline - time.monotonic())
            try:
                rows = _result(listing, client.settings)
            except ProxmoxError as error:
                wait([broadcast], deadline - time.monotonic())
                try:
                    rows = nodes_named_by(_result(broadcast, client.settings))
                except ProxmoxError:
                    raise error from None
            self.nodes = {str(row["node"]): row for row in rows if row.get("node")}
            if only is not None and only not in self.nodes:
                raise unknown_node(only, self.nodes)
            wanted = self.nodes.keys() if only is None else {only}
            self.offline = {
                name for name in wanted if self.nodes[name].get("status") == "offline"
            }
            asked = {
                name: pool.submit(ask, name, deadline)
                for name in sorted(wanted - self.offline)
            }
            wait([broadcast, *asked.values()], deadline - time.monotonic())
        finally:
            # What hangs ends by its own timeout; nobody waits for it.
            pool.shutdown(wait=False, cancel_futures=True)

        for name, future in asked.items():
            try:
                self.answers[name] = _result(future, client.settings, name)
            except ProxmoxError as error:
                self.silent[name] = error
        try:
            self.ground = _result(broadcast, client.settings)
        except ProxmoxError as error:
            self.ground_error = error

    def raise_if_empty(self) -> None:
        """Raise what went wrong, where nothing at all could be had."""
        answered = self.answers.keys() - self.silent.keys()
        if self.ground_error and not answered and not any(self.answers.values()):
            raise self.ground_error

    def failures(self, consequence: str) -> list[str]:
        """A note for each kind of failure, naming the nodes that had it."""
        kinds: dict[int | str, list[str]] = {}
        for name in sorted(self.silent):
            kinds.setdefault(self.silent[name].code, []).append(name)
        return [
            f"{', '.join(names)} {'refused' if code == 403 else 'did not answer'}: "
            f"{consequence}. {self.silent[names[0]]}"
            for code, names in kinds.items()
        ]

    def notes(self, things: str) -> list[str]:
        """What a list of machines or storages lacks, and why."""
        notes = self.failures(f"{things} there are shown as last known")
        for name in sorted(self.offline):
            notes.append(f"{name} is offline: the state of its {things} is unknown.")
        if self.ground_error:
            notes.append(
                f"The cluster's broadcast is missing, and with it the {things} of "
                f"nodes that did not answer. {self.ground_error.cause}"
            )
        return notes


def persistently(ground: Callable[[float], list[Row]], deadline: float) -> list[Row]:
    """The broadcast, asked for again after dropped connections: all else lies on it."""
    try:
        return ground(deadline)
    except ProxmoxError as error:
        if error.code != "dropped":
            raise
        return ground(deadline)


def _result(future: Future[Any], settings: Settings, node: str = "") -> Any:
    if not future.done() or future.cancelled():
        raise unanswered(requests.Timeout(), settings, LIST_PATIENCE, node)
    return future.result()


@dataclass(eq=False)
class _PowerAction:
    """One power action on its way, from the look before it to the look after it."""

    client: ProxmoxClient
    node: str
    vm_id: int
    action: Action
    progress: Progress | None
    began: float = field(default_factory=time.monotonic)
    sent: float | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        self.deadline = self.began + POWER_PATIENCE
        self.goal = "stopped" if self.action in ("stop", "shutdown") else "running"

    def run(self) -> PowerResult:
        self.found = self.client._find(self.node, self.vm_id, self.deadline)
        self.before = self.client._state(self.found, self.deadline)
        label = self.before.label
        if self.before.status == self.goal and self.action != "reboot":
            said = f"{label} is already {self.goal}; nothing was sent."
            return self._result(self.before, said, changed=False)
        if error := refusal(self.before, self.action):
            raise error
        self.sent = time.monotonic()
        try:
            self.task = self._post()
        except ProxmoxError as error:
            if error.code in ANSWER_LOST:
                raise ProxmoxError(
                    f"The answer to the {self.action} of {label} was lost, so its "
                    f"outcome is unknown. {error.cause}",
                    f'Call list_machines(node="{self.node}") before you try again.',
                    error.code,
                ) from None
            return self._failed(error.cause, error.advice)
        status = self._wait_for_task()
        if status and status != "OK" and not status.startswith("WARNINGS"):
            return self._failed(status)
        return self._confirm(status)

    def _post(self) -> str:
        """Send the action, once; returns the UPID of its task."""
        guest = getattr(self.client._api.nodes(self.node), self.before.type)(self.vm_id)
        post = guest.status(self.action).post
        # A shutdown under way holds the guest's lock, on which a plain stop fails.
        overrule = {"overrule-shutdown": 1} if self.action == "stop" else {}
        try:
            task = self.client._send(post, self.deadline, self.node, **overrule)
        except ProxmoxError as error:
            # PVE before 8.2 does not know the parameter, and HA does not allow it.
            if not overrule or error.code != 400:
                raise
            task = self.client._send(post, self.deadline, self.node)
        if not isinstance(task, str) or not UPID.fullmatch(task):
            raise not_the_api(self.client.settings)
        return task

    def _at_task(self) -> tuple[Any, str]:
        """The task's resource, and the node that has it."""
        node = str(self.task).split(":")[1]
        return self.client._api.nodes(node).tasks(self.task), node

    def _wait_for_task(self) -> str | None:
        """The task's exit status; None where it goes on, or may not be read."""
        task, node = self._at_task()
        for _ in self._ticks():
            try:
                row = self.client._object(task.status, self._soon(), node)
            except ProxmoxError as error:
                if error.code not in ANSWER_LOST:
                    return None  # the live state will tell
            else:
                if row.get("status") == "stopped":
                    return str(row.get("exitstatus") or "no exit status")
        return None

    def _confirm(self, status: str | None) -> PowerResult:
        """Wait until the machine itself shows the outcome.

        The task of a qemu reboot ends when the guest is down, that of an HA-managed
        guest when the request is queued; and HA may start it on another node.
        """
        after: Machine | None = None
        for _ in self._ticks():
            try:
                after = self.client._state(self.found, self._soon())
            except ProxmoxError as error:
                if error.code == 500:
                    self._find_again()
                continue
            if after.status == self.goal and self._is_new(after):
                done = {
                    "start": f"Started {after.label}; it is running.",
                    "stop": f"Cut the power of {after.label}; it is stopped.",
                    "shutdown": f"Shut down {after.label}; it is stopped.",
                    "reboot": f"Rebooted {after.label}; it is running again.",
                }[self.action]
                if status and status != "OK":
                    done += f" Its task ended with {status}.{self._log()}"
                return self._result(after, done)
        seen = f"it is {after.status}" if after else "it cannot be seen"
        said = (
            f"The {self.action} of {self.before.label} is not finished after "
            f"{POWER_PATIENCE:.0f} s: {seen}, and task {self.task} may go on. "
            f"{self._advice(after) or 'Call list_machines in a minute.'}"
        )
        last = after or replace(self.before, status="unknown")
        return self._result(last, said, finished=False)

    def _is_new(self, after: Machine) -> bool:
        """Whether a reboot has happened: it runs for less long than before, or not for
        longer than since the request."""
        since = time.monotonic() - (self.sent or self.began)
        return self.action != "reboot" or (
            after.uptime is not None
            and (after.uptime < (self.before.uptime or 0) or after.uptime <= since)
        )

    def _find_again(self) -> None:
        """HA and migrations move machines; a look that fails is repeated next tick."""
        resources = self.client._api.cluster.resources
        try:
            rows = self.client._rows(resources, self._soon(), type="vm")
        except ProxmoxError as error:
            log.debug("%s", error)
        else:
            self.found = row_of(self.vm_id, rows) or self.found

    def _failed(self, reason: str, advice: str = "") -> PowerResult:
        """Raise what a refusal or a failed task means, unless the goal is reached."""
        after: Machine | None = None
        try:
            after = self.client._state(self.found, self._soon())
            now = f"It is {after.status} now."
        except ProxmoxError as error:
            now = f"Its state cannot be read: {error.cause}"
        if (
            after
            and after.status == self.goal
            and re.search("already running|not running", reason)
        ):
            said = f"{after.label} is already {self.goal}: something else was faster."
            return self._result(after, said, changed=False)
        reason = reason if reason[-1:] in ".?!" else f"{reason}."
        raise ProxmoxError(
            f"The {self.action} of {self.before.label} failed: {reason} {now}",
            (advice or self._advice(after, reason)) + self._log(),
        )

    def _advice(self, after: Machine | None, reason: str = "") -> str:
        """What to do about an action that failed, or that goes on (no reason)."""
        status = after.status if after else "unknown"
        if status == self.goal and self.action != "reboot":
            return ""
        if re.search(r"can't lock|is locked", reason):
            return "Another task is at work on it: look again in a minute."
        if self.action == "start":
            return "Remove the cause, then call start_machine again." if reason else ""
        if self.action == "stop":
            return "Look at the node's tasks in Proxmox before you try again."
        if status == "stopped":
            return "If it stays stopped, call start_machine."
        again = " and start_machine starts it again" if self.action == "reboot" else ""
        return (
            "The guest may still follow: call list_machines in a minute. If it does "
            f"not, stop_machine(force=True) cuts its power{again}; what is not saved "
            "is lost, so ask the user first."
        )

    def _log(self) -> str:
        """The last lines of the task's log, to be added to a text."""
        if not self.task:
            return ""
        task, node = self._at_task()
        try:
            rows = self.client._rows(task.log, self._soon(), node, limit=1000)
        except ProxmoxError as error:
            return f"\nThe log of task {self.task} cannot be read: {error.cause}"
        lines = [str(row.get("t") or "").strip()[:200] for row in rows]
        tail = "\n".join([line for line in lines if line][-5:])
        return f"\nTask {self.task} ended its log with\n{tail}"

    def _soon(self) -> float:
        """A deadline for one look, which may not use up the wait, or is the last."""
        now = time.monotonic()
        return max(min(self.deadline, now + LIST_PATIENCE), now + CONNECT_TIMEOUT)

    def _ticks(self) -> Iterator[None]:
        """Yield at once, then after growing pauses of at most 1 s, to the deadline."""
        pause, told = 0.05, time.monotonic()
        while True:
            yield
            now = time.monotonic()
            if now >= self.deadline:
                return
            if self.progress and now - told >= 0.7:
                told = now
                doing = f"{self.action} {self.before.label}"
                self.progress(now - self.began, POWER_PATIENCE, doing)
            time.sleep(min(pause, self.deadline - now))
            pause = min(2 * pause, 1.0)

    def _result(
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
        """One line on stderr: the logger adds the time."""
        log.info(
            "audit action=%s machine=%s node=%s task=%s outcome=%s",
            self.action,
            self.vm_id,
            json.dumps(self.node),
            self.task or "none",
            json.dumps(outcome.partition("\n")[0][:400]),
        )


# --- What errors mean: pure functions -------------------------------------------------


def check_target(node: str, vm_id: int = MIN_VM_ID) -> None:
    """Raise ProxmoxError for what must not get into a URL."""
    if len(node) > MAX_NODE_NAME or not re.fullmatch(NODE_PATTERN, node):
        raise ProxmoxError(
            "node must be a node's name (letters, digits and hyphens)",
            "Call list_infrastructure to see the nodes.",
        )
    if not MIN_VM_ID <= vm_id <= MAX_VM_ID:
        raise ProxmoxError(
            f"vm_id must be a whole number from {MIN_VM_ID} to {MAX_VM_ID}",
            "Call list_machines to see the machines.",
        )


def unknown_node(node: str, nodes: Iterable[str]) -> ProxmoxError:
    return ProxmoxError(
        f"There is no node {node}", f"Nodes: {', '.join(sorted(nodes))}."
    )


def refusal(machine: Machine, action: Action) -> ProxmoxError | None:
    """Why the action cannot work on a machine in this state, and what to do instead."""
    label, lock = machine.label, machine.lock
    if machine.template:
        return ProxmoxError(
            f"{label} is a template, which cannot run",
            "Clone it in Proxmox and start the clone.",
        )
    if action == "reboot" and machine.status == "stopped":
        return ProxmoxError(f"{label} is stopped", "Call start_machine instead.")
    # A hibernated VM has the lock suspended, and starting it resumes it.
    exempt = {("start", "suspended"), ("start", "mounted"), ("stop", "mounted")}
    if lock and (action, lock) not in exempt:
        tool = "qm" if machine.type == "qemu" else "pct"
        return ProxmoxError(
            f"{label} is locked ({lock})",
            "Try again when that task is over. If no such task runs, an administrator "
            f"can remove the lock: {tool} unlock {machine.vm_id}",
        )
    if machine.status not in ("running", "stopped") and action != "stop":
        return ProxmoxError(
            f"{label} is in state {machine.status}, in which {action} does not work",
            "Resume it in Proxmox; or call stop_machine(force=True), which cuts its "
            "power and loses what is not saved.",
        )
    return None


def not_the_api(settings: Settings) -> ProxmoxError:
    return ProxmoxError(
        f"{settings.address} answers, but not as a Proxmox VE API: it is a login page, "
        "a proxy or another service",
        "Correct PROXMOX_URL: the API's port is usually 8006.",
        "not the API",
    )


def refused(error: ResourceException, settings: Settings, node: str) -> ProxmoxError:
    """What an HTTP status of 400 or more means."""
    code, token = int(error.status_code), settings.token_id
    said = str(error.content or "")
    if isinstance(error.errors, dict):
        texts = error.errors.items()
        # proxmoxer has bytes there for a body that is not JSON, be it empty.
        said += "".join(f" {k}: {v}" for k, v in texts if isinstance(v, str))
    said = " ".join(said.replace(settings.token_secret, "***").split())[:500]
    if code == 401:
        return ProxmoxError(
            f"Proxmox does not accept the API token {token} ({said or 'no reason'})",
            "Check PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET, and in Proxmox under "
            "Permissions > API Tokens that the token exists and has not expired.",
            code,
        )
    if code == 403 and (match := re.search(r"\((/[^,\s]*), ([A-Za-z.]+)", said)):
        path, privilege = match.groups()
        # A role on a deeper path replaces the one from above, so it must have both.
        guest = "VM.Audit,VM.PowerMgmt" if privilege.startswith("VM.") else privilege
        role = "Mcp" + privilege.replace(".", "")
        return ProxmoxError(
            f"The token {token} lacks {privilege} on {path}",
            f"Grant it to user and token: pveum role add {role} --privs {guest}; pveum "
            f"acl modify {path} --users {settings.user} --tokens '{token}' "
            f"--roles {role}",
            code,
        )
    if code == 403:
        return ProxmoxError(
            f"Proxmox does not allow this to the token {token}: {said}",
            "Grant the privilege to the user and to the token; the README lists them.",
            code,
        )
    if 595 <= code <= 599:
        return ProxmoxError(
            f"Proxmox could not reach {f'node {node}' if node else 'a node'} "
            f"({code} {said})",
            "Call list_infrastructure to see the nodes.",
            code,
        )
    if code in (502, 503, 504):
        return ProxmoxError(
            f"A proxy in front of {settings.address} could not reach Proxmox ({code})",
            "Check that proxy, or point PROXMOX_URL at Proxmox itself.",
            code,
        )
    if code in (400, 500):
        quorum = "Call list_infrastructure: a start needs most nodes to be online."
        advice = quorum if "no quorum" in said else ""
        return ProxmoxError(f"Proxmox says: {said or f'error {code}'}", advice, code)
    return not_the_api(settings)


def unanswered(
    error: OSError, settings: Settings, seconds: float, node: str = ""
) -> ProxmoxError:
    """What it means that no answer came."""
    root = root_cause(error)
    number = getattr(root, "errno", None)
    code = "refused"
    if isinstance(error, requests.TooManyRedirects):
        return not_the_api(settings)
    if isinstance(error, requests.exceptions.ProxyError):
        why = "the proxy of HTTPS_PROXY does not answer"
        then = "Check HTTPS_PROXY, or put the host into NO_PROXY."
    elif isinstance(root, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted ({root.verify_message})"
        then = (
            "Put a name that the certificate has into PROXMOX_URL"
            if "mismatch" in root.verify_message
            else "Set PROXMOX_VERIFY_SSL to the path of a copy of Proxmox's CA, "
            "/etc/pve/pve-root-ca.pem"
        ) + "; or, only on a network you trust, PROXMOX_VERIFY_SSL=false."
    elif isinstance(root, ssl.SSLError) and not isinstance(root, ssl.SSLEOFError):
        code = "broken"
        what = getattr(root, "reason", None) or "it broke"
        why = f"no TLS connection ({what.replace('_', ' ').lower()})"
        then = "Check the port in PROXMOX_URL, usually 8006."
    elif isinstance(root, socket.gaierror):
        why, then = "its name does not resolve", "Check the host in PROXMOX_URL."
    elif isinstance(root, ConnectionRefusedError):
        why = "connection refused, nothing listens there"
        then = "Check PROXMOX_URL, and that pveproxy runs."
    elif isinstance(error, requests.ConnectTimeout) or number in (
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    ):
        # A route can also be lost after the request has left.
        code = "refused" if isinstance(error, requests.ConnectTimeout) else "broken"
        why = f"no connection in {seconds:.0f} s"
        then = "Check PROXMOX_URL, the network and the firewall."
    elif isinstance(root, TimeoutError) or isinstance(error, requests.Timeout):
        why, code = f"no answer within {seconds:.0f} s", "timeout"
        then = "Proxmox may be overloaded: try again in a minute."
    else:
        why, code = "it closed the connection without an answer", "dropped"
        then = "Try again; if it stays so, check ALLOW_FROM in /etc/default/pveproxy."
    through = f"node {node} through " if node and code == "timeout" else ""
    return ProxmoxError(
        f"Cannot talk to {through}{settings.address}: {why}", then, code
    )


def root_cause(error: BaseException) -> BaseException:
    """The innermost of the exceptions that requests and urllib3 wrap in each other."""
    inner = (*error.args, error.__cause__, error.__context__)
    cause = next((each for each in inner if isinstance(each, BaseException)), None)
    return error if cause is None else root_cause(cause)
