"""Test what Proxmox's refusals mean, and the errors about a wrong target."""

from dataclasses import replace
from typing import Any

import pytest
from proxmoxer import ResourceException

from src.config.settings import Address
from src.connection import no_answer
from src.connection.route import Route
from src.models import Machine
from src.proxmox import refusals
from tests.cluster import SECRET, SETTINGS
from tests.golden import compare

ROUTE = Route(SETTINGS, SETTINGS.addresses[0], {}, True)
WEB = Machine(vm_id=9, name="web", node="b", type="qemu", status="stopped")

REFUSED = (  # code and words
    "401 No ticket",
    "401 ",
    "403 (/vms/1, VM.PowerMgmt)",
    "403 (/, Sys.Audit|Sys.Modify)",
    "403 not you",
    "403 ",
    "400  got\n  timeout",
    "500 ",
    "500 no quorum?",
    "500 RPCEnvironment init request failed",
    *(f"{code} x" for code in (404, 501, 502, 503, 504, 594, 595, 599, 600)),
)


def test_each_refusal_and_each_wrong_target_has_a_next_step() -> None:
    errors = {}
    for answer in REFUSED:
        code, _, words = answer.partition(" ")
        error = ResourceException(int(code), "", words)
        errors[repr(answer)] = refusals.refused(error, ROUTE, "pve1")
        assert errors[repr(answer)].code in (int(code), "not the API")
    behind = replace(ROUTE, address=Address("pve.lan", 8006, "api2"))
    nodes = {"b": 1, "a": 2}
    errors |= {
        "a path that may be the mistake": no_answer.not_the_api(behind),
        "a wrong argument": refusals.invalid_target("x is bad", "y", "zs"),
        "no such node": refusals.unknown_node("c", nodes),
        "no such machine": refusals.unknown_machine(101, SETTINGS),
        "a machine elsewhere": refusals.machine_elsewhere(WEB, "a"),
        "an offline node": refusals.offline_node(9, "a"),
        "too late": no_answer.too_late(),
    }
    texts = {case: f"{error.code}: {error}" for case, error in errors.items()}
    compare("refusals", {case: text.removeprefix(": ") for case, text in texts.items()})


def test_a_request_that_another_server_rejects_was_not_carried_out() -> None:
    assert not no_answer.not_proxmox(ROUTE, 401).answer_lost
    assert no_answer.not_proxmox(ROUTE, 500).answer_lost


@pytest.mark.parametrize(
    ("code", "words", "end"),
    [
        (400, ("Bad", {"a": "b", "c": b"", "d": SECRET}), ': "Bad a: b d: ***".'),
        (500, ("x" * 301,), f': "{"x" * 297}...".'),
        (500, ("x" * 300,), f': "{"x" * 300}".'),
        (500, ("a\u202e\x1b\nb",), ': "a b".'),
        (595, ("x",), '(595). Proxmox says: "x".'),
        (401, (None,), "gives no reason."),
    ],
)
def test_proxmoxs_words_are_truncated_without_the_secret(code: int, words: Any, end: str) -> None:
    error = refusals.refused(ResourceException(code, "", *words), ROUTE, "")
    assert error.cause.endswith(end)
