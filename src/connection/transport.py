"""The way out to one address: what may be sent, how many requests at once, deadlines, TLS."""

import logging
import math
import random
import re
import ssl
import threading
import time
from http.client import responses
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import LocationValueError

from src.connection.deadline import CONNECT_TIMEOUT, READ_TIMEOUT, time_left
from src.connection.no_answer import not_proxmox, too_late, unanswered
from src.connection.route import Route
from src.connection.sockets import Dialog, Trust, connection_class
from src.connection.tls import Peer, tls_context
from src.errors import ProxmoxError
from src.models import GOALS, KINDS

log = logging.getLogger("mcp-proxmox")

MAX_REQUESTS = 32  # at once; a list asks a node for two things at most
PROXMOX_STATUSES = (400, 401, 403, 500)  # which a proxy or a firewall may send as well
BUSY = (429, 503)  # which only a reverse proxy sends, if there are too many requests
FIRST_PAUSE, MAX_PAUSE = 0.1, 1.0  # seconds before such a request is sent again
SPREAD = random.SystemRandom()  # or those that were refused together would come together
POWER_PATH = re.compile(rf".*/nodes/[\w-]+/({'|'.join(KINDS)})/\d+/status/({'|'.join(GOALS)})")
NODE_PATH = re.compile(r"/api2/json/nodes/([\w-]+)")


def check_request(request: requests.PreparedRequest) -> None:
    """Raise ProxmoxError for anything but GET and the four power actions."""
    path = urlsplit(request.url or "").path
    if request.method != "GET" and not (request.method == "POST" and POWER_PATH.fullmatch(path)):
        raise ProxmoxError(f"This server never sends {request.method} {path}")


