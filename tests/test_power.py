"""Power actions tell the truth: one POST, the task's own words, the live state."""

import time
from typing import Any

import anyio
import pytest
from aiohttp import web
from mcp import Client

from src import api, power, server
from tests.cluster import GIB, Cluster, drop
from tests.conftest import Call, at_once

START = "/nodes/pve1/qemu/100/status/start"
STOP = "/nodes/pve1/qemu/100/status/stop"
SHUTDOWN = "/nodes/pve1/qemu/100/status/shutdown"
CURRENT = "/nodes/pve1/qemu/100/status/current"
running_tasks = pytest.mark.fakepve(time_scale=0.01)


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> float:
    """1.5 s in place of the 45 that an action waits."""
    monkeypatch.setattr(power, "POWER_PATIENCE", 1.5)
    return 1.5


@pytest.fixture
def stopped(cluster: Cluster) -> Any:
    return cluster.pve.add_vm(100, "web")


@pytest.fixture
def running(cluster: Cluster) -> Any:
    vm = cluster.pve.add_vm(100, "web", status="running")
    vm.started_at -= 3600
    return vm


def nothing_sent(cluster: Cluster) -> bool:
    return not cluster.posts


# --- Failures in the task -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vm", "ct"])
def test_a_start_that_fails_in_its_task_is_an_error_with_the_tasks_words(
    call: Call, cluster: Cluster, kind: str
) -> None:
    guest = getattr(cluster.pve, f"add_{kind}")(100, "web")
    guest.start_error = "start failed: QEMU exited with code 1"
    answer = call("start_machine", vm_id=100, node="pve1")
    assert answer.is_error
    label = "VM" if kind == "vm" else "container"
    upid = cluster.pve.tasklog[-1]["upid"]
    assert answer.text == (
        f"The start of {label} 100 (web) on pve1 failed: start failed: QEMU exited with "
        "code 1. It is stopped now. Remove the cause, then call start_machine again."
        f"\nTask {upid} ended its log with\n"
        "start failed: QEMU exited with code 1\n"
        "TASK ERROR: start failed: QEMU exited with code 1"
    )


def test_a_cause_that_only_sounds_like_a_lock_is_none(call: Call, stopped: Any) -> None:
    stopped.start_error = "could not open block device"
    answer = call("start_machine", vm_id=100, node="pve1")
    assert "Remove the cause, then call start_machine again." in answer.text


