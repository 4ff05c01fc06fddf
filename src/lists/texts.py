"""Figures in words, and one line for each row of a list: pure functions."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from src.foreign import some_of
from src.models import Machine, Node, RunningTask, Storage
from src.proxmox.tasks import word_for

STATES = {True: "active", False: "inactive", None: "unknown"}


def size(total: float, used: float | None = None) -> str:
    """Write 12.4/62.7 GiB, or 62.7 GiB, in the unit that fits the total."""
    units = ((4, "TiB"), (3, "GiB"), (2, "MiB"))
    power, unit = next(((p, u) for p, u in units if total >= 1024**p), units[-1])
    part = "" if used is None else f"{used / 1024**power:.1f}/"
    return f"{part}{total / 1024**power:.1f} {unit}"


def duration(seconds: int) -> str:
    """Write 12d 4h, 4h 10m, 10m 5s, 5s."""
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    two = ((d, "d", h, "h"), (h, "h", m, "m"), (m, "m", s, "s"))
    return next((f"{a}{x} {b}{y}" for a, x, b, y in two if a), f"{s}s")


def percent(fraction: float) -> str:
    return f"{max(0.0, fraction) * 100:.0f} %"


def count(number: int, noun: str) -> str:
    """Write 1 node, 2 nodes."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tally(machines: list[Machine]) -> str:
    """Write 230 running, 178 stopped, 1 paused, 2 unknown, 2 templates."""
    counts = Counter(m.status for m in machines if not m.template)
    order = {"running": 0, "stopped": 1, "unknown": 3}
    names = sorted(counts, key=lambda name: (order.get(name, 2), name))
    words = [f"{counts[name]:,} {name}" for name in names]
    templates = sum(machine.template for machine in machines)
    return ", ".join([*words, count(templates, "template")] if templates else words)


def memory_of(machines: list[Machine]) -> str:
    """Write ", memory 22.4/32.0 GiB" of the machines that run, or nothing."""
    known = [m for m in machines if m.memory_used is not None and m.memory_total is not None]
    used, total = sum(m.memory_used or 0 for m in known), sum(m.memory_total or 0 for m in known)
    return f", memory {size(total, used)}" if total else ""


def ranges(numbers: Iterable[int]) -> str:
    """Write 400, 550 to 555."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return some_of(shown)


def since(task: RunningTask) -> str:
    """Write shutdown since 12:30:05 UTC."""
    when = f" since {datetime.fromtimestamp(task.since, UTC):%H:%M:%S} UTC" if task.since else ""
    return f"{word_for(task.type)}{when}"


def tally_storages(storages: list[Storage]) -> str:
    """Write 5 active, 1 inactive, 2 unknown."""
    counts = Counter(STATES[storage.active] for storage in storages)
    return ", ".join(f"{counts[s]:,} {s}" for s in STATES.values() if counts[s])


def not_active(storage: str, nodes: Iterable[str]) -> str:
    """Say that some nodes cannot use a storage."""
    return f"Storage {storage} is not active on {some_of(sorted(nodes))}."


def node_line(node: Node) -> str:
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


def machine_line(machine: Machine) -> str:
    runs = machine.status not in ("stopped", "unknown")
    cpus, total = machine.cpus, machine.memory_total
    busy = runs and cpus is not None and machine.cpu is not None
    return _line(
        f"{machine.vm_id} {machine.name or f'({machine.nameless})'}",
        machine.node,
        machine.type,
        machine.status,
        f"{percent(machine.cpu or 0)} of {cpus:g}" if busy else cpus and f"{cpus:g} CPU",
        total is not None and size(total, machine.memory_used if runs else None),
        runs and machine.uptime is not None and duration(machine.uptime),
        machine.template and "template",
        machine.lock and f"locked ({machine.lock})",
        machine.task is not None and since(machine.task),
        machine.ha and f"HA {machine.ha}",
        bool(machine.tags) and "tags " + ";".join(machine.tags),
        not machine.live and machine.status != "unknown" and "last known",
    )


def storage_line(storage: Storage) -> str:
    total, free = storage.total, storage.available
    return _line(
        storage.storage,
        storage.type,
        STATES[storage.active],
        total is not None and f"{percent(storage.fullness)} of {size(total)} used",
        free is not None and f"{size(free)} available",
        ("shared by " if storage.shared else "on ") + " ".join(storage.nodes),
        "for " + " ".join(storage.content),
    )


def _line(*figures: str | bool | float | list[float] | None) -> str:
    """Join the figures that are known."""
    return ", ".join(figure for figure in figures if isinstance(figure, str))
