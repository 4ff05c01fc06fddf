"""Test the command line, from a terminal and from a client's configuration."""

import os
import pty
import shlex
import shutil
import signal
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, Popen
from typing import Any

import pytest

from src.cli import read_options
from tests.cluster import Cluster, Row
from tests.process import COMMAND, ROOT, Server, environment, run, wait_for

LISTS = ["list_infrastructure", "list_machines", "list_storage"]


def in_terminal(command: list[str], **environ: str) -> CompletedProcess[str]:
    options = {"env": environment(environ), "cwd": ROOT, "timeout": 60}
    return run(command, stdin=DEVNULL, **options)


def launch(configured: Row, *arguments: str, stdin: int = PIPE) -> Popen[bytes]:
    pipes = {"stdin": stdin, "stdout": PIPE, "stderr": PIPE}
    return Popen([*COMMAND, *arguments], env=environment(configured), cwd=ROOT, **pipes)


def test_help_describes_the_options_in_under_20_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_options(["--help"])
    assert caught.value.code == 0
    written = capfd.readouterr().out
    for word in ("--check", "--watch-only", "MCP", "PROXMOX_URL", ".env"):
        assert word in written
    assert len(written.splitlines()) < 20


def test_an_unknown_option_is_a_usage_error(capfd: pytest.CaptureFixture[str]) -> None:
    done = in_terminal([*COMMAND, "--chek"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "unrecognized arguments: --chek" in done.stderr
    for arguments in (["--chec"], ["check"], ["--check", "x"], ["--watch"], ["-v"]):
        with pytest.raises(SystemExit) as caught:
            read_options(arguments)
        assert caught.value.code == 2
        assert f"unrecognized arguments: {arguments[-1]}" in capfd.readouterr().err
    for word in ("--watch-only", "--read-only"):
        options = read_options(["--check", word])
        assert (options.check, options.watch_only) == (True, True)
        for switch in (True, False):  # as the form of a desktop client writes it
            assert read_options([f"{word}={str(switch).lower()}"]).watch_only is switch
    assert not read_options([]).watch_only
    assert read_options(["--watch-only", "--read-only=false"]).watch_only
    for arguments in (["--read-only=1"], ["--read-only", "no"], ["--read-only="]):
        with pytest.raises(SystemExit) as caught:
            read_options(arguments)
        assert caught.value.code == 2
        assert "choose from" in capfd.readouterr().err


def test_the_version_is_shown() -> None:
    done = in_terminal([*COMMAND, "--version"])
    assert (done.returncode, done.stdout) == (0, "mcp-proxmox 1.0.0\n")


def test_the_path_of_the_server_works_from_any_folder(
    configured: Row, demo: Cluster, tmp_path: Path
) -> None:
    """A client that passes no PYTHONPATH needs it. Then .env is that of the project."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "src", project / "src", ignore=shutil.ignore_patterns("*cache*"))
    lines = "".join(f"{name}={value}\n" for name, value in configured.items())
    (project / ".env").write_text(lines)
    command = [sys.executable, str(project / "src" / "server.py")]
    with Server(command, {}, cwd=tmp_path) as server:
        assert len(server.result("list_machines")["structuredContent"]["machines"]) == 11
    environ = environment()
    done = run([*command, "--check"], stdin=DEVNULL, cwd=tmp_path, env=environ, timeout=60)
    assert f"(from {project / '.env'})" in done.stdout
    (tmp_path / ".env").write_text("PROXMOX_USER=a@pve\n")
    done = run([*command, "--check"], stdin=DEVNULL, cwd=tmp_path, env=environ, timeout=60)
    assert f"PROXMOX_USER: a@pve (from {tmp_path / '.env'})" in done.stdout


def test_a_check_sets_the_exit_status_and_encodes_its_text(configured: Row, demo: Cluster) -> None:
    demo.pve.cluster_name = "d\u00e9mo"
    command = [*COMMAND, "--check", "--watch-only"]
    done = in_terminal(command, **configured, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Cluster d?mo" in done.stdout
    assert f"\n  {', '.join(LISTS)}\n" in done.stdout
    done = in_terminal(command, PROXMOX_URL="", PROXMOX_TOKEN_SECRET="")  # whatever .env has
    assert (done.returncode, done.stderr) == (1, "")
    assert "\n  ERROR: " in done.stdout


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        pytest.param("{} --check | head -1", 1, "Broken pipe", id="pipe"),
        pytest.param("{} --check > /dev/full", 1, "No space", id="full disk"),
        pytest.param("{} --check >&-", 1, "stdout", id="closed stdout"),
        pytest.param("{} <&-", 0, "docker run needs -i", id="closed stdin"),
        pytest.param("{} </dev/null", 0, "docker run needs -i", id="no stdin"),
        pytest.param("true | {}", 0, "stdin ended before any message", id="empty stdin"),
    ],
)
def test_a_broken_pipe_and_an_early_end_of_stdin_are_said_in_one_line(
    configured: Row, line: str, status: int, message: str
) -> None:
    line = "set -o pipefail; " + line.format(" ".join(map(shlex.quote, COMMAND)))
    done = in_terminal(["bash", "-c", line], **configured)
    assert done.returncode == status
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_website_is_the_source_of_the_image(configured: Row) -> None:
    with Server(COMMAND, configured | {"MCP_PROXMOX_SOURCE": "https://git.example/x"}) as server:
        info = server.answers[0]["result"]["serverInfo"]
    assert info["websiteUrl"] == "https://git.example/x"


def test_watch_only_offers_only_the_lists(configured: Row, demo: Cluster) -> None:
    with Server([*COMMAND, "--watch-only"], configured) as server:
        assert [tool["name"] for tool in server.request("tools/list")["tools"]] == LISTS
        assert len(server.result("list_machines")["structuredContent"]["machines"]) == 11
        for number, tool in enumerate(("start", "stop", "reboot"), 3):
            server.call(number, f"{tool}_machine", vm_id=106, node="pve2")
            assert f'there is no tool "{tool}_machine". The tools are: list_inf' in str(
                server.answer(number)
            )
        assert demo.posts == []
        server.close()
        assert server.leaves_within(1)


def test_a_terminal_shows_what_the_server_waits_for(configured: Row) -> None:
    """A client, which uses pipes, gets no such line."""
    ours, theirs = pty.openpty()
    with launch(configured, stdin=theirs) as process:
        assert process.stderr
        line = process.stderr.readline().decode()
        assert "stdin" in line
        assert line.endswith("add --check.\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
        assert process.stderr.read() == b""
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["importing", "checking"])
def test_early_ctrl_c_prints_no_traceback(arguments: Any, configured: Row, demo: Cluster) -> None:
    demo.delay["/version"] = 60
    with launch(configured, *arguments) as process:
        libraries = Path(f"/proc/{process.pid}/maps")

        def busy() -> bool:
            """Return whether the check waits for Proxmox, or half the imports are done."""
            return demo.sent != [] if arguments else "pydantic" in libraries.read_text()

        wait_for(busy)
        process.send_signal(signal.SIGINT)
        assert process.wait(5) in ((130,) if arguments else (130, 0))
        assert process.stderr
        assert process.stderr.read() == b""
