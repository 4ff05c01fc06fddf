"""Notes about a list as a whole: its totals, what it lacks and why. Pure functions."""

from collections.abc import Iterable, Mapping
from typing import Any

from src.errors import ProxmoxError
from src.lists.ask_nodes import Answers
from src.lists.filters import Filters
from src.lists.texts import count, not_active, percent, size, tally, tally_storages
from src.models import Machine, Storage, Totals
from src.proxmox.rows import flag

MAX_NOTES, MAX_NOTE = 30, 1000


def about_nodes(
    answers: Answers, cluster: str | None, quorate: bool | None, totals: Totals
) -> list[str]:
    quorum = {None: "", True: ", quorate", False: ", NOT QUORATE"}
    head = f"Cluster {cluster}{quorum[quorate]}: " if cluster else ""
    head += f"{totals.online} of {count(totals.nodes, 'node')} online"
    if totals.cpu is not None:
        head += f", CPU {percent(totals.cpu)} of {totals.cpus}"
    if totals.memory_total is not None:
        head += f", memory {size(totals.memory_total, totals.memory_used)}"
    notes = _failed(answers.errors, "load, version and live figures are missing")
    error = answers.cluster_errors.get("status")
    # Without the right to ask (403) both are null, as on a single host.
    if error and error.code != 403:
        notes.append(f"The cluster's name and quorum could not be read. {error.cause}")
    if error := answers.cluster_errors.get("resources"):
        notes.append(
            f"Storages and machines could not be checked for what needs attention. {error.cause}"
        )
    return _bounded([head, *notes])


def about_machines(
    answers: Answers,
    everything: list[Machine],
    shown: list[Machine],
    filters: Filters,
    token_id: str,
) -> list[str]:
    node = filters.node
    where = node or count(len({machine.node for machine in shown}), "node")
    head = f"{count(len(shown), 'machine')} on {where}: {tally(shown)}"
    there = [machine for machine in everything if node in (None, machine.node)]
    if not shown:
        head = f"No machines{filters.words}."
        if there:
            head += f" Without the filters there are: {tally(there)}."
    notes = _missing(answers, "machines")
    if not there and not answers.errors:
        nodes = {str(row["node"]) for row in answers.resources if row.get("node")}
        if node and nodes - {node}:
            others = ", ".join(sorted(nodes))
            notes.append(f"There are machines on other nodes: {others}.")
        elif not nodes:
            notes.append(_nothing("machines", "VM.Audit on /vms", token_id))
    return _bounded([head, *notes])


def about_storages(answers: Answers, storages: list[Storage], token_id: str) -> list[str]:
    head = f"{count(len(storages), 'storage')}: {tally_storages(storages)}"
    notes = _missing(answers, "storages")
    if any(error.answer_lost for error in answers.errors.values()):
        notes.append(
            "A node checks its storages one by one. If only this list waits for a node, the "
            "likely cause is a dead network storage (NFS, CIFS)."
        )
    notes += _inactive_somewhere(storages, answers.by_node())
    if not storages and not answers.errors:
        notes.append(_nothing("storages", "Datastore.Audit on /storage", token_id))
    return _bounded([head if storages else "No storages.", *notes])


def _bounded(notes: list[str]) -> list[str]:
    """Shorten the notes, and keep at most MAX_NOTES: the rows need room as well."""
    more = len(notes) - MAX_NOTES
    shown = [line[:MAX_NOTE] for line in notes[:MAX_NOTES]]
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
        what = "denied access" if code == 403 else "did not answer"
        notes.append(f"{', '.join(names)} {what}: {consequence}. {error}")
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
