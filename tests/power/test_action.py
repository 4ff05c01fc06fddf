"""Power actions tell the truth: one POST, the task's own words, the live state."""

import asyncio
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import ANY, AsyncMock

import anyio
import pytest
from aiohttp import web
from mcp import Client

from src import server
from src.power import outcome
from src.proxmox import transport
from tests.cluster import Cluster, Row, drop
from tests.conftest import Answer, Call, at_once
from tests.process import wait_for

ONE = "/pve1/qemu/100/status"
START, CURRENT = f"/nodes{ONE}/start", f"/nodes{ONE}/current"
DOWN = {"status": "stopped", "qmpstatus": "stopped"}
TARGET: dict[str, Any] = {"vm_id": 100, "node": "pve1"}
Switch = Callable[..., Answer]
Audit = Callable[[], list[str]]
running_tasks = pytest.mark.fakepve(time_scale=0.01)
each_kind = pytest.mark.parametrize("kind", ["vm", "ct"])


@pytest.fixture
def switch(call: Call) -> Switch:
    """Call a power tool, on machine 100 on pve1 unless told."""

    def switch(how: str, **target: Any) -> Answer:
        if how == "force":
            return call("stop_machine", **TARGET | target, force=True)
        return call(f"{how}_machine", **TARGET | target)

    return switch


@pytest.fixture
def stopped(cluster: Cluster) -> Any:
    return cluster.pve.add_vm(100, "web")


@pytest.fixture
def running(cluster: Cluster) -> Any:
    vm = cluster.pve.add_vm(100, "web", status="running")
    vm.started_at -= 3600
    return vm


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> Audit:
    caplog.set_level("INFO", "mcp-proxmox")
    return lambda: [m for name, _, m in caplog.record_tuples if name == "mcp-proxmox"]


def has(answer: Answer, **data: Any) -> bool:
    assert {key: answer.data[key] for key in data} == data
    return True


class Suffixes(dict[str, Any]):
    """A dict of paths that is asked by their ends."""

    def get(self, path: str, default: Any = None) -> Any:
        return next((self[end] for end in self if path.endswith(end)), default)


@each_kind
def test_a_start_that_fails_in_its_task_is_an_error_with_the_tasks_words(
    switch: Switch, cluster: Cluster, kind: str
) -> None:
    guest = getattr(cluster.pve, f"add_{kind}")(100, "web")
    guest.start_error = "could not open block device"
    answer = switch("start")
    assert answer.is_error
    (text,) = answer.text.splitlines()  # the log has nothing else
    assert "failed: could not open block device. It is stopped now." in text
    assert text.endswith("call start_machine again.")  # not that it was locked


def test_what_cannot_be_read_after_a_failure_is_said(
    switch: Switch, cluster: Cluster, stopped: Any
) -> None:
    stopped.start_error = "no such disk"
    cluster.pve.fail("GET", "/log", 500, "log gone")
    cluster.edit[CURRENT] = lambda row: "gone" if cluster.posts else row
    answer = switch("start")
    assert answer.is_error
    assert "no such disk. Its state cannot be read" in answer.text
    assert "log gone" in answer.text


def test_the_log_is_cut_to_its_last_lines(
    switch: Switch, cluster: Cluster, stopped: Any
) -> None:
    stopped.start_error = "no such disk"
    rows = [{"n": n, "t": f"line {n} {'x' * 300}"} for n in range(400)]
    rows.append({"n": 400, "t": "TASK ERROR: no such disk"})

    async def log(_: web.Request) -> web.Response:
        return web.json_response({"data": rows})

    cluster.raw = Suffixes({"/log": log})
    lines = switch("start").text.splitlines()[2:]
    assert [line.split()[2] for line in lines] == ["396", "397", "398", "399"]
    assert {len(line) for line in lines} == {202}
    assert [path for _, path in cluster.sent if path.endswith("/log?limit=1000")]


