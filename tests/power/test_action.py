"""Test power actions: one POST, the task's own words, the live state, and the audit trail.

tests/answers has the answers in each recorded situation; these tests cover the others.
"""

import re
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import AsyncMock

import anyio
import pytest
from aiohttp import web
from mcp import Client

from src import server
from src.client import ProxmoxClient
from src.config.settings import read_settings
from tests.cluster import Cluster, Row, drop
from tests.conftest import Answer, Call, Patch, at_once
from tests.process import wait_for
from tests.replay import Replay, recording

ONE = "/pve1/qemu/100/status"
START, CURRENT = f"/nodes{ONE}/start", f"/nodes{ONE}/current"
TARGET: dict[str, Any] = {"vm_id": 100, "node": "pve1"}
Switch = Callable[..., Answer]
Audit = Callable[[], list[str]]
Play = Callable[[Row], Replay]
running_tasks = pytest.mark.fakepve(time_scale=0.01)


@pytest.fixture
def switch(call: Call) -> Switch:
    """Call a power tool, on machine 100 on pve1 by default."""

    def switch(action: str, **target: Any) -> Answer:
        if action == "force":
            return call("stop_machine", **TARGET | target, force=True)
        return call(f"{action}_machine", **TARGET | target)

    return switch


@pytest.fixture
def stopped(cluster: Cluster) -> Any:
    return cluster.pve.add_vm(100, "web")


@pytest.fixture
def running(cluster: Cluster) -> Any:
    return cluster.pve.add_vm(100, "web", status="running")


@pytest.fixture
def play(configured: Row, monkeypatch: Patch) -> Play:
    """Answer all requests from a recording, in simulated time."""

    def play(recorded: Row) -> Replay:
        replay = Replay(recorded)
        replay.start(monkeypatch)
        return replay

    return play


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> Audit:
    caplog.set_level("INFO", "mcp-proxmox")
    return lambda: [m for name, _, m in caplog.record_tuples if name == "mcp-proxmox"]


def has(answer: Answer, **data: Any) -> bool:
    assert {key: answer.data[key] for key in data} == data
    return True


# --- Tasks that fail ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vm", "ct"])
def test_what_fails_in_its_task_shows_its_log(switch: Switch, cluster: Cluster, kind: str) -> None:
    guest = getattr(cluster.pve, f"add_{kind}")(100, "web")
    guest.start_error = "unexpected status"  # only a graceful stop can end like this
    lines = [f"line {n} {'x' * 300}" for n in range(400)]

    def write_log(row: Row) -> Row:
        for task in cluster.pve.tasklog:
            task["log"] = [*lines, "TASK ERROR: unexpected status"]
        return row

    path = f"/nodes/pve1/{'qemu' if kind == 'vm' else 'lxc'}/100/status/current"
    cluster.edit[path] = write_log
    answer = switch("start")
    assert answer.is_error
    first, _, *shown = answer.text.splitlines()
    assert "unexpected status" in first
    assert [line.split()[2] for line in shown] == ["396", "397", "398", "399"]
    assert {len(line) for line in shown} == {202}


def test_a_failure_without_log_is_an_error(switch: Switch, cluster: Cluster, stopped: Any) -> None:
    stopped.start_error = "no such disk"
    cluster.pve.fail("GET", "/log", 500, "log vanished")
    cluster.edit[CURRENT] = lambda row: "not a row" if cluster.posts else row
    answer = switch("start")
    assert answer.is_error
    assert "no such disk" in answer.text
    assert "log vanished" in answer.text
    assert "stopped" not in answer.text


@pytest.mark.parametrize(("uptime", "settles"), [(0, True), (60, False)])
def test_a_failed_start_is_an_error_even_if_the_machine_goes_on_running(
    switch: Switch, play: Play, uptime: int, settles: bool
) -> None:
    recorded = recording("ct-start-fails")
    for row in recorded["after"]:
        if row["path"].endswith("/status/current"):
            row["data"] |= {"status": "running", "uptime": uptime}
    replay = play(recorded)
    answer = switch("start", vm_id=203)
    assert answer.is_error
    assert "running" in answer.text
    assert (replay.clock.latest > 2) is settles


