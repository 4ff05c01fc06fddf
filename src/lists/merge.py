"""Merge the answers of the cluster and its nodes into one list: pure functions."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from src.models import KINDS, Machine, Node, NodeResources, Storage, Totals
from src.proxmox.rows import (
    Row,
    flag,
    integer,
    read_machine,
    read_node,
    read_node_resources,
    read_storage,
    read_storage_resource,
)


def add_up(nodes: list[Node]) -> Totals:
    """Add up the online nodes. A sum without any known value is None."""
    online = [node for node in nodes if node.status == "online"]
    busy = [(n.cpu, n.cpus) for n in online if n.cpu is not None and n.cpus]
    weight = sum(cpus for _, cpus in busy)

    def total(values: Iterable[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return Totals(
        nodes=len(nodes),
        online=len(online),
        cpu=round(sum(cpu * n for cpu, n in busy) / weight, 4) if weight else None,
        cpus=total(node.cpus for node in online),
        memory_used=total(node.memory_used for node in online),
        memory_total=total(node.memory_total for node in online),
    )


def merge_nodes(
    rows: Mapping[str, Row], live: Mapping[str, Row], silent: Collection[str], resources: list[Row]
) -> list[Node]:
    """Return the nodes by name: the rows of /nodes, overlaid with their own answers.

    Those in `silent` are unknown, whatever /nodes says: the cluster notices a dead node
    only after 8 s, and a hung daemon never. `resources` show HA maintenance.
    """
    in_maintenance = {
        row.get("node")
        for row in resources
        if row.get("type") == "node" and row.get("hastate") == "maintenance"
    }
    return [
        replace(
            Node(name, "unknown")
            if name in silent
            else _merge_node(
                read_node(row), read_node_resources(name, live[name]) if name in live else None
            ),
            maintenance=name in in_maintenance,
        )
        for name, row in sorted(rows.items())
    ]


def _merge_node(node: Node, live: NodeResources | None) -> Node:
    """Overlay a node of /nodes with its own live figures, but not its status and cpu."""
    if live is None:
        return node
    known = {key: value for key in vars(node) if (value := getattr(live, key)) is not None}
    known["status"] = node.status
    if node.cpu is not None:
        known["cpu"] = node.cpu
    return replace(node, **known)


def merge_machines(
    resources: list[Row], live: Mapping[tuple[str, str], list[Row]], offline: Collection[str]
) -> list[Machine]:
    """Return every machine exactly once, by vm_id: its row of resources under its live one.

    `live` has the rows of /nodes/{node}/qemu and /lxc by (node, "qemu" or "lxc").
    """
    known: dict[int, Row] = {}
    for row in resources:
        vm_id = integer(row.get("vmid"))
        if row.get("type") in KINDS and row.get("node") and vm_id is not None:
            known[vm_id] = row
    answered: dict[int, Row] = {}
    for (node, kind), rows in live.items():
        for row in rows:
            vm_id = integer(row.get("vmid"))
            if vm_id is None:
                continue
            # A machine that migrates meanwhile may be in the answers of both nodes.
            if vm_id not in answered or known.get(vm_id, {}).get("node") == node:
                answered[vm_id] = {**row, "node": node, "type": kind}
    return [
        read_machine(vm_id, answered.get(vm_id), known.get(vm_id, {}), offline)
        for vm_id in sorted(known.keys() | answered.keys())
    ]


def merge_storages(
    resources: list[Row],
    live: Mapping[str, list[Row]],
    silent: Collection[str],
    offline: Collection[str],
) -> list[Storage]:
    """Return every storage by name and node: a shared one once, a local one for each node.

    `live` has the rows of /nodes/{node}/storage by node. The storages of nodes in `silent`
    and `offline` come from `resources`.
    """
    storages = [
        read_storage(node, row)
        for node, rows in live.items()
        for row in rows
        # One that is not enabled is disabled, or assigned to other nodes only.
        if row.get("storage") and flag(row.get("enabled", 1))
    ]
    storages += [
        read_storage_resource(row, offline)
        for row in resources
        if row.get("type") == "storage" and row.get("node") in {*silent, *offline}
    ]
    same: dict[tuple[str, str], list[Storage]] = {}
    for storage in storages:
        key = (storage.storage, "" if storage.shared else storage.nodes[0])
        same.setdefault(key, []).append(storage)
    rank = {True: 0, False: 1, None: 2}
    return [
        replace(
            min(group, key=lambda each: (rank[each.active], each.used is None)),
            nodes=sorted(storage.nodes[0] for storage in group),
        )
        for _, group in sorted(same.items())
    ]
