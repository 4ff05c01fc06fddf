"""Test what is read about a machine beyond its state: the node's time, and a task's log."""

from unittest.mock import MagicMock

from src.models import Machine
from src.power.guest import log_tail, read_clock
from src.proxmox import tasks
from tests.conftest import Patch
from tests.proxmox.test_refusals import WEB

UPID = "UPID:pve1:000C3500:0A0B0C0D:6A86D400:qmstart:101:root@pam:"
RUNNING = Machine(vm_id=9, node="b", type="qemu", status="running")


def test_the_nodes_time_is_of_ha_or_the_answer() -> None:
    api = MagicMock(server_time=99.0)
    api.rows.return_value = [{"type": "quorum"}]
    assert read_clock(api, RUNNING, [], 60) == 99.0  # by the header Date
    assert read_clock(api, WEB, [], 60) is None
    api.rows.return_value += [{"timestamp": 50}, {"timestamp": 70}]
    assert read_clock(api, WEB, [], 60) == 70
    assert read_clock(api, RUNNING, [], 71) == 99.0  # HA had stood still before the request


def test_a_log_is_read_to_its_end_and_its_warnings_come_first(monkeypatch: Patch) -> None:
    monkeypatch.setattr(tasks, "LOG_PAGE", 3)
    lines = [f"line {n}" for n in range(12)]
    api = MagicMock()
    api.rows.side_effect = lambda _log, _node, start, limit: [
        {"t": line} for line in lines[start : start + limit]
    ]
    assert log_tail(api, UPID) == lines[-5:]
    assert api.rows.call_count == 5
    lines[2], lines[4] = "WARN: old disk", "WARN: old key"
    assert log_tail(api, UPID) == lines[2:7]
    lines[2] = "line 2"
    lines[9] = "WARN: late"
    assert log_tail(api, UPID) == [*lines[4:7], lines[7], "WARN: late"]