class Transport(HTTPAdapter):
    """Send requests to one address, end each at its deadline, and keep Proxmox's error text.

    `peer` is the server as its certificate says, once a connection was made. `date` is the
    header Date of the newest answer.
    """

    def __init__(self, route: Route) -> None:
        self._dialog, self._trust = Dialog(), Trust()
        super().__init__(pool_maxsize=MAX_REQUESTS)
        self._use_our_connections(self.poolmanager)
        self.route = route
        self.peer: Peer | None = None
        self.date = ""
        self._refused = -math.inf  # when there last were too many requests
        # urllib3's own limit would let a request wait past its deadline.
        self._slots = threading.BoundedSemaphore(MAX_REQUESTS)
        self._tls: ssl.SSLContext | None = None
        self._version: tuple[int, int] | None = None
        self._tls_lock = threading.Lock()

    @property
    def is_busy(self) -> bool:
        """Whether it has too many requests now, and says so."""
        return time.monotonic() < self._refused + 2 * MAX_PAUSE

    def _use_our_connections(self, pools: Any) -> None:
        class Pool(HTTPSConnectionPool):
            ConnectionCls = connection_class(self._dialog, self._trust)

        pools.pool_classes_by_scheme = pools.pool_classes_by_scheme | {"https": Pool}

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, bool(verify), cert)
        return host, pool | {"ssl_context": self._context()}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, proxy_ssl_context=self._tls, **options)
        if is_new:
            self._use_our_connections(manager)
        return manager

    def cert_verify(self, *_: Any) -> None:
        """Do nothing: the context has the CAs, and requests would read them each time."""

    def _context(self) -> ssl.SSLContext:
        with self._tls_lock:
            version = self.route.version
            if self._tls is None or version != self._version:
                self.proxy_manager.clear()
                try:
                    self._tls = tls_context(
                        self.route.verify, self._on_handshake, self._dialog.time_left
                    )
                except (OSError, ValueError):
                    raise self.route.tls_unavailable() from None
                self._version = version
            return self._tls

    def _on_handshake(self, host: str, peer: Peer) -> None:
        if host.rstrip(".") == self.route.address.host.rstrip("."):  # not a proxy's certificate
            self.peer = peer

    def ask(
        self, request: requests.PreparedRequest, connect: float, **options: Any
    ) -> requests.Response:
        """Return the response, within the deadline; the connection within `connect` seconds.

        A GET is repeated while a proxy has too many requests. Raises NoAnswer, or another
        ProxmoxError if something else than Proxmox answers.
        """
        began = time.monotonic()
        if not self._slots.acquire(timeout=min(max(time_left(), 0), READ_TIMEOUT)):
            raise too_late()
        try:
            ends = time.monotonic() + min(READ_TIMEOUT, time_left())
            response = self._attempt(request, connect, began, ends, options)
            pause = FIRST_PAUSE
            while request.method == "GET" and response.status_code in BUSY:
                self._refused = time.monotonic()
                # Retry-After is in whole seconds, and meant for who asks once.
                wait = pause * SPREAD.uniform(0.5, 1.5)
                if time.monotonic() + wait >= ends:
                    break
                time.sleep(wait)
                pause = min(2 * pause, MAX_PAUSE)
                response = self._attempt(request, connect, began, ends, options)
        finally:
            self._slots.release()
        return self._checked(response)

    def _attempt(
        self,
        request: requests.PreparedRequest,
        connect: float,
        asked: float,
        ends: float,
        options: Any,
    ) -> requests.Response:
        """Send the request once, which was `asked` for then. Raises NoAnswer."""
        began = time.monotonic()
        left = ends - began
        if left <= 0:
            raise too_late()
        self._dialog.connecting, self._dialog.ends = False, ends
        # A little earlier, so that the caller learns which of the two was late.
        self._dialog.handshake_ends = began + min(left - min(0.2, left / 4), connect)
        timeout = (min(CONNECT_TIMEOUT, connect, left), left)
        verify = bool(self.route.verify)
        options |= {"timeout": timeout, "proxies": self.route.proxies, "verify": verify}
        try:
            response = self._sent(request, **options)
            _ = response.content  # read it before another request takes the slot
        except OSError as error:  # requests raises nothing else
            self._trust.withdraw()
            seconds, sent = time.monotonic() - asked, not self._dialog.connecting
            node = NODE_PATH.search(request.url or "")
            raise unanswered(error, self.route, seconds, node[1] if node else "", sent) from None
        self.date = response.headers.get("Date", "")
        return response

    def _sent(self, *args: Any, **options: Any) -> requests.Response:
        try:
            return super().send(*args, **options)
        except (LocationValueError, UnicodeError):  # PROXMOX_URL was checked before
            raise requests.exceptions.InvalidProxyURL from None

    def _checked(self, response: requests.Response) -> requests.Response:
        """Return a response with Proxmox's whole words. Raises not_proxmox."""
        if response.status_code in PROXMOX_STATUSES and not _in_its_form(response):
            raise not_proxmox(self.route, response.status_code)
        if response.status_code >= 400:
            # proxmoxer reports the reason phrase. It is only the first line, and some
            # proxies drop it. Since PVE 8.3 the body has the whole text.
            try:
                response.reason = str(response.json()["message"]).strip()
            except (ValueError, KeyError, TypeError):
                log.debug("The body of an error contains no message")
        return response


def _in_its_form(response: requests.Response) -> bool:
    """Whether Proxmox VE sent this error: {"data": null, ...}, no body, or its words."""
    if "WWW-Authenticate" in response.headers:
        return False
    if response.status_code == 500 and response.request.method == "POST":
        return _has_data(response)  # another service's 500 does not tell that nothing was done
    if response.status_code == 403 and "Permission check" in response.reason:
        return True
    try:
        body = response.json()
    except ValueError:
        return response.status_code != 403 and not response.content
    if response.status_code in (401, 403):
        return isinstance(body, dict) and "data" in body
    return isinstance(body, dict)


def _has_data(response: requests.Response) -> bool:
    try:
        body = response.json()
    except ValueError:
        return not response.content and response.reason not in (None, "", responses[500])
    return isinstance(body, dict) and "data" in body
