"""Ask every node at once, without waiting too long for any of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

from src.connection.deadline import LIST_TIMEOUT, Progress, time_left, within
from src.connection.no_answer import NoAnswer, too_slow
from src.connection.transport import MAX_REQUESTS
from src.errors import ProxmoxError
from src.lists.texts import count
from src.proxmox.api import Api, check_target
from src.proxmox.entry_nodes import through_best
from src.proxmox.refusals import unknown_node
from src.proxmox.rows import Row, read_cluster

OWN = ("status", "resources", "tasks")  # paths of the cluster that the asked node answers
OPTIONAL = ("disks/zfs",)  # paths that a node may not have
# The path of the cluster that must have answered, and what to do with its rows.
After = tuple[str, Callable[[Api, list[Row]], list[Row]]]


@dataclass(frozen=True)
class Answers:
    """What the cluster and its nodes answered in time.

    `nodes` has the rows of /nodes by name, `offline` the names of the requested nodes that
    are offline. `live` has the nodes' answers by (node, path), `errors` the first error of each
    node. `cluster` has the rows of /cluster/{path} by path, `cluster_errors` the errors.
    `optional_errors` has those of paths that a node may not have, by (node, path).
    """

    nodes: dict[str, Row]
    offline: set[str] = field(default_factory=set)
    live: dict[tuple[str, str], Any] = field(default_factory=dict)
    errors: dict[str, ProxmoxError] = field(default_factory=dict)
    cluster: dict[str, list[Row]] = field(default_factory=dict)
    cluster_errors: dict[str, ProxmoxError] = field(default_factory=dict)
    optional_errors: dict[tuple[str, str], ProxmoxError] = field(default_factory=dict)

    @property
    def resources(self) -> list[Row]:
        """The rows of /cluster/resources, none if they could not be read."""
        return self.cluster.get("resources", [])

    def by_node(self, path: str) -> dict[str, Any]:
        """Return what the nodes answered at one path, by node."""
        return {node: answer for (node, asked), answer in self.live.items() if asked == path}

    @property
    def silent(self) -> set[str]:
        """The nodes that should have answered and sent no answer at all."""
        lost = {node for node, error in self.errors.items() if error.answer_lost}
        return lost - {node for node, path in self.live if path not in OPTIONAL}

    @property
    def entry_error(self) -> NoAnswer | None:
        """What failed at the address that was asked, not at a node behind it."""
        behind = [error for error in self.errors.values() if error.code != "timeout"]
        errors = [*self._own_errors, *behind]
        return next((error for error in errors if isinstance(error, NoAnswer)), None)

    @property
    def _own_errors(self) -> list[ProxmoxError]:
        """The errors of what any node answers by itself."""
        return [error for path, error in self.cluster_errors.items() if path in OWN]

    @property
    def is_whole(self) -> bool:
        """Whether no request was left without an answer."""
        errors = [*self.errors.values(), *self._own_errors]
        return not any(isinstance(error, NoAnswer) for error in errors)

    @property
    def completeness(self) -> int:
        """How many answers there are, to compare two addresses."""
        return len(self.live) + len(self.cluster)

    @property
    def may_be_cut_off(self) -> bool:
        """Whether the node that was asked may have no quorum: half of the nodes are offline."""
        offline = [row for row in self.nodes.values() if row.get("status") == "offline"]
        status = read_cluster(self.cluster.get("status", []))
        return status[1] is False or (status[1] is None and 2 * len(offline) >= len(self.nodes) > 1)

    def raise_if_empty(self) -> None:
        """Raise the ProxmoxError of /cluster/resources if no node answered either."""
        error = self.cluster_errors.get("resources")
        if error and self.errors and not self.live:
            raise error


def ask_nodes(
    api: Api,
    paths: Sequence[str],
    cluster: Mapping[str, Mapping[str, str]],
    only: str | None = None,
    patience: float | None = None,
    progress: Progress | None = None,
    after: Mapping[str, After] | None = None,
) -> Answers:
    """GET /nodes/{node}/{path} from every node that is not offline, or from one.

    GET /nodes is sent alongside GET /cluster/{path} with its parameters for each path of
    `cluster`, and alongside the requests to the nodes that were online at the last list; the
    other nodes are asked once it has answered. `after` has what to ask, by a name for it, once
    one of `cluster` has answered. Raises ProxmoxError if /nodes fails, and for a node that does
    not exist.
    """
    if only is not None:
        check_target(only.replace(".", "-"))  # a full name is harmless: it is not found
    patience = patience or LIST_TIMEOUT
    waiting = progress and partial(_report, progress, patience)
    with within(patience):
        ask = partial(_ask_through_one, api, paths, cluster, after or {}, only)
        if api.addresses.are_several:  # only this thread may report progress
            return through_best(api, ask, partial(waiting, 0) if waiting else None)
        return ask(waiting)


def _ask_through_one(
    api: Api,
    paths: Sequence[str],
    cluster: Mapping[str, Mapping[str, str]],
    after: Mapping[str, After],
    only: str | None,
    waiting: Callable[[int], None] | None = None,
) -> Answers:
    """Ask through one address."""
    patience = time_left()
    pool = ThreadPoolExecutor(MAX_REQUESTS)

    def ask(call: Callable[..., Any], *args: Any, **params: str) -> Future[Any]:
        return pool.submit(partial(copy_context().run, call, *args, **params))

    try:
        listing = ask(api.rows, api.root.nodes)
        cluster_requests = {
            path: ask(api.rows, _resource(api.root.cluster, path), **params)
            for path, params in cluster.items()
        }
        for name, (path, call) in after.items():
            cluster_requests[name] = ask(_then, cluster_requests[path], call, api)
        # The nodes that were online at the last list are not waited for.
        early = sorted(api.online if only is None else api.online & {only})
        asked = {key: ask(_ask, api, *key) for key in _by_path(early, paths)}
        wait([listing], patience)
        nodes = _by_name(_result(listing, api, patience), only)
        api.online = {n for n, row in nodes.items() if row.get("status") == "online"}
        wanted = sorted(nodes) if only is None else [only]
        offline = {n for n in wanted if nodes[n].get("status") == "offline"}
        asked = {
            key: asked.get(key) or ask(_ask, api, *key)
            for key in _by_path([n for n in wanted if n not in offline], paths)
        }
        _wait([*cluster_requests.values(), *asked.values()], waiting)
    finally:
        # Do not wait for requests that hang: they time out by themselves.
        pool.shutdown(wait=False, cancel_futures=True)
    return _collect(api, Answers(nodes, offline), asked, cluster_requests, patience)


def _by_path(names: Sequence[str], paths: Sequence[str]) -> list[tuple[str, str]]:
    """Return what to ask: by path first, so that nodes that hang cannot hold up the others."""
    return [(name, path) for path in paths for name in names]


def _by_name(rows: list[Row], only: str | None) -> dict[str, Row]:
    nodes = {str(row["node"]): row for row in rows if row.get("node")}
    if only is not None and only not in nodes:
        raise unknown_node(only, nodes)
    return nodes


def _collect(
    api: Api,
    answers: Answers,
    asked: Mapping[tuple[str, str], Future[Any]],
    cluster_requests: Mapping[str, Future[list[Row]]],
    patience: float,
) -> Answers:
    """Add the results of what has ended. What has not is an error."""
    for (name, path), future in asked.items():
        try:
            answers.live[name, path] = _result(future, api, patience, name)
        except ProxmoxError as error:
            if path in OPTIONAL:
                answers.optional_errors[name, path] = error
            else:
                answers.errors.setdefault(name, error)
    for path, future in cluster_requests.items():
        try:
            answers.cluster[path] = _result(future, api, patience)
        except ProxmoxError as error:
            answers.cluster_errors[path] = error
    return answers


def _ask(api: Api, node: str, path: str) -> Any:
    """GET /nodes/{node}/{path}."""
    resource = _resource(api.root.nodes(node), path)
    if path == "status":
        return api.row(resource, node)
    try:
        return api.rows(resource, node)
    except ProxmoxError as error:
        # A VM that vanishes or a container that is being killed fails a whole list once.
        if error.code != 500 or path in ("storage", *OPTIONAL):
            raise
        return api.rows(resource, node)


def _then(source: Future[list[Row]], call: Callable[[Api, list[Row]], Any], api: Api) -> Any:
    return call(api, source.result())


def _resource(root: Any, path: str) -> Any:
    """Return proxmoxer's resource for a path below another one."""
    return reduce(getattr, path.split("/"), root)


def _wait(futures: Collection[Future[Any]], waiting: Callable[[int], None] | None) -> None:
    """Wait for all until the deadline, and report each second how many are missing."""
    pending = set(futures)
    while pending and (left := time_left()) > 0:
        pending = wait(pending, min(1.0, left)).not_done
        if pending and waiting:
            waiting(len(pending))


def _report(progress: Progress, patience: float, missing: int) -> None:
    """Report the seconds so far, and how many answers are missing, 0 if that is unknown."""
    done = patience - time_left()
    what = count(missing, "more answer") if missing else "more answers"
    progress(round(done), round(patience), f"waiting for {what}")


def _result(future: Future[Any], api: Api, seconds: float, node: str = "") -> Any:
    if not future.done() or future.cancelled():
        raise too_slow(api.route, seconds, node)
    return future.result()
