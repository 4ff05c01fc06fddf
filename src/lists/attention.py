"""What a person should look at, worst first: pure functions."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from src.foreign import clean, shorten, some_of
from src.lists.merge import merge_machines, merge_storages
from src.lists.tasks import DAY, about_failure, not_made_good, running_on, without_backup
from src.lists.texts import not_active
from src.models import STATES, Machine, Node, NodeResources
from src.proxmox.rows import Row, integer, number
from src.proxmox.tasks import Task

MAX_LINES, MAX_LINE = 20, 600
FULL = 0.9
CERTIFICATE_DAYS = 14
IN_HA = "Look in Datacenter > HA"
IN_PROXMOX = "Look at it in Proxmox"
IN_LIST = "See list_storage"
JOBS = "vzdump|bulk|(start|stop|suspend|migrate)all"  # which lock machines one after the other
GONE = {  # by HA state: the machine is down, and no node has it
    "recovery": "it is down until HA starts it on another node",
    "fence": "it is down until HA has fenced its node and starts it on another one",
}
PAUSED = ("paused", "suspended")

# How bad (1 is the worst), what it is and means, and where to look.
Lines = Iterator[tuple[int, str, str]]


@dataclass
class Findings:
    """What was read about the cluster. What could not be read is empty or None.

    `nodes` are the merged ones, `own` each node's live figures by name. `stale` are nodes
    without statistics. `resources` are all rows of /cluster/resources, normally up to 15 s
    old. `logs` has the lines of failed backups by UPID, `zfs` the pools by node. `expires`
    is when the certificate of `address` ends, `now` the cluster's time.
    """

    nodes: list[Node]
    quorate: bool | None = None
    silent: set[str] = field(default_factory=set)
    own: Mapping[str, NodeResources] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    resources: list[Row] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    ha: list[Row] = field(default_factory=list)
    ceph: Row = field(default_factory=dict)
    zfs: Mapping[str, list[Row]] = field(default_factory=dict)
    tasks: list[Task] | None = None
    logs: Mapping[str, list[str]] = field(default_factory=dict)
    not_backed_up: list[Row] = field(default_factory=list)
    own_token: str = ""
    address: str = ""
    expires: float | None = None
    now: float = field(default_factory=time.time)

    @property
    def offline(self) -> set[str]:
        return {node.node for node in self.nodes if node.status == "offline"}


def needs_attention(found: Findings) -> list[str]:
    """Return at most MAX_LINES lines, worst first. If there are more, the last one counts them."""
    machines = merge_machines(found.resources, {}, found.offline)
    ranked = [
        *_about_nodes(found),
        *_about_cluster(found),
        *_about_machines(found, machines),
        *_about_ha(found),
        *_about_disks(found),
        *_about_storages(found),
        *_about_tasks(found, machines),
    ]
    ranked.sort(key=lambda line: line[0])
    lines = [f"{shorten(what, MAX_LINE)}. {where}." for _, what, where in ranked]
    left = len(lines) - MAX_LINES + 1
    return (
        lines
        if left <= 1
        else [*lines[: MAX_LINES - 1], f"And {left:,} more, none of them more severe."]
    )


def _about_nodes(found: Findings) -> Lines:
    for node in found.nodes:
        name = node.node
        if node.status == "offline":
            yield 1, f"Node {name} is offline", "Look at its power, console and network"
        elif name in found.silent:
            what = f"Node {name} does not answer: it may have just gone down, or it may hang"
            yield 1, what, "Look at its console"
        elif name in found.stale:
            what = (
                f"The statistics of node {name} have stopped, so the figures shown for it and its "
                "machines are old"
            )
            yield 5, what, "Run systemctl status pvestatd there"
        own = found.own.get(name)
        swap = (own.swap_used, own.swap_total) if own else (None, None)
        shares = (
            ("memory", node.memory_used, node.memory_total, "; on ZFS, its cache counts as used"),
            ("swap", *swap, ""),
            ("root disk", node.disk_used, node.disk_total, ""),
        )
        for what, used, total, note in shares:
            if used and total and used >= FULL * total:
                full = f"The {what} of node {name} is {_percent(used, total)} full{note}"
                yield 4, full, f"Look at node {name} in Proxmox"


def _about_cluster(found: Findings) -> Lines:
    if found.quorate is False:
        what = "The cluster has NO QUORUM: nothing can be started"
        yield 0, what, "Run pvecm status on a node"
    for line in found.addresses:
        yield 2, line, "Look at its node"
    versions: dict[str, list[str]] = {}
    for node in found.nodes:
        if node.version:
            versions.setdefault(node.version, []).append(node.node)
    if len(versions) > 1:
        each = [f"{version} on {some_of(names)}" for version, names in sorted(versions.items())]
        what = f"The nodes run different versions: {'; '.join(each)}"
        yield 7, what, "Update the older ones"
    if found.expires is not None and found.expires - found.now < CERTIFICATE_DAYS * DAY:
        day = datetime.fromtimestamp(found.expires, UTC)
        ends = "ends" if found.expires > found.now else "ended"
        what = f"The certificate of {found.address} {ends} on {day:%Y-%m-%d}"
        yield 7, what, "On its node, run pvecm updatecerts or pvenode acme cert renew"


def _about_machines(found: Findings, machines: list[Machine]) -> Lines:
    offline = found.offline
    busy = running_on(machines, found.tasks or [], offline)
    jobs = {t.node for t in found.tasks or () if t.status is None and re.match(JOBS, t.type)}
    for machine in machines:
        subject, status = machine.subject, machine.status
        if machine.ha in GONE:
            yield 1, f"{subject} is in HA state {machine.ha}: {GONE[machine.ha]}", IN_HA
        if machine.ha == "error":
            what = f"{subject} is in the HA error state: HA will not start it again"
            yield 2, what, "Disable it in Datacenter > HA and fix the cause"
        if status in STATES:
            yield 2, f"{subject} is in state {status}: {STATES[status]}", IN_PROXMOX
        is_idle = machine.vm_id not in busy and machine.node not in offline
        if status in PAUSED and is_idle:
            what = f"{subject} is {status}{': suspended' if status == 'paused' else ''}, not hung"
            yield 7, what, "Resume it in Proxmox"
        is_locked = machine.lock not in (None, "suspended") and machine.node not in jobs
        if is_locked and is_idle and found.tasks is not None:
            what = f"{subject} is locked ({machine.lock}), but no task runs on it"
            yield 7, what, "Left over? Look at its tasks in Proxmox"
    subjects = {machine.vm_id: machine.short for machine in machines}
    for row in found.resources:
        used, total = number(row.get("disk")), number(row.get("maxdisk"))
        is_live = row.get("status") == "running" and row.get("node") not in offline
        if row.get("type") == "lxc" and is_live and used and total and used >= FULL * total:
            subject = f"{subjects[integer(row.get('vmid')) or 0]} on {row.get('node')}"
            yield 4, f"The root disk of {subject} is {_percent(used, total)} full", IN_PROXMOX


def _about_ha(found: Findings) -> Lines:
    for row in found.resources:
        if row.get("type") == "node" and row.get("hastate") == "fence":
            node = row.get("node")
            yield 1, f"HA is fencing node {node}, and then starts its machines elsewhere", IN_HA
    for row in found.ha:
        kind, node = row.get("type"), clean(row.get("node") or "", 63)
        is_dead = "old timestamp" in str(row.get("status")) and node not in found.offline
        if kind == "fencing" and row.get("armed-state") in ("disarmed", "disarming"):
            mode = clean(row.get("resource_mode") or "no mode", 20)
            what = f"HA is disarmed ({mode}): it restarts and moves nothing"
            yield 2, what, "Arm it in Datacenter > HA"
        elif kind == "master" and is_dead:
            what = f"The HA manager on node {node} seems dead, so HA decides nothing"
            yield 2, what, "Run systemctl status pve-ha-crm there"
        elif kind == "lrm" and is_dead:
            what = f"The HA agent of node {node} seems dead, so HA controls nothing there"
            yield 2, what, "Run systemctl status pve-ha-lrm there"


def _about_disks(found: Findings) -> Lines:
    health = _object(found.ceph.get("health"))
    status = clean(health.get("status") or "", 20)
    if status and status != "HEALTH_OK":
        checks = sorted(map(_object, _object(health.get("checks")).values()), key=_severity)
        messages = [clean(_object(check.get("summary")).get("message") or "") for check in checks]
        why = "; ".join(message for message in messages[:3] if message) or "no reason given"
        yield 3, f"Ceph is {status}: {why}", "Look in Datacenter > Ceph"
    for node, pools in sorted(found.zfs.items()):
        for pool in pools:
            state = clean(pool.get("health") or "", 20)
            if state not in ("ONLINE", ""):
                name = clean(pool.get("name") or "", 40)
                yield 3, f"ZFS pool {name} on {node} is {state}", f"Run zpool status {name} there"


def _object(value: Any) -> Row:
    return value if isinstance(value, dict) else {}


def _severity(check: Row) -> bool:
    return check.get("severity") != "HEALTH_ERR"


def _about_storages(found: Findings) -> Lines:
    """Yield a line for each storage that is full, or that an online node cannot use."""
    nodes = {str(row["node"]) for row in found.resources if row.get("node")}
    for each in merge_storages(found.resources, {}, nodes, found.offline):
        if each.used and each.total and each.used >= FULL * each.total:
            where = "" if each.shared else f" on {each.nodes[0]}"
            full = _percent(each.used, each.total)
            yield 4, f"Storage {each.storage}{where} is {full} full", IN_LIST
    inactive: dict[str, list[str]] = {}
    for row in found.resources:
        unusable = row.get("type") == "storage" and row.get("status") != "available"
        if unusable and row.get("node") not in found.offline | found.stale | found.silent:
            inactive.setdefault(clean(row.get("storage")), []).append(str(row.get("node")))
    for storage, names in sorted(inactive.items()):
        yield 4, not_active(storage, names).removesuffix("."), IN_LIST


def _about_tasks(found: Findings, machines: list[Machine]) -> Lines:
    known = {machine.vm_id: machine for machine in machines}
    for task, times in not_made_good(found.tasks or [], found.now, found.own_token).items():
        log = found.logs.get(task.upid, [])
        yield 6, about_failure(task, times, log, known), "Look at the task in Proxmox"
    templates = {machine.vm_id for machine in machines if machine.template}
    rows = [row for row in found.not_backed_up if integer(row.get("vmid")) not in templates]
    rows.sort(key=lambda row: integer(row.get("vmid")) or 0)
    if what := without_backup(rows):
        yield 8, what, "Look in Datacenter > Backup"


def _percent(used: float, total: float) -> str:
    return f"{100 * used / total:.0f} %"
