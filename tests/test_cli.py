"""Test what the administrator reads with `--check`, with real clusters' answers."""

import re
from pathlib import Path

import pytest

from src.cli import check
from tests.certificates import Authority
from tests.cluster import SECRET, Cluster
from tests.conftest import Patch, Start
from tests.golden import compare
from tests.replay import Replay, recording

LISTS = ["list_infrastructure", "list_machines", "list_storage"]
TOOLS = [*LISTS, "start_machine", "stop_machine", "reboot_machine"]
VERSION = '{"data": {"version": "9.1.2"}}'
OLD = f"HTTP/1.1 200 OK\nContent-Type: application/json\n\n{VERSION}"


class Checks:
    """Run checks, and keep what each wrote."""

    def __init__(self, capfd: pytest.CaptureFixture[str], folder: Path) -> None:
        self.texts: dict[str, str] = {}
        self._capfd = capfd
        self._folder = str(folder)

    def run(self, case: str, tools: list[str] = TOOLS) -> None:
        status = 0 if check(tools) else 1
        text = self._capfd.readouterr().out.replace(self._folder, "/here")
        assert SECRET not in text
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8006", text)
        text = re.sub(r"/\S+/[\w-]+\.(pem|crt)", "/here/ca.pem", text)
        text = re.sub(r"in \d+ ms", "in 9 ms", text)
        self.texts[case] = f"status {status}\n{text.rstrip()}"


@pytest.fixture
def checks(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Checks:
    return Checks(capfd, tmp_path)


def test_the_check_of_each_recording(checks: Checks, monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, tools in (
        ("lists", TOOLS),
        ("lists-watch", TOOLS),
        ("lists-watch", LISTS),
        ("lists-none", TOOLS),
        ("lists-wrong-secret", TOOLS),
    ):
        with monkeypatch.context() as patch:
            Replay(recording(name), at=0).start(patch)
            checks.run(f"{name}, {len(tools)} tools", tools)
    compare("check", checks.texts)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_the_check_of_each_mistake(
    checks: Checks,
    demo: Cluster,
    configured: dict[str, str],
    peer: Start,
    monkeypatch: Patch,
    tmp_path: Path,
) -> None:
    for path in ("/nodes", "/cluster/resources"):
        demo.pve.fail("GET", path, 500, "RPCEnvironment init request failed")
    checks.run("the lists fail")
    demo.pve.failures.clear()
    for node in ("pve1", "pve2"):
        for what in ("qemu", "lxc", "storage", "status"):
            demo.pve.fail("GET", f"/nodes/{node}/{what}", 595, "No route to host")
    checks.run("no node answers")
    demo.pve.failures.clear()
    (tmp_path / ".env").mkdir()
    checks.run(".env is a folder, and the environment has all")
    (tmp_path / ".env").rmdir()
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "false")
    checks.run("the certificate is not verified")
    authority = Authority(tmp_path)
    monkeypatch.setenv("PROXMOX_URL", peer(OLD, authority.server())[0])
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "true")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.path)
    checks.run("a bundle of CAs, and a server that only tells its version")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    checks.run("a proxy that does not run")
    for name in configured:
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(f"PROXMOX_TOKEN_SECRET={SECRET}\n")
    checks.run("only the secret is set")
    compare("check-mistakes", checks.texts)