@running_tasks
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_guest_that_ignores_shutdown_is_an_error_that_offers_force_while_it_runs(
    switch: Switch, cluster: Cluster, running: Any, state: str
) -> None:
    running.acpi = False
    cluster.pve.shutdown_default_timeout = 10
    final = {"status": state}  # after the task gave up
    cluster.edit[CURRENT] = lambda row: row | final if cluster.posts else row
    answer = switch("stop")
    assert answer.is_error
    assert ("force: true" in answer.text) is (state == "running")
    assert cluster.posts == [f"{ONE}/shutdown"]  # and no escalation
    assert running.status == "running"


# --- Nothing is sent ------------------------------------------------------------------


def test_only_force_stops_a_paused_machine(switch: Switch, cluster: Cluster, running: Any) -> None:
    for running.qmpstatus in ("paused", "suspended", "prelaunch"):
        for action in ("start", "stop", "reboot"):
            answer = switch(action)
            assert answer.is_error
            assert running.qmpstatus in answer.text
            assert cluster.posts == []
    assert switch("force").data["status"] == "stopped"


# --- The outcome ----------------------------------------------------------------------


def test_an_action_reports_progress_in_whole_seconds_out_of_45(play: Play) -> None:
    replay, reports = play(recording("vm-shutdown-ignored")), []
    client = ProxmoxClient(read_settings())
    client.set_machine_state("pve1", 101, "shutdown", lambda *report: reports.append(report))
    assert 45 <= replay.clock.latest < 46
    seconds = [done for done, _, _ in reports]
    assert seconds[0] == 1
    assert {later - earlier for earlier, later in pairwise(seconds)} <= {1, 2}
    assert seconds[-1] >= 43
    assert {total for _, total, _ in reports} == {45}


def test_the_mcp_client_receives_the_progress_of_an_action(mode: str, play: Play) -> None:
    recorded, callback = recording("vm-shutdown-ignored"), AsyncMock()
    play(recorded)
    call = ("stop_machine", TARGET | {"vm_id": 101})
    (answer,) = at_once([call], mode, progress_callback=callback)
    assert has(answer, finished=False, task=recorded["post"]["data"])
    assert callback.await_count
    for done, total, message in (each.args for each in callback.await_args_list):
        assert done in range(1, 46)
        assert total == 45
        assert "101" in message


def test_a_reboot_is_confirmed_by_an_uptime_since_the_request(switch: Switch, play: Play) -> None:
    """The machine had just been started, so its uptime cannot become lower."""
    recorded = recording("vm-reboot")
    path = "/nodes/pve2/qemu/300/status/current"
    del recorded["before"][path]["data"]["pid"]  # which would tell as well
    recorded["before"][path]["data"]["uptime"] = 1
    replay = play(recorded)
    answer = switch("reboot", vm_id=300, node="pve2")
    assert has(answer, finished=True, status="running")
    assert replay.recorded(path, replay.end)["data"]["uptime"] == 1


@pytest.fixture
def leave(cluster: Cluster) -> Callable[[Any, str], None]:
    """Let a machine move to pve2 when its action was sent and it was seen in a state on pve1."""

    def leave(machine: Any, state: str) -> None:
        cluster.pve.add_node("pve2")

        def relocate(row: Row) -> Row:
            if cluster.posts:
                machine.node = "pve2"
                row |= {"status": state, "qmpstatus": state}
            return row

        cluster.edit[CURRENT] = relocate

    return leave


