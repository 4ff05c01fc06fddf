"""Test the bundle that desktop clients install: its form, its manifest, and that it starts."""

import json
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import anyio
import pytest

from src import server
from src.cli import VERSION
from tests import bundle
from tests.cluster import Cluster
from tests.process import ROOT, Server, run

MCPB = "@anthropic-ai/mcpb@2.1.2"  # the format's own tool
NETWORK = "ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH"
CONFIGURE = """
import { getMcpConfigForManifest } from "@anthropic-ai/mcpb";
const [manifest, extensionPath, userConfig] = process.argv.slice(1).map(JSON.parse);
const options = { manifest, extensionPath, userConfig, systemDirs: {}, pathSeparator: "/" };
console.log(JSON.stringify(await getMcpConfigForManifest(options)));
"""


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    packed, folder = tmp_path / bundle.NAME, tmp_path / "an extension"
    bundle.write(packed)
    ZipFile(packed).extractall(folder)
    return folder


@pytest.fixture
def manifest(unpacked: Path) -> Any:
    return json.loads((unpacked / "manifest.json").read_text())


@pytest.fixture
def form(configured: dict[str, str]) -> dict[str, str]:
    """Return what a user enters."""
    return {name.lower(): value for name, value in configured.items()}


def filled(manifest: Any, folder: Path, form: dict[str, Any]) -> Any:
    """Return the manifest's configuration, filled in as a client does it."""
    asked = manifest["user_config"]
    defaults = {name: each["default"] for name, each in asked.items() if "default" in each}
    config = json.dumps(manifest["server"]["mcp_config"])
    for name, value in (defaults | form).items():
        text = json.dumps(value) if isinstance(value, bool) else value
        config = config.replace(f"${{user_config.{name}}}", text)
    return json.loads(config.replace("${__dirname}", str(folder)))


@pytest.mark.parametrize("read_only", [False, True])
def test_the_bundle_starts_with_what_the_form_asks(
    *,
    unpacked: Path,
    manifest: Any,
    form: dict[str, Any],
    configured: dict[str, str],
    cluster: Cluster,
    read_only: bool,
) -> None:
    config = filled(manifest, unpacked, form | ({"read_only": True} if read_only else {}))
    assert config["env"] == configured
    requirements, script = (str(unpacked / each) for each in ("requirements.txt", "src/server.py"))
    option = f"--read-only={json.dumps(read_only)}"
    assert [config["command"], *config["args"]] == [
        *("uv", "run", "--no-project", "--python", ">=3.11"),
        *("--with-requirements", requirements, script, option),
    ]
    # uv would download the packages, which this Python has.
    command = [sys.executable, script, option]
    with Server(command, config["env"], cwd=unpacked.parent) as process:
        tools = [tool["name"] for tool in process.request("tools/list")["tools"]]
        assert tools == [tool["name"] for tool in manifest["tools"]][: 3 if read_only else 6]
        assert not process.result("list_machines").get("isError")
    assert cluster.sent


def test_the_manifest_tells_what_the_server_is(unpacked: Path, manifest: Any) -> None:
    assert (manifest["server"]["type"], manifest["version"]) == ("uv", VERSION)
    assert (unpacked / manifest["server"]["entry_point"]).is_file()
    assert manifest["compatibility"]["platforms"] == ["darwin", "win32", "linux"]
    tools = anyio.run(server.mcp.list_tools)
    assert manifest["tools"] == [{"name": t.name, "description": t.description} for t in tools]
    project = tomllib.loads((unpacked / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == (unpacked / "requirements.txt").read_text().split()
    assert project["requires-python"] == ">=3.11"


def test_only_the_secret_is_hidden_and_safe_defaults_are_proposed(manifest: Any) -> None:
    form = manifest["user_config"]
    assert [name for name, each in form.items() if each.get("sensitive")] == [
        "proxmox_token_secret"
    ]
    assert {name: each["default"] for name, each in form.items() if "default" in each} == {
        "proxmox_user": "mcp@pve",
        "proxmox_token_id": "mcp-token",
        "proxmox_verify_ssl": "true",
        "read_only": False,
    }
    assert [name for name, each in form.items() if each.get("required")] == [
        *("proxmox_url", "proxmox_token_secret")
    ]


def test_the_bundle_has_only_the_source_and_is_the_same_each_time(
    unpacked: Path, tmp_path: Path
) -> None:
    files = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    source = {path.relative_to(ROOT) for path in (ROOT / "src").rglob("*.py")}
    others = ("manifest.json", "pyproject.toml", "requirements.txt")
    assert files == source | set(map(Path, others))
    again = tmp_path / "again"
    bundle.write(again)
    assert again.read_bytes() == (tmp_path / bundle.NAME).read_bytes()


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_the_tool_of_the_format_accepts_the_bundle(
    unpacked: Path, manifest: Any, form: dict[str, Any]
) -> None:
    tool = unpacked.parent / "tool"
    tool.mkdir()
    options = ["--no-fund", "--no-audit", "--fetch-retries=0", "--fetch-timeout=10000"]
    installed = run(["npm", "install", *options, MCPB], cwd=tool, timeout=120)
    if re.search(NETWORK, installed.stderr):
        pytest.skip(f"the npm registry does not answer: {installed.stderr[:300]}")
    assert installed.returncode == 0, installed.stderr
    mcpb = str(tool / "node_modules/.bin/mcpb")
    for arguments in (["validate", "manifest.json"], ["pack", ".", os.devnull]):
        done = run([mcpb, *arguments], cwd=unpacked)
        assert done.returncode == 0, done.stdout + done.stderr
    for entered in (form | {"read_only": True}, {"proxmox_url": "u", "proxmox_token_secret": "s"}):
        values = map(json.dumps, (manifest, str(unpacked), entered))
        done = run(["node", "--input-type=module", "-e", CONFIGURE, *values], cwd=tool)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == filled(manifest, unpacked, entered)
