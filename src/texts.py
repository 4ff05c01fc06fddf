"""What the model reads of a list: pure functions.

infrastructure_page, machines_page, storage_page    a tally, the notes, a line a row
Page                                                such a list, in at most MAX_TEXT
Filters                                             what list_machines was asked for
fullest_first, bounded                              the order of storages, of notes
size, duration, percent, count, tally               figures in words
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypedDict

from src.models import Infrastructure, Machine, Machines, Node, Storage, Storages

MAX_TEXT = 40_000  # characters: clients cut or refuse more
MAX_NOTES, MAX_NOTE = 30, 1000


class Filters(TypedDict):
    """The filters of list_machines; None is no filter."""

    node: str | None
    status: str | None
    name: str | None


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
    return f"{max(0.0, fraction) * 100:.0f} %"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tally(machines: list[Machine]) -> str:
    """230 running, 178 stopped, 1 paused, 2 unknown, 2 templates."""
    counts = Counter(m.status for m in machines if not m.template)
    order = {"running": 0, "stopped": 1, "unknown": 3}
    names = sorted(counts, key=lambda name: (order.get(name, 2), name))
    words = [f"{counts[name]:,} {name}" for name in names]
    templates = sum(machine.template for machine in machines)
    return ", ".join([*words, count(templates, "template")] if templates else words)


@dataclass(frozen=True)
class Page:
    """A list as it is read: `top` lines, `columns`, and a line a row.

    Where the rows are too many, `summary` stands for those that are left out, and `then`
    says how to see them. `notes` is what is told beyond the rows, for those who read the
    rows elsewhere.
    """

    notes: list[str]
    rows: list[str]
    top: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    summary: list[str] = field(default_factory=list)
    then: str = ""

    @property
    def text(self) -> str:
        """All of it, whole rows left out where it would be longer than MAX_TEXT."""
        top = [*self.top, *self.notes, *self.columns]
        if sum(len(line) + 1 for line in [*top, *self.rows]) <= MAX_TEXT + 1:
            return "\n".join([*top, *self.rows])
        top = [*self.top, *self.notes, *self.summary, *self.columns]
        left = MAX_TEXT - sum(len(line) + 1 for line in top) - len(self.then) - 50
        shown = 0
        while shown < len(self.rows) and left > len(self.rows[shown]):
            left -= len(self.rows[shown]) + 1
            shown += 1
        more = f"{len(self.rows) - shown:,} more rows are not shown. {self.then}"
        return "\n".join([*top, *self.rows[:shown], more])

    @property
    def note_of_missing(self) -> str:
        return f"Rows are left out here, there being too many. {self.then}"


def bounded(notes: list[str]) -> list[str]:
    """At most MAX_NOTES, each cut to length: the rows need room as well."""
    more = len(notes) - MAX_NOTES
    shown = [line[:MAX_NOTE] for line in notes[:MAX_NOTES]]
    return [*shown, f"And {more:,} more notes."] if more > 0 else shown


def infrastructure_page(found: Infrastructure) -> Page:
    """What needs attention, a tally, the notes, and a line a node."""
    totals = found.totals
    top = ["Needs attention:", *(f"- {line}" for line in found.attention)]
    if not found.attention:
        seen = " that could be seen" if found.notes else ""
        top = [f"Nothing{seen} needs attention."]
    quorum = {None: "", True: ", quorate", False: ", NOT QUORATE"}
    head = f"Cluster {found.cluster}{quorum[found.quorate]}: " if found.cluster else ""
    head += f"{totals.online} of {count(totals.nodes, 'node')} online"
    if totals.cpu is not None:
        head += f", CPU {percent(totals.cpu)} of {totals.cpus}"
    if totals.memory_total is not None:
        head += f", memory {size(totals.memory_total, totals.memory_used)}"
    rows = list(map(_node_line, found.nodes))
    return Page(bounded([head, *found.notes]), rows, top)


def _node_line(node: Node) -> str:
    return _line(
        f"{node.node} {node.status}",
        node.maintenance and "in HA maintenance",
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


def machines_page(
    found: Machines, all_of_them: list[Machine], filters: Filters
) -> Page:
    """A tally, the notes, and a line a machine; too many to fit are counted by node."""
    by_node: dict[str, list[Machine]] = {}
    for machine in found.machines:
        by_node.setdefault(machine.node, []).append(machine)
    node = filters["node"]
    where = f"on {node}" if node else f"on {count(len(by_node), 'node')}"
    head = f"{count(len(found.machines), 'machine')} {where}: {tally(found.machines)}"
    if not found.machines:
        wanted = [
            f"{name} {filters[name]}" for name in ("status", "name") if filters[name]
        ]
        where = f" on {node}" if node else ""
        which = f" with {' and '.join(wanted)}" if wanted else ""
        head = f"No machines{where}{which}."
        if wanted and all_of_them:
            head += f" There are: {tally(all_of_them)}."
    others = " or ".join(name for name, value in filters.items() if value is None)
    return Page(
        bounded([head, *found.notes]),
        list(map(_machine_line, found.machines)),
        columns=["vm_id name, node, type, status, CPU, memory, uptime:"]
        * bool(by_node),
        summary=[f"{name}: {tally(by_node[name])}" for name in sorted(by_node)],
        then=f"Call list_machines with {others or 'a longer name'} to see them.",
    )


def _machine_line(machine: Machine) -> str:
    runs = machine.status not in ("stopped", "unknown")
    cpus, total = machine.cpus, machine.memory_total
    busy = runs and cpus is not None and machine.cpu is not None
    return _line(
        f"{machine.vm_id} {machine.name or '(no name)'}",
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
        machine.ha and f"HA {machine.ha}",
        bool(machine.tags) and "tags " + " ".join(machine.tags),
        not machine.live and machine.status != "unknown" and "last known",
    )


STATES = {True: "active", False: "inactive", None: "unknown"}


def storage_page(found: Storages) -> Page:
    """A tally, the notes, and a line a storage."""
    counts = Counter(STATES[each.active] for each in found.storages)
    tallied = ", ".join(f"{counts[s]:,} {s}" for s in STATES.values() if counts[s])
    head = f"{count(len(found.storages), 'storage')}: {tallied}"
    return Page(
        bounded([head if found.storages else "No storages.", *found.notes]),
        list(map(_storage_line, found.storages)),
        then="Those that are shown are the fullest.",
    )


def fullest_first(storages: list[Storage]) -> list[Storage]:
    return sorted(storages, key=lambda row: (-_fullness(row), row.active is None))


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