@running_tasks
@pytest.mark.parametrize("ha", ["stopped", None])
def test_a_moved_guest_is_found(
    switch: Switch, cluster: Cluster, stopped: Any, leave: Any, ha: Any
) -> None:
    stopped.ha_state, cluster.pve.ha_delay = ha, 10
    leave(stopped, "stopped")
    assert has(answer := switch("start"), finished=True, status="running", node="pve2")
    assert "Started" in answer.text
    assert ("GET", "/api2/json/cluster/resources?type=vm") in cluster.sent


@running_tasks
def test_a_machine_that_has_moved_to_a_silent_node_is_not_judged(
    switch: Switch, cluster: Cluster, running: Any, leave: Any
) -> None:
    leave(running, "running")
    cluster.pve.fail("GET", CURRENT.replace("pve1", "pve2"), 595, "No route to host")
    answer = switch("force")
    assert answer.is_error
    assert "whether the stop took effect is unknown" in answer.text
    assert 'Call list_machines(node="pve2") before you try again.' in answer.text


@running_tasks
def test_a_reboot_that_ha_finishes_on_another_node_is_followed(
    switch: Switch, running: Any, leave: Any
) -> None:
    running.ha_state = "started"
    running.started_at -= 3600
    leave(running, "stopped")
    assert has(answer := switch("reboot"), finished=True, status="running", node="pve2")
    assert answer.text.startswith("Rebooted")


@pytest.mark.parametrize("ha", ["started", None])
def test_a_state_that_can_no_longer_be_read_is_not_told(
    switch: Switch, cluster: Cluster, running: Any, monkeypatch: Patch, ha: Any
) -> None:
    monkeypatch.setattr("src.power.action.POWER_TIMEOUT", 4.0)
    running.ha_state = ha

    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=595, reason="No route to host")

    def look_once(row: Row) -> Row:
        if cluster.posts:
            cluster.raw[CURRENT] = fail
            row |= {"status": "running", "qmpstatus": "running"}
        return row

    cluster.edit[CURRENT] = look_once
    answer = switch("force")
    assert cluster.raw
    assert has(answer, finished=False, status="unknown")
    assert "is running" not in answer.text
    assert not re.search("nothing has carried it out|does not show it", answer.text)


def test_the_last_looks_share_one_moment_after_the_deadline(
    switch: Switch, cluster: Cluster, running: Any, monkeypatch: Patch
) -> None:
    """A node that hangs once it has the request gets its 5 s only once, here 0.5 s."""
    monkeypatch.setattr("src.power.action.POWER_TIMEOUT", 1.5)
    monkeypatch.setattr("src.power.action.CONNECT_TIMEOUT", 0.5)
    task = "UPID:pve1:00000001:00000001:00000001:qmstop:100:mcp@pve!t:"

    async def take(_: web.Request) -> web.Response:
        cluster.delay |= {CURRENT: 20, f"/nodes/pve1/tasks/{task}/status": 20}
        return web.json_response({"data": task})

    cluster.raw[f"/nodes{ONE}/stop"] = take
    answer = switch("force")
    assert cluster.posts == [f"{ONE}/stop"]
    assert "cannot be read" in answer.text
    assert answer.seconds < 4


def test_a_refused_reboot_is_no_success_because_the_machine_runs(
    switch: Switch, cluster: Cluster, running: Any
) -> None:
    cluster.pve.fail("POST", f"{ONE}/reboot", 500, "VM 100 not running")
    answer = switch("reboot")
    assert answer.is_error
    assert "VM 100 not running" in answer.text
    assert answer.text.endswith("is running. Call reboot_machine again.")


@running_tasks
def test_a_forbidden_task_is_not_awaited(switch: Switch, cluster: Cluster, stopped: Any) -> None:
    cluster.pve.fail("GET", "/status", 403, "no")
    assert has(switch("start"), finished=True, status="running")


