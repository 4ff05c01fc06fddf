"""Notes about a list as a whole: its totals, what it lacks and why. Pure functions."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from src.errors import ProxmoxError
from src.foreign import shorten
from src.lists.ask_nodes import Answers
from src.lists.filters import Filters
from src.lists.texts import (
    count,
    memory_of,
    not_active,
    percent,
    ranges,
    size,
    tally,
    tally_storages,
)
from src.models import Machine, Storage, Totals
from src.proxmox.refusals import UnknownRequest
from src.proxmox.rows import flag

MAX_NOTES, MAX_NOTE, MAX_NAMESAKES = 30, 1000, 5
# What Proxmox says where there is no Ceph, and where ZFS is broken, not absent, the opposite.
NO_CEPH, NO_ZFS = "not installed|not initialized|not configured", "^(?!.*(time|timed) ?out)"
ROOT_DISKS = " (the nodes' root disks: list_infrastructure)"


def about_nodes(
    answers: Answers,
    cluster: str | None,
    quorate: bool | None,
    totals: Totals,
    unknown: int = 0,
    sources: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the totals, and what could not be read. `unknown` counts nodes without statistics,
    `sources` says what each path of the cluster tells."""
    quorum = {None: "", True: ", quorate", False: ", NOT QUORATE"}
    head = f"Cluster {cluster}{quorum[quorate]}: " if cluster else ""
    head += f"{totals.online} of {count(totals.nodes, 'node')} online"
    head += f", {unknown} unknown" if unknown else ""
    if totals.cpu is not None:
        head += f", CPU {percent(totals.cpu)} of {totals.cpus}"
    if totals.memory_total is not None:
        head += f", memory {size(totals.memory_total, totals.memory_used)}"
    head += " (storages: list_storage)"
    notes = _failed(answers.errors, "load, version and live figures are missing")
    error = answers.cluster_errors.get("status")
    # Without the right to ask (403) both are null, as on a single host.
    if error and error.code != 403:
        notes.append(f"The cluster's name and quorum could not be read. {error.cause}")
    if error := answers.cluster_errors.get("resources"):
        notes.append(
            f"Storages and machines could not be checked for what needs attention. {error.cause}"
        )
    for path, what in (sources or {}).items():
        error = answers.cluster_errors.get(path)
        if path == "ceph" and (_is_absent(error, NO_CEPH) or "resources" in answers.cluster_errors):
            continue
        if error and path != "status" and not is_refused(error):
            notes.append(f"{what[0].upper()}{what[1:]} could not be read. {error.cause}")
    others = {
        node: error
        for (node, _), error in answers.optional_errors.items()
        if not (_is_absent(error, NO_ZFS) or is_refused(error) or node in answers.errors)
    }
    if others:
        first, *_ = others.values()
        notes.append(f"ZFS of {', '.join(sorted(others))} could not be read. {first.cause}")
    return _bounded([head, *notes])


def is_refused(error: ProxmoxError | None) -> bool:
    """Whether the token may not ask for something, or this version does not have it."""
    return error is not None and (error.code == 403 or isinstance(error, UnknownRequest))


def _is_absent(error: ProxmoxError | None, words: str) -> bool:
    """Whether an error says that something is not installed."""
    return error is not None and error.code == 500 and bool(re.search(words, error.cause))


def _lost(node: str, answers: Answers) -> str:
    return "is offline" if node in answers.offline else "does not answer"


def about_machines(
    answers: Answers,
    everything: list[Machine],
    shown: list[Machine],
    filters: Filters,
    token_id: str,
) -> list[str]:
    """Return the tally, what the filters hide, and what the list lacks."""
    there = [machine for machine in everything if filters.node in (None, machine.node)]
    notes = [_head(answers, there, shown, filters)]
    unknown = [each for each in everything if filters.cannot_match(each)]
    for node in sorted({machine.node for machine in unknown}):
        ids = [machine.vm_id for machine in unknown if machine.node == node]
        notes.append(
            f"{count(len(ids), 'machine')} on {node} ({ranges(ids)}) cannot be matched: their "
            f"names and tags are not known while it {_lost(node, answers)}. One of them may be "
            "meant."
        )
    is_read = "resources" in answers.cluster
    if filters.pool and is_read and not any(machine.pool for machine in everything):
        notes.append(
            f"No machine is in a pool, or the token {token_id} lacks Pool.Audit on /pool, without "
            "which pools cannot be seen."
        )
    if not is_read and (filters.pool or filters.status):
        notes.append(
            "Pools, and states such as paused, could not be read, so the filters may hide machines "
            "that match."
        )
    notes += _missing(answers, "machines")
    if not there and not answers.errors:
        nodes = {str(row["node"]) for row in answers.resources if row.get("node")}
        if filters.node and nodes - {filters.node}:
            others = ", ".join(sorted(nodes))
            notes.append(f"There are machines on other nodes: {others}.")
        elif not nodes and "resources" not in answers.cluster_errors:
            notes.append(_nothing("machines", "VM.Audit on /vms", token_id))
    notes += _namesakes(shown)
    if any(machine.status == "paused" for machine in shown):
        notes.append("paused: suspended, not hung; resume it in Proxmox.")
    return _bounded(notes)


