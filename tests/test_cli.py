"""`--check`: what a person reads who sets it up, against real clusters' answers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.cli import check
from tests.certificates import Authority
from tests.cluster import SECRET, Cluster
from tests.conftest import Start
from tests.replay import Replay, recording

LISTS = ["list_infrastructure", "list_machines", "list_storage"]
TOOLS = [*LISTS, "start_machine", "stop_machine", "reboot_machine"]

Checked = Callable[..., tuple[bool, dict[str, list[str]]]]


@pytest.fixture
def checked(capfd: pytest.CaptureFixture[str]) -> Checked:
    """Whether all is well, and the lines of each section; the last line is END's."""

    def checked(tools: list[str] = TOOLS) -> tuple[bool, dict[str, list[str]]]:
        well = check(tools)
        text = capfd.readouterr().out
        assert SECRET not in text
        sections: dict[str, list[str]] = {}
        title = ""
        for line in text.splitlines():
            if line.startswith("  "):
                sections[title].append(line[2:])
            else:
                title = line
                sections[title] = []
        end = sections.popitem()[0]
        assert end == (
            "All is well with the set-up."
            if well
            else "Not all is well: see ERROR or MISSING above."
        )
        return well, sections

    return checked


@pytest.fixture
def replayed(checked: Checked, monkeypatch: Any, tmp_path: Path) -> Checked:
    """The check of a recorded cluster."""
    monkeypatch.chdir(tmp_path)

    def replayed(
        name: str, tools: list[str] = TOOLS
    ) -> tuple[bool, dict[str, list[str]]]:
        Replay(recording(name), at=0).start(monkeypatch)
        return checked(tools)

    return replayed


def test_all_is_well(replayed: Checked) -> None:
    well, said = replayed("lists")
    assert well
    assert said.pop("Settings") == [
        "PROXMOX_URL: https://pve1.example.com:8006 (from the environment)",
        "PROXMOX_USER: mcp@pve (from the environment)",
        "PROXMOX_TOKEN_ID: mcp-token (from the environment)",
        "PROXMOX_TOKEN_SECRET: set, not shown (from the environment)",
        "PROXMOX_VERIFY_SSL: true (from the environment)",
    ]
    answered, verified, version = said.pop("Connection")
    address = r"https://pve1.example.com:8006 answered mcp@pve!mcp-token in \d+ ms"
    assert re.fullmatch(address, answered)
    assert verified == "TLS, verified by the public CAs"
    assert version == "Proxmox VE 8.4.21"
    attention, cluster = said.pop("Nodes")
    assert attention == "Nothing needs attention."
    assert cluster.startswith("Cluster demo, quorate: 3 of 3 nodes online, CPU ")
    assert said == {
        "Machines": [
            "22 machines on 3 nodes: 5 running, 15 stopped, 1 paused, 1 template"
        ],
        "Storages": ["3 storages: 3 active"],
        "Rights": [
            "Watch quorum: yes (Sys.Audit on /)",
            "Watch nodes: yes (Sys.Audit on /nodes)",
            "Watch machines: yes (VM.Audit on /vms)",
            "Watch storages: yes (Datastore.Audit on /storage)",
            "Power: yes (VM.PowerMgmt on /vms)",
        ],
        "Tools": [
            (
                "list_infrastructure, list_machines, list_storage, start_machine, stop_machine, "
                "reboot_machine"
            )
        ],
    }


def test_a_token_that_may_only_watch_is_well_and_told_so(replayed: Checked) -> None:
    well, said = replayed("lists-watch")
    assert well
    assert said["Rights"][4:] == [
        "Power: no (VM.PowerMgmt on /vms is missing)",
        (
            "It can only watch. To let it switch machines as well, on a node as root "
            '("already exists" of a role does no harm):'
        ),
        "  pveum role add McpPower --privs VM.Audit,VM.PowerMgmt",
        "  pveum acl modify /vms --users mcp@pve --tokens 'mcp@pve!mcp-token' --roles McpPower",
    ]


def test_a_server_that_only_watches_needs_no_power(replayed: Checked) -> None:
    well, said = replayed("lists-watch", LISTS)
    assert well
    assert said["Rights"][4:] == ["Power: no (VM.PowerMgmt on /vms is missing)"]
    assert said["Tools"] == ["list_infrastructure, list_machines, list_storage"]


