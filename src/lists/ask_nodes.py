"""Ask every node at once, without waiting too long for any of them."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from src.connection.addresses import Entry, time_share
from src.connection.deadline import LIST_TIMEOUT, Progress, time_left, within
from src.connection.no_answer import NoAnswer, from_none, too_slow
from src.connection.transport import MAX_REQUESTS
from src.errors import ProxmoxError
from src.lists.texts import count
from src.proxmox.api import Api, check_target
from src.proxmox.entry_nodes import find_quorum, quorate
from src.proxmox.refusals import unknown_node
from src.proxmox.rows import Row, read_cluster


@dataclass(frozen=True)
class Answers:
    """What the cluster and its nodes answered in time.

    `nodes` has the rows of /nodes by name, `offline` the names of the requested nodes that
    are offline. `live` has the nodes' answers by (node, path), `errors` the first error of each
    node. `cluster` has the rows of /cluster/{path} by path, `cluster_errors` the errors.
    """

    nodes: dict[str, Row]
    offline: set[str] = field(default_factory=set)
    live: dict[tuple[str, str], Any] = field(default_factory=dict)
    errors: dict[str, ProxmoxError] = field(default_factory=dict)
    cluster: dict[str, list[Row]] = field(default_factory=dict)
    cluster_errors: dict[str, ProxmoxError] = field(default_factory=dict)

    @property
    def resources(self) -> list[Row]:
        """The rows of /cluster/resources, none if they could not be read."""
        return self.cluster.get("resources", [])

    def by_node(self) -> dict[str, Any]:
        """Return the answers by node, if each node was asked for one path only."""
        return {node: answer for (node, _), answer in self.live.items()}

    @property
    def silent(self) -> set[str]:
        """The nodes that should have answered and sent no answer at all."""
        lost = {node for node, error in self.errors.items() if error.answer_lost}
        return lost - self.by_node().keys()

    @property
    def entry_error(self) -> NoAnswer | None:
        """What failed at the address that was asked, not at a node behind it."""
        behind = [error for error in self.errors.values() if error.code != "timeout"]
        errors = [*self.cluster_errors.values(), *behind]
        return next((error for error in errors if isinstance(error, NoAnswer)), None)

    @property
    def is_poor(self) -> bool:
        """Whether another address may answer better: this one failed, or every node behind it."""
        silent = [error for error in self.errors.values() if isinstance(error, NoAnswer)]
        return self.entry_error is not None or bool(silent and not self.live)

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
        """Raise the first ProxmoxError if nothing at all could be read."""
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
    """GET /nodes/{node}/{path} from every node that is not offline, or from one.

    GET /nodes comes first, alongside GET /cluster/{path} with its parameters for each path of
    `cluster`. Raises ProxmoxError if /nodes fails, and for a node that does not exist.
    """
    if only is not None:
        check_target(only.replace(".", "-"))  # a full name is harmless: it is not found
    patience = patience or LIST_TIMEOUT
    waiting = progress and partial(_report, progress, patience)
    with within(patience):
        ask = partial(_ask_through_one, api, paths, cluster, only, waiting)
        return _through_best(api, ask) if api.addresses.are_several else ask()


def _ask_through_one(
    api: Api,
    paths: Sequence[str],
    cluster: Mapping[str, Mapping[str, str]],
    only: str | None,
    waiting: Callable[[int], None] | None,
    share: float = math.inf,
) -> Answers:
    """Ask through one address. Give up after `share` seconds if it answers nothing itself."""
    patience = time_left()
    pool = ThreadPoolExecutor(MAX_REQUESTS)

    def ask(call: Callable[..., Any], *args: Any, **params: str) -> Future[Any]:
        return pool.submit(partial(copy_context().run, call, *args, **params))

    try:
        listing = ask(api.rows, api.root.nodes)
        cluster_requests = {
            path: ask(api.rows, getattr(api.root.cluster, path), **params)
            for path, params in cluster.items()
        }
        wait([listing], min(patience, share))
        nodes = _by_name(_result(listing, api, min(patience, share)), only)
        wanted = sorted(nodes) if only is None else [only]
        offline = {n for n in wanted if nodes[n].get("status") == "offline"}
        # By path first, so that nodes that hang cannot hold up the others.
        asked = {
            (name, path): ask(_ask, api, name, path)
            for path in paths
            for name in wanted
            if name not in offline
        }
        everything = [*cluster_requests.values(), *asked.values()]
        ends = patience - share  # what is left of the time then
        _wait(everything, waiting, ends)
        answers = _collect(api, Answers(nodes, offline), asked, cluster_requests, patience)
        if ends > 0 and not answers.is_poor:
            _wait(everything, waiting)
            answers = _collect(api, Answers(nodes, offline), asked, cluster_requests, patience)
        return answers
    finally:
        # Do not wait for requests that hang: they time out by themselves.
        pool.shutdown(wait=False, cancel_futures=True)


def _through_best(api: Api, ask: Callable[..., Answers]) -> Answers:
    """Ask through the first address, and through the next if it fails or has no quorum.

    Returns what one of them answered, never a mixture.
    """
    addresses = api.addresses
    entries = addresses.in_order()
    found: list[tuple[Entry, Answers]] = []
    failures: list[NoAnswer] = []
    for number, entry in enumerate(entries, 1):
        if number > 1 and time_left() <= 0:
            break
        share = time_share(len(entries) - number)
        # A little earlier, so that a failure to connect is told as that.
        with addresses.only(entry, connect=0.9 * share):
            try:
                answers = ask(share)
            except NoAnswer as error:
                entry.failed(error)
                failures.append(error)
                continue
        found.append((entry, answers))
        if answers.entry_error:
            entry.failed(answers.entry_error)
        if not answers.is_poor:
            break
    if not found:
        raise from_none(failures)
    used, answers = max(found, key=lambda each: each[1].completeness)
    better = _with_quorum(api, used) if answers.may_be_cut_off else None
    if better:
        with addresses.only(better), suppress(ProxmoxError):
            used, answers = better, ask()
    if used is not entries[0]:
        addresses.prefer(used)
    return answers


def _with_quorum(api: Api, used: Entry) -> Entry | None:
    """Return another address that has quorum, if this one has none."""
    others = [entry for entry in api.addresses.in_order() if entry is not used]
    return find_quorum(api, others) if quorate(api, used) is False else None


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
            answers.errors.setdefault(name, error)
    for path, future in cluster_requests.items():
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
        # A VM that vanishes or a container that is being killed fails a whole list once.
        if error.code != 500 or path == "storage":
            raise
        return api.rows(resource, node)


def _wait(
    futures: Collection[Future[Any]], waiting: Callable[[int], None] | None, ends: float = 0
) -> None:
    """Wait for all until `ends` seconds are left, and report each second how many are missing."""
    pending = set(futures)
    while pending and (left := time_left() - max(0.0, ends)) > 0:
        pending = wait(pending, min(1.0, left)).not_done
        if pending and waiting:
            waiting(len(pending))


def _report(progress: Progress, patience: float, missing: int) -> None:
    done = patience - time_left()
    progress(round(done), round(patience), f"waiting for {count(missing, 'more answer')}")


def _result(future: Future[Any], api: Api, seconds: float, node: str = "") -> Any:
    if not future.done() or future.cancelled():
        raise too_slow(api.route, seconds, node)
    return future.result()
