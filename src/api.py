"""The way to the API: what may leave, how long it may take, what errors become.

check_target    what must not get into a URL is an error
within          a scope: the requests in it end in so many seconds
look            one look within a longer wait
time_left       the seconds that are left of the scope
scoped          a call for another thread, within the scope of this one
Api             GET and the four POSTs over proxmoxer, every failure a ProxmoxError
Transport       what leaves: the gate, the deadline, TLS
"""

from __future__ import annotations

import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from proxmoxer import ResourceException  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter
from urllib3.exceptions import LocationValueError

from src.connection import unanswered
from src.environment import tls_unavailable
from src.errors import ProxmoxError
from src.failures import (
    invalid_target,
    not_proxmox,
    not_the_api,
    refused,
    too_late,
)
from src.models import MAX_NODE_NAME, MAX_VM_ID, MIN_VM_ID, NODE_PATTERN
from src.rows import Row
from src.settings import Settings
from src.trust import Peer, tls_context

T = TypeVar("T")

log = logging.getLogger("mcp-proxmox")

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0  # pveproxy gives up on another node after 30 s too
LOOK_PATIENCE = 10.0
MAX_REQUESTS = 32  # in flight; a list asks a node for two things at most

PROXMOX_STATUSES = (400, 401, 403, 500)  # and what others answer in its place
POWER_PATH = r".*/nodes/[\w-]+/(qemu|lxc)/\d+/status/(start|stop|shutdown|reboot)"


class _Scope(threading.local):
    end = float("inf")


_scope = _Scope()


def check_target(node: str, vm_id: int = MIN_VM_ID) -> None:
    """Raise ProxmoxError for what must not get into a URL."""
    if len(node) > MAX_NODE_NAME or not re.fullmatch(NODE_PATTERN, node):
        wrong = "node must be a node's name (letters, digits and hyphens)"
        raise invalid_target(wrong, "list_infrastructure", "nodes")
    if not MIN_VM_ID <= vm_id <= MAX_VM_ID:
        wrong = f"vm_id must be a whole number from {MIN_VM_ID} to {MAX_VM_ID}"
        raise invalid_target(wrong, "list_machines", "machines")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """A scope of this thread whose requests end in `seconds`."""
    around = _scope.end
    _scope.end = time.monotonic() + seconds
    try:
        yield
    finally:
        _scope.end = around


def look(call: Callable[..., T], *args: Any, **options: Any) -> T | ProxmoxError:
    """What a look within a longer wait gives, be it an error.

    It may not use up the wait around it, or is its last.
    """
    with within(max(min(time_left(), LOOK_PATIENCE), CONNECT_TIMEOUT)):
        try:
            return call(*args, **options)
        except ProxmoxError as error:
            log.debug("%s", error)
            return error


def time_left() -> float:
    return _scope.end - time.monotonic()


def scoped(call: Callable[..., T], *args: Any) -> Callable[[], T]:
    end = _scope.end

    def run() -> T:
        with within(end - time.monotonic()):
            return call(*args)

    return run


