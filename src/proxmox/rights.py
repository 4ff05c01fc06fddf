"""What a token may do, and the commands that grant what it lacks: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from src.config.settings import Settings
from src.proxmox.rows import some_of

# The role for each privilege. A role on a deeper path replaces the one from above, so the
# one for power has what watching needs as well.
ROLES = {
    "Sys.Audit": ("McpNode", "Sys.Audit"),
    "VM.Audit": ("McpGuest", "VM.Audit"),
    "VM.PowerMgmt": ("McpPower", "VM.Audit,VM.PowerMgmt"),
    "Datastore.Audit": ("McpStore", "Datastore.Audit"),
}
NEEDS = (  # what for, the privilege, the path that has it for all
    ("Watch quorum", "Sys.Audit", "/"),
    ("Watch nodes", "Sys.Audit", "/nodes"),
    ("Watch machines", "VM.Audit", "/vms"),
    ("Watch storages", "Datastore.Audit", "/storage"),
    ("Power", "VM.PowerMgmt", "/vms"),
)

Permissions = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Right:
    """One thing that the tools need: on all of it, on some `paths`, or on none."""

    purpose: str
    privilege: str
    top: str
    whole: bool
    paths: list[str]  # where it is; where it is whole, the paths that lack it

    @property
    def none(self) -> bool:
        return not self.whole and not self.paths

    @property
    def text(self) -> str:
        where = some_of(self.paths)
        if self.whole:
            but = f", but not on {where}" if where else ""
            return f"{self.purpose}: yes ({self.privilege} on {self.top}{but})"
        if where:
            return f"{self.purpose}: partly ({self.privilege} on {where} only)"
        return f"{self.purpose}: no ({self.privilege} on {self.top} is missing)"


@dataclass(frozen=True)
class Rights:
    """All that the tools need, and what the token has beyond it."""

    each: list[Right]
    excess: list[str]  # privileges that no tool uses

    @property
    def missing(self) -> list[Right]:
        """What watching lacks. A token that cannot switch anything is well."""
        return [right for right in self.each[:-1] if right.none]

    @property
    def no_power(self) -> list[Right]:
        """The right to switch machines, where the token lacks it."""
        return [right for right in self.each[-1:] if right.none]


def read_rights(permissions: Mapping[str, object]) -> Rights:
    """What the answer of GET /access/permissions allows: {path: {privilege: propagate}}."""
    held: dict[str, Mapping[str, object]] = {
        path: names if isinstance(names, Mapping) else {}
        for path, names in permissions.items()
    }
    # Proxmox lists these, unless a role there denies all; what lists none hands down.
    if not held.keys() & {"/access", "/nodes", "/storage", "/vms"}:
        held |= dict.fromkeys(("/nodes", "/storage", "/vms"), _handed_down(held))
    needed = {privilege for _, privilege, _ in NEEDS}
    granted = {name for names in held.values() for name in names}
    each = [_right(held, *need) for need in NEEDS]
    return Rights(each, sorted(granted - needed - {"Pool.Audit"}))


def _handed_down(permissions: Permissions) -> dict[str, object]:
    """What / has for all below it."""
    return {name: flag for name, flag in permissions.get("/", {}).items() if flag}


def _right(permissions: Permissions, purpose: str, privilege: str, top: str) -> Right:
    has = {path for path, names in permissions.items() if privilege in names}
    if top == "/":
        return Right(purpose, privilege, top, top in has, [])
    deeper = sorted(path for path in permissions if path.startswith(f"{top}/"))
    if permissions.get(top, {}).get(privilege):
        but = [path for path in deeper if path not in has]
        return Right(purpose, privilege, top, True, but)
    reached = has if top in ("/vms", "/storage") else set()
    pools = sorted(path for path in reached if f"{path}/".startswith("/pool/"))
    some = [path for path in deeper if path in has]
    return Right(purpose, privilege, top, False, pools + some)


def grant(privilege: str, path: str, settings: Settings) -> list[str]:
    """The pveum lines that grant a privilege to the user and to the token."""
    role, privileges = ROLES.get(
        privilege, ("Mcp" + privilege.replace(".", ""), privilege)
    )
    alone = " --propagate 0" if path == "/" else ""
    both = f"--users {settings.user} --tokens '{settings.token_id}'"
    return [
        f"pveum role add {role} --privs {privileges}",
        f"pveum acl modify {path} {both} --roles {role}{alone}",
    ]