def test_a_token_without_rights_is_told_every_line_that_grants_them(
    replayed: Checked,
) -> None:
    well, said = replayed("lists-none")
    assert not well
    assert said["Machines"][0] == "No machines."
    assert "lacks VM.Audit on /vms" in said["Machines"][1]
    missing = said["Rights"].index(
        "MISSING: Sys.Audit on /, Sys.Audit on /nodes, VM.Audit on /vms, Datastore.Audit on "
        '/storage. To grant that, on a node as root ("already exists" of a role does no harm):'
    )
    lines = [line for line in said["Rights"][missing:] if line.startswith("  pveum")]
    assert [line.split()[2] for line in lines].count("add") == 4
    paths = [line.split()[3] for line in lines if line.startswith("  pveum acl")]
    assert paths == ["/", "/nodes", "/vms", "/storage", "/vms"]
    assert all("--users mcp@pve --tokens" in line for line in lines if "acl" in line)


def test_a_wrong_secret_ends_it_with_the_error_of_a_tool(replayed: Checked) -> None:
    well, said = replayed("lists-wrong-secret")
    assert not well
    assert list(said) == ["Settings", "Connection"]
    (line,) = said["Connection"]
    assert line.startswith("ERROR: Proxmox does not accept the API token mcp@pve!mcp-t")


def test_missing_settings_end_it_and_say_what_was_read(
    checked: Checked, monkeypatch: Any, tmp_path: Path
) -> None:
    for name in ("URL", "USER", "TOKEN_ID", "TOKEN_SECRET", "VERIFY_SSL"):
        monkeypatch.delenv(f"PROXMOX_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"PROXMOX_TOKEN_SECRET={SECRET}\n")
    well, said = checked()
    assert not well
    *variables, error = said.pop("Settings")
    assert variables[0] == "PROXMOX_URL: not set"
    read = f"(from {tmp_path}/.env)"
    assert variables[3] == f"PROXMOX_TOKEN_SECRET: set, not shown {read}"
    assert error.startswith("ERROR: The server is not configured. PROXMOX_URL is missi")
    assert error.endswith(f"environment, which wins, and {tmp_path}/.env were read.")
    assert said == {}


def test_a_list_that_fails_is_told_and_the_rest_goes_on(
    checked: Checked, demo: Cluster, configured: dict[str, str]
) -> None:
    for path in ("/nodes", "/cluster/resources"):
        demo.pve.fail("GET", path, 500, "RPCEnvironment init request failed")
    well, said = checked()
    assert not well
    for title in ("Machines", "Storages"):
        (line,) = said[title]
        assert line.startswith("ERROR: ")
        assert "systemctl status pve-cluster" in line
    assert "Power: yes (VM.PowerMgmt on /vms)" in said["Rights"]


def test_lists_that_no_node_has_told_are_not_well(
    checked: Checked, demo: Cluster, configured: dict[str, str]
) -> None:
    for node in ("pve1", "pve2"):
        for what in ("qemu", "lxc", "storage", "status"):
            demo.pve.fail("GET", f"/nodes/{node}/{what}", 595, "No route to host")
    well, said = checked()
    assert not well
    assert said["Nodes"][-1] == "ERROR: no node is online"
    assert said["Machines"][-1] == "ERROR: no node has told the state of its machines"
    assert said["Storages"][-1] == "ERROR: no node has told the state of its storages"
    demo.pve.failures.clear()
    assert checked()[0]


def test_a_file_that_is_not_read_is_told_though_the_environment_has_all(
    checked: Checked, demo: Cluster, configured: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / ".env").mkdir()
    well, said = checked()
    assert well
    assert (
        said["Settings"][0]
        == f"The file {tmp_path}/.env cannot be read: it is a folder."
    )
    assert re.fullmatch(r"TLS, verified by /\S+", said["Connection"][1])


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_certificate_that_is_not_verified_is_told_as_that(
    checked: Checked, demo: Cluster, configured: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "false")
    well, said = checked()
    assert well
    assert said["Connection"][1] == (
        "TLS, NOT verified (PROXMOX_VERIFY_SSL=false): whoever is in between can read the token"
    )


def test_a_bundle_and_a_proxy_of_the_environment_are_named(
    checked: Checked, peer: Start, configured: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    version = '{"data": {"version": "9.1.2"}}'
    answer = f"HTTP/1.1 200 OK\nContent-Type: application/json\n\n{version}"
    url, _ = peer(answer, authority.server())
    monkeypatch.setenv("PROXMOX_URL", url)
    monkeypatch.setenv("PROXMOX_VERIFY_SSL", "true")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.path)
    connection = checked()[1]["Connection"]
    assert f"verified by {authority.path} of REQUESTS_CA_BUNDLE" in connection[1]
    assert connection[2] == "Proxmox VE 9.1.2"
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    through, error = checked()[1]["Connection"]
    assert through == "Through the proxy of HTTPS_PROXY"
    assert "the proxy of HTTPS_PROXY does not answer" in error