def test_a_log_that_cannot_be_read_is_said(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    stopped.start_error = "no such disk"
    cluster.pve.fail("GET", "/log", 500, "log gone")
    answer = call("start_machine", vm_id=100, node="pve1")
    assert "failed: no such disk." in answer.text
    assert "cannot be read: Proxmox says: log gone." in answer.text


def test_a_failure_after_which_the_state_cannot_be_read_says_both(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    stopped.start_error = "no such disk"

    def broken(row: dict[str, Any]) -> Any:
        return "gone" if cluster.posts else row

    cluster.edit[CURRENT] = broken
    answer = call("start_machine", vm_id=100, node="pve1")
    assert "failed: no such disk. Its state cannot be read: https://" in answer.text
    assert "Remove the cause, then call start_machine again.\nTask UPID" in answer.text


def test_the_log_is_cut_to_its_last_lines(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    stopped.start_error = "no such disk"
    lines = [f"line {n} {'x' * 300}" for n in range(400)]

    async def log(_: web.Request) -> web.Response:
        rows = [{"n": n, "t": line} for n, line in enumerate(lines)]
        return web.json_response({"data": rows})

    original = cluster.pve._task_log
    cluster.pve._task_log = log
    cluster.raw = Suffixes({"/log": log})
    answer = call("start_machine", vm_id=100, node="pve1")
    cluster.pve._task_log = original
    assert [line.split()[1] for line in answer.text.splitlines()[2:]] == [
        "395",
        "396",
        "397",
        "398",
        "399",
    ]
    assert len(answer.text) < 1600
    assert [path for _, path in cluster.sent if path.endswith("/log?limit=1000")]


class Suffixes(dict[str, Any]):
    """A dict of paths that is asked by their ends."""

    def get(self, path: str, default: Any = None) -> Any:
        found = (value for end, value in self.items() if path.endswith(end))
        return next(found, default)


def edit_task(cluster: Cluster, **changes: Any) -> None:
    cluster.edit = Suffixes(
        {"/status": lambda row: row | changes if "upid" in row else row}
    )


def test_warnings_are_success_and_said(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    edit_task(cluster, exitstatus="WARNINGS: 1")
    answer = call("start_machine", vm_id=100, node="pve1")
    assert not answer.is_error
    assert answer.data["changed"] is answer.data["finished"] is True
    assert answer.text.startswith(
        "Started VM 100 (web) on pve1; it is running. Its task ended with WARNINGS: 1."
    )
    assert "TASK OK" in answer.text  # the log, where the warning is


def test_a_task_that_was_killed_is_an_error(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    edit_task(cluster, exitstatus="unexpected status")
    answer = call("start_machine", vm_id=100, node="pve1")
    assert answer.is_error
    assert "failed: unexpected status." in answer.text


def test_no_quorum_refuses_a_start_in_proxmoxs_words(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    cluster.pve.lose_quorum()
    answer = call("start_machine", vm_id=100, node="pve1")
    assert answer.is_error
    assert (
        answer.text
        == "The start of VM 100 (web) on pve1 failed: Proxmox says: cluster not ready - no "
        "quorum? It is stopped now. Call list_infrastructure: a start needs most nodes "
        "to be online."
    )


# --- Nothing to do, and what cannot be done: nothing is sent --------------------------


@pytest.mark.parametrize(
    ("tool", "arguments", "state"),
    [
        ("start_machine", {}, "running"),
        ("stop_machine", {}, "stopped"),
        ("stop_machine", {"force": True}, "stopped"),
    ],
)
@pytest.mark.parametrize("kind", ["vm", "ct"])
def test_a_machine_that_is_so_already_is_left_alone(
    call: Call,
    cluster: Cluster,
    kind: str,
    tool: str,
    arguments: dict[str, Any],
    state: str,
) -> None:
    getattr(cluster.pve, f"add_{kind}")(100, "web", status=state)
    answer = call(tool, vm_id=100, node="pve1", **arguments)
    assert not answer.is_error
    assert answer.data["changed"] is False
    assert answer.data["finished"] is True
    assert answer.data["status"] == state
    assert answer.data["task"] is None
    assert answer.text.endswith(f"(web) on pve1 is already {state}; nothing was sent.")
    assert nothing_sent(cluster)


@pytest.mark.parametrize(
    ("tool", "vm_id", "node", "says", "then"),
    [
        (
            "reboot_machine",
            106,
            "pve2",
            "is stopped.",
            "start_machine",
        ),
        ("start_machine", 900, "pve1", "is a template", "Clone it"),
        ("reboot_machine", 900, "pve1", "is a template", "Clone it"),
        ("start_machine", 103, "pve1", "is in state paused", "Resume it in Proxmox"),
        ("stop_machine", 103, "pve1", "is in state paused", "stop_machine(force=True)"),
        ("reboot_machine", 103, "pve1", "is in state paused", "Resume it in Proxmox"),
        ("stop_machine", 104, "pve2", "is locked (backup)", "qm unlock 104"),
        ("reboot_machine", 104, "pve2", "is locked (backup)", "Try again when"),
        ("start_machine", 202, "pve1", "is locked (snapshot)", "pct unlock 202"),
        ("start_machine", 100, "pve2", "is not on pve2 but on pve1", 'node="pve1"'),
        ("start_machine", 999, "pve1", "There is no machine 999", "list_machines"),
        ("start_machine", 100, "pve9", "There is no node pve9", "pve1, pve2, pve3"),
        ("start_machine", 107, "pve3", "Node pve3 is offline", "list_infrastructure"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_next_step(
    call: Call, demo: Cluster, tool: str, vm_id: int, node: str, says: str, then: str
) -> None:
    demo.pve.add_ct(202, "busy", lock="snapshot")
    answer = call(tool, vm_id=vm_id, node=node)
    assert answer.is_error
    assert says in answer.text
    assert then in answer.text
    assert len(answer.text) <= 300
    assert nothing_sent(demo)


@pytest.mark.parametrize(
    "qmpstatus", ["suspended", "io-error", "prelaunch", "shutdown"]
)
def test_every_state_in_which_the_guest_does_not_run_is_told(
    call: Call, cluster: Cluster, running: Any, qmpstatus: str
) -> None:
    running.qmpstatus = qmpstatus
    answer = call("stop_machine", vm_id=100, node="pve1")
    assert answer.is_error
    assert f"is in state {qmpstatus}," in answer.text
    assert nothing_sent(cluster)
    forced = call("stop_machine", vm_id=100, node="pve1", force=True)
    assert forced.data["status"] == "stopped"


def test_a_hibernated_machine_is_resumed_by_starting_it(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    stopped.lock = "suspended"
    assert not call("start_machine", vm_id=100, node="pve1").is_error


def test_a_missing_privilege_names_itself_and_the_command(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    cluster.pve.grant("mcp@pve", "/vms", "VM.Audit")
    answer = call("start_machine", vm_id=100, node="pve1")
    assert answer.is_error
    assert "The token mcp@pve!t lacks VM.PowerMgmt on /vms/100." in answer.text
    assert (
        "pveum acl modify /vms/100 --users mcp@pve --tokens 'mcp@pve!t' --roles"
        in answer.text
    )
    assert "--privs VM.Audit,VM.PowerMgmt" in answer.text


# --- Guests that take their time ------------------------------------------------------


@running_tasks
def test_a_guest_that_ignores_shutdown_is_an_error_that_offers_force(
    call: Call, cluster: Cluster, running: Any
) -> None:
    running.acpi = False
    answer = call("stop_machine", vm_id=100, node="pve1")
    assert answer.is_error
    assert (
        "The shutdown of VM 100 (web) on pve1 failed: VM quit/powerdown failed - got "
        "timeout. It is running now."
    ) in answer.text
    assert "stop_machine(force=True)" in answer.text
    assert "what is not saved is lost" in answer.text
    assert cluster.posts == ["/pve1/qemu/100/status/shutdown"]  # and no escalation
    assert running.status == "running"


@running_tasks
def test_a_guest_that_stopped_after_its_task_failed_is_told_so(
    call: Call, cluster: Cluster, running: Any
) -> None:
    running.acpi = False
    cluster.edit[CURRENT] = lambda row: (
        row | {"status": "stopped"} if cluster.posts else row
    )
    answer = call("stop_machine", vm_id=100, node="pve1")
    assert answer.is_error
    assert "It is stopped now." in answer.text
    assert "force" not in answer.text


@pytest.mark.fakepve(time_scale=0.1)
def test_a_shutdown_longer_than_the_wait_goes_on(
    mode: str, configured: dict[str, str], cluster: Cluster, short_wait: float
) -> None:
    vm = cluster.pve.add_vm(100, "web", status="running")
    vm.shutdown_secs = 50  # 5 s here
    told: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total, message))

    async def stop() -> Any:
        async with Client(server.mcp, mode=mode) as client:
            return await client.call_tool(
                "stop_machine",
                {"vm_id": 100, "node": "pve1"},
                progress_callback=progress,
            )

    began = time.monotonic()
    result = anyio.run(stop)
    assert time.monotonic() - began < short_wait + 1
    assert not result.is_error
    data = result.structured_content
    assert data["finished"] is False
    assert data["changed"] is True
    assert data["status"] == "running"
    task = cluster.pve.tasklog[-1]["upid"]
    assert data["task"] == task
    assert data["message"] == (
        "The shutdown of VM 100 (web) on pve1 is not finished after 2 s: it is running, "
        f"and task {task} may go on. The guest may still follow: call list_machines in a "
        "minute. If it does not, stop_machine(force=True) cuts its power; what is not "
        "saved is lost, so ask the user first."
    )
    assert [message for _, _, message in told] == ["shutdown VM 100 (web) on pve1"]
    assert told[0][0] == pytest.approx(0.8, abs=0.3)
    assert told[0][1] == short_wait


def test_the_wait_is_45_seconds() -> None:
    assert power.POWER_PATIENCE == 45


@running_tasks
@pytest.mark.parametrize("kind", ["vm", "ct"])
def test_a_reboot_is_confirmed_by_a_lower_uptime(
    call: Call, cluster: Cluster, kind: str
) -> None:
    guest = getattr(cluster.pve, f"add_{kind}")(100, "web", status="running")
    guest.started_at -= 3600
    guest.shutdown_secs = 20
    answer = call("reboot_machine", vm_id=100, node="pve1")
    assert answer.data["finished"] is True
    assert time.time() - guest.started_at < 60


def test_a_reboot_whose_task_ends_while_the_guest_is_down_waits_for_the_guest(
    call: Call, cluster: Cluster, running: Any
) -> None:
    """As qemu does: the task ends, and the start is a task of its own, later."""
    seen = []

    def late(row: dict[str, Any]) -> dict[str, Any]:
        if cluster.posts:
            seen.append(row)
            if len(seen) == 1:
                return row | {"uptime": 3600}  # not yet down
            if len(seen) == 2:
                return row | {"status": "stopped", "qmpstatus": "stopped", "uptime": 0}
        return row

    cluster.edit[CURRENT] = late
    answer = call("reboot_machine", vm_id=100, node="pve1")
    assert answer.data["finished"] is True
    assert len(seen) == 3


def test_a_reboot_that_does_not_come_back_is_not_called_done(
    call: Call, cluster: Cluster, running: Any, short_wait: float
) -> None:
    cluster.edit[CURRENT] = lambda row: (
        row | {"status": "stopped", "qmpstatus": "stopped"} if cluster.posts else row
    )
    answer = call("reboot_machine", vm_id=100, node="pve1")
    assert answer.data["finished"] is False
    assert answer.data["status"] == "stopped"
    assert "is not finished after 2 s: it is stopped" in answer.text
    assert "call start_machine" in answer.text


def test_a_reboot_of_a_machine_that_only_just_started_is_confirmed(
    call: Call, cluster: Cluster
) -> None:
    cluster.pve.add_vm(100, "web", status="running")  # uptime 0
    assert call("reboot_machine", vm_id=100, node="pve1").data["finished"] is True


# --- Force ----------------------------------------------------------------------------


@running_tasks
def test_a_forced_stop_overrules_a_shutdown_that_holds_the_lock(
    call: Call, cluster: Cluster, running: Any
) -> None:
    running.shutdown_secs = 50
    running.acpi = False

    async def both() -> list[Any]:
        async with Client(server.mcp, mode="legacy") as client:
            target = {"vm_id": 100, "node": "pve1"}
            results: list[Any] = [None, None]

            async def stop(place: int, **extra: Any) -> None:
                results[place] = await client.call_tool("stop_machine", target | extra)

            async with anyio.create_task_group() as group:
                group.start_soon(lambda: stop(0))
                await anyio.sleep(0.2)
                # As PVE 8.2 does: the shutdown gives up its lock for this stop.
                original = cluster.pve._do_stop

                async def overrule(vm: Any, user: str, params: dict[str, Any]) -> Any:
                    if params.pop("overrule-shutdown", None):
                        vm.lock_holder = None
                    return await original(vm, user, params)

                cluster.pve._do_stop = overrule
                group.start_soon(lambda: stop(1, force=True))
            return results

    graceful, forced = anyio.run(both)
    assert not forced.is_error
    assert forced.structured_content["status"] == "stopped"
    assert cluster.bodies[-1] == "overrule-shutdown=1"
    assert cluster.posts == [
        "/pve1/qemu/100/status/shutdown",
        "/pve1/qemu/100/status/stop",
    ]
    # The shutdown's own task failed, and the answer says where the machine is now.
    assert graceful.is_error
    assert "It is stopped now." in graceful.content[0].text


def test_an_older_proxmox_gets_the_stop_without_the_parameter_it_refuses(
    call: Call, cluster: Cluster, running: Any
) -> None:
    cluster.pve.fail("POST", STOP, 400, "Parameter verification failed.", times=1)
    answer = call("stop_machine", vm_id=100, node="pve1", force=True)
    assert answer.data["status"] == "stopped"
    assert cluster.bodies == ["overrule-shutdown=1", ""]


def test_a_stop_that_is_refused_otherwise_is_not_sent_again(
    call: Call, cluster: Cluster, running: Any
) -> None:
    cluster.pve.fail("POST", STOP, 500, "storage is gone")
    answer = call("stop_machine", vm_id=100, node="pve1", force=True)
    assert answer.is_error
    assert "Proxmox says: storage is gone." in answer.text
    assert len(cluster.posts) == 1


# --- HA -------------------------------------------------------------------------------


@running_tasks
@pytest.mark.parametrize("kind", ["vm", "ct"])
def test_an_ha_managed_guest_is_confirmed_by_its_own_state(
    call: Call, cluster: Cluster, kind: str
) -> None:
    """Its task ends when the request is queued; the state changes 10 s (0.1) later."""
    guest = getattr(cluster.pve, f"add_{kind}")(100, "web")
    guest.ha_state = "stopped"
    cluster.pve.ha_delay = 50
    start = call("start_machine", vm_id=100, node="pve1")
    assert start.data["status"] == "running"
    assert start.data["finished"] is True
    assert start.seconds > 0.4
    stop = call("stop_machine", vm_id=100, node="pve1", force=True)
    assert stop.data["status"] == "stopped"
    assert stop.data["finished"] is True


@running_tasks
def test_an_ha_managed_guest_that_starts_on_another_node_is_found_there(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    cluster.pve.add_node("pve2")
    stopped.ha_state = "stopped"
    cluster.pve.ha_delay = 30

    def relocate(row: dict[str, Any]) -> dict[str, Any]:
        if cluster.posts:
            stopped.node = "pve2"
        return row

    cluster.edit[CURRENT] = relocate
    answer = call("start_machine", vm_id=100, node="pve1")
    assert answer.data["finished"] is True
    assert answer.data["node"] == "pve2"
    assert ("GET", "/api2/json/cluster/resources?type=vm") in cluster.sent
    assert answer.text == "Started VM 100 (web) on pve2; it is running."


# --- Lost answers ---------------------------------------------------------------------


@pytest.mark.parametrize("code", [595, 596, 599, 502, 504])
def test_an_answer_lost_on_the_way_makes_the_outcome_unknown(
    call: Call, cluster: Cluster, stopped: Any, code: int
) -> None:
    cluster.pve.fail("POST", START, code, "Connection timed out")
    answer = call("start_machine", vm_id=100, node="pve1")
    assert answer.is_error
    assert answer.text.startswith(
        "The answer to the start of VM 100 (web) on pve1 was lost, so its outcome is "
        "unknown."
    )
    assert 'Call list_machines(node="pve1") before you try again.' in answer.text
    assert len(cluster.posts) == 1


def test_a_dropped_connection_does_not_send_a_post_again(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    cluster.raw[START] = drop
    answer = call("start_machine", vm_id=100, node="pve1")
    assert "was lost, so its outcome is unknown" in answer.text
    assert "closed the connection" in answer.text
    assert len(cluster.posts) == 1


def test_a_post_without_an_answer_is_not_sent_again(
    call: Call, cluster: Cluster, stopped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "READ_TIMEOUT", 0.5)
    cluster.delay[START] = 5
    answer = call("start_machine", vm_id=100, node="pve1")
    assert "was lost, so its outcome is unknown" in answer.text
    assert answer.seconds < 2
    assert len(cluster.posts) == 1


def test_a_post_answered_by_something_else_has_an_unknown_outcome(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    cluster.pve.fail("POST", START, 200, "<html>Log in</html>", html=True)
    answer = call("start_machine", vm_id=100, node="pve1")
    assert "was lost, so its outcome is unknown" in answer.text
    assert len(cluster.posts) == 1


@running_tasks
def test_a_task_is_followed_through_lost_answers(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    stopped.start_secs = 30
    cluster.pve.fail("GET", "/status", 596, "Connection timed out", times=2)
    answer = call("start_machine", vm_id=100, node="pve1")
    assert answer.data["finished"] is True


def test_a_task_that_may_not_be_read_is_judged_by_the_live_state(
    call: Call, cluster: Cluster, stopped: Any
) -> None:
    cluster.pve.fail("GET", "/status", 403, "Permission check failed")
    answer = call("start_machine", vm_id=100, node="pve1")
    assert answer.data["finished"] is True
    assert answer.data["status"] == "running"


def test_a_node_that_falls_silent_after_the_post_leaves_it_open(
    call: Call, cluster: Cluster, stopped: Any, short_wait: float
) -> None:
    async def gone(request: web.Request) -> web.Response:
        if cluster.posts:
            return web.Response(status=595, reason="No route to host")
        cluster.raw.pop(CURRENT)
        response = await cluster._answer(
            request, cluster.pve._status_current, None, "pve1"
        )
        cluster.raw[CURRENT] = gone
        return response

    cluster.raw[CURRENT] = gone
    answer = call("start_machine", vm_id=100, node="pve1")
    assert answer.data["finished"] is False
    assert answer.data["status"] == "unknown"
    assert "it cannot be seen" in answer.text


# --- At once --------------------------------------------------------------------------


@running_tasks
def test_two_starts_of_one_machine_at_once_both_tell_the_truth(
    configured: dict[str, str], cluster: Cluster, stopped: Any
) -> None:
    stopped.start_secs = 5
    one, two = at_once([("start_machine", {"vm_id": 100, "node": "pve1"})] * 2)
    assert {one.data["status"], two.data["status"]} == {"running"}
    assert sorted([one.data["changed"], two.data["changed"]]) == [False, True]


@running_tasks
def test_a_start_that_waits_in_vain_for_another_one_says_so(
    configured: dict[str, str], cluster: Cluster, stopped: Any
) -> None:
    stopped.start_secs = 30
    one, two = at_once([("start_machine", {"vm_id": 100, "node": "pve1"})] * 2)
    failed, done = (one, two) if one.is_error else (two, one)
    assert done.data["changed"] is True
    assert "can't lock file" in failed.text
    assert "Another task is at work on it" in failed.text


@running_tasks
def test_twenty_machines_at_once_each_get_their_own_answer(
    configured: dict[str, str], cluster: Cluster
) -> None:
    for vm_id in range(100, 120):
        vm = cluster.pve.add_vm(vm_id, f"vm-{vm_id}", config={"memory": GIB})
        vm.start_secs = 20
        if vm_id % 4 == 0:
            vm.start_error = f"disk {vm_id} is missing"
    answers = at_once(
        [
            ("start_machine", {"vm_id": vm_id, "node": "pve1"})
            for vm_id in range(100, 120)
        ]
    )
    for vm_id, answer in zip(range(100, 120), answers, strict=True):
        assert f"VM {vm_id} (vm-{vm_id}) on pve1" in answer.text
        assert answer.is_error is (vm_id % 4 == 0)
        if answer.is_error:
            assert f"disk {vm_id} is missing" in answer.text
        else:
            assert answer.data["vm_id"] == vm_id
    assert len(cluster.posts) == 20


# --- The audit trail ------------------------------------------------------------------


def test_each_action_leaves_one_audit_line(
    call: Call, demo: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mcp-proxmox")
    call("start_machine", vm_id=106, node="pve2")
    call("start_machine", vm_id=102, node="pve1")
    call("stop_machine", vm_id=106, node="pve1")
    lines = [record.getMessage() for record in caplog.records]
    started, failed = (task["upid"] for task in demo.pve.tasklog)
    assert lines[0] == (
        f'audit action=start machine=106 node="pve2" task={started} '
        'outcome="Started VM 106 (build) on pve2; it is running."'
    )
    assert lines[1].startswith(
        f'audit action=start machine=102 node="pve1" task={failed} '
        'outcome="error: The start of VM 102 (broken) on pve1 failed: '
    )
    assert lines[2].startswith(
        'audit action=shutdown machine=106 node="pve1" task=none outcome="error: Machine'
    )
    assert len(lines) == 3
    assert not any("\n" in line for line in lines)


def test_a_list_leaves_no_audit_line(
    call: Call, demo: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mcp-proxmox")
    call("list_machines")
    assert not caplog.records


def test_a_cancelled_call_is_waited_for_and_audited(
    configured: dict[str, str],
    cluster: Cluster,
    caplog: pytest.LogCaptureFixture,
    running: Any,
) -> None:
    """The client goes away, with a token for progress; the action went out already."""
    caplog.set_level("INFO", "mcp-proxmox")
    cluster.pve.time_scale = 0.1
    running.shutdown_secs = 25

    async def quiet(*_: Any) -> None:
        pass

    async def stop() -> None:
        async with Client(server.mcp, mode="legacy") as client:
            with anyio.move_on_after(1):
                await client.call_tool(
                    "stop_machine",
                    {"vm_id": 100, "node": "pve1"},
                    progress_callback=quiet,
                )
            await anyio.sleep(2.5)

    anyio.run(stop)
    (record,) = caplog.records
    assert "Shut down VM 100 (web) on pve1; it is stopped." in record.getMessage()