def _head(answers: Answers, there: list[Machine], shown: list[Machine], filters: Filters) -> str:
    """Say how many machines there are, how many match, and what is not shown."""
    where = filters.node or count(len({machine.node for machine in there}), "node")
    on_node = f" on {filters.node}" if filters.node else ""
    if not shown:
        narrowed = f" match ({filters.words})" if filters.words else ""
        rest = f" Without the filters there are: {tally(there)}." if there else ""
        if not there and "resources" in answers.cluster_errors:
            return f"No machines{on_node} can be seen."
        return f"No machines{on_node}{narrowed}.{rest}"
    if not filters.narrows:
        return f"{count(len(shown), 'machine')} on {where}: {tally(shown)}{memory_of(shown)}"
    ids = {machine.vm_id for machine in shown}
    hidden = [machine for machine in there if machine.vm_id not in ids]
    head = (
        f"{len(shown):,} of {count(len(there), 'machine')} on {where} "
        f"{'matches' if len(shown) == 1 else 'match'} ({filters.words}): {tally(shown)}"
        f"{memory_of(shown)}."
    )
    return f"{head} Not shown: {tally(hidden)}." if hidden else head


def _namesakes(machines: list[Machine]) -> list[str]:
    """Say which machines have the same name."""
    ids: dict[str, list[int]] = {}
    for machine in machines:
        if machine.name:
            ids.setdefault(machine.name, []).append(machine.vm_id)
    same = {name: vm_ids for name, vm_ids in sorted(ids.items()) if len(vm_ids) > 1}
    notes = [
        f"{len(vm_ids)} machines have the name {name} ({ranges(vm_ids)})."
        for name, vm_ids in list(same.items())[:MAX_NAMESAKES]
    ]
    left = len(same) - MAX_NAMESAKES
    return [*notes, f"{left:,} more names are those of several machines."] if left > 0 else notes


def about_storages(answers: Answers, storages: list[Storage], token_id: str) -> list[str]:
    head = "No storages can be seen." if "resources" in answers.cluster_errors else "No storages."
    if storages:
        head = f"{count(len(storages), 'storage')}: {tally_storages(storages)}{ROOT_DISKS}"
    notes = _missing(answers, "storages")
    if any(error.answer_lost for error in answers.errors.values()):
        notes.append(
            "A node checks its storages one by one. If only this list waits for a node, the "
            "likely cause is a dead network storage (NFS, CIFS)."
        )
    notes += _inactive_somewhere(storages, answers.by_node("storage"))
    if not storages and not answers.errors:
        notes.append(_nothing("storages", "Datastore.Audit on /storage", token_id))
    return _bounded([head, *notes])


def _bounded(notes: list[str]) -> list[str]:
    """Shorten the notes, and keep at most MAX_NOTES: the rows need room as well."""
    more = len(notes) - MAX_NOTES
    shown = [shorten(line, MAX_NOTE) for line in notes[:MAX_NOTES]]
    return [*shown, f"And {count(more, 'more note')}."] if more > 0 else shown


def _nothing(things: str, privilege: str, token_id: str) -> str:
    """Say that the cause of an empty list may be a missing right."""
    return (
        f"The token {token_id} can see no {things}. If there are any, it lacks {privilege}: "
        "grant that to the user and, with privilege separation, to the token as well."
    )


def _missing(answers: Answers, things: str) -> list[str]:
    """Say what a list of machines or storages lacks."""
    notes = _failed(answers.errors, f"{things} there are shown as last known")
    for name in sorted(answers.offline):
        notes.append(f"{name} is offline: the state of its {things} is unknown.")
    if error := answers.cluster_errors.get("resources"):
        notes.append(
            f"The cluster's own list could not be read, so the {things} of nodes that did "
            f"not answer are missing. {error.cause}"
        )
    error = answers.cluster_errors.get("tasks")
    if error and not is_refused(error):
        notes.append(f"What runs on the machines now could not be read. {error.cause}")
    return notes


def _failed(errors: Mapping[str, ProxmoxError], consequence: str) -> list[str]:
    """Return a note for each kind of failure, with the names of its nodes."""
    kinds: dict[int | str, list[str]] = {}
    for name in sorted(errors):
        kinds.setdefault(errors[name].code, []).append(name)
    notes = []
    for code, names in kinds.items():
        error = str(errors[names[0]])
        if len(names) > 1:  # a right on /nodes serves all of them
            error = error.replace(f"/nodes/{names[0]}", "/nodes")
        what, lacks = "denied access" if code == 403 else "did not answer", consequence
        if code in (400, 500):
            what = "answered with an error"
            lacks = f"some {consequence}"  # it may have answered others
        notes.append(f"{', '.join(names)} {what}: {lacks}. {error}")
    return notes


def _inactive_somewhere(storages: Iterable[Storage], live: Mapping[str, Any]) -> list[str]:
    """Return a note for each shared storage that only some of its nodes can use."""
    notes = []
    for storage in storages:
        dead = [
            node
            for node, rows in live.items()
            for row in rows
            if row.get("storage") == storage.storage
            and flag(row.get("enabled", 1))
            and not flag(row.get("active"))
        ]
        if storage.active and storage.shared and dead:
            notes.append(not_active(storage.storage, dead))
    return notes
