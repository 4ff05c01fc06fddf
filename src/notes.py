"""What a list lacks, and why: pure functions.

missing               what a list of machines or storages lacks
failed_nodes          nodes that refused or did not answer
no_cluster            the cluster's name and quorum did not come
inactive_somewhere    shared storages that some nodes cannot use
nothing_shown         an empty answer may be a missing right
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from src.errors import ProxmoxError
from src.fanout import Answers
from src.models import Storage
from src.rows import Row, flag


def missing(answers: Answers, things: str) -> list[str]:
    """What a list of machines or storages lacks, and why."""
    said = failed_nodes(answers.errors, f"{things} there are shown as last known")
    for name in sorted(answers.offline):
        said.append(f"{name} is offline: the state of its {things} is unknown.")
    if answers.cluster_error:
        said.append(
            f"The cluster's broadcast is missing, and with it the {things} of nodes that "
            f"did not answer. {answers.cluster_error.cause}"
        )
    return said


def failed_nodes(errors: Mapping[str, ProxmoxError], consequence: str) -> list[str]:
    """A note for each kind of failure, naming the nodes that had it."""
    kinds: dict[int | str, list[str]] = {}
    for name in sorted(errors):
        kinds.setdefault(errors[name].code, []).append(name)
    return [
        f"{', '.join(names)} {'refused' if code == 403 else 'did not answer'}: "
        f"{consequence}. {errors[names[0]]}"
        for code, names in kinds.items()
    ]


def no_cluster(error: ProxmoxError) -> str:
    return f"The cluster's name and quorum are missing. {error.cause}"


def inactive_somewhere(
    storages: Iterable[Storage], live: Mapping[str, list[Row]]
) -> list[str]:
    """A note for each shared storage that some nodes can use and others cannot."""
    said = []
    for storage in storages:
        dead = [
            node
            for node, rows in live.items()
            for row in rows
            if row.get("storage") == storage.storage and not flag(row.get("active"))
        ]
        if storage.active and storage.shared and dead:
            said.append(
                f"{storage.storage} is not active on {', '.join(sorted(dead))}."
            )
    return said


def nothing_shown(things: str, privilege: str, token_id: str) -> str:
    return (
        f"Proxmox shows no {things} to the token {token_id}. If there are some, it "
        f"lacks {privilege}: grant that to the user and, with privilege separation, to "
        "the token as well."
    )
