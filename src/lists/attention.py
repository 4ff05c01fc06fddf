"""What a person should look at, worst first: pure functions."""

from collections.abc import Iterable

from src.foreign import clean
from src.lists.merge import merge_machines, merge_storages
from src.lists.texts import not_active
from src.models import Node
from src.proxmox.rows import Row

MAX_LINES = 20
FULL = 0.9
# Without paused and suspended: somebody did that on purpose.
FROZEN = ("io-error", "internal-error", "guest-panicked", "watchdog", "shutdown")


def needs_attention(
    nodes: list[Node],
    quorate: bool | None,
    silent: Iterable[str],
    resources: list[Row],
    addresses: Iterable[str] = (),
) -> list[str]:
    """Return a line each for lost quorum, nodes, addresses, HA errors, frozen guests, storages.

    `resources` are all rows of /cluster/resources. Their machines and storages are
    normally up to 15 s old. `addresses` are lines about those of PROXMOX_URL.
    """
    offline = {node.node for node in nodes if node.status == "offline"}
    lines = []
    if quorate is False:
        lines.append("The cluster has NO QUORUM: nothing can be started.")
    for node in nodes:
        lines += _about_node(node, node.node in set(silent))
    lines += addresses
    lines += [
        f"HA is fencing node {row.get('node')}, and then starts its HA machines on other nodes."
        for row in resources
        if row.get("type") == "node" and row.get("hastate") == "fence"
    ]
    for machine in merge_machines(resources, {}, offline):
        if machine.ha == "error":
            lines.append(
                f"{machine.subject} is in the HA error state. HA will not start it again until "
                "somebody disables it in HA and fixes the cause."
            )
        if machine.status in FROZEN:
            lines.append(f"{machine.subject} is in state {machine.status}.")
    lines += _about_storages(resources, offline)
    more = len(lines) - MAX_LINES
    return [*lines[:MAX_LINES], f"And {more:,} more."] if more > 0 else lines


def _about_node(node: Node, silent: bool) -> list[str]:
    if node.status == "offline":
        return [f"Node {node.node} is offline."]
    if silent:
        return [f"Node {node.node} does not answer: it may have just gone down, or it may hang."]
    shares = (
        ("memory", node.memory_used, node.memory_total, "; on ZFS, its cache counts as used"),
        ("root disk", node.disk_used, node.disk_total, ""),
    )
    return [
        f"The {what} of node {node.node} is {100 * used / total:.0f} % full{note}."
        for what, used, total, note in shares
        if used and total and used >= FULL * total
    ]


def _about_storages(resources: list[Row], offline: set[str]) -> list[str]:
    """Return a line for each storage that is full, or that an online node cannot use."""
    nodes = {str(row["node"]) for row in resources if row.get("node")}
    lines = [
        f"Storage {each.storage}{'' if each.shared else f' on {each.nodes[0]}'} is "
        f"{100 * each.used / each.total:.0f} % full."
        for each in merge_storages(resources, {}, nodes, offline)
        if each.used and each.total and each.used >= FULL * each.total
    ]
    inactive: dict[str, list[str]] = {}
    for row in resources:
        up = row.get("status") == "available" or row.get("node") in offline
        if row.get("type") == "storage" and not up:
            inactive.setdefault(clean(row.get("storage")), []).append(row["node"])
    return lines + [not_active(*each) for each in sorted(inactive.items())]
