"""Test what a machine's tasks mean for the machine."""

import math
from dataclasses import replace

import pytest

from src.models import Machine
from src.power import tasks
from src.power.tasks import UnderWay, later_than, lock_holder, node_time, starts, under_way
from src.proxmox.tasks import Task, read_task

VM = Machine(vm_id=100, node="pve1", type="qemu", status="running")
HA = replace(VM, ha="started")
NEVER = pytest.fail  # to be called for the time where it does not matter


def task(kind: str, status: str | None = None, start: int | None = 1000) -> Task:
    return Task(f"UPID:pve1:{kind}:{start}:", kind, status, start)


@pytest.mark.parametrize("prefix", ["qm", "vz", "ha"])
def test_a_running_power_task_will_change_its_machine(prefix: str) -> None:
    others = [task("vncproxy", start=1), task("vzdump", start=1), task("qmstop", "OK")]
    for action, goal in (
        ("start", "running"),
        ("stop", "stopped"),
        *([("shutdown", "stopped"), ("reboot", "running")] if prefix != "ha" else []),
    ):
        running = task(prefix + action)
        found = under_way([*others, running], VM, NEVER)
        assert found == UnderWay(action, running)  # type: ignore[arg-type]
        assert found.leads_to == goal
        assert under_way([*others, task(prefix + action, "OK", 2000)], VM, NEVER) is None


def test_the_oldest_of_several_tasks_holds_the_lock() -> None:
    first, second = task("qmshutdown", start=10), task("qmstart", start=20)
    for given in ([first, second], [second, first]):
        found = under_way(given, VM, NEVER)
        assert found
        assert found.task == first
        assert lock_holder(given, "") == first
        assert lock_holder(given, first.upid) == second
    assert lock_holder([task("vncproxy"), task("qmstop", "OK")], "") is None
    assert lock_holder([task("vzdump")], "") == task("vzdump")


@pytest.mark.parametrize(
    ("ha", "status", "newest", "action"),
    [
        ("started", "running", "hastop", "stop"),  # not yet acted on
        ("request_stop", "running", "", "stop"),
        ("started", "running", "qmshutdown", None),
        ("started", "running", "hastart", None),
        ("stopped", "stopped", "hastart", "start"),
        ("started", "stopped", "", "start"),
        ("request_start", "stopped", "", "start"),
        ("started", "stopped", "hastop", None),
        ("stopped", "stopped", "hastop", None),
        ("error", "stopped", "hastart", None),
        ("ignored", "running", "hastop", None),
        (None, "running", "hastop", None),
    ],
)
def test_until_ha_acts_the_newest_task_shows_what_was_requested(
    ha: str | None, status: str, newest: str, action: str | None
) -> None:
    tasks = [task("hastart", "OK", 1), task("qmstop", "OK", 2)] if newest else []
    tasks += [task(newest, "OK", 3)] if newest else []
    found = under_way(tasks, replace(VM, ha=ha, status=status), lambda _: 30)
    assert (found and found.action) == action
    assert found is None or found.task is None
    failed = [replace(each, status="exit code 255") for each in tasks]
    if newest.startswith("ha") and ha in ("started", "stopped") and action == "stop":
        assert under_way(failed, replace(VM, ha=ha, status=status), lambda _: 30) is None


def test_later_tasks_are_the_power_tasks_since_ours_began() -> None:
    ours, failed = task("qmreboot", "OK", 10), task("qmstart", "no disk", 10)
    again = task("qmstart", "OK", 20)
    other = [task("vzdump", "no space", 30), task("qmstart", "x", 0)]
    assert later_than([again, *other, failed, ours], 10, ours.upid) == [failed, again]
    assert later_than([again, failed], 11, ours.upid) == [again]
    assert later_than([failed], math.inf, ours.upid) == []
    assert (failed.failed, starts(failed), starts(task("hastart"))) == (True, True, False)
    for status in ("OK", None, "WARNINGS: 1"):
        assert not replace(again, status=status).failed


@pytest.mark.parametrize(("now", "is_new"), [(63, True), (64, False), (None, True)])
def test_a_request_that_ha_ignores_for_a_minute_is_old(now: float | None, is_new: bool) -> None:
    for kind, status, ha in (("hastop", "running", "started"), ("hastart", "stopped", "stopped")):
        machine = replace(VM, ha=ha, status=status)
        assert bool(under_way([task(kind, "OK", 3)], machine, lambda _: now)) is is_new
        frozen = replace(machine, ha="freeze")
        assert under_way([task(kind, "OK", 3)], frozen, lambda _: now) is None


def test_the_latest_start_and_the_uptime_tell_the_nodes_time() -> None:
    tasks = [task("qmstart", "OK", 10), task("qmstart", "no disk", 70), task("hastart", "OK", 60)]
    assert node_time([*tasks, task("vzreboot", "OK", 20)], replace(VM, uptime=5)) == 25
    assert node_time(tasks, replace(VM, uptime=None)) is None
    assert node_time([task("qmstart", None, 10)], replace(VM, uptime=5)) is None


def test_a_task_is_described_with_its_start_but_nobody_knows_its_end() -> None:
    running = task("qmshutdown", start=1795642946)
    assert tasks.describe(running) == "qmshutdown, since 21:42:26 UTC"
    assert tasks.describe(replace(running, began=0)) == "qmshutdown"
    assert "qmshutdown" in UnderWay("start", running).description
    assert UnderWay("stop").upid is None
    assert "HA" in UnderWay("stop").description


def test_a_running_task_has_no_exit_status() -> None:
    row = {"upid": "UPID:x", "type": "qmstart", "status": "OK", "starttime": "7"}
    assert read_task(row) == Task("UPID:x", "qmstart", "OK", 7)
    running = [read_task(row | {"status": each}) for each in ("RUNNING", None)]
    assert running == [Task("UPID:x", "qmstart", None, 7)] * 2
    assert read_task({}) == Task("", "", None, 0)
    failed = [Task("", "", status, 0).failed for status in (None, "OK", "no disk")]
    assert failed == [False, False, True]
