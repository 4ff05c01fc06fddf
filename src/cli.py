"""The command line: --watch-only, and --check, which says what works and what does not."""

import argparse
import errno
import os
import sys
import time
from collections.abc import Collection, Iterator

from src.client import ProxmoxClient
from src.config.env_file import EnvFile
from src.config.settings import Settings, describe, read_settings
from src.connection.addresses import Entry
from src.connection.deadline import LIST_TIMEOUT, within
from src.connection.tls import Peer
from src.errors import ProxmoxError
from src.foreign import some_of
from src.lists.answers import attention_lines
from src.proxmox.rights import Right, grant, keeps_roles

VERSION = "1.0.0"
ABOUT = (
    "An MCP server for Proxmox VE over stdin and stdout. An MCP client starts it. Set "
    "PROXMOX_URL, PROXMOX_USER, PROXMOX_TOKEN_ID, PROXMOX_TOKEN_SECRET and "
    "PROXMOX_VERIFY_SSL in the environment or in the file .env, and add --check to try them."
)
CHECK = (
    "check the settings, the connection, the lists and the token's rights, then exit: status "
    "0 if all is well, 1 if not"
)
# What a line about a problem begins with.
ERROR, MISSING = "ERROR", "MISSING"
DIFFERENT = (
    "the addresses in PROXMOX_URL are not of one cluster. Remove all but those of one, and "
    "configure a server for each cluster."
)
ONE_ADDRESS = (
    "PROXMOX_URL has one address. Add that of another node, after a comma, to be able to work "
    "while this one is down."
)
AS_ROOT = 'on a node as root (ignore "already exists" for a role)'


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read `check` and `watch_only`, by default from the process's own arguments."""
    parser = argparse.ArgumentParser(prog="mcp-proxmox", description=ABOUT, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"mcp-proxmox {VERSION}")
    parser.add_argument("--check", action="store_true", help=CHECK)
    parser.add_argument(
        "--watch-only",
        "--read-only",
        action="append",  # given twice, the stricter one counts
        nargs="?",
        const="true",
        default=[],
        choices=["true", "false"],
        help="offer only the three lists, and no tool that starts or stops a machine",
    )
    options = parser.parse_args(arguments)
    options.watch_only = "true" in options.watch_only
    return options


def check(tools: Collection[str]) -> bool:
    """Return whether the server can do what `tools` are for, and report on stdout.

    GET /version, /access/permissions, and what the three lists read. A token that may only
    watch is fine: that is often intended.
    """
    try:
        return _checked(tools)
    except OSError as error:  # `--check | head`, a full disk
        sys.stderr.write(f"The check cannot write its report: {error.strerror}\n")
        return False


def _checked(tools: Collection[str]) -> bool:
    well = _report("Settings", _settings())
    clusters: dict[str, str] = {}
    if well:
        client = ProxmoxClient(read_settings())
        well = _report("Connection", _connection(client, clusters))
    if clusters:
        sections = {
            "Nodes": _nodes(client),
            "Machines": _machines(client),
            "Storages": _storages(client),
            "Rights": _rights(client, power="start_machine" in tools),
            "Tools": iter([", ".join(tools)]),
        }
        for title, lines in sections.items():
            well = _report(title, lines) and well
    bad = f"Not all is well: see {ERROR} or {MISSING} above."
    _write("All is well with the set-up." if well else bad)
    return well


def _report(title: str, lines: Iterator[str]) -> bool:
    """Write one section, and return whether all is well in it."""
    well = True
    _write(title)
    try:
        for line in lines:
            well = well and not line.startswith((ERROR, MISSING))
            _write(f"  {line}")
    except ProxmoxError as error:
        well = False
        _write(f"  {ERROR}: {error}".replace("\n", "\n    "))
    return well


