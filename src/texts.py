"""What the model reads of a list: pure functions.

infrastructure_text, machines_text, storage_text    a tally, the notes, a line a row
size, duration, percent, count                      figures in words
fit                                                 what may be as long as MAX_TEXT
"""

from __future__ import annotations

from collections import Counter

from src.models import Infrastructure, Machine, Machines, Node, Storage, Storages

MAX_TEXT = 40_000  # characters: clients cut or refuse more


def size(total: float, used: float | None = None) -> str:
    """12.4/62.7 GiB, or 62.7 GiB: in the unit that fits the total."""
    units = ((4, "TiB"), (3, "GiB"), (2, "MiB"))
    power, unit = next(((p, u) for p, u in units if total >= 1024**p), units[-1])
    part = "" if used is None else f"{used / 1024**power:.1f}/"
    return f"{part}{total / 1024**power:.1f} {unit}"


def duration(seconds: int) -> str:
    """12d 4h, 4h 10m, 10m 5s, 5s."""
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    two = ((d, "d", h, "h"), (h, "h", m, "m"), (m, "m", s, "s"))
    return next((f"{a}{x} {b}{y}" for a, x, b, y in two if a), f"{s}s")


def percent(fraction: float) -> str:
    return f"{fraction * 100:.0f} %"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tally(machines: list[Machine]) -> str:
    """230 running, 180 stopped, 1 paused, 2 unknown."""
    counts = Counter(machine.status for machine in machines)
    order = {"running": 0, "stopped": 1, "unknown": 3}
    names = sorted(counts, key=lambda name: (order.get(name, 2), name))
    return ", ".join(f"{counts[name]:,} {name}" for name in names)


def infrastructure_text(found: Infrastructure) -> str:
    """A tally, the notes, and a line a node."""
    totals = found.totals
    quorum = {
        None: "",
        True: ", quorate",
        False: ", NOT QUORATE, so nothing can be started",
    }
    head = f"Cluster {found.cluster}{quorum[found.quorate]}: " if found.cluster else ""
    head += f"{totals.online} of {count(totals.nodes, 'node')} online"
    if totals.cpu is not None:
        head += f", CPU {percent(totals.cpu)} of {totals.cpus}"
    if totals.memory_total is not None:
        head += f", memory {size(totals.memory_total, totals.memory_used)}"
    return "\n".join([head, *found.notes, *map(_node_line, found.nodes)])


def _node_line(node: Node) -> str:
    return _line(
        f"{node.node} {node.status}",
        node.cpu is not None and f"CPU {percent(node.cpu)} of {node.cpus}",
        node.memory_total and f"memory {size(node.memory_total, node.memory_used)}",
        node.disk_total and f"root disk {size(node.disk_total, node.disk_used)}",
        node.load and "load " + " ".join(f"{value:.2f}" for value in node.load),
        node.uptime is not None and f"up {duration(node.uptime)}",
        node.version and f"version {node.version}",
    )


def _line(*figures: str | bool | float | list[float] | None) -> str:
    """Those of the figures that are known."""
    return ", ".join(figure for figure in figures if isinstance(figure, str))


def machines_text(
    found: Machines, shown: list[Machine], node: str | None, status: str | None
) -> str:
    """A tally, the notes, and a line a machine; too many to fit are counted by node."""
    by_node: dict[str, list[Machine]] = {}
    for machine in shown:
        by_node.setdefault(machine.node, []).append(machine)
    where = f"on {node}" if node else f"on {count(len(by_node), 'node')}"
    top = [f"{count(len(shown), 'machine')} {where}: {tally(shown)}"]
    if not shown:
        there = f"There are: {tally(found.machines)}." if found.machines else ""
        top = [f"No machine{f' on {node}' if node else ''} is {status}. {there}"]
        if status is None or not found.machines:
            top = ["No machines."]
    top += found.notes
    if shown:
        top.append("vm_id name, node, type, status, CPU, memory, uptime:")
    filters = [
        name for name, value in (("node", node), ("status", status)) if value is None
    ]
    then = f"Call list_machines with {' or '.join(filters)} to see them."
    return fit(
        top,
        list(map(_machine_line, shown)),
        [f"{name}: {tally(by_node[name])}" for name in sorted(by_node)],
        then if filters else "The structured content has them all.",
    )


def _machine_line(machine: Machine) -> str:
    runs = machine.status not in ("stopped", "unknown")
    cpus, total = machine.cpus, machine.memory_total
    busy = runs and cpus is not None and machine.cpu is not None
    return _line(
        f"{machine.vm_id} {' '.join((machine.name or '(no name)').split())}",
        machine.node,
        machine.type,
        machine.status,
        f"{percent(machine.cpu or 0)} of {cpus:g}"
        if busy
        else cpus and f"{cpus:g} CPU",
        total is not None and size(total, machine.memory_used if runs else None),
        runs and machine.uptime is not None and duration(machine.uptime),
        machine.template and "template",
        machine.lock and f"locked ({machine.lock})",
        bool(machine.tags) and "tags " + " ".join(machine.tags),
        not machine.live and machine.status != "unknown" and "last known",
    )


STATES = {True: "active", False: "inactive", None: "unknown"}


def storage_text(found: Storages) -> str:
    """A tally, the notes, and a line a storage, fullest first."""
    counts = Counter(STATES[each.active] for each in found.storages)
    tallied = ", ".join(f"{counts[s]:,} {s}" for s in STATES.values() if counts[s])
    head = f"{count(len(found.storages), 'storage')}: {tallied}"
    rows = sorted(found.storages, key=lambda row: (-_fullness(row), row.active is None))
    return fit(
        [head if found.storages else "No storages.", *found.notes],
        list(map(_storage_line, rows)),
        [],
        "The fullest are above; the structured content has them all.",
    )


def _fullness(storage: Storage) -> float:
    return storage.used / storage.total if storage.used and storage.total else 0.0


def _storage_line(storage: Storage) -> str:
    total, free = storage.total, storage.available
    return _line(
        storage.storage,
        storage.type,
        STATES[storage.active],
        total is not None and f"{percent(_fullness(storage))} of {size(total)} used",
        free is not None and f"{size(free)} free",
        ("shared by " if storage.shared else "on ") + " ".join(storage.nodes),
        "for " + " ".join(storage.content),
    )


def fit(top: list[str], rows: list[str], summary: list[str], then: str) -> str:
    """The lines; where they are too many, the summary, whole rows, and what to do."""
    text = "\n".join(top + rows)
    if len(text) <= MAX_TEXT:
        return text
    top[1:1] = summary
    left = MAX_TEXT - sum(len(line) + 1 for line in top) - len(then) - 50
    shown = 0
    while left > len(rows[shown]):
        left -= len(rows[shown]) + 1
        shown += 1
    more = f"{len(rows) - shown:,} more rows are not shown. {then}"
    return "\n".join([*top, *rows[:shown], more])
