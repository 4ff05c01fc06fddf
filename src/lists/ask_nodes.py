"""Every node at once, none waited for too long."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from src.errors import ProxmoxError
from src.proxmox.api import Api, check_target
from src.proxmox.deadline import Progress, time_left, within
from src.proxmox.no_answer import too_slow
from src.proxmox.refusals import unknown_node
from src.proxmox.rows import Row
from src.proxmox.transport import MAX_REQUESTS

LIST_PATIENCE = 10.0  # a node that has not answered by then counts as not answering


@dataclass(frozen=True)
class Answers:
    """What the cluster and its nodes answered in time.

    `nodes` has the rows of /nodes by name, `offline` those of the wanted nodes that are;
    `live` the answers by (node, path), `errors` the first one of each node that failed;
    `cluster` the rows of /cluster/{path} by path, `cluster_errors` why some did not come.
    """

    nodes: dict[str, Row]
    offline: set[str] = field(default_factory=set)
    live: dict[tuple[str, str], Any] = field(default_factory=dict)
    errors: dict[str, ProxmoxError] = field(default_factory=dict)
    cluster: dict[str, list[Row]] = field(default_factory=dict)
    cluster_errors: dict[str, ProxmoxError] = field(default_factory=dict)

    @property
    def resources(self) -> list[Row]:
        return self.cluster.get("resources", [])

    def by_node(self) -> dict[str, Any]:
        """The answers of the nodes where each was asked for one path."""
        return {node: answer for (node, _), answer in self.live.items()}

    @property
    def silent(self) -> set[str]:
        """The nodes that should have answered and did not answer anything."""
        lost = {node for node, error in self.errors.items() if error.answer_lost}
        return lost - self.by_node().keys()

    def raise_if_empty(self) -> None:
        """Raise what went wrong where nothing at all could be had."""
        if self.cluster_errors and self.errors and not self.live:
            raise next(iter(self.cluster_errors.values()))


def ask_nodes(
    api: Api,
    paths: Sequence[str],
    cluster: Mapping[str, Mapping[str, str]],
    only: str | None = None,
    patience: float | None = None,
    progress: Progress | None = None,
) -> Answers:
    """Ask /nodes/{node}/{path} of every node that is not offline, or of one.

    /nodes is asked first, and each /cluster/{path} of `cluster`, with its parameters,
    beside it. Raises ProxmoxError where /nodes fails, and for a node that is not there.
    """
    if only is not None:
        check_target(only.replace(".", "-"))  # a full name is no node, but no harm
    patience = patience or LIST_PATIENCE
    pool = ThreadPoolExecutor(MAX_REQUESTS)

    def ask(call: Callable[..., Any], *args: Any, **params: str) -> Future[Any]:
        return pool.submit(partial(copy_context().run, call, *args, **params))

    with within(patience):
        try:
            listing = ask(api.rows, api.root.nodes)
            beside = {
                path: ask(api.rows, getattr(api.root.cluster, path), **params)
                for path, params in cluster.items()
            }
            wait([listing], patience)
            rows = _result(listing, api, patience)
            nodes = {str(row["node"]): row for row in rows if row.get("node")}
            if only is not None and only not in nodes:
                raise unknown_node(only, nodes)
            wanted = sorted(nodes) if only is None else [only]
            offline = {n for n in wanted if nodes[n].get("status") == "offline"}
            # By path, so that nodes that hang cannot keep the others from being asked.
            asked = {
                (name, path): ask(_ask, api, name, path)
                for path in paths
                for name in wanted
                if name not in offline
            }
            _wait([*beside.values(), *asked.values()], progress)
        finally:
            # What hangs ends by its own timeout; nobody waits for it.
            pool.shutdown(wait=False, cancel_futures=True)
    return _collect(api, Answers(nodes, offline), asked, beside, patience)


def _collect(
    api: Api,
    answers: Answers,
    asked: Mapping[tuple[str, str], Future[Any]],
    beside: Mapping[str, Future[list[Row]]],
    patience: float,
) -> Answers:
    """The answers with what has ended; what has not is too slow."""
    for (name, path), future in asked.items():
        try:
            answers.live[name, path] = _result(future, api, patience, name)
        except ProxmoxError as error:
            answers.errors.setdefault(name, error)
    for path, future in beside.items():
        try:
            answers.cluster[path] = _result(future, api, patience)
        except ProxmoxError as error:
            answers.cluster_errors[path] = error
    return answers


def _ask(api: Api, node: str, path: str) -> Any:
    """GET /nodes/{node}/{path}."""
    resource = getattr(api.root.nodes(node), path)
    if path == "status":
        return api.row(resource, node)
    try:
        return api.rows(resource, node)
    except ProxmoxError as error:
        # A VM that vanishes, a container that is being killed fail a whole list, once.
        if error.code != 500 or path == "storage":
            raise
        return api.rows(resource, node)


def _wait(futures: Collection[Future[Any]], progress: Progress | None) -> None:
    """Wait for all, to the deadline, and tell about it every second."""
    patience = time_left()
    pending = set(futures)
    while pending and (left := time_left()) > 0:
        pending = wait(pending, min(1.0, left)).not_done
        if pending and progress:
            doing = f"{len(pending)} answers are missing"
            progress(round(patience - time_left()), round(patience), doing)


def _result(future: Future[Any], api: Api, seconds: float, node: str = "") -> Any:
    if not future.done() or future.cancelled():
        raise too_slow(api.settings, seconds, node)
    return future.result()