def _write(line: str) -> None:
    """Write a line at once. A character that the console cannot show becomes "?"."""
    if not sys.stdout:
        raise OSError(errno.EBADF, "stdout is closed")
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(f"{line}\n".encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def _settings() -> Iterator[str]:
    """Yield the five variables as they were read, and where each came from."""
    file = EnvFile.read()
    if file.problem:
        yield file.problem.cause
    for name, shown, origin in describe(os.environ, file):
        yield f"{name}: {shown}{f' (from {origin})' if origin else ''}"
    Settings.from_env(os.environ, file)


def _connection(client: ProxmoxClient, clusters: dict[str, str]) -> Iterator[str]:
    """Yield what each address answers. Add to `clusters` those that answer."""
    entries = client.addresses.entries
    for entry in entries:
        try:
            with client.addresses.only(entry), within(LIST_TIMEOUT):
                yield from _address(client, entry)
                clusters[entry.url] = client.get_cluster() if len(entries) > 1 else ""
        except ProxmoxError as error:
            yield f"{ERROR}: {error}"
            continue
        if len(entries) > 1:
            yield f"Cluster {clusters[entry.url]}"
    if len(set(clusters.values())) > 1:
        yield f"{ERROR}: {DIFFERENT}"


def _address(client: ProxmoxClient, entry: Entry) -> Iterator[str]:
    """Yield the proxy, the address and its speed, the certificate, version and clock."""
    route = entry.transport.route
    if proxy := route.proxy_variable:
        yield f"Through the proxy in {proxy}"
    began = time.monotonic()
    version = client.get_version()
    took = f"{(time.monotonic() - began) * 1000:.0f} ms"
    yield f"{entry.url} answered in {took} (token {client.settings.token_id})"
    yield _certificate(route.verifier, entry.transport.peer)
    clock = ""
    if len(client.addresses.entries) > 1 and entry.transport.date:
        clock = f", its clock shows {entry.transport.date}"
    yield f"Proxmox VE {version}{clock}"


def _certificate(verifier: str, peer: Peer | None) -> str:
    """Say what verified the certificate, which names it has, and when it expires."""
    protocol = peer.protocol if peer else "TLS"
    if not verifier:
        return (
            f"{protocol}, NOT verified (PROXMOX_VERIFY_SSL=false): anyone on the network "
            "path can read the token"
        )
    verified = f"{protocol}, verified against {verifier}"
    if not peer or peer.expires is None:
        return verified
    names = some_of(list(peer.names))
    day = time.strftime("%Y-%m-%d", time.gmtime(peer.expires))
    days = (peer.expires - time.time()) / 86_400
    return f"{verified}: a certificate for {names}, valid until {day} ({days:.0f} days)"


def _nodes(client: ProxmoxClient) -> Iterator[str]:
    """Yield what needs attention and the totals."""
    found = client.get_overview()
    yield from (*attention_lines(found), *found.notes)
    if len(client.settings.addresses) == 1 and len(found.nodes) > 1:
        yield ONE_ADDRESS
    if not found.totals.online:
        yield f"{ERROR}: no node is online"


def _machines(client: ProxmoxClient) -> Iterator[str]:
    found = client.get_all_machines()
    yield from found.notes
    if found.machines and not any(each.live for each in found.machines):
        yield f"{ERROR}: no node reported the state of its machines"


def _storages(client: ProxmoxClient) -> Iterator[str]:
    found = client.get_all_storage()
    yield from found.notes
    if found.storages and all(each.active is None for each in found.storages):
        yield f"{ERROR}: no node reported the state of its storages"


def _rights(client: ProxmoxClient, power: bool) -> Iterator[str]:
    """Yield what the token may do, and the commands that grant what it lacks."""
    rights, settings = client.get_rights(), client.settings
    for right in (*rights.watching, rights.power):
        yield right.text
    if rights.excess:
        yield (
            f"The token has privileges that no tool needs: {some_of(rights.excess)}. Anyone who "
            "steals the token can use them too."
        )
    if missing := rights.missing:
        names = ", ".join(f"{each.privilege} on {each.base_path}" for each in missing)
        yield f"{MISSING}: {names}. To grant that, run {AS_ROOT}:"
        yield from _commands(missing, settings)
    if power and rights.power.is_missing:
        only = "" if missing else "The token can only watch. "
        yield f"{only}To let it start and stop machines too, run {AS_ROOT}:"
        yield from _commands([rights.power], settings)
    if missing or (power and rights.power.is_missing):
        yield keeps_roles(settings)


def _commands(wanted: list[Right], settings: Settings) -> Iterator[str]:
    """Yield the commands that grant the rights to the user and the token, each once."""
    lines = [line for r in wanted for line in grant(r.privilege, r.base_path, settings)]
    yield from (f"  {line}" for line in dict.fromkeys(lines))
