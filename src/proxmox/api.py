"""The requests: GET and the four POSTs over proxmoxer, every failure a ProxmoxError."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any

from proxmoxer import ResourceException  # type: ignore[import-untyped]

from src.config.settings import Settings
from src.errors import ProxmoxError
from src.models import MAX_NODE_NAME, MAX_VM_ID, MIN_VM_ID, NODE_PATTERN
from src.proxmox.no_answer import unanswered
from src.proxmox.refusals import invalid_target, not_the_api, refused
from src.proxmox.rows import Row
from src.proxmox.transport import Transport


def check_target(node: str, vm_id: int = MIN_VM_ID) -> None:
    """Raise ProxmoxError for what must not get into a URL."""
    if len(node) > MAX_NODE_NAME or not re.fullmatch(NODE_PATTERN, node):
        wrong = "node must be a node's name (letters, digits and hyphens)"
        raise invalid_target(wrong, "list_infrastructure", "nodes")
    if not MIN_VM_ID <= vm_id <= MAX_VM_ID:
        wrong = f"vm_id must be a whole number from {MIN_VM_ID} to {MAX_VM_ID}"
        raise invalid_target(wrong, "list_machines", "machines")


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
        session.mount("https://", Transport(settings))
        session.max_redirects = 0  # the API never redirects; a login page does
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

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
