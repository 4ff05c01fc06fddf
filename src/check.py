"""`--check`: what was read, who answers, what the lists say, what the token may do.

check    says it line by line, and whether all is well
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Collection, Iterator

from src.client import ProxmoxClient
from src.env_file import EnvFile
from src.environment import proxy_variable
from src.errors import ProxmoxError
from src.rights import Right, grant
from src.rows import some_of
from src.settings import Settings, describe, read_settings
from src.texts import (
    Filters,
    infrastructure_page,
    machines_page,
    storage_page,
)
from src.trust import Peer

NO_FILTERS: Filters = {"node": None, "status": None, "name": None}
# What a line begins with that says that something is not well.
ERROR, MISSING = "ERROR", "MISSING"
AS_ROOT = 'on a node as root ("already exists" of a role does no harm)'


def check(tools: Collection[str]) -> bool:
    """Whether the server can do what `tools` are for, with what was found on stdout.

    Asks GET /version and /access/permissions, and what the three lists ask. A token that
    may only watch is well: it is often meant so.
    """
    try:
        return _checked(tools)
    except OSError as error:  # `--check | head`, a full disk
        sys.stderr.write(f"The check cannot be written: {error.strerror}\n")
        return False


def _checked(tools: Collection[str]) -> bool:
    well = _say("Settings", _settings())
    if well:
        client = ProxmoxClient(read_settings())
        well = _say("Connection", _connection(client))
    if well:
        sections = {
            "Nodes": _nodes(client),
            "Machines": _machines(client),
            "Storages": _storages(client),
            "Rights": _rights(client, power="start_machine" in tools),
            "Tools": iter([", ".join(tools)]),
        }
        for title, lines in sections.items():
            well = _say(title, lines) and well
    see = f"Not all is well: see {ERROR} or {MISSING} above."
    _write("All is well with the set-up." if well else see)
    return well


def _say(title: str, lines: Iterator[str]) -> bool:
    """One section; whether all is well in it."""
    well = True
    _write(title)
    try:
        for line in lines:
            well = well and not line.startswith((ERROR, MISSING))
            _write(f"  {line}")
    except ProxmoxError as error:
        well = False
        _write(f"  {ERROR}: {error}")
    return well


def _write(line: str) -> None:
    """A line as soon as it is known; what a console cannot show is a question mark."""
    if not sys.stdout:
        raise OSError(errno.EBADF, "stdout is closed")
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(f"{line}\n".encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def _settings() -> Iterator[str]:
    """The five variables as they were read, each from where."""
    file = EnvFile.read()
    if file.problem:
        yield file.problem.cause
    for name, shown, origin in describe(os.environ, file):
        yield f"{name}: {shown}{f' (from {origin})' if origin else ''}"
    Settings.from_env(os.environ, file)


def _connection(client: ProxmoxClient) -> Iterator[str]:
    """The address, how long it needs, by what TLS is verified, and the version."""
    settings = client.settings
    if proxy := proxy_variable(settings.address):
        yield f"Through the proxy of {proxy}"
    began = time.monotonic()
    version = client.get_version()
    took = f"{(time.monotonic() - began) * 1000:.0f} ms"
    yield f"{settings.address} answered {settings.token_id} in {took}"
    yield _verified(client.verified_by, client.get_peer())
    yield f"Proxmox VE {version}"


def _verified(by: str, peer: Peer | None) -> str:
    protocol = peer.protocol if peer else "TLS"
    if not by:
        return (
            f"{protocol}, NOT verified (PROXMOX_VERIFY_SSL=false): whoever is in between "
            "can read the token"
        )
    said = f"{protocol}, verified by {by}"
    if not peer or peer.expires is None:
        return said
    names = some_of(list(peer.names))
    day = time.strftime("%Y-%m-%d", time.gmtime(peer.expires))
    left = (peer.expires - time.time()) / 86_400
    return f"{said}: a certificate of {names}, valid until {day} ({left:.0f} days)"


def _nodes(client: ProxmoxClient) -> Iterator[str]:
    found = client.get_overview()
    page = infrastructure_page(found)
    yield from (*page.top, *page.notes)
    if not found.totals.online:
        yield f"{ERROR}: no node is online"


def _machines(client: ProxmoxClient) -> Iterator[str]:
    found = client.get_all_machines()
    yield from machines_page(found, found.machines, NO_FILTERS).notes
    if found.machines and not any(each.live for each in found.machines):
        yield f"{ERROR}: no node has told the state of its machines"


def _storages(client: ProxmoxClient) -> Iterator[str]:
    found = client.get_all_storage()
    yield from storage_page(found).notes
    if found.storages and all(each.active is None for each in found.storages):
        yield f"{ERROR}: no node has told the state of its storages"


def _rights(client: ProxmoxClient, power: bool) -> Iterator[str]:
    """What the token may do, and the lines that grant what it lacks."""
    rights, settings = client.get_rights(), client.settings
    for right in rights.each:
        yield right.text
    if rights.excess:
        yield (
            f"Beyond what any tool needs: {some_of(rights.excess)}. Whoever gets hold of the "
            "token can use that, too."
        )
    if rights.missing:
        names = ", ".join(f"{each.privilege} on {each.top}" for each in rights.missing)
        yield f"{MISSING}: {names}. To grant that, {AS_ROOT}:"
        yield from _lines(rights.missing, settings)
    if power and rights.no_power:
        only = "" if rights.missing else "It can only watch. "
        yield f"{only}To let it switch machines as well, {AS_ROOT}:"
        yield from _lines(rights.no_power, settings)


def _lines(wanted: list[Right], settings: Settings) -> Iterator[str]:
    """What grants it to user and token, each line once."""
    lines = [line for r in wanted for line in grant(r.privilege, r.top, settings)]
    yield from (f"  {line}" for line in dict.fromkeys(lines))
