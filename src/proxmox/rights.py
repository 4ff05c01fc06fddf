"""What a token may do, and the commands that grant what it lacks: pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass

from src.config.settings import Settings
from src.foreign import some_of

# The role for each privilege. A role on a deeper path replaces the one from above, so the
# role for power includes what watching needs.
ROLES = {
    "Sys.Audit": ("McpNode", "Sys.Audit"),
    "VM.Audit": ("McpGuest", "VM.Audit"),
    "VM.PowerMgmt": ("McpPower", "VM.Audit,VM.PowerMgmt"),
    "Datastore.Audit": ("McpStore", "Datastore.Audit"),
}
WATCHING = (  # the purpose, the privilege, the path that grants it for everything
    ("Watch quorum", "Sys.Audit", "/"),
    ("Watch nodes", "Sys.Audit", "/nodes"),
    ("Watch machines", "VM.Audit", "/vms"),
    ("Watch storages", "Datastore.Audit", "/storage"),
)
POWER = ("Power", "VM.PowerMgmt", "/vms")

Permissions = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Right:
    """One privilege that the tools need.

    If it `covers_all`, `paths` are the exceptions. Otherwise they are the only paths that
    have it.
    """

    purpose: str
    privilege: str
    base_path: str
    covers_all: bool
    paths: list[str]

    @property
    def is_missing(self) -> bool:
        return not self.covers_all and not self.paths

    @property
    def text(self) -> str:
        where = some_of(self.paths)
        if self.covers_all:
            but = f", but not on {where}" if where else ""
            return f"{self.purpose}: yes ({self.privilege} on {self.base_path}{but})"
        if where:
            return f"{self.purpose}: partly ({self.privilege} on {where} only)"
        return f"{self.purpose}: no ({self.privilege} on {self.base_path} is missing)"


@dataclass(frozen=True)
class Rights:
    """What the token may do."""

    watching: list[Right]
    power: Right
    excess: list[str]  # privileges that no tool uses

    @property
    def missing(self) -> list[Right]:
        """The rights that watching lacks. A token does not need power."""
        return [right for right in self.watching if right.is_missing]


def read_rights(permissions: Mapping[str, object]) -> Rights:
    """Read the answer of GET /access/permissions: {path: {privilege: propagate}}."""
    held: dict[str, Mapping[str, object]] = {
        path: names if isinstance(names, Mapping) else {} for path, names in permissions.items()
    }
    # Proxmox lists these paths, unless a role there denies everything. An answer without
    # any of them does not say what they inherit from /.
    if not held.keys() & {"/access", "/nodes", "/storage", "/vms"}:
        held |= dict.fromkeys(("/nodes", "/storage", "/vms"), _inherited(held))
    used = {privilege for _, privilege, _ in (*WATCHING, POWER)} | {"Pool.Audit"}
    granted = {name for names in held.values() for name in names}
    watching = [_right(held, *need) for need in WATCHING]
    return Rights(watching, _right(held, *POWER), sorted(granted - used))


def _inherited(permissions: Permissions) -> dict[str, object]:
    """Return what / grants to everything below it."""
    return {name: flag for name, flag in permissions.get("/", {}).items() if flag}


def _right(permissions: Permissions, purpose: str, privilege: str, base_path: str) -> Right:
    having = {path for path, names in permissions.items() if privilege in names}
    if base_path == "/":
        return Right(purpose, privilege, base_path, base_path in having, [])
    deeper = sorted(path for path in permissions if path.startswith(f"{base_path}/"))
    if permissions.get(base_path, {}).get(privilege):
        exceptions = [path for path in deeper if path not in having]
        return Right(purpose, privilege, base_path, True, exceptions)
    pooled = having if base_path in ("/vms", "/storage") else set()
    pools = sorted(path for path in pooled if f"{path}/".startswith("/pool/"))
    paths = [path for path in deeper if path in having]
    return Right(purpose, privilege, base_path, False, pools + paths)


def keeps_roles(settings: Settings) -> str:
    """Warn of a loss: a role on a deeper path replaces those from higher ones."""
    return (
        f"Leave out --users where {settings.user} already has the privilege: a role on a deeper "
        "path replaces those from higher ones."
    )


def grant(privilege: str, path: str, settings: Settings) -> list[str]:
    """Return the pveum commands that grant a privilege to the user and the token."""
    role, privileges = ROLES.get(privilege, ("Mcp" + privilege.replace(".", ""), privilege))
    alone = " --propagate 0" if path == "/" else ""
    both = f"--users {settings.user} --tokens '{settings.token_id}'"
    return [
        f"pveum role add {role} --privs {privileges}",
        f"pveum acl modify {path} {both} --roles {role}{alone}",
    ]
