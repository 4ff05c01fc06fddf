"""Which address to ask, where PROXMOX_URL names several: one that answers and has quorum."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Protocol, TypeVar

from src.connection.addresses import CUT_OFF, Cluster, Entry, time_share
from src.connection.deadline import CONNECT_TIMEOUT, time_left, within
from src.connection.no_answer import NoAnswer, from_none, too_slow
from src.errors import ProxmoxError
from src.proxmox.api import Api
from src.proxmox.rows import read_cluster

T = TypeVar("T")
PROBE_PATIENCE = 0.5  # seconds for an address that failed to show that it is back
HUNG_PATIENCE = 1.0  # and for one that hangs to say whether it has quorum
GRACE = 0.2  # for lists that end at their deadline


class Answers(Protocol):
    """What was answered through one address, as far as it matters here."""

    @property
    def is_whole(self) -> bool:
        """Whether no request was left without an answer."""

    @property
    def completeness(self) -> int:
        """How many answers there are."""

    @property
    def entry_error(self) -> NoAnswer | None:
        """What failed at the address itself, not at a node behind it."""

    @property
    def may_be_cut_off(self) -> bool:
        """Whether its node may have no quorum."""


A = TypeVar("A", bound=Answers)


def quorate(api: Api, entry: Entry) -> bool | None:
    """GET /cluster/status through one address: whether its node has quorum.

    None on a single host, if it cannot be read, and if it is of another cluster. Notes in the
    entry what was found. Raises NoAnswer.
    """
    try:
        return identify(api, entry)
    except NoAnswer as error:
        entry.failed(error)
        raise


def identify(api: Api, entry: Entry) -> bool | None:
    """Note the cluster of an address, and return whether its node has quorum.

    None as for `quorate`. Raises NoAnswer.
    """
    with api.addresses.only(entry):
        try:
            rows = api.rows(api.root.cluster.status)
        except NoAnswer:
            raise
        except ProxmoxError as error:
            if error.code != 403:
                return None
            rows = [row | {"type": "node"} for row in api.rows(api.root.nodes)]
    name, found = read_cluster(rows)
    nodes = (row.get("name") or row.get("node") for row in rows if row.get("type") == "node")
    api.addresses.belongs_to(entry, Cluster(name, frozenset(map(str, nodes))))
    if entry.is_stranger:
        return None
    if found is False:
        entry.trouble = CUT_OFF
    return found


def prefer_quorum(api: Api) -> None:
    """Ask another address first, if the first one is cut off or does not answer.

    One request, and one to each of the others if that fails. Does nothing with one address.
    """
    first, *others = api.addresses.in_order()
    if not others:
        return
    is_silent = False
    with within(min(CONNECT_TIMEOUT, time_left() / 2)):
        try:
            if quorate(api, first) is not False:
                return
        except NoAnswer:
            is_silent = True
    better = find_quorum(api, others)
    if is_silent and not better:  # then one that may have no quorum is better than none
        better = next((entry for entry in others if entry.answers), None)
    if better:
        api.addresses.prefer(better)


def find_quorum(api: Api, entries: Iterable[Entry]) -> Entry | None:
    """Return the first of these addresses that answers and has quorum, None if none has."""
    entries = list(entries)
    all_hang = all(entry.hangs for entry in entries)
    patience = min(HUNG_PATIENCE if all_hang else CONNECT_TIMEOUT, max(0.0, time_left() / 2))
    with within(patience):
        asked = _ask_each(partial(quorate, api), entries)
    try:
        for future in as_completed(asked, patience):
            if future.exception() is None and future.result():
                return asked[future]
    except TimeoutError:
        for future, entry in asked.items():
            if not future.done():
                entry.failed(too_slow(entry.transport.route, patience))
    return None


def through_best(api: Api, ask: Callable[[], A], tick: Callable[[], None] | None = None) -> A:
    """Return what one address answered, the first that answers wholly, or the best one.

    The next is asked if one fails, or is not ready within its share of the time; then both
    go on, but their answers are never mixed. One that has no quorum is not believed while
    another one has it. Calls `tick` about every second. Raises NoAnswer if none answers.
    """
    first, *others = api.addresses.in_order()
    used, answers = _race(api, [first, *others], ask, tick or (lambda: None))
    if answers.may_be_cut_off and (better := _with_quorum(api, used)):
        with api.addresses.only(better), suppress(ProxmoxError):
            used, answers = better, ask()
    if used is not first:
        api.addresses.prefer(used)
    return answers


def _race(
    api: Api, waiting: list[Entry], ask: Callable[[], A], tick: Callable[[], None]
) -> tuple[Entry, A]:
    """Return the entry that answered best, and its answers."""
    pool = ThreadPoolExecutor(len(waiting))
    running: dict[Future[A], tuple[Entry, float]] = {}
    found: list[tuple[Entry, A]] = []
    failures: list[NoAnswer] = []
    turn = 0.0  # when the next is asked
    while (waiting or running) and time_left() > -GRACE:
        now = time.monotonic()
        if waiting and now >= turn:
            entry = waiting.pop(0)
            call = partial(copy_context().run, _ask_one, api, entry, ask)
            running[pool.submit(call)] = entry, now
            turn = now + time_share(len(waiting))
        left = min(1.0, time_left() + GRACE)
        done, _ = wait(running, min(left, turn - now if waiting else left), FIRST_COMPLETED)
        if not done:
            tick()
        for future in done:
            entry, _ = running.pop(future)
            turn = 0.0
            try:
                answers = future.result()
            except NoAnswer as error:
                failures += [] if entry.is_stranger else [error]
                continue
            found.append((entry, answers))
            if answers.is_whole:
                waiting = []
                _note_hung(running.values())
                running = {}
        if not done and waiting and entry.transport.is_busy:
            turn = time.monotonic() + GRACE  # it answers, that it has too many requests
    pool.shutdown(wait=False)
    if not found:
        late = [too_slow(e.transport.route, time.monotonic() - t) for e, t in running.values()]
        raise from_none([*failures, *late, *api.addresses.strangers()])
    return max(found, key=lambda each: each[1].completeness)


def _ask_one(api: Api, entry: Entry, ask: Callable[[], A]) -> A:
    try:
        # Beside the list, which one that does not tell its cluster must not hold up.
        asked = _ask_each(api.addresses.recognize, [entry] if entry.cluster is None else [])
        with api.addresses.only(entry):
            answers = ask()
        wait(asked, PROBE_PATIENCE if len(api.addresses.in_order()) > 1 else 0)
        api.addresses.refuse_stranger(entry)
    except NoAnswer as error:
        if not entry.is_stranger:
            entry.failed(error)
        raise
    if answers.entry_error:
        entry.failed(answers.entry_error)
    return answers


def _note_hung(running: Iterable[tuple[Entry, float]]) -> None:
    """Note the addresses that have not answered anything since they were asked."""
    for entry, began in running:
        if entry.last_answer < began:
            entry.failed(too_slow(entry.transport.route, time.monotonic() - began))


def _with_quorum(api: Api, used: Entry) -> Entry | None:
    """Return another address that has quorum, if this one has none."""
    others = [entry for entry in api.addresses.in_order() if entry is not used]
    try:
        return find_quorum(api, others) if quorate(api, used) is False else None
    except NoAnswer:
        return None


def probe(api: Api) -> Callable[[], list[str]]:
    """Begin to ask the addresses that failed. Return a function that tells what is wrong.

    It does not wait for an address longer than PROBE_PATIENCE.
    """
    failed = [entry for entry in api.addresses.entries if entry.trouble]
    with within(CONNECT_TIMEOUT):
        asked = _ask_each(partial(quorate, api), failed)

    def troubles() -> list[str]:
        wait(asked, PROBE_PATIENCE)
        used = api.addresses.in_order()[0]
        return [
            f"{entry.url} {entry.trouble}; asked through {used.url}"
            for entry in api.addresses.entries
            if entry.trouble and entry is not used and (entry.trouble, used.trouble) != BOTH_CUT
        ]

    return troubles


BOTH_CUT = (CUT_OFF, CUT_OFF)  # then no address has quorum, and that is told anyway


def _ask_each(call: Callable[[Entry], T], entries: Iterable[Entry]) -> dict[Future[T], Entry]:
    """Call for all entries at once."""
    asked: dict[Future[T], Entry] = {}
    chosen = list(entries)
    if chosen:
        pool = ThreadPoolExecutor(len(chosen))
        asked = {pool.submit(partial(copy_context().run, call, each)): each for each in chosen}
        pool.shutdown(wait=False)
    return asked
