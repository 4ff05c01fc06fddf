"""What is refused, and what a machine that is not there gets, to the letter."""

from dataclasses import replace

import pytest
from proxmoxer import ResourceException

from src.config.settings import Settings
from src.proxmox import refusals
from tests.cluster import SECRET

SETTINGS = Settings("pve.lan", 8006, "", "mcp@pve", "t", SECRET, True)
NOT_THE_API = (
    "https://pve.lan:8006 answers, but not as a Proxmox VE API: it is a login page, a proxy or "
    "another service. Correct PROXMOX_URL: the API's port is usually 8006."
)
UNREACHED = "Proxmox could not reach node pve1 ({} x). Call list_infrastructure to see the nodes."
PROXY = (
    "A proxy in front of https://pve.lan:8006 could not reach Proxmox ({}). Check that proxy, or "
    "point PROXMOX_URL at Proxmox itself."
)


REFUSED = {
    "401 No ticket": "Proxmox does not accept the API token mcp@pve!t (No ticket). Check "
    "PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET, and under Permissions > API Tokens that it "
    "exists and has not expired. A token made anew has no rights: grant them again.",
    "403 (/vms/1, VM.PowerMgmt)": "The token mcp@pve!t lacks VM.PowerMgmt on /vms/1. Grant it to "
    "user and token: pveum role add McpPower --privs VM.Audit,VM.PowerMgmt; pveum acl "
    "modify /vms/1 --users mcp@pve --tokens 'mcp@pve!t' --roles McpPower",
    "403 (/, Sys.Audit|Sys.Modify)": "The token mcp@pve!t lacks Sys.Audit on /. Grant it to user "
    "and token: pveum role add McpNode --privs Sys.Audit; pveum acl modify / --users mcp@pve "
    "--tokens 'mcp@pve!t' --roles McpNode --propagate 0",
    "403 not you": "Proxmox does not allow this to the token mcp@pve!t: not you. Grant the "
    "privilege to the user and to the token; the README lists them.",
    "403 ": "Proxmox does not allow this to the token mcp@pve!t: no reason. Grant the privilege to "
    "the user and to the token; the README lists them.",
    "400  got\n  timeout": "Proxmox says: got timeout.",
    "500 ": "Proxmox says: error 500.",
    "500 no quorum?": "Proxmox says: no quorum? Call list_infrastructure: a start needs most nodes "
    "to be online.",
    "500 RPCEnvironment init request failed": "Proxmox says: RPCEnvironment init request failed. "
    "Its cluster file system does not run: look at systemctl status pve-cluster on that node.",
    **{f"{code} x": UNREACHED.format(code) for code in (595, 599)},
    **{f"{code} x": PROXY.format(code) for code in (502, 503, 504)},
    **{f"{code} x": NOT_THE_API for code in (404, 501, 594, 600)},
}


@pytest.mark.parametrize(("answer", "says"), REFUSED.items())
def test_what_a_status_of_400_or_more_means(answer: str, says: str) -> None:
    code, _, content = answer.partition(" ")
    refusal = ResourceException(int(code), "", content)
    error = refusals.refused(refusal, SETTINGS, "pve1")
    assert str(error) == says
    assert error.code == ("not the API" if says == NOT_THE_API else int(code))


def test_what_proxmox_says_is_told_whole_without_the_secret_and_cut() -> None:
    for code, words, says in (
        (400, ("Bad", {"a": "b", "c": b"", "d": SECRET}), "says: Bad a: b d: ***."),
        (500, ("x" * 501,), f"says: {'x' * 497}..."),
        (500, ("a\u202e\x1b\nb",), "says: a b."),
        (595, ("x",), "could not reach a node (595 x)."),
        (401, (None,), "the API token mcp@pve!t (no reason)."),
    ):
        error = refusals.refused(ResourceException(code, "", *words), SETTINGS, "")
        assert error.cause.endswith(f" {says}")


def test_a_refusal_of_something_else_is_told_so_and_was_not_carried_out() -> None:
    error = refusals.not_proxmox(SETTINGS, 401)
    assert refusals.not_proxmox(SETTINGS, 500).answer_lost
    assert str(error) == (
        "https://pve.lan:8006 answers 401, but that answer is not Proxmox VE's: a reverse "
        "proxy, a web firewall or another service gave it. Point PROXMOX_URL at Proxmox VE "
        "itself, usually port 8006 (8007 is Proxmox Backup Server), or let that proxy pass the "
        "API token on."
    )
    assert not error.answer_lost


def test_a_path_in_the_url_may_be_the_mistake() -> None:
    within = replace(SETTINGS, prefix="api2")
    said = "usually 8006. Leave out the path /api2, unless a proxy needs it."
    assert refusals.not_the_api(within).advice.endswith(said)


def test_what_is_not_there_has_a_next_step() -> None:
    for error, says in {
        refusals.invalid_target(
            "x is bad", "y", "zs"
        ): "x is bad. Call y to see the zs.",
        refusals.unknown_node(
            "c", {"b": 1, "a": 2}
        ): "There is no node c. Nodes: a, b.",
        refusals.unknown_machine(
            101, SETTINGS
        ): "There is no machine 101, or the token "
        "mcp@pve!t lacks VM.Audit on /vms/101. Call list_machines to see what there is.",
        refusals.machine_elsewhere(
            9, "web", "a", "b"
        ): "Machine 9 (web) is not on a but "
        'on b. If you mean that one, call again with node="b".',
        refusals.offline_node(9, "a"): "Node a is offline: machine 9 cannot be seen or "
        "switched. Call list_infrastructure to see when the node is back.",
    }.items():
        assert str(error) == says