@pytest.mark.parametrize("status", ["WARNINGS: 1", "unexpected status"])
def test_warnings_are_success_and_any_other_end_of_the_task_is_not(
    switch: Switch, cluster: Cluster, stopped: Any, status: str
) -> None:
    ended = {"exitstatus": status}
    cluster.edit = Suffixes({"/status": lambda row: row | ended})
    rows = [{"n": 1, "t": "the clock is wrong"}, {"n": 2, "t": "TASK WARNINGS: 1"}]

    async def log(_: web.Request) -> web.Response:
        return web.json_response({"data": rows})

    cluster.raw = Suffixes({"/log": log})
    answer = switch("start")
    assert status in answer.text
    assert "\n| the clock is wrong" in answer.text  # the log, where the warning is
    assert answer.is_error is (status == "unexpected status")
    assert answer.is_error or has(answer, changed=True, finished=True)


def test_a_start_that_is_refused_says_why_and_what_to_do(
    switch: Switch, cluster: Cluster, stopped: Any
) -> None:
    cluster.pve.lose_quorum()
    answer = switch("start")
    assert answer.is_error
    assert "no quorum? It is stopped now. Call list_infrastructure" in answer.text
    cluster.pve.grant("mcp@pve", "/vms", "VM.Audit")
    answer = switch("start")
    assert answer.is_error
    assert "lacks VM.PowerMgmt on /vms/100." in answer.text
    assert "pveum acl modify /vms/100" in answer.text


# --- Nothing to do, and what cannot be done: nothing is sent --------------------------


@each_kind
@pytest.mark.parametrize(
    ("how", "state"), [("start", "running"), ("stop", "stopped"), ("force", "stopped")]
)
def test_a_machine_that_is_so_already_is_left_alone(
    switch: Switch, cluster: Cluster, kind: str, how: str, state: str
) -> None:
    getattr(cluster.pve, f"add_{kind}")(100, "web", status=state)
    answer = switch(how)
    assert f"is already {state}" in answer.text
    assert has(answer, status=state, changed=False, finished=True, task=None)
    assert cluster.posts == []
    tasks = "/api2/json/nodes/pve1/tasks?vmid=100&limit=20&source=all"
    assert cluster.sent[-1] == ("GET", tasks)


