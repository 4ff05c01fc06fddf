"""Every node at once, none waited for too long.

ask_nodes    asks the cluster and each node that is not offline
Answers      what came, and what went wrong
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from src.api import MAX_REQUESTS, Api, check_target, scoped, time_left, within
from src.errors import ProxmoxError
from src.failures import too_slow, unknown_node
from src.merge import named_nodes
from src.rows import Row

LIST_PATIENCE = 10.0  # a node that has not answered by then counts as not answering


@dataclass(frozen=True)
class Answers:
    """What the cluster and its nodes answered in time.

    `nodes` has the rows of /nodes by name, `offline` those of the wanted nodes that are;
    `came` the answers by (node, path), `errors` the first one of each node that failed;
    `cluster` the rows of /cluster/..., or `cluster_error` why they did not come.
    """

    nodes: dict[str, Row]
    offline: set[str]
    came: dict[tuple[str, str], Any]
    errors: dict[str, ProxmoxError]
    cluster: list[Row]
    cluster_error: ProxmoxError | None

    def raise_if_empty(self) -> None:
        """Raise what went wrong, where nothing at all could be had."""
        if self.cluster_error and self.errors and not self.came:
            raise self.cluster_error


def ask_nodes(
    api: Api,
    paths: Sequence[str],
    cluster: str,
    params: Mapping[str, str],
    only: str | None = None,
) -> Answers:
    """Ask /nodes/{node}/{path} of every node that is not offline, or of one.

    /nodes and /cluster/{cluster} are asked beside them. Raises ProxmoxError where no
    node is known, and for one that does not exist.
    """
    if only is not None:
        check_target(only)
    pool = ThreadPoolExecutor(MAX_REQUESTS)
    with within(LIST_PATIENCE):
        patience = time_left()
        try:
            listing = pool.submit(scoped(api.rows, api.root.nodes))
            beside = pool.submit(scoped(_ask_cluster, api, cluster, params))
            nodes = _nodes(api, listing, beside)
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
            wait([beside, *asked.values()], time_left())
        finally:
            # What hangs ends by its own timeout; nobody waits for it.
            pool.shutdown(wait=False, cancel_futures=True)
    came: dict[tuple[str, str], Any] = {}
    errors: dict[str, ProxmoxError] = {}
    for (name, path), future in asked.items():
        try:
            came[name, path] = _result(future, api, patience, name)
        except ProxmoxError as error:
            errors.setdefault(name, error)
    try:
        rows, cluster_error = _result(beside, api, patience), None
    except ProxmoxError as error:
        rows, cluster_error = [], error
    return Answers(nodes, offline, came, errors, rows, cluster_error)


def _nodes(
    api: Api, listing: Future[list[Row]], beside: Future[list[Row]]
) -> dict[str, Row]:
    """The rows of /nodes by name; where that fails, the nodes the cluster names."""
    patience = time_left()
    wait([listing], patience)
    try:
        rows = _result(listing, api, patience)
    except ProxmoxError as error:
        wait([beside], time_left())
        try:
            rows = named_nodes(_result(beside, api, patience))
        except ProxmoxError:
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
        # A VM that vanishes meanwhile fails the whole list, once.
        if error.code != 500 or path == "storage":
            raise
        return api.rows(resource, node)


def _result(future: Future[Any], api: Api, seconds: float, node: str = "") -> Any:
    if not future.done() or future.cancelled():
        raise too_slow(api.settings, seconds, node)
    return future.result()
