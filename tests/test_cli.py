"""Test what the administrator reads with `--check`, with real clusters' answers."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from src.cli import check
from tests.certificates import Authority
from tests.cluster import SECRET, Cluster, Row
from tests.conftest import Patch, Start
from tests.golden import compare
from tests.replay import Replay, recording

Checks = Callable[..., dict[str, str]]
LISTS = ["list_infrastructure", "list_machines", "list_storage"]
TOOLS = [*LISTS, "start_machine", "stop_machine", "reboot_machine"]
VERSION = '{"data": {"version": "9.1.2"}}'
OLD = f"HTTP/1.1 200 OK\nContent-Type: application/json\n\n{VERSION}"


def expiry(match: re.Match[str]) -> str:
    """Check a certificate's last day, and return what stands in its place on every day."""
    left = date.fromisoformat(match[1]) - datetime.now(UTC).date()
    assert abs(left.days - int(match[2])) <= 1, match[0]  # it may be midnight
    return f"until 2030-01-31 ({match[2]} days)"


@pytest.fixture
def checks(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Checks:
    """Run a check, and return what all checks so far wrote, by case."""
    texts: dict[str, str] = {}

    def run(case: str, tools: list[str] = TOOLS) -> dict[str, str]:
        status = 0 if check(tools) else 1
        text = capfd.readouterr().out.replace(str(tmp_path), "/here")
        assert SECRET not in text
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8006", text)
        text = re.sub(r"/\S+/[\w-]+\.(pem|crt)", "/here/ca.pem", text)
        text = re.sub(r"in \d+ ms", "in 9 ms", text)
        text = re.sub(r"until (\S+) \((\d+) days\)", expiry, text)
        texts[case] = f"status {status}\n{text.rstrip()}"
        return texts

    return run


def test_the_check_of_each_recording(checks: Checks, monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("lists", "lists-watch", "lists-watch", "lists-none", "lists-wrong-secret")
    for name, tools in zip(names, (TOOLS, TOOLS, LISTS, TOOLS, TOOLS), strict=True):
        with monkeypatch.context() as patch:
            Replay(recording(name), at=0).start(patch)
            texts = checks(f"{name}, {len(tools)} tools", tools)
    compare("check", texts)


def test_the_check_of_each_mistake(
    checks: Checks, demo: Cluster, configured: Row, peer: Start, monkeypatch: Patch, tmp_path: Path
) -> None:
    for path in ("/nodes", "/cluster/resources"):
        demo.pve.fail("GET", path, 500, "RPCEnvironment init request failed")
    checks("the lists fail")
    demo.pve.failures.clear()
    for node in ("pve1", "pve2"):
        for what in ("qemu", "lxc", "storage", "status"):
            demo.pve.fail("GET", f"/nodes/{node}/{what}", 595, "No route to host")
    checks("no node answers")
    demo.pve.failures.clear()
    (tmp_path / ".env").mkdir()
    checks(".env is a folder, and the environment has all")
    (tmp_path / ".env").rmdir()
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "false")
    checks("the certificate is not verified")
    authority = Authority(tmp_path)
    monkeypatch.setenv("PROXMOX_URL", peer(OLD, authority.server())[0])
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "true")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.path)
    checks("a bundle of CAs, and a server that only tells its version")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    checks("a proxy that does not run")
    for name in configured:
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(f"PROXMOX_TOKEN_SECRET={SECRET}\n")
    texts = checks("only the secret is set")
    compare("check-mistakes", texts)
