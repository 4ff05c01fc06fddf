"""What a list lacks, and why: pure functions.

about_nodes           what list_infrastructure lacks
about_machines        what list_machines lacks
about_storages        what list_storage lacks
nothing_shown         an empty answer may be a missing right
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from src.errors import ProxmoxError
from src.fanout import Answers
from src.models import Machine, Storage
from src.rows import Row, flag


def about_nodes(answers: Answers) -> list[str]:
    said = _failed(answers.errors, "load, version and fresh figures are missing")
    error = answers.cluster_errors.get("status")
    # Without the right to ask (403) both are null, as on a standalone host.
    if error and error.code != 403:
        said.append(f"The cluster's name and quorum are missing. {error.cause}")
    if error := answers.cluster_errors.get("resources"):
        said.append(
            "Storages and machines were not looked at for what needs attention. "
            f"{error.cause}"
        )
    return said


def about_machines(
    answers: Answers, machines: list[Machine], node: str | None, token_id: str
) -> list[str]:
    said = _missing(answers, "machines")
    if machines or answers.errors:
        return said
    nodes = {str(row["node"]) for row in answers.resources if row.get("node")}
    if node and nodes - {node}:
        there = ", ".join(sorted(nodes))
        said.append(f"There are machines on other nodes: {there}.")
    elif not nodes:
        said.append(nothing_shown("machines", "VM.Audit on /vms", token_id))
    return said


def about_storages(
    answers: Answers, storages: list[Storage], token_id: str
) -> list[str]:
    said = _missing(answers, "storages")
    if any(error.answer_lost for error in answers.errors.values()):
        said.append(
            "A node checks its storages one after another: a dead network storage (NFS, "
            "CIFS) is the likely cause where only this list waits for a node."
        )
    live = {name: rows for (name, _), rows in answers.came.items()}
    said += _inactive_somewhere(storages, live)
    if not storages and not answers.errors:
        said.append(nothing_shown("storages", "Datastore.Audit on /storage", token_id))
    return said


def nothing_shown(things: str, privilege: str, token_id: str) -> str:
    return (
        f"Proxmox shows no {things} to the token {token_id}. If there are some, it "
        f"lacks {privilege}: grant that to the user and, with privilege separation, to "
        "the token as well."
    )


def _missing(answers: Answers, things: str) -> list[str]:
    """What a list of machines or storages lacks."""
    said = _failed(answers.errors, f"{things} there are shown as last known")
    for name in sorted(answers.offline):
        said.append(f"{name} is offline: the state of its {things} is unknown.")
    if error := answers.cluster_errors.get("resources"):
        said.append(
            f"The cluster's broadcast is missing, and with it the {things} of nodes that "
            f"did not answer. {error.cause}"
        )
    return said


def _failed(errors: Mapping[str, ProxmoxError], consequence: str) -> list[str]:
    """A note for each kind of failure, naming the nodes that had it."""
    kinds: dict[int | str, list[str]] = {}
    for name in sorted(errors):
        kinds.setdefault(errors[name].code, []).append(name)
    return [
        f"{', '.join(names)} {'refused' if code == 403 else 'did not answer'}: "
        f"{consequence}. {errors[names[0]]}"
        for code, names in kinds.items()
    ]


def _inactive_somewhere(
    storages: Iterable[Storage], live: Mapping[str, list[Row]]
) -> list[str]:
    """A note for each shared storage that some of its nodes can use and others cannot."""
    said = []
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
            said.append(
                f"{storage.storage} is not active on {', '.join(sorted(dead))}."
            )
    return said