# --- One POST -------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 500])
def test_only_a_stop_whose_parameter_is_unknown_is_sent_again_without_it(
    switch: Switch, cluster: Cluster, running: Any, code: int
) -> None:
    """Proxmox before 8.2 answers 400."""
    cluster.pve.fail("POST", f"{ONE}/stop", code, "it is no good", times=1)
    answer = switch("force")
    assert cluster.bodies == ["overrule-shutdown=1", ""][: 2 if code == 400 else 1]
    assert answer.is_error is (code == 500)
    assert ("it is no good" in answer.text) is answer.is_error


def test_a_post_whose_answer_is_lost_is_not_sent_again_and_has_an_unknown_outcome(
    switch: Switch, cluster: Cluster, stopped: Any
) -> None:
    gateways: list[Row] = [{"text": ""}, {"text": '{"message": "An unexpected error"}'}]
    cases = (597, 596, 599, 502, 504, "a login page", "dropped", *gateways)
    for sent, lost in enumerate(cases, 1):
        if isinstance(lost, int):
            cluster.pve.fail("POST", START, lost, "Connection timed out", times=1)
        elif lost == "dropped":
            cluster.raw[START] = drop
        elif isinstance(lost, dict):
            other = web.Response(status=500, content_type="application/json", **lost)
            cluster.raw[START] = AsyncMock(return_value=other)
        else:
            cluster.pve.fail("POST", START, 200, "<html>Log in", html=True, times=1)
        answer = switch("start")
        assert answer.is_error
        assert "unknown" in answer.text, lost
        assert cluster.posts == [f"{ONE}/start"] * sent, lost
        assert stopped.status == "stopped"


@running_tasks
def test_concurrent_calls_each_get_their_own_answer(configured: Row, cluster: Cluster) -> None:
    """Two of them start the same machine, but only one changes it."""
    cluster.pve.lock_wait = 1000
    ids = range(100, 110)
    for vm_id in ids:
        vm = cluster.pve.add_vm(vm_id, f"vm-{vm_id}")
        vm.start_secs = 5
        vm.start_error = f"disk {vm_id} is missing" if vm_id % 4 == 1 else None
    calls = [("start_machine", TARGET | {"vm_id": n}) for n in (100, *ids)]
    again, *answers = at_once(calls)
    assert {again.data["changed"], answers[0].data["changed"]} == {True, False}
    for vm_id, answer in zip(ids, answers, strict=True):
        assert answer.is_error is (vm_id % 4 == 1)
        if answer.is_error:
            assert f"disk {vm_id} is missing" in answer.text
        else:
            assert has(answer, vm_id=vm_id, status="running", finished=True)


# --- The audit trail ------------------------------------------------------------------


def test_an_action_writes_an_audit_line_before_its_post_and_one_at_its_end(
    switch: Switch, call: Call, demo: Cluster, audit: Audit
) -> None:
    async def arrive(request: web.Request) -> web.Response:
        assert "machine=201" in audit()[-1]
        return await drop(request)

    demo.raw["/nodes/pve2/lxc/201/status/start"] = arrive
    switch("start", vm_id=106, node="pve2")
    switch("start", vm_id=102)
    switch("start", vm_id=201, node="pve2")
    switch("start", vm_id=107, node="pve3")  # which is offline
    call("list_machines")
    tasks = [task["upid"] for task in demo.pve.tasklog]
    expected = [
        ('start machine=106 node="pve2"', "none", "(?!error)"),
        ('start machine=106 node="pve2"', tasks[0], "(?!error)"),
        ('start machine=102 node="pve1"', "none", "(?!error)"),
        ('start machine=102 node="pve1"', tasks[1], "error: "),
        ('start machine=201 node="pve2"', "none", "(?!error)"),
        ('start machine=201 node="pve2"', "none", "error: "),
        ('start machine=107 node="pve3"', "none", "error: .*offline"),
    ]
    for line, (action, task, outcome) in zip(audit(), expected, strict=True):
        begin = re.escape(f'audit action={action} task={task} outcome="')
        assert re.fullmatch(f'{begin}{outcome}.+"', line)


