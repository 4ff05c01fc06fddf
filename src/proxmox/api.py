"""GET and the four POSTs over proxmoxer. Every failure becomes a ProxmoxError."""

import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any

from proxmoxer import ResourceException  # type: ignore[import-untyped]

from src.config.settings import Settings
from src.errors import ProxmoxError
from src.models import MAX_NODE_NAME, MAX_VM_ID, MIN_VM_ID, NODE_PATTERN
from src.proxmox.network import Network, Peer
from src.proxmox.no_answer import unanswered
from src.proxmox.refusals import invalid_target, not_the_api, refused
from src.proxmox.rows import Row
from src.proxmox.transport import Transport


def check_target(node: str, vm_id: int = MIN_VM_ID) -> None:
    """Raise ProxmoxError for a node or an id that must not get into a URL."""
    if len(node) > MAX_NODE_NAME or not re.fullmatch(NODE_PATTERN, node):
        wrong = "node must be a node's name (letters, digits and hyphens)"
        raise invalid_target(wrong, "list_infrastructure", "nodes")
    if not MIN_VM_ID <= vm_id <= MAX_VM_ID:
        wrong = f"vm_id must be a whole number from {MIN_VM_ID} to {MAX_VM_ID}"
        raise invalid_target(wrong, "list_machines", "machines")


class Api:
    """Send requests, and turn whatever goes wrong into a ProxmoxError.

    `root` is proxmoxer's: `api.rows(api.root.nodes("pve1").qemu, "pve1")`. The `node` is
    for the words of an error. Several threads may use it at once.
    """

    def __init__(self, root: Any, settings: Settings, network: Network) -> None:
        self.root = root
        self.settings = settings
        self.network = network
        session = root._store["session"]  # proxmoxer has no public way to it
        session.trust_env = False
        self._transport = Transport(settings, network)
        session.mount("https://", self._transport)
        session.max_redirects = 0  # the API never redirects, but a login page does
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    @property
    def peer(self) -> Peer | None:
        """The server as its certificate says; None before the first connection."""
        return self._transport.peer

    @property
    def server_time(self) -> float | None:
        """When the newest answer was sent, in seconds since 1970, by the server's clock."""
        try:
            return parsedate_to_datetime(self._transport.date).timestamp()
        except ValueError:
            return None

    def rows(self, resource: Any, node: str = "", **params: Any) -> list[Row]:
        """GET a list of objects. Raises ProxmoxError."""
        rows = self._get(resource, node, **params)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise not_the_api(self.settings)
        return rows

    def row(self, resource: Any, node: str = "") -> Row:
        """GET one object. Raises ProxmoxError."""
        row = self._get(resource, node)
        # proxmoxer turns an answer that is not JSON into {"errors": b"..."}.
        if not isinstance(row, dict) or isinstance(row.get("errors"), bytes):
            raise not_the_api(self.settings)
        return row

    def post(self, resource: Any, node: str, **params: Any) -> Any:
        """POST once, never again. Raises ProxmoxError."""
        return self._send(resource.post, node, **params)

    def _get(self, resource: Any, node: str, **params: Any) -> Any:
        """GET, and repeat it after a dropped connection: pveproxy closes idle ones."""
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
        except OSError as error:  # requests raises nothing else
            seconds = time.monotonic() - began
            raise unanswered(error, self.settings, self.network, seconds, node) from None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            # From proxmoxer, for JSON of another service or a redirect with bad bytes.
            raise not_the_api(self.settings) from None
