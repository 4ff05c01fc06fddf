"""Which address to ask, where PROXMOX_URL names several: none whose node is cut off."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from src.connection.addresses import CUT_OFF, Entry
from src.connection.deadline import CONNECT_TIMEOUT, time_left, within
from src.connection.no_answer import NoAnswer
from src.errors import ProxmoxError
from src.proxmox.api import Api
from src.proxmox.rows import read_cluster

T = TypeVar("T")
PROBE_PATIENCE = 0.5  # seconds for an address that failed to show that it is back


def quorate(api: Api, entry: Entry) -> bool | None:
    """GET /cluster/status through one address: whether its node has quorum.

    None on a single host, and without the right to ask. Raises NoAnswer. Notes what was
    found in `entry.trouble`.
    """
    with api.addresses.only(entry):
        try:
            found = read_cluster(api.rows(api.root.cluster.status))[1]
        except NoAnswer as error:
            entry.failed(error)
            raise
        except ProxmoxError:
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
    patience = min(CONNECT_TIMEOUT, time_left() / 2)
    with within(patience):
        asked = _ask_each(partial(quorate, api), entries)
    try:
        for future in as_completed(asked, patience):
            if future.exception() is None and future.result():
                return asked[future]
    except TimeoutError:
        pass  # the others do not answer
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
            f"{entry.url} {entry.trouble}; asked through {used.url}."
            for entry in api.addresses.entries
            if entry.trouble and entry is not used
        ]

    return troubles


def _ask_each(call: Callable[[Entry], T], entries: Iterable[Entry]) -> dict[Future[T], Entry]:
    """Call for all entries at once."""
    asked: dict[Future[T], Entry] = {}
    chosen = list(entries)
    if chosen:
        pool = ThreadPoolExecutor(len(chosen))
        asked = {pool.submit(partial(copy_context().run, call, each)): each for each in chosen}
        pool.shutdown(wait=False)
    return asked