def test_the_audit_line_has_the_outcome_without_the_advice(
    switch: Switch, demo: Cluster, audit: Audit
) -> None:
    answer = switch("start", vm_id=201)
    (line,) = audit()
    outcome = "Container 201 (proxy) is not on pve1 but on pve2. Nothing was sent."
    assert answer.text.startswith(outcome + " ")
    assert line.endswith(f'outcome="error: {outcome}"')


def test_a_cancelled_call_is_followed_to_its_end_and_audited(play: Play, audit: Audit) -> None:
    """The client asked for progress, and cancels it after the action was sent."""
    recorded, cancelled = recording("vm-shutdown"), threading.Event()
    replay, task = play(recorded), recorded["post"]["data"]
    replay.hooks[f"/nodes/pve1/tasks/{task}/status"] = partial(cancelled.wait, 5)

    async def stop() -> None:
        async with Client(server.mcp, mode="legacy") as client:
            call = partial(client.call_tool, progress_callback=AsyncMock())
            async with anyio.create_task_group() as group:
                group.start_soon(call, "stop_machine", TARGET)
                await anyio.to_thread.run_sync(wait_for, lambda: replay.posts)
                group.cancel_scope.cancel()
            await client.list_tools()  # now the server has read the cancellation
            assert len(audit()) == 1
            cancelled.set()
            await anyio.to_thread.run_sync(wait_for, lambda: len(audit()) == 2)

    anyio.run(stop)
    assert len(replay.posts) == 1
    assert f"task={task}" in audit()[1]
    assert "error" not in audit()[1]


CONTAINER = {"vmid": 200, "name": "dns", "type": "lxc", "uptime": 0, "cpus": 1, "maxmem": 1}


@running_tasks
def test_a_container_that_ha_starts_needs_a_process(
    call: Call, cluster: Cluster, monkeypatch: Patch
) -> None:
    """Whose start fails, it is running without one for a moment."""
    monkeypatch.setattr("src.power.action.POWER_TIMEOUT", 8.0)
    cluster.pve.add_ct(200, "dns").ha_state = "stopped"
    looks: list[int] = []

    async def current(_: web.Request) -> web.Response:
        status, state = "stopped", "started" if cluster.posts else "stopped"
        if cluster.posts:
            looks.append(1)
            status = "running" if len(looks) == 2 else status
            state = "error" if len(looks) > 4 else state
        row = CONTAINER | {"status": status, "ha": {"managed": 1, "state": state}}
        return web.json_response({"data": row})

    cluster.raw["/nodes/pve1/lxc/200/status/current"] = current
    assert "error state" in call("start_machine", vm_id=200, node="pve1").text


@pytest.mark.parametrize(
    ("tool", "status", "kind"),
    [("start_machine", "running", "vzstart"), ("stop_machine", "stopped", "vzshutdown")],
)
def test_nothing_is_finished_while_its_task_runs(
    call: Call, cluster: Cluster, monkeypatch: Patch, tool: str, status: str, kind: str
) -> None:
    monkeypatch.setattr("src.power.action.POWER_TIMEOUT", 1.0)
    cluster.pve.add_ct(200, "dns")
    upid = f"UPID:pve1:0000C350:0A0B0C0D:6A86D400:{kind}:200:root@pam:"
    row = {"upid": upid, "node": "pve1", "type": kind, "id": "200", "user": "root@pam"}
    row |= {"starttime": 0x6A86D400}
    answers = {
        "lxc/200/status/current": CONTAINER | {"status": status, "ha": {"managed": 0}},
        "tasks": [row | {"status": "RUNNING"}],
        f"tasks/{upid}/status": row | {"status": "running"},
    }
    for path, data in answers.items():
        respond = AsyncMock(side_effect=lambda _, data=data: web.json_response({"data": data}))
        cluster.raw[f"/nodes/pve1/{path}"] = respond
    assert has(call(tool, vm_id=200, node="pve1"), finished=False, task=upid)
    assert cluster.posts == []
