"""Test the bundle that desktop clients install: its form, its manifest, and that it starts."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests import bundle
from tests.cluster import Cluster
from tests.process import Server, run

MCPB = "@anthropic-ai/mcpb@2.1.2"  # the format's own tool


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    packed, folder = tmp_path / bundle.NAME, tmp_path / "an extension"
    bundle.write(packed)
    ZipFile(packed).extractall(folder)
    return folder


def filled(manifest: Any, folder: Path, form: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment, filled as a client does it."""
    asked = manifest["user_config"]
    values = {name: str(entry["default"]) for name, entry in asked.items() if "default" in entry}
    config = json.dumps(manifest["server"]["mcp_config"])
    for name, value in (values | form).items():
        value = value.lower() if value in ("True", "False") else value
        config = config.replace(f"${{user_config.{name}}}", value)
    config = json.loads(config.replace("${__dirname}", str(folder)))
    return [config["command"], *config["args"]], config["env"]


@pytest.mark.parametrize("read_only", [False, True])
def test_the_bundle_starts_with_what_the_form_asks(
    unpacked: Path, configured: dict[str, str], cluster: Cluster, read_only: bool
) -> None:
    manifest = json.loads((unpacked / "manifest.json").read_text())
    form = {name.lower(): value for name, value in configured.items()}
    if read_only:
        form["read_only"] = "True"
    command, environ = filled(manifest, unpacked, form)
    assert "${" not in str([command, environ])
    assert environ == configured
    assert command[:2] == ["uv", "run"]
    assert str(unpacked / "requirements.txt") in command
    # uv would download the packages, which this Python has.
    script = command[command.index(str(unpacked / "src/server.py")) :]
    with Server([sys.executable, *script], environ, cwd=unpacked.parent) as process:
        tools = [tool["name"] for tool in process.request("tools/list")["tools"]]
        assert tools == [tool["name"] for tool in manifest["tools"]][: 3 if read_only else 6]
        assert not process.result("list_machines").get("isError")
    assert cluster.sent


def test_only_the_secret_is_hidden_and_everything_is_asked_for(unpacked: Path) -> None:
    form = json.loads((unpacked / "manifest.json").read_text())["user_config"]
    assert [name for name, entry in form.items() if entry.get("sensitive")] == [
        "proxmox_token_secret"
    ]
    assert all(entry.get("required") for name, entry in form.items() if name != "read_only")
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert {"manifest.json", "pyproject.toml", "requirements.txt", "src/server.py"} < files
    assert {name for name in files if not name.startswith("src/")} == {
        *("manifest.json", "pyproject.toml", "requirements.txt")
    }
    assert all(name.endswith(".py") for name in files if name.startswith("src/"))


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_the_tool_of_the_format_accepts_the_bundle(unpacked: Path) -> None:
    tool = unpacked.parent / "tool"
    tool.mkdir()
    installed = run(["npm", "install", "--no-fund", "--no-audit", MCPB], cwd=tool)
    if installed.returncode:
        pytest.skip("the npm registry does not answer")
    mcpb = str(tool / "node_modules/.bin/mcpb")
    for arguments in (["validate", "manifest.json"], ["pack", ".", "../packed.mcpb"]):
        done = run([mcpb, *arguments], cwd=unpacked)
        assert done.returncode == 0, done.stdout + done.stderr
