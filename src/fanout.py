"""Every node at once, none waited for too long.

ask_nodes    asks the cluster and each node that is not offline
Answers      what came, and what went wrong
Progress     how it tells that it still waits
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from src.api import MAX_REQUESTS, Api, check_target, scoped, time_left, within
from src.connection import too_slow
from src.errors import ProxmoxError
from src.failures import unknown_node
from src.merge import named_nodes
from src.rows import Row

LIST_PATIENCE = 10.0  # a node that has not answered by then counts as not answering

Progress = Callable[[float, float, str], None]  # seconds so far, at most, what for


@dataclass(frozen=True)
class Answers:
    """What the cluster and its nodes answered in time.

    `nodes` has the rows of /nodes by name, `offline` those of the wanted nodes that are;
    `came` the answers by (node, path), `errors` the first one of each node that failed;
    `cluster` the rows of /cluster/{path} by path, `cluster_errors` why some did not come.
    """

    nodes: dict[str, Row]
    offline: set[str]
    came: dict[tuple[str, str], Any]
    errors: dict[str, ProxmoxError]
    cluster: dict[str, list[Row]]
    cluster_errors: dict[str, ProxmoxError]

    @property
    def resources(self) -> list[Row]:
        return self.cluster.get("resources", [])

    @property
    def silent(self) -> set[str]:
        """The nodes that should have answered and did not answer anything."""
        heard = {node for node, _ in self.came}
        return {
            node
            for node, error in self.errors.items()
            if node not in heard and error.answer_lost
        }

    def raise_if_empty(self) -> None:
        """Raise what went wrong, where nothing at all could be had."""
        if self.cluster_errors and self.errors and not self.came:
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

    /nodes is asked beside them, and each /cluster/{path} of `cluster` with its parameters.
    Raises ProxmoxError where no node is known, and for one that does not exist.
    """
    if only is not None:
        check_target(only.replace(".", "-"))  # a full name is no node, but no harm
    pool = ThreadPoolExecutor(MAX_REQUESTS)
    with within(patience or LIST_PATIENCE):
        try:
            listing = pool.submit(scoped(api.rows, api.root.nodes))
            beside = {
                path: pool.submit(scoped(_ask_cluster, api, path, params))
                for path, params in cluster.items()
            }
            nodes = _nodes(api, listing, beside.values())
            if only is not None and only not in nodes:
                raise unknown_node(only, nodes)
            wanted = sorted(nodes) if only is None else [only]
            offline = {name for name in wanted if nodes[name]["status"] == "offline"}
            # By path, so that nodes that hang cannot keep the others from being asked.
            asked = {
                (name, path): pool.submit(scoped(_ask, api, name, path))
                for path in paths
                for name in wanted
                if name not in offline
            }
            _wait([*beside.values(), *asked.values()], progress)
        finally:
            # What hangs ends by its own timeout; nobody waits for it.
            pool.shutdown(wait=False, cancel_futures=True)
    return _collect(api, nodes, offline, asked, beside, patience or LIST_PATIENCE)


def _collect(
    api: Api,
    nodes: dict[str, Row],
    offline: set[str],
    asked: Mapping[tuple[str, str], Future[Any]],
    beside: Mapping[str, Future[list[Row]]],
    patience: float,
) -> Answers:
    """The Answers of what has ended; what has not is too slow."""
    answers = Answers(nodes, offline, {}, {}, {}, {})
    for (name, path), future in asked.items():
        try:
            answers.came[name, path] = _result(future, api, patience, name)
        except ProxmoxError as error:
            answers.errors.setdefault(name, error)
    for path, future in beside.items():
        try:
            answers.cluster[path] = _result(future, api, patience)
        except ProxmoxError as error:
            answers.cluster_errors[path] = error
    return answers


def _wait(futures: Collection[Future[Any]], progress: Progress | None) -> None:
    """Wait for all, to the deadline, and tell about it every second."""
    patience = time_left()
    pending = set(futures)
    while pending and (left := time_left()) > 0:
        pending = wait(pending, min(1.0, left)).not_done
        if pending and progress:
            doing = f"{len(pending)} answers are missing"
            progress(round(patience - time_left()), round(patience), doing)


def _nodes(
    api: Api, listing: Future[list[Row]], beside: Collection[Future[list[Row]]]
) -> dict[str, Row]:
    """The rows of /nodes by name; where that fails, the nodes the cluster names."""
    patience = time_left()
    wait([listing], patience)
    try:
        rows = _result(listing, api, patience)
    except ProxmoxError as error:
        wait(beside, time_left())
        rows = []
        for future in beside:
            try:
                rows = rows or named_nodes(_result(future, api, patience))
            except ProxmoxError:
                continue
        if not rows:
            raise error from None
    return {
        str(row["node"]): {**row, "status": row.get("status") or "unknown"}
        for row in rows
        if row.get("node")
    }


def _ask_cluster(api: Api, path: str, params: Mapping[str, str]) -> list[Row]:
    """GET /cluster/{path}, and again after dropped connections: all else rests on it."""
    resource = getattr(api.root.cluster, path)
    try:
        return api.rows(resource, **params)
    except ProxmoxError as error:
        if error.code != "dropped":
            raise
        return api.rows(resource, **params)


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


def _result(future: Future[Any], api: Api, seconds: float, node: str = "") -> Any:
    if not future.done() or future.cancelled():
        raise too_slow(api.settings, seconds, node)
    return future.result()