class Api:
    """The ways to send something, and the only place where errors become ours.

    `root` is proxmoxer's: `api.rows(api.root.nodes("pve1").qemu, "pve1")`. The `node` is
    for the words of an error. To be used from several threads at once.
    """

    def __init__(self, root: Any, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        session = root._store["session"]  # proxmoxer has no public way to it
        session.trust_env = False
        self._transport = Transport(settings)
        session.mount("https://", self._transport)
        session.max_redirects = 0  # the API never redirects; a login page does
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    @property
    def peer(self) -> Peer | None:
        """What is at the other end, once it has answered."""
        return self._transport.peer

    def rows(self, resource: Any, node: str = "", **params: Any) -> list[Row]:
        """GET a list of objects."""
        rows = self._get(resource, node, **params)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise not_the_api(self.settings)
        return rows

    def row(self, resource: Any, node: str = "") -> Row:
        """GET one object."""
        row = self._get(resource, node)
        # proxmoxer makes {"errors": b"..."} of an answer that is not JSON.
        if not isinstance(row, dict) or isinstance(row.get("errors"), bytes):
            raise not_the_api(self.settings)
        return row

    def post(self, resource: Any, node: str, **params: Any) -> Any:
        """POST, once."""
        return self._send(resource.post, node, **params)

    def _get(self, resource: Any, node: str, **params: Any) -> Any:
        """GET, and once more after a dropped connection: pveproxy closes idle ones."""
        try:
            return self._send(resource.get, node, **params)
        except ProxmoxError as error:
            if error.code != "dropped":
                raise
            return self._send(resource.get, node, **params)

    def _send(self, method: Callable[..., Any], node: str, **params: Any) -> Any:
        began = time.monotonic()
        try:
            return method(**params)
        except ResourceException as error:
            raise refused(error, self.settings, node) from None
        except OSError as error:  # as all of requests' are
            seconds = time.monotonic() - began
            raise unanswered(error, self.settings, seconds, node) from None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            # proxmoxer's own, for JSON that is not Proxmox's, or a redirect of bad bytes.
            raise not_the_api(self.settings) from None


class Transport(HTTPAdapter):
    """What proxmoxer leaves out: a gate, the deadline, TLS and Proxmox's own words."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(pool_maxsize=MAX_REQUESTS)
        self.peer: Peer | None = None
        self._settings = settings
        # urllib3's own limit waits without one, and has no deadline.
        self._places = threading.BoundedSemaphore(MAX_REQUESTS)
        self._tls: ssl.SSLContext | None = None
        self._tls_lock = threading.Lock()

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(
            request, bool(verify), cert
        )
        return host, pool | {"ssl_context": self._context(verify)}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, proxy_ssl_context=self._tls, **options)

    def cert_verify(self, *_: Any) -> None:
        """The context has the CAs; requests would read them for each connection."""

    def _context(self, verify: bool | str) -> ssl.SSLContext:
        with self._tls_lock:
            if self._tls is None:
                try:
                    self._tls = tls_context(verify)
                except (OSError, ValueError):
                    raise tls_unavailable(verify) from None
            return self._tls

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        path = urlsplit(request.url or "").path
        if request.method != "GET" and not (
            request.method == "POST" and re.fullmatch(POWER_PATH, path)
        ):
            raise ProxmoxError(f"This server never sends {request.method} {path}")
        if not self._places.acquire(timeout=min(max(time_left(), 0), READ_TIMEOUT)):
            raise too_late()
        try:
            left = time_left()
            if left <= 0:
                raise too_late()
            kwargs["timeout"] = (min(CONNECT_TIMEOUT, left), min(READ_TIMEOUT, left))
            response = self._sent(request, *args, **kwargs)
            sock = getattr(response.raw.connection, "sock", None)
            if self.peer is None and isinstance(sock, ssl.SSLSocket):
                self.peer = Peer.of(sock)
            _ = response.content  # read while it has its place
        finally:
            self._places.release()
        if response.status_code in PROXMOX_STATUSES and not _in_its_form(response):
            raise not_proxmox(self._settings, response.status_code)
        if response.status_code >= 400:
            # proxmoxer tells the reason phrase, the first line only and lost on the way
            # through some proxies. PVE 8.3 and later have the whole text in the body.
            try:
                response.reason = str(response.json()["message"]).strip()
            except (ValueError, KeyError, TypeError):
                log.debug("an error without a message in its body")
        return response

    def _sent(self, *args: Any, **kwargs: Any) -> requests.Response:
        try:
            return super().send(*args, **kwargs)
        except requests.exceptions.SSLError:
            # A file of CAs that has been mended counts from the next call on.
            self._tls = None
            self.proxy_manager.clear()
            raise
        except (LocationValueError, UnicodeError):  # PROXMOX_URL was checked
            raise requests.exceptions.InvalidProxyURL from None


def _in_its_form(response: requests.Response) -> bool:
    """Whether an error is Proxmox VE's: {"data": null, ...}, no body, or its words."""
    if "WWW-Authenticate" in response.headers:
        return False
    if response.status_code == 403 and "Permission check" in response.reason:
        return True
    try:
        body = response.json()
    except ValueError:
        return response.status_code != 403 and not response.content
    if response.status_code in (401, 403):
        return isinstance(body, dict) and "data" in body
    return isinstance(body, dict)
