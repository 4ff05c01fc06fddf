"""What leaves and by which way: the gate, the deadline, TLS, and Proxmox's own words."""

from __future__ import annotations

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
from src.proxmox.deadline import CONNECT_TIMEOUT, READ_TIMEOUT, time_left
from src.proxmox.network import tls_context, tls_unavailable
from src.proxmox.refusals import not_proxmox, too_late

log = logging.getLogger("mcp-proxmox")

MAX_REQUESTS = 32  # in flight; a list asks a node for two things at most
PROXMOX_STATUSES = (400, 401, 403, 500)  # and what others answer in its place
POWER_PATH = r".*/nodes/[\w-]+/(qemu|lxc)/\d+/status/(start|stop|shutdown|reboot)"


class Transport(HTTPAdapter):
    """What proxmoxer leaves out: a gate, the deadline, TLS and Proxmox's own words."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(pool_maxsize=MAX_REQUESTS)
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
