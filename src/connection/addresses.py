"""The addresses of PROXMOX_URL: which one is asked, and which one next if it does not answer."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import requests
from requests.adapters import BaseAdapter

from src.config.settings import Settings
from src.connection.deadline import ATTEMPT_TIMEOUT, READ_TIMEOUT, time_left, within
from src.connection.no_answer import (
    NoAnswer,
    from_none,
    of_another_cluster,
    of_unknown_cluster,
)
from src.connection.route import Route
from src.connection.transport import Transport, check_request

CUT_OFF = "is cut off from the cluster (no quorum)"


class Cluster(NamedTuple):
    """What an address says of its cluster. The name may be unknown or missing."""

    name: str | None
    nodes: frozenset[str]

    def is_same(self, other: "Cluster") -> bool:
        return bool(self.nodes & other.nodes) and self.name == other.name


@dataclass(eq=False)
class Entry:
    """One address, and how it fared. Any of them answers for the whole cluster.

    `trouble` is what is wrong with it, "" since its last answer. `hung` is when it left a
    request unanswered: it is asked last until it answers a later one. `cluster` is None until
    it is known; an address of another cluster `is_stranger`.
    """

    transport: Transport
    trouble: str = ""
    hung: float = -math.inf
    last_answer: float = -math.inf
    cluster: Cluster | None = None
    is_stranger: bool = False

    @property
    def url(self) -> str:
        return self.transport.route.address.url

    @property
    def hangs(self) -> bool:
        return self.hung > -math.inf

    @property
    def answers(self) -> bool:
        return self.trouble in ("", CUT_OFF)

    def failed(self, error: NoAnswer) -> None:
        """Note that it did not answer."""
        what = "cannot be used" if "certificate" in error.reason else "does not answer"
        self.trouble = f"{what} ({error.reason.replace('no answer', 'nothing')})"
        if error.code != "refused":
            self.hung = time.monotonic()

    def answered(self, began: float) -> None:
        """Note an answer to a request that began then."""
        self.last_answer = time.monotonic()
        if began >= self.hung and not self.is_stranger:
            self.trouble, self.hung = "", -math.inf


# The one entry to ask.
_only: ContextVar[Entry | None] = ContextVar("only", default=None)


class Addresses(BaseAdapter):
    """Send each request through one of the addresses, as requests' adapter for https.

    The one that answered last is the first to be asked. Where nothing of a request could be
    sent, or a GET was not answered, the next is tried, each one once. An answer, whatever it
    says, is final. A POST of which anything may have been sent is never sent again, and none
    goes to a next address whose cluster is unknown.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        routes = [Route.to(address, settings) for address in settings.addresses]
        self.entries = [Entry(Transport(route)) for route in routes]
        # Finds out the cluster of an entry, and raises NoAnswer.
        self.identify: Callable[[Entry], object] | None = None
        self._first = self.entries[0]
        self._lock = threading.Lock()
        self._latest = threading.local()

    @property
    def are_several(self) -> bool:
        return len(self.entries) > 1

    @property
    def has_another(self) -> bool:
        """Whether a request that gets no answer is sent to another address."""
        return self.are_several and _only.get() is None

    @property
    def current(self) -> Entry:
        """The entry that this thread's latest request went to, else the one to ask first."""
        latest: Entry = getattr(self._latest, "entry", self._first)
        return _only.get() or latest

    def in_order(self) -> list[Entry]:
        """Return the entries in the order in which to ask them."""
        with self._lock:
            first = self._first
        ours = [entry for entry in self.entries if not entry.is_stranger]
        return sorted(ours, key=lambda each: (each.hangs, each is not first))

    def prefer(self, entry: Entry) -> None:
        """Ask this one first from now on."""
        with self._lock:
            self._first = entry

    @contextmanager
    def only(self, entry: Entry) -> Iterator[None]:
        """Run a block whose requests all go to one entry, also in copies of the context."""
        token = _only.set(entry)
        try:
            yield
        finally:
            _only.reset(token)

    def recognize(self, entry: Entry) -> None:
        """Raise NoAnswer if the entry is of another cluster, or does not answer.

        Two clusters may have a machine of the same id, and nodes of the same name. Asks each
        entry once, if there are several.
        """
        if not self.are_several or self.identify is None:
            return
        if entry.cluster is None:
            self.identify(entry)
        self.refuse_stranger(entry)

    def refuse_stranger(self, entry: Entry) -> None:
        """Raise NoAnswer if the entry is known to be of another cluster."""
        if entry.is_stranger:
            raise of_another_cluster(entry.transport.route)

    def belongs_to(self, entry: Entry, cluster: Cluster) -> None:
        """Note the cluster of an entry, and whether it is another one than that of the others."""
        with self._lock:
            others = [each for each in self.entries if each is not entry and each.cluster]
            ours = [each.cluster for each in others if each.cluster and not each.is_stranger]
            entry.cluster = cluster
            entry.is_stranger = bool(ours) and not cluster.is_same(ours[0])
            if entry.is_stranger:
                entry.trouble = f"belongs to another cluster ({cluster.name or 'no name'})"

    def strangers(self) -> list[NoAnswer]:
        """Return an error for each address of another cluster, which is not asked."""
        routes = [entry.transport.route for entry in self.entries if entry.is_stranger]
        return [of_another_cluster(route) for route in routes]

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        check_request(request)
        if only := _only.get():
            return self._through(only, request, options, math.inf)
        entries = self.in_order()
        failures: list[NoAnswer] = []
        for number, entry in enumerate(entries, 1):
            share = time_share(len(entries) - number)
            is_sent = False
            try:
                if number > 1:
                    with within(min(share, time_left())):
                        self.recognize(entry)
                    if request.method == "POST" and entry.cluster is None:
                        raise of_unknown_cluster(entry.transport.route)
                is_sent = True
                response = self._through(entry, request, options, share)
            except NoAnswer as error:
                failures.append(error)
                if not self.are_several:
                    raise
                if entry.is_stranger:
                    failures.pop()  # it is told below
                else:
                    entry.failed(error)
                if request.method == "POST" and is_sent and error.code != "refused":
                    break
            else:
                if number > 1:
                    self.prefer(entry)
                return response
        failure = from_none([*failures, *self.strangers()])
        if request.method == "POST" and not is_sent:
            failure.code = "refused"
        raise failure

    def _through(
        self, entry: Entry, request: requests.PreparedRequest, options: Any, share: float
    ) -> requests.Response:
        """Send a request to one entry, which must connect, and answer a GET, within `share` s."""
        self._latest.entry = entry
        if entry is not self.entries[0]:
            request = request.copy()
            path = str(request.url).removeprefix(self.entries[0].url)
            request.url = f"{entry.url}{path}"
        began = time.monotonic()
        limit = min(share, time_left()) if request.method == "GET" else time_left()
        with within(limit):
            response = entry.transport.ask(request, share, **options)
        entry.answered(began)
        return response

    def close(self) -> None:
        for entry in self.entries:
            entry.transport.close()


def time_share(others: int) -> float:
    """Return the seconds for one address, so that some are left for each of the others."""
    left = min(time_left(), READ_TIMEOUT)
    return min(left / (others + 1), ATTEMPT_TIMEOUT) if others else math.inf
