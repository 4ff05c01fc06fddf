"""The command line: as a person in a terminal, or a client's configuration, gives it."""

import os
import pty
import shlex
import signal
import subprocess
import time

import pytest

from src.cli import read_options
from tests.cluster import Cluster
from tests.process import COMMAND, ROOT, Server

LISTS = {"list_infrastructure", "list_machines", "list_storage"}


def run(
    *arguments: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith("PROXMOX_")}
    return subprocess.run(
        [*COMMAND, *arguments],
        env=keep | (environ or {}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_help_says_what_there_is_in_few_lines() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("--check", "--watch-only", "MCP", "PROXMOX_URL", ".env"):
        assert word in done.stdout
    assert len(done.stdout.splitlines()) < 20


def test_what_is_no_argument_is_a_wrong_usage(
    capfd: pytest.CaptureFixture[str],
) -> None:
    done = run("--chek")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unrecognized arguments: --chek" in done.stderr
    for arguments in (["--chec"], ["check"], ["--check", "x"], ["--watch"], ["-v"]):
        with pytest.raises(SystemExit) as caught:
            read_options(arguments)
        assert caught.value.code == 2
        assert f"unrecognized arguments: {arguments[-1]}" in capfd.readouterr().err
    options = read_options(["--check", "--watch-only"])
    assert (options.check, options.watch_only) == (True, True)


def test_a_check_has_a_status_and_says_the_same_as_a_tool(
    configured: dict[str, str], demo: Cluster
) -> None:
    done = run("--check", environ=configured)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("All is well with the set-up.\n")
    assert "\nMachines\n  11 machines on 3 nodes: 5 running, " in done.stdout
    demo.pve.cluster_name = "d\u00e9mo"
    done = run("--check", environ=configured | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "Cluster d?mo, quorate" in done.stdout
    done = run("--check")
    assert (done.returncode, done.stderr) == (1, "")
    assert "ERROR: The server is not configured." in done.stdout


def test_a_reader_that_is_gone_and_a_closed_stdin_leave_no_traceback(
    configured: dict[str, str], demo: Cluster
) -> None:
    command = " ".join(map(shlex.quote, COMMAND))
    for line, status, says in (
        (
            f"{command} --check | head -1; exit ${{PIPESTATUS[0]}}",
            1,
            "cannot be written",
        ),
        (f"{command} --check > /dev/full", 1, "The check cannot be written: No space"),
        (f"{command} --check >&-", 1, "cannot be written: stdout is closed"),
        (f"{command} <&-", 0, ""),
    ):
        done = subprocess.run(
            ["bash", "-c", line],
            env=os.environ | configured,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, line
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_it_only_watches_when_told_to(
    configured: dict[str, str], demo: Cluster
) -> None:
    server = Server([*COMMAND, "--watch-only"], configured)
    server.initialize()
    server.send("tools/list", id=1)
    tools = server.answer(1)["result"]["tools"]
    assert {tool["name"] for tool in tools} == LISTS
    server.call(2, "list_machines")
    assert "11 machines" in server.answer(2)["result"]["content"][0]["text"]
    for number, tool in enumerate(("start", "stop", "reboot"), 3):
        server.call(number, f"{tool}_machine", vm_id=106, node="pve2")
        answer = server.answer(number)
        assert f"Unknown tool: {tool}_machine" in str(answer)
    assert demo.posts == []
    assert server.process.stdin
    server.process.stdin.close()
    assert server.leaves_within(1)
    checked = run("--check", "--watch-only", environ=configured).stdout
    assert "\nTools\n  list_infrastructure, list_machines, list_storage\n" in checked


def test_a_person_at_a_terminal_is_told_what_it_waits_for(
    configured: dict[str, str],
) -> None:
    """One line on stderr; a client, which has pipes, gets none."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        COMMAND,
        env=os.environ | configured,
        cwd=ROOT,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr
        line = process.stderr.readline().decode()
        assert line == (
            "Waiting for an MCP client on stdin; Ctrl+C ends it. To check the set-up: python "
            "-m src.server --check\n"
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(2) == 0
        assert process.stderr.read() == b""
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["serving", "checking"])
def test_ctrl_c_while_it_starts_leaves_no_traceback(
    arguments: list[str], configured: dict[str, str], demo: Cluster
) -> None:
    """The imports take half a second; what Python itself needs before them, 20 ms."""
    demo.delay["/version"] = 20
    for seconds in (0.1, 0.4, 0.8):
        with subprocess.Popen(
            [*COMMAND, *arguments],
            env=os.environ | configured,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            # On a busy machine Python itself may not be there yet.
            assert process.wait(5) in (0, 130, -signal.SIGINT)
            assert process.stderr
            assert process.stderr.read() == b""