@pytest.mark.parametrize(
    ("how", "vm_id", "node", "says", "then"),
    [
        ("reboot", 106, "pve2", "is stopped", "start_machine"),
        ("start", 900, "pve1", "a template", "Clone"),
        ("reboot", 900, "pve1", "a template", "Clone"),
        ("start", 103, "pve1", "state paused", "Resume"),
        ("stop", 103, "pve1", "state paused", "force: true"),
        ("reboot", 103, "pve1", "state paused", "Resume"),
        ("stop", 104, "pve2", "locked (backup)", "qm unlock 104"),
        ("reboot", 104, "pve2", "locked (backup)", "qm unlock 104"),
        ("start", 202, "pve1", "locked (snapshot)", "pct unlock 202"),
        ("start", 100, "pve2", "not on pve2 but on pve1", 'node="pve1"'),
        ("start", 999, "pve1", "no machine 999", "list_machines"),
        ("start", 100, "pve9", "no node pve9", "pve1, pve2, pve3"),
        ("start", 107, "pve3", "pve3 is offline", "list_infrastructure"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_next_step(
    switch: Switch, demo: Cluster, how: str, vm_id: int, node: str, says: str, then: str
) -> None:
    demo.pve.add_ct(202, "busy", lock="snapshot")
    answer = switch(how, vm_id=vm_id, node=node)
    assert answer.is_error
    assert says in answer.text
    assert then in answer.text
    assert len(answer.text) <= 300
    assert demo.posts == []


@pytest.mark.parametrize("state", ["suspended", "io-error", "prelaunch", "shutdown"])
def test_only_force_stops_a_machine_in_whose_state_the_guest_does_not_run(
    switch: Switch, cluster: Cluster, running: Any, state: str
) -> None:
    running.qmpstatus = state
    answer = switch("stop")
    assert answer.is_error
    assert f"in state {state}" in answer.text
    assert cluster.posts == []
    assert switch("force").data["status"] == "stopped"


# --- Guests that take their time ------------------------------------------------------


@running_tasks
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_guest_that_ignores_shutdown_is_an_error_that_offers_force_while_it_runs(
    switch: Switch, cluster: Cluster, running: Any, state: str
) -> None:
    running.acpi = False
    cluster.pve.shutdown_default_timeout = 10
    seen = {"status": state}  # after the task gave up
    cluster.edit[CURRENT] = lambda row: row | seen if cluster.posts else row
    answer = switch("stop")
    assert answer.is_error
    assert f"got timeout. It is {state} now." in answer.text
    assert ("force: true" in answer.text) is (state == "running")
    assert cluster.posts == [f"{ONE}/shutdown"]  # and no escalation
    assert running.status == "running"


@pytest.mark.fakepve(time_scale=0.1)
def test_a_shutdown_longer_than_the_wait_goes_on(
    mode: str, configured: Row, cluster: Cluster, running: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(outcome, "POWER_PATIENCE", 1.7)
    running.shutdown_secs = 50  # 5 s here
    call, told = ("stop_machine", TARGET), AsyncMock()
    (answer,) = at_once([call], mode, progress_callback=told)
    assert 1.7 < answer.seconds < 4
    task = cluster.pve.tasklog[-1]["upid"]
    assert has(answer, finished=False, changed=False, status="running", task=task)
    assert "not finished after 2 s: it is running" in answer.text
    told.assert_awaited_once_with(ANY, 1.7, "shutdown VM 100 (web) on pve1")
    assert told.call_args.args[0] == 1  # whole seconds


@running_tasks
@pytest.mark.parametrize(("kind", "uptime"), [("vm", 3600), ("ct", 0)])
def test_a_reboot_is_confirmed_by_a_lower_uptime_or_one_since_the_request(
    switch: Switch, cluster: Cluster, kind: str, uptime: int
) -> None:
    guest = getattr(cluster.pve, f"add_{kind}")(100, "web", status="running")
    guest.started_at = began = time.time() - uptime
    guest.shutdown_secs = 10
    assert has(switch("reboot"), finished=True, status="running")
    assert guest.started_at > began


def test_a_reboot_whose_task_ends_while_the_guest_is_down_waits_for_the_guest(
    switch: Switch, cluster: Cluster, running: Any
) -> None:
    """As qemu does: the task ends, and the start is a task of its own, later."""
    later: list[Row] = [{"uptime": 3600}, DOWN | {"uptime": 0}, {"uptime": 0}]
    later.append({"uptime": -1})
    cluster.edit[CURRENT] = lambda row: row | later.pop(0) if cluster.posts else row
    assert has(switch("reboot"), finished=True)
    assert later == []


@pytest.mark.parametrize("how", ["reboot", "start"])
def test_an_action_whose_end_is_not_seen_is_not_called_done(
    switch: Switch, cluster: Cluster, monkeypatch: Any, how: str
) -> None:
    """The machine does not come back; or its node falls silent after the POST."""
    monkeypatch.setattr(outcome, "POWER_PATIENCE", 0.6)
    status = "running" if how == "reboot" else "stopped"
    cluster.pve.add_vm(100, "web", status=status).started_at = 0

    def after(row: Row) -> Row:
        if how == "start":
            cluster.pve.fail("GET", CURRENT, 595, "No route to host")
        return row | DOWN if cluster.posts else row

    cluster.edit[CURRENT] = after
    answer = switch(how)
    seen = "stopped" if how == "reboot" else "unknown"
    assert has(answer, finished=False, status=seen)
    assert ("Call start_machine" in answer.text) is (how == "reboot")
    assert ("cannot be seen" in answer.text) is (how == "start")


# --- Force, HA, lost answers ----------------------------------------------------------


@running_tasks
def test_a_forced_stop_overrules_a_shutdown_that_holds_the_lock(
    configured: Row, cluster: Cluster, running: Any
) -> None:
    running.acpi = False
    cluster.pve.shutdown_default_timeout = 30
    original = cluster.pve._do_stop

    async def overrule(vm: Any, user: str, params: Row) -> Any:
        """As PVE 8.2 does: the shutdown gives up its lock for this stop."""
        while vm.lock_holder is None:
            await asyncio.sleep(0.01)
        if params.pop("overrule-shutdown", None):
            vm.lock_holder = None
        return await original(vm, user, params)

    cluster.pve._do_stop = overrule
    force = TARGET | {"force": True}
    graceful, forced = at_once([("stop_machine", TARGET), ("stop_machine", force)])
    assert forced.data["status"] == "stopped"
    assert sorted(cluster.bodies) == ["", "overrule-shutdown=1"]
    assert sorted(cluster.posts) == [f"{ONE}/shutdown", f"{ONE}/stop"]
    # The shutdown's own task failed, and the answer says where the machine is now.
    assert graceful.is_error
    assert "It is stopped now." in graceful.text


@pytest.mark.parametrize("code", [400, 500])
def test_only_a_stop_whose_parameter_is_not_known_is_sent_again_without_it(
    switch: Switch, cluster: Cluster, running: Any, code: int
) -> None:
    """A Proxmox before 8.2 answers 400."""
    cluster.pve.fail("POST", f"{ONE}/stop", code, "it is no good", times=1)
    answer = switch("force")
    assert cluster.bodies == ["overrule-shutdown=1", ""][: 2 if code == 400 else 1]
    assert answer.is_error is (code == 500)
    assert ("it is no good" in answer.text) is answer.is_error


@running_tasks
def test_an_ha_managed_guest_is_confirmed_by_its_own_state(
    configured: Row, cluster: Cluster
) -> None:
    """Its task ends when the request is queued; the state changes 0.2 s later."""
    cluster.pve.add_vm(100, "web").ha_state = "stopped"
    cluster.pve.add_ct(101, "dns").ha_state = "stopped"
    cluster.pve.ha_delay = 20
    force = {"force": True}
    for how, more, state in (("start", {}, "running"), ("stop", force, "stopped")):
        both = [TARGET | more, TARGET | more | {"vm_id": 101}]
        for answer in at_once([(f"{how}_machine", target) for target in both]):
            assert has(answer, status=state, finished=True)
            assert answer.seconds > 0.2


@running_tasks
def test_an_ha_managed_guest_that_starts_on_another_node_is_found_there(
    switch: Switch, cluster: Cluster, stopped: Any
) -> None:
    cluster.pve.add_node("pve2")
    stopped.ha_state = "stopped"
    cluster.pve.ha_delay = 10

    def relocate(row: Row) -> Row:
        if cluster.posts:
            stopped.node = "pve2"
        return row

    cluster.edit[CURRENT] = relocate
    answer = switch("start")
    assert has(answer, finished=True, status="running", node="pve2")
    assert "on pve2" in answer.text
    assert ("GET", "/api2/json/cluster/resources?type=vm") in cluster.sent


@pytest.mark.parametrize(
    "lost", [595, 596, 599, 502, 504, "dropped", "silent", "a login page"]
)
def test_a_post_whose_answer_is_lost_is_not_sent_again_and_has_an_unknown_outcome(
    switch: Switch, cluster: Cluster, stopped: Any, monkeypatch: Any, lost: Any
) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT", 0.3)
    if lost == "dropped":
        cluster.raw[START] = drop
    elif lost == "silent":
        cluster.delay[START] = 5
    elif lost == "a login page":
        cluster.pve.fail("POST", START, 200, "<html>Log in</html>", html=True)
    else:
        cluster.pve.fail("POST", START, lost, "Connection timed out")
    answer = switch("start")
    assert answer.is_error
    assert "was lost, so its outcome is unknown" in answer.text
    assert 'list_machines(node="pve1")' in answer.text
    assert answer.seconds < 2
    assert len(cluster.posts) == 1


@running_tasks
@pytest.mark.parametrize(("code", "times"), [(596, 2), (403, None)])
def test_a_task_is_followed_through_lost_answers_and_not_where_it_may_not_be_read(
    switch: Switch, cluster: Cluster, stopped: Any, code: int, times: int | None
) -> None:
    stopped.start_secs = 10
    stopped.start_error = "no such disk" if code == 596 else None
    cluster.pve.fail("GET", "/status", code, "no", times=times)
    answer = switch("start")
    if code == 596:
        assert "no such disk" in answer.text
    else:
        assert has(answer, finished=True, status="running")


@running_tasks
@pytest.mark.parametrize("in_vain", [False, True])
def test_two_starts_of_one_machine_at_once_both_tell_the_truth(
    configured: Row, cluster: Cluster, stopped: Any, in_vain: bool
) -> None:
    stopped.start_secs = 30 if in_vain else 5  # it waits for the other's lock 10 s
    answers = at_once([("start_machine", TARGET)] * 2)
    done, other = sorted(answers, key=lambda a: a.is_error or not a.data["changed"])
    assert has(done, changed=True, status="running")
    if in_vain:
        assert "can't lock file" in other.text
        assert "Another task holds it: qmstart" in other.text
    else:
        assert has(other, changed=False, status="running")


@running_tasks
def test_twenty_machines_at_once_each_get_their_own_answer(
    configured: Row, cluster: Cluster
) -> None:
    ids = range(100, 120)
    for vm_id in ids:
        vm = cluster.pve.add_vm(vm_id, f"vm-{vm_id}")
        vm.start_secs = 10
        vm.start_error = f"disk {vm_id} is missing" if vm_id % 4 == 0 else None
    answers = at_once([("start_machine", TARGET | {"vm_id": n}) for n in ids])
    for vm_id, answer in zip(ids, answers, strict=True):
        assert f"VM {vm_id} (vm-{vm_id}) on pve1" in answer.text
        assert (f"disk {vm_id} is missing" in answer.text) is (vm_id % 4 == 0)
        assert answer.is_error is (vm_id % 4 == 0)
        assert answer.is_error or answer.data["vm_id"] == vm_id
    assert len(cluster.posts) == 20


# --- The audit trail ------------------------------------------------------------------


def test_an_action_has_an_audit_line_before_its_post_if_it_is_sent_and_one_at_its_end(
    switch: Switch, call: Call, demo: Cluster, audit: Audit
) -> None:
    async def arrive(request: web.Request) -> web.Response:
        assert "machine=201" in audit()[-1]
        return await drop(request)

    demo.raw["/nodes/pve2/lxc/201/status/start"] = arrive
    switch("start", vm_id=106, node="pve2")
    switch("start", vm_id=102)
    switch("start", vm_id=201, node="pve2")
    switch("stop", vm_id=106)
    call("list_machines")
    upid = demo.pve.tasklog[0]["upid"]
    expected = [
        r'start machine=106 node="pve2" task=none outcome="is being sent"',
        rf'start machine=106 node="pve2" task={upid} outcome="Started VM 106 .+"',
        r'start machine=102 node="pve1" task=none outcome="is being sent"',
        r'start machine=102 node="pve1" task=UPID.+ outcome="error: The start of VM .+"',
        r'start machine=201 node="pve2" task=none outcome="is being sent"',
        r'start machine=201 node="pve2" task=none outcome="error: .+ is unknown: .+"',
        r'shutdown machine=106 node="pve1" task=none outcome="error: Machine .+"',
    ]
    for line, pattern in zip(audit(), expected, strict=True):
        assert re.fullmatch(f"audit action={pattern}", line)


@pytest.mark.fakepve(time_scale=0.1)
def test_a_cancelled_call_is_waited_for_and_audited(
    configured: Row, cluster: Cluster, running: Any, audit: Audit
) -> None:
    """The client goes away, with a token for progress; the action went out already."""
    running.shutdown_secs = 10

    async def stop() -> None:
        async with Client(server.mcp, mode="legacy") as client:
            call = partial(client.call_tool, progress_callback=AsyncMock())
            async with anyio.create_task_group() as group:
                group.start_soon(call, "stop_machine", TARGET)
                await anyio.to_thread.run_sync(wait_for, lambda: cluster.posts)
                group.cancel_scope.cancel()
            assert len(audit()) == 1
            await anyio.to_thread.run_sync(wait_for, lambda: len(audit()) == 2)

    anyio.run(stop)
    assert running.status == "stopped"
    assert "it is stopped" in audit()[1]
