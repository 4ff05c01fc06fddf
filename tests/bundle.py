"""Write the bundle that a desktop client installs with a form: `python -m tests.bundle`.

mcp-proxmox.mcpb, in the current folder, has src, requirements.txt and a manifest. The client
runs it with uv, which brings Python and the packages. The format wants pyproject.toml, too.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from src import server
from src.cli import VERSION

ROOT = Path(__file__).parent.parent
NAME = "mcp-proxmox.mcpb"
PYTHON = ">=3.11"


def field(title: str, description: str, **more: Any) -> dict[str, Any]:
    # The format's own code looks for required values before it fills in the defaults.
    entry = {"type": "string", "title": title, "description": description}
    return entry | {"required": "default" not in more} | more


FORM = {
    "PROXMOX_URL": field(
        "Address", "https://pve.example.com:8006; several nodes of a cluster, separated by commas"
    ),
    "PROXMOX_USER": field("User", "The owner of the API token, with the realm", default="mcp@pve"),
    "PROXMOX_TOKEN_ID": field("Token ID", "The token's name", default="mcp-token"),
    "PROXMOX_TOKEN_SECRET": field(
        "Token secret", "What Proxmox showed once, when you created the token", sensitive=True
    ),
    "PROXMOX_VERIFY_SSL": field(
        "Certificate",
        "true for a public certificate, the absolute path of a copy of /etc/pve/pve-root-ca.pem "
        "for Proxmox's own, or false, in a lab, for no check",
        default="true",
    ),
}
SWITCH = {
    "type": "boolean",
    "title": "Read only",
    "description": "Offer only the lists, and no tool that starts or stops a machine",
    "default": False,
}


def manifest() -> dict[str, Any]:
    """Return the manifest: what a client shows, asks for, and runs."""
    run = ["run", "--no-project", "--python", PYTHON]
    run += ["--with-requirements", "${__dirname}/requirements.txt"]
    run += ["${__dirname}/src/server.py", "--read-only=${user_config.read_only}"]
    tools = asyncio.run(server.mcp.list_tools())
    return {
        "manifest_version": "0.4",
        "name": "mcp-proxmox",
        "display_name": "Proxmox VE",
        "version": VERSION,
        "description": server.mcp.description,
        "author": {"name": "mcp-proxmox"},
        "server": {
            "type": "uv",
            "entry_point": "src/server.py",
            "mcp_config": {
                "command": "uv",
                "args": run,
                "env": {name: f"${{user_config.{name.lower()}}}" for name in FORM},
            },
        },
        "tools": [{"name": tool.name, "description": tool.description} for tool in tools],
        "compatibility": {"platforms": ["darwin", "win32", "linux"]},
        "user_config": {name.lower(): entry for name, entry in FORM.items()}
        | {"read_only": SWITCH},
    }


def pyproject() -> str:
    packages = (ROOT / "requirements.txt").read_text().split()
    return (
        f'[project]\nname = "mcp-proxmox"\nversion = "{VERSION}"\n'
        f'requires-python = "{PYTHON}"\ndependencies = {json.dumps(packages)}\n'
    )


def write(path: Path) -> None:
    """Write the bundle: the same bytes for the same source."""
    files = [ROOT / "requirements.txt", *sorted((ROOT / "src").rglob("*.py"))]
    texts = {"manifest.json": json.dumps(manifest(), indent=2), "pyproject.toml": pyproject()}
    for file in files:
        name = file.relative_to(ROOT)
        if not any(part.startswith(".") for part in name.parts):
            texts[name.as_posix()] = file.read_text("utf-8")
    with ZipFile(path, "w") as bundle:
        for each, text in texts.items():
            entry = ZipInfo(each)  # of 1980
            entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
            bundle.writestr(entry, text)


if __name__ == "__main__":
    write(Path(NAME))
    sys.stdout.write(f"Wrote {NAME}. Open it in a desktop client to install it.\n")
