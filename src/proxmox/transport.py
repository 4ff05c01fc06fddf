"""The one way out: what may be sent, how many requests at once, deadlines and TLS."""

import logging
import re
import ssl
import threading
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import LocationValueError

from src.config.settings import Settings
from src.errors import ProxmoxError
from src.models import GOALS, KINDS
from src.proxmox.deadline import CONNECT_TIMEOUT, READ_TIMEOUT, time_left
from src.proxmox.network import Network, Peer, tls_context
from src.proxmox.refusals import not_proxmox, too_late

log = logging.getLogger("mcp-proxmox")

MAX_REQUESTS = 32  # at once; a list asks a node for two things at most
PROXMOX_STATUSES = (400, 401, 403, 500)  # which a proxy or a firewall may send as well
POWER_PATH = re.compile(rf".*/nodes/[\w-]+/({'|'.join(KINDS)})/\d+/status/({'|'.join(GOALS)})")


class Transport(HTTPAdapter):
    """Restrict what may be sent, end it at its deadline, and keep Proxmox's error text.

    `peer` is the server as its certificate says, once a connection was made. `date` is the
    header Date of the newest answer.
    """

    def __init__(self, settings: Settings, network: Network) -> None:
        super().__init__(pool_maxsize=MAX_REQUESTS)
        self.peer: Peer | None = None
        self.date = ""
        self._settings = settings
        self._network = network
        # urllib3's own limit would let a request wait past its deadline.
        self._slots = threading.BoundedSemaphore(MAX_REQUESTS)
        self._tls: ssl.SSLContext | None = None
        self._version: tuple[int, int] | None = None
        self._tls_lock = threading.Lock()

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, bool(verify), cert)
        return host, pool | {"ssl_context": self._context()}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, proxy_ssl_context=self._tls, **options)

    def cert_verify(self, *_: Any) -> None:
        """Do nothing: the context has the CAs, and requests would read them each time."""

    def _context(self) -> ssl.SSLContext:
        with self._tls_lock:
            version = self._network.version
            if self._tls is None or version != self._version:
                self.proxy_manager.clear()
                try:
                    self._tls = tls_context(self._network.verify, self._on_handshake)
                except (OSError, ValueError):
                    raise self._network.tls_unavailable() from None
                self._version = version
            return self._tls

    def _on_handshake(self, host: str, peer: Peer) -> None:
        if host.rstrip(".") == self._settings.host.rstrip("."):  # not a proxy's certificate
            self.peer = peer

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        path = urlsplit(request.url or "").path
        if request.method != "GET" and not (
            request.method == "POST" and POWER_PATH.fullmatch(path)
        ):
            raise ProxmoxError(f"This server never sends {request.method} {path}")
        if not self._slots.acquire(timeout=min(max(time_left(), 0), READ_TIMEOUT)):
            raise too_late()
        try:
            left = time_left()
            if left <= 0:
                raise too_late()
            kwargs["timeout"] = (min(CONNECT_TIMEOUT, left), min(READ_TIMEOUT, left))
            response = self._sent(request, *args, **kwargs)
            _ = response.content  # read it before another request takes the slot
        finally:
            self._slots.release()
        self.date = response.headers.get("Date", "")
        if response.status_code in PROXMOX_STATUSES and not _in_its_form(response):
            raise not_proxmox(self._settings, response.status_code)
        if response.status_code >= 400:
            # proxmoxer reports the reason phrase. It is only the first line, and some
            # proxies drop it. Since PVE 8.3 the body has the whole text.
            try:
                response.reason = str(response.json()["message"]).strip()
            except (ValueError, KeyError, TypeError):
                log.debug("The body of an error contains no message")
        return response

    def _sent(self, *args: Any, **kwargs: Any) -> requests.Response:
        try:
            return super().send(*args, **kwargs)
        except (LocationValueError, UnicodeError):  # PROXMOX_URL was checked before
            raise requests.exceptions.InvalidProxyURL from None


def _in_its_form(response: requests.Response) -> bool:
    """Whether Proxmox VE sent this error: {"data": null, ...}, no body, or its words."""
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
