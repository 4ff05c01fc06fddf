"""Test what a token may do, with real clusters' answers, and the commands that grant it."""

import gzip
import json
import shlex
from importlib import resources
from typing import Any

import pytest

from src.proxmox.rights import Permissions, grant, read_rights
from tests.cluster import SETTINGS
from tests.golden import compare
from tests.process import ROOT
from tests.replay import recording

WATCH = {"/": {"Sys.Audit": 0}, "/nodes": {"Sys.Audit": 1}}
WATCH |= {"/storage": {"Datastore.Audit": 1}, "/vms": {"VM.Audit": 1}}
BOTH = {"VM.Audit": 1, "VM.PowerMgmt": 1}
MEMBER = dict.fromkeys(BOTH, 0)  # a pool's grant does not propagate
EVERYTHING = {"Sys.Audit": 1, "Datastore.Audit": 1} | BOTH
NAMES = ("lists", "lists-watch", "lists-none")
REAL = {name: recording(name)["before"]["/access/permissions"]["data"] for name in NAMES}
MORE: dict[str, Permissions] = {  # beside WATCH
    "one machine": {"/vms/100": BOTH},
    "a pool": {"/pool/lab": BOTH, "/vms/101": MEMBER, "/vms/102": MEMBER},
    "10 machines": {f"/vms/{n}": BOTH for n in range(100, 110)},
    "15 machines": {f"/vms/{n}": BOTH for n in range(100, 115)},
    "all but 100": {"/vms": BOTH, "/vms/100": {"VM.Audit": 1}, "/vms/101": BOTH},
    "/vms itself, which reaches no machine": {"/vms": BOTH | {"VM.PowerMgmt": 0}},
    "a path that is none": {"/vmsx/100": BOTH},
}


def test_each_right_is_complete_partial_or_missing() -> None:
    """A deeper path replaces the grants above it; Proxmox lists a pool's members."""
    # NoAccess on /vms below all rights on /: Proxmox lists the other paths.
    denied = dict.fromkeys(("/", "/access", "/nodes", "/storage"), EVERYTHING)
    cases = REAL | {"all on /": {"/": EVERYTHING}, "none on /vms": denied}
    texts = {
        name: "\n".join(right.text for right in (*rights.watching, rights.power))
        for name, rights in zip(cases, map(read_rights, cases.values()), strict=True)
    }
    for name, more in MORE.items():
        texts[f"watching, and {name}"] = read_rights(WATCH | more).power.text
    compare("rights", texts)


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        (REAL["lists"], ""),
        (REAL["lists-watch"], ""),
        (REAL["lists-none"], "/ /nodes /vms /storage"),
        ({"/": {"Sys.Audit": 0}}, "/nodes /vms /storage"),  # it does not propagate
        ({"/vms/100": {"VM.Audit": 1}, "/nodes/a": {"Sys.Audit": 1}}, "/ /storage"),
        *((WATCH | {"/vms": odd}, "/vms") for odd in (None, [], ["VM.Audit"], "x", 1)),
    ],
)
def test_each_missing_right_is_named_by_its_path(granted: Permissions, missing: str) -> None:
    rights = read_rights(granted)
    assert [each.base_path for each in rights.missing] == missing.split()
    assert rights.power.is_missing == (granted is not REAL["lists"])
    assert rights.excess == []


def test_privileges_that_no_tool_needs_are_named() -> None:
    more = {"/vms": BOTH | {"VM.Allocate": 1}, "/pool": {"Pool.Audit": 1}}
    rights = read_rights(WATCH | more | {"/": {"Sys.PowerMgmt": 1, "Sys.Audit": 0}})
    assert rights.excess == ["Sys.PowerMgmt", "VM.Allocate"]


@pytest.mark.parametrize(
    ("privilege", "path", "lines"),
    [
        ("Sys.Audit", "/", "McpNode --privs Sys.Audit; / McpNode --propagate 0"),
        ("Sys.Audit", "/nodes", "McpNode --privs Sys.Audit; /nodes McpNode"),
        ("VM.PowerMgmt", "/vms/9", "McpPower --privs VM.Audit,VM.PowerMgmt; /vms/9 McpPower"),
        ("VM.Backup", "/vms/9", "McpVMBackup --privs VM.Backup; /vms/9 McpVMBackup")
    ]
)  # fmt: skip
def test_a_privilege_is_granted_to_user_and_token(privilege: str, path: str, lines: str) -> None:
    role, _, rest = lines.partition("; ")
    where, _, which = rest.partition(" ")
    assert grant(privilege, path, SETTINGS) == [
        f"pveum role add {role}",
        f"pveum acl modify {where} --users mcp@pve --tokens 'mcp@pve!t' --roles {which}",
    ]


