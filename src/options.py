"""The command line of the server.

read_options    --check, --watch-only, --help; a mistake ends the process with status 2
"""

from __future__ import annotations

import argparse

ABOUT = (
    "An MCP server for Proxmox VE, over stdin and stdout: an MCP client starts it. It is "
    "configured by PROXMOX_URL, PROXMOX_USER, PROXMOX_TOKEN_ID, PROXMOX_TOKEN_SECRET and "
    "PROXMOX_VERIFY_SSL, in the environment or in the file .env."
)
CHECK = (
    "check settings, connection, lists and the token's rights, and leave: status 0 when all "
    "is well, 1 when not"
)


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
