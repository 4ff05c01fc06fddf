"""Turn one row of the API into one model: pure functions.

"Resources" are the rows of /cluster/resources, which the nodes broadcast every 10 s.
"""

import math
import re
from collections.abc import Collection
from typing import Any

from src.foreign import clean
from src.models import Machine, Node, NodeResources, Storage

Row = dict[str, Any]

MAX_NAME, MAX_TAGS = 80, 40  # characters of a name or tag, and how many tags


def number(value: Any) -> float | None:
    """Return a finite number. Proxmox sends some as strings (load, a container's cpus)."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def integer(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def amount(value: Any) -> int | None:
    """Read a size or an uptime. Proxmox sends some below 0, which mean nothing."""
    found = integer(value)
    return None if found is None or found < 0 else found


def fraction(value: Any) -> float | None:
    found = number(value)
    return None if found is None else round(found, 4)


def text(value: Any, most: int = MAX_NAME) -> str | None:
    return clean(value, most) or None if value is not None else None


def flag(value: Any) -> bool:
    """Read a boolean: Proxmox sends 1 or "1" for true, 0 or nothing for false."""
    return value in (1, "1")


def read_node(row: Row) -> Node:
    """Read a row of /nodes, which has no load and no version."""
    return Node(
        node=str(row["node"]),
        status=str(row.get("status") or "unknown"),
        cpu=fraction(row.get("cpu")),
        cpus=integer(row.get("maxcpu")),
        memory_used=amount(row.get("mem")),
        memory_total=amount(row.get("maxmem")),
        disk_used=amount(row.get("disk")),
        disk_total=amount(row.get("maxdisk")),
        uptime=amount(row.get("uptime")),
    )


def read_node_resources(node: str, row: Row) -> NodeResources:
    """Read the answer of /nodes/{node}/status."""
    memory, swap, disk = (row.get(key) or {} for key in ("memory", "swap", "rootfs"))
    load = [average for value in row.get("loadavg") or () if (average := number(value)) is not None]
    version = str(row.get("pveversion") or "").split("/")  # pve-manager/9.1.2/hash
    return NodeResources(
        node=node,
        status="online",
        cpu=fraction(row.get("cpu")),
        cpus=integer((row.get("cpuinfo") or {}).get("cpus")) or None,
        memory_used=amount(memory.get("used")),
        memory_total=amount(memory.get("total")) or None,
        disk_used=amount(disk.get("used")),
        disk_total=amount(disk.get("total")) or None,
        uptime=amount(row.get("uptime")),
        load=load if len(load) == 3 else None,
        version=version[min(1, len(version) - 1)] or None,
        swap_used=amount(swap.get("used")),
        swap_total=amount(swap.get("total")),
    )


def read_machine(
    vm_id: int, live: Row | None, resource: Row, offline: Collection[str] = ()
) -> Machine:
    """Read a machine's own row, if its node sent one, and its row of resources."""
    row = resource if live is None else live
    node = str(row["node"])
    lost = live is None and node in offline
    status = clean(row.get("status") or "unknown")
    cpu, memory = row.get("cpu"), row.get("mem")
    if lost:
        status = "unknown"  # resources keep "running" for five minutes
    elif live is not None and status == "running":
        # A node's lists know only running and stopped. status/current and resources also
        # know paused. The first live cpu after a while is always 0.
        finer = live.get("qmpstatus") or resource.get("status")
        status = status if finer in (None, "stopped", "unknown") else clean(finer)
        cpu = resource.get("cpu", cpu)
        if row["type"] == "qemu":
            # The node's list has what the process uses on the host, resources what the
            # guest uses.
            memory = resource.get("mem") or memory
    idle = lost or status == "stopped"  # Proxmox sends 0 then, which means nothing
    return Machine(
        vm_id=vm_id,
        name=text(row.get("name")) or text(resource.get("name")),
        node=node,
        type=str(row["type"]),
        status=status,
        cpu=None if idle else fraction(cpu),
        cpus=number(row.get("cpus", row.get("maxcpu"))),
        memory_used=None if idle else amount(memory),
        memory_total=amount(row.get("maxmem")),
        uptime=None if idle else amount(row.get("uptime")),
        template=flag(row.get("template")),
        lock=text(row.get("lock")),
        tags=tuple(
            clean(tag, MAX_NAME)
            for tag in re.findall(r"[^;,\s]+", str(row.get("tags") or ""))[:MAX_TAGS]
        ),
        pool=text(resource.get("pool")),
        ha=_ha(row, resource),
        live=live is not None,
    )


def _ha(row: Row, resource: Row) -> str | None:
    """Read the HA state: an object in status/current, a word in resources."""
    ha = row.get("ha")
    if isinstance(ha, dict):
        return (text(ha.get("state")) or "managed") if flag(ha.get("managed")) else None
    return text(resource.get("hastate"))


def read_storage(node: str, row: Row) -> Storage:
    """Read a row of /nodes/{node}/storage."""
    active = flag(row.get("active"))
    sized = active and amount(row.get("total"))  # iSCSI has a total of 0
    return Storage(
        storage=str(row["storage"]),
        type=str(row.get("type") or "unknown"),
        nodes=[node],
        shared=flag(row.get("shared")),
        active=active,
        content=_words(row.get("content")),
        # Proxmox sends zeros for an inactive storage.
        used=amount(row.get("used")) if sized else None,
        total=amount(row.get("total")) if sized else None,
        available=amount(row.get("avail")) if sized else None,
    )


def read_storage_resource(row: Row, offline: Collection[str]) -> Storage:
    """Read a storage's row of resources, which may be five minutes old: `active` is unknown."""
    last = row.get("status") == "available" and row["node"] not in offline
    sized = last and amount(row.get("maxdisk"))
    return Storage(
        storage=str(row["storage"]),
        type=str(row.get("plugintype") or "unknown"),
        nodes=[str(row["node"])],
        shared=flag(row.get("shared")),
        active=None,
        content=_words(row.get("content")),
        used=amount(row.get("disk")) if sized else None,
        total=amount(row.get("maxdisk")) if sized else None,
        available=None,
    )


def _words(content: Any) -> tuple[str, ...]:
    return tuple(sorted(filter(None, str(content or "").split(","))))


def read_cluster(rows: list[Row]) -> tuple[str | None, bool | None]:
    """Return the cluster's name and whether it has quorum, both None on a single host."""
    for row in rows:
        if row.get("type") == "cluster":
            return text(row.get("name")), flag(row.get("quorate"))
    return None, None
