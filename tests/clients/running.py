"""What both kinds of clients share: to run commands in a folder, and to install from npm."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.process import ROOT, environment, run

NODE = "node@24"  # what the newest of the clients in JavaScript needs
PYTHON = sys.executable
PATIENCE = 600  # seconds to install a client, and to make all calls


def home(folder: Path) -> dict[str, str]:
    """Return the environment of a client, whose home is its folder."""
    return {"HOME": str(folder)}


def server(folder: Path) -> str:
    """Return a copy of the server in a client's folder, which cannot find the .env of this one."""
    if not (folder / "src").exists():
        shutil.copytree(ROOT / "src", folder / "src")
    return str(folder / "src/server.py")


def finish(
    command: list[str], folder: Path, environ: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command in a client's folder to its end. It must not fail."""
    found = f"{folder / 'node_modules/.bin'}{os.pathsep}{os.environ['PATH']}"
    environ = (environment() if environ is None else environ) | {"PATH": found}
    done = run(command, cwd=folder, env=environ, timeout=PATIENCE, **options)
    if done.returncode:
        raise RuntimeError(f"{command[:2]} ended with {done.returncode}: {done.stderr[-1500:]}")
    return done


def execute(command: list[str], folder: Path, **options: Any) -> str:
    """Run a command in a client's folder, and return its output."""
    return finish(command, folder, **options).stdout


def install_from_npm(packages: tuple[str, ...], folder: Path) -> str:
    """Install packages and the Node.js for them; return the version of the first."""
    execute(["npm", "install", "--no-fund", "--no-audit", NODE, *packages], folder)
    name = re.sub(r"(?<=.)@.*", "", packages[0])
    package = json.loads((folder / "node_modules" / name / "package.json").read_text())
    return str(package["version"])
