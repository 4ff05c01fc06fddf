"""The command line: --watch-only, and --check, which says what works and what does not."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from collections.abc import Collection, Iterator

from src.client import ProxmoxClient
from src.config.env_file import EnvFile
from src.config.settings import Settings, describe, read_settings
from src.errors import ProxmoxError
from src.lists.answers import attention_lines
from src.proxmox.network import proxy_variable
from src.proxmox.rights import Right, grant
from src.proxmox.rows import some_of

ABOUT = (
    "An MCP server for Proxmox VE, over stdin and stdout: an MCP client starts it. It is "
    "configured by PROXMOX_URL, PROXMOX_USER, PROXMOX_TOKEN_ID, PROXMOX_TOKEN_SECRET and "
    "PROXMOX_VERIFY_SSL, in the environment or in the file .env."
)
CHECK = (
    "check settings, connection, lists and the token's rights, and leave: status 0 when all "
    "is well, 1 when not"
)
# What a line begins with that says that something is not well.
ERROR, MISSING = "ERROR", "MISSING"
AS_ROOT = 'on a node as root ("already exists" of a role does no harm)'


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """`check` and `watch_only`; without arguments those of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m src.server", description=ABOUT, allow_abbrev=False
    )
    parser.add_argument("--check", action="store_true", help=CHECK)
    parser.add_argument(
        "--watch-only",
        action="store_true",
        help="offer the three lists, and no tool that switches a machine",
    )
    return parser.parse_args(arguments)


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
    if by := client.verified_by:
        yield f"TLS, verified by {by}"
    else:
        yield (
            "TLS, NOT verified (PROXMOX_VERIFY_SSL=false): whoever is in between can read "
            "the token"
        )
    yield f"Proxmox VE {version}"


def _nodes(client: ProxmoxClient) -> Iterator[str]:
    found = client.get_overview()
    yield from (*attention_lines(found), *found.notes)
    if not found.totals.online:
        yield f"{ERROR}: no node is online"


def _machines(client: ProxmoxClient) -> Iterator[str]:
    found = client.get_all_machines()
    yield from found.notes
    if found.machines and not any(each.live for each in found.machines):
        yield f"{ERROR}: no node has told the state of its machines"


def _storages(client: ProxmoxClient) -> Iterator[str]:
    found = client.get_all_storage()
    yield from found.notes
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
