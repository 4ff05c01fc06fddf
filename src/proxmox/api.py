"""GET and the four POSTs over proxmoxer. Every failure becomes a ProxmoxError."""

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from proxmoxer import ResourceException  # type: ignore[import-untyped]

from src.connection.addresses import Addresses
from src.connection.no_answer import NoAnswer, not_the_api, unanswered
from src.connection.route import Route
from src.models import MAX_NODE_NAME, MAX_VM_ID, MIN_VM_ID, NODE_PATTERN
from src.proxmox.refusals import invalid_target, refused
from src.proxmox.rows import Row


def check_target(node: str, vm_id: int = MIN_VM_ID) -> None:
    """Raise ProxmoxError for a node or an id that must not get into a URL."""
    if len(node) > MAX_NODE_NAME or not re.fullmatch(NODE_PATTERN, node):
        wrong = "node must be a node's name (letters, digits and hyphens)"
        raise invalid_target(wrong, "list_infrastructure", "nodes")
    if not MIN_VM_ID <= vm_id <= MAX_VM_ID:
        wrong = f"vm_id must be a whole number from {MIN_VM_ID} to {MAX_VM_ID}"
        raise invalid_target(wrong, "list_machines", "machines")


def _plain_requests(session: requests.Session, addresses: Addresses) -> Callable[..., Any]:
    """Return what sends a request with the session's headers and token, and nothing else.

    requests merges cookies, hooks and settings into each one, which takes as long as the rest.
    """
    template = session.prepare_request(
        requests.Request("GET", "https://proxmox", auth=session.auth)
    )

    def request(method: str, url: str, *, params: Any = None, data: Any = None) -> Any:
        prepared = template.copy()
        prepared.method = method
        prepared.prepare_url(url, params)
        if method != "GET":
            prepared.prepare_body(data or {}, None)
        return addresses.send(prepared)

    return request


class Api:
    """Send requests, and turn whatever goes wrong into a ProxmoxError.

    `root` is proxmoxer's: `api.rows(api.root.nodes("pve1").qemu, "pve1")`. The `node` is
    for the words of an error. Several threads may use it at once. `online` has the nodes that
    were online when /nodes was last read.
    """

    def __init__(self, root: Any, addresses: Addresses) -> None:
        self.root = root
        self.addresses = addresses
        self.settings = addresses.settings
        self.online: set[str] = set()
        session = root._store["session"]  # proxmoxer has no public way to it
        session.mount("https://", addresses)
        if isinstance(session, requests.Session):
            session.request = _plain_requests(session, addresses)  # type: ignore[method-assign]

    @property
    def route(self) -> Route:
        """The way that this thread's latest request took."""
        return self.addresses.current.transport.route

    @property
    def server_time(self) -> float | None:
        """When the newest answer was sent, in seconds since 1970, by the server's clock."""
        try:
            return parsedate_to_datetime(self.addresses.current.transport.date).timestamp()
        except ValueError:
            return None

    def rows(self, resource: Any, node: str = "", **params: Any) -> list[Row]:
        """GET a list of objects. Raises ProxmoxError."""
        rows = self._get(resource, node, **params)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise not_the_api(self.route)
        return rows

    def row(self, resource: Any, node: str = "") -> Row:
        """GET one object. Raises ProxmoxError."""
        row = self._get(resource, node)
        # proxmoxer turns an answer that is not JSON into {"errors": b"..."}.
        if not isinstance(row, dict) or isinstance(row.get("errors"), bytes):
            raise not_the_api(self.route)
        return row

    def post(self, resource: Any, node: str, **params: Any) -> Any:
        """POST once, never again. Raises ProxmoxError."""
        return self._send(resource.post, node, **params)

    def _get(self, resource: Any, node: str, **params: Any) -> Any:
        """GET, and repeat it after a dropped connection: pveproxy closes idle ones."""
        try:
            return self._send(resource.get, node, **params)
        except NoAnswer as error:
            if not error.broke_off or self.addresses.has_another:
                raise
            return self._send(resource.get, node, **params)

    def _send(self, method: Callable[..., Any], node: str, **params: Any) -> Any:
        try:
            return method(**params)
        except ResourceException as error:
            raise refused(error, self.route, node) from None
        except OSError as error:
            raise unanswered(error, self.route, 0, node) from None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            # From proxmoxer, for JSON of another service or a redirect with bad bytes.
            raise not_the_api(self.route) from None