# --- The README's commands and the schema of Proxmox's API -----------------------------

README = (ROOT / "README.md").read_text()
PVEUM = [shlex.split(line) for line in README.splitlines() if line.startswith("pveum ")]
TOKEN_PATH = "/access/users/{userid}/token/{tokenid}"
CALLS = {  # command: method and path, whose names are the arguments
    "role add": ("POST", "/access/roles", "roleid"),
    "role delete": ("DELETE", "/access/roles/{roleid}", "roleid"),
    "user add": ("POST", "/access/users", "userid"),
    "user delete": ("DELETE", "/access/users/{userid}", "userid"),
    "user token add": ("POST", TOKEN_PATH, "userid tokenid"),
    "user token modify": ("PUT", TOKEN_PATH, "userid tokenid"),
    "user token remove": ("DELETE", TOKEN_PATH, "userid tokenid"),
    "acl modify": ("PUT", "/access/acl", "path"),
    "acl delete": ("PUT", "/access/acl", "path"),
}


def parsed(words: list[str]) -> tuple[str, dict[str, str]]:
    """Return the command, and its arguments and options by name."""
    name = " ".join(words[1:4] if words[2] == "token" else words[1:3])
    rest = words[1 + len(name.split()) :]
    _, _, names = CALLS[name]
    named = dict(zip(names.split(), rest, strict=False))
    options = rest[len(named) :]
    pairs = zip(options[::2], options[1::2], strict=True)
    return name, named | {key.removeprefix("--"): value for key, value in pairs}


def schema() -> dict[str, Any]:
    packed = resources.files("fakepve") / "data" / "pve-api.json.gz"
    paths: dict[str, Any] = json.loads(gzip.decompress(packed.read_bytes()))["paths"]
    return paths


def test_proxmox_accepts_each_pveum_line_of_the_readme() -> None:
    paths = schema()
    granting = grant("VM.PowerMgmt", "/vms/100", SETTINGS)
    assert len(PVEUM) > 15
    for words in [*PVEUM, *(shlex.split(line) for line in granting)]:
        words = [word for word in words if word not in ("-d", "+90 days", "+%s)")]
        name, options = parsed([word.replace("$(date", "1") for word in words])
        method, path, _ = CALLS[name]
        known = paths[path][method]["parameters"]["properties"]
        assert options.keys() <= known.keys(), words
        needed = {key for key, value in known.items() if not value.get("optional")}
        assert needed <= options.keys(), words


def permissions_after(lines: list[list[str]]) -> Permissions:
    """Return what a token may do on each path after these commands."""
    roles: dict[str, list[str]] = {}
    granted: dict[str, dict[str, int]] = {}
    for name, options in map(parsed, lines):
        if name == "role add":
            roles[options["roleid"]] = options["privs"].split(",")
        elif name == "user delete":
            granted.clear()
        elif name == "acl delete":
            del granted[options["path"]][options["roles"]]
        elif name == "acl modify":
            assert options["tokens"] == f"{options['users']}!mcp-token"  # both of them
            roles_here = granted.setdefault(options["path"], {})
            roles_here[options["roles"]] = int(options.get("propagate", 1))
    return {
        path: {privilege: flag for role, flag in roles_here.items() for privilege in roles[role]}
        for path, roles_here in granted.items()
    }


def test_the_pveum_lines_of_the_readme_grant_what_real_clusters_reported() -> None:
    power, away, user, modify = (
        next(i for i, words in enumerate(PVEUM) if wanted in " ".join(words))
        for wanted in ("McpPower", "acl delete", "user delete", "token modify")
    )
    for lines, name in (
        (PVEUM[:power], "lists-watch"),
        (PVEUM[:away], "lists"),
        (PVEUM[: away + 1], "lists-watch"),
        (PVEUM[: user + 1], "lists-none"),
    ):
        assert permissions_after(lines) == REAL[name]
    added = {words[3] for words in PVEUM if words[1:3] == ["role", "add"]}
    removed = {words[3] for words in PVEUM[user:modify] if words[1:3] == ["role", "delete"]}
    assert added == removed == {"McpNode", "McpGuest", "McpStore", "McpPower"}
