"""The five PROXMOX_* variables, read from the environment and from .env."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from src.config.ca_file import problem_with
from src.config.env_file import VARIABLES, EnvFile, unquote
from src.errors import ProxmoxError

PLACEHOLDERS = {  # the values in .env.example, which count as missing
    "PROXMOX_URL": "https://your-proxmox-host:8006",
    "PROXMOX_USER": "your-user@pve",
    "PROXMOX_TOKEN_ID": "your-token-id",
    "PROXMOX_TOKEN_SECRET": "your-token-secret",
}
NAME = "[A-Za-z][A-Za-z0-9._-]*"
EXPECTED = {  # name: pattern, example
    "PROXMOX_URL": (r"(?s:.+)", "https://pve.example.com:8006"),
    "PROXMOX_USER": (f'["-.0-9;-~]+@{NAME}', "mcp@pve or root@pam"),
    "PROXMOX_TOKEN_ID": (f"([!-~]+!)?{NAME}", "mcp-token or mcp@pve!mcp-token"),
    "PROXMOX_TOKEN_SECRET": (r'["-;?-~]+', "12345678-1234-1234-1234-1234567890ab"),
}
SECRET, VERIFY = "PROXMOX_TOKEN_SECRET", "PROXMOX_VERIFY_SSL"
# A variable that a client, a shell or a template did not expand.
UNEXPANDED = r"\$\{[\w:.-]+\}|\$[A-Z_][A-Z0-9_]+|%[A-Za-z_]\w*%|\{\{.*\}\}"
UUID = r"\w{8}-\w{4}-\w{4}-\w{4}-\w{12}"
DEFAULT_PORT = 8006


@dataclass(frozen=True)
class Address:
    """One address of the API: of a node, or of a reverse proxy in front of it."""

    host: str
    port: int | None = None  # None if PROXMOX_URL has none
    prefix: str = ""  # of the API's path behind a reverse proxy

    @property
    def port_in_use(self) -> int:
        return self.port or DEFAULT_PORT

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port_in_use}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class Settings:
    """Where the API is and who asks. Made by `from_env`. Its repr hides the secret."""

    addresses: tuple[Address, ...]  # any of them answers for the whole cluster
    user: str
    token_name: str
    token_secret: str = field(repr=False)
    verify_ssl: bool | str  # a string is the path of a CA file
    fixed: frozenset[str] = frozenset()  # the variables that the environment sets

    @property
    def token_id(self) -> str:
        return f"{self.user}!{self.token_name}"

    def afterwards(self, *names: str) -> str:
        """Say what must follow when one of these variables was corrected.

        The environment of a running process cannot change, but .env is read again.
        """
        if self.fixed.isdisjoint(names):
            return ""
        return " The environment has the settings: restart the client after changing one."

    @classmethod
    def from_env(cls, environ: Mapping[str, str], file: EnvFile | None = None) -> Self:
        """Read the five PROXMOX_* variables. The environment takes precedence over a file.

        Raises ProxmoxError, which names each variable that is missing or malformed.
        """
        file = file or EnvFile()
        if file.problem and not EXPECTED.keys() <= environ.keys():
            raise file.problem
        problems: list[str] = []
        given = _given(environ, file)
        values = {name: _checked(name, given, file, problems) for name in EXPECTED}
        addresses = _parse_urls(values["PROXMOX_URL"], problems)
        user = values["PROXMOX_USER"]
        owner, _, token_name = values["PROXMOX_TOKEN_ID"].rpartition("!")
        if owner and user and owner != user:
            problems.append(
                f"PROXMOX_TOKEN_ID names a token of {owner[:64]}, but PROXMOX_USER is "
                f"{user[:64]}: set PROXMOX_USER to the token's owner"
            )
        verify_ssl = _parse_verify(given[VERIFY], problems)
        if problems:
            if len(problems) == 1:
                raise ProxmoxError(f"The server is not configured. {problems[0]}", file.about)
            lines = "".join(f"\n{each}." for each in problems)
            raise ProxmoxError(f"The server is not configured:{lines}", f"\n{file.about}".rstrip())
        fixed = frozenset(environ.keys() & given.keys())
        return cls(addresses, user, token_name, values[SECRET], verify_ssl, fixed)


def describe(environ: Mapping[str, str], file: EnvFile) -> list[tuple[str, str, str]]:
    """Return the name, value (never the secret) and origin of each of the five."""
    lines = []
    for name, value in _given(environ, file).items():
        origin = file.path if name in file.values else ""
        origin = "the environment" if name in environ else origin
        pattern, _ = EXPECTED.get(name, (".*", ""))
        hidden = name == SECRET or not re.fullmatch(pattern, value)
        shown = "set, not shown" if hidden else _printable(value)
        lines.append((name, shown if value else "not set", origin))
    return lines


def read_settings() -> Settings:
    """Read the settings from .env and from the environment, which takes precedence.

    Raises ProxmoxError as `Settings.from_env` does, and for a file that cannot be read,
    unless the environment has every variable that is needed.
    """
    return Settings.from_env(os.environ, EnvFile.read())


def _given(environ: Mapping[str, str], file: EnvFile) -> dict[str, str]:
    """Return the value of each of the five, from the environment or else from the file."""
    return {
        name: unquote(environ[name]) if name in environ else file.values.get(name, "").strip()
        for name in VARIABLES
    }


def _checked(name: str, given: Mapping[str, str], file: EnvFile, problems: list[str]) -> str:
    """Return a variable's value, or "" after adding to `problems` what is wrong with it."""
    pattern, example = EXPECTED[name]
    value = given[name]
    wrong = ""
    if not value:
        wrong = "is missing"
        if file.values.get(name):
            wrong = "is blank in the environment, which takes precedence over .env"
    elif _is_placeholder(name, value):
        wrong = "still has the example's value"
    elif unexpanded := _unexpanded(name, value):
        wrong = f"{unexpanded}: write the value itself"
    elif not re.fullmatch(pattern, value):
        hidden = name in (SECRET, "PROXMOX_TOKEN_ID")
        wrong = f"is malformed{'' if hidden else f' ({_printable(value)})'}"
    elif name == "PROXMOX_TOKEN_ID" and re.search(f"(^|!){UUID}$", value):
        wrong = "looks like a secret: it must be the token's name"
    if wrong:
        problems.append(f"{name} {wrong} (write it like {example})")
    return "" if wrong else value


def _is_placeholder(name: str, value: str) -> bool:
    return value == PLACEHOLDERS[name] or (
        name == "PROXMOX_URL" and re.search("//your-proxmox-host([:/]|$)", value) is not None
    )


def _unexpanded(name: str, value: str) -> str:
    """Return what to say of a value in which a variable was not expanded, or "".

    A secret may contain such characters, so there it must be the whole value.
    """
    look = re.fullmatch if name == SECRET else re.search
    if not look(UNEXPANDED, value):
        return ""
    shown = value if name == SECRET else _printable(value)
    return f"is {shown}: the client did not expand the variable"


def _printable(value: str) -> str:
    """Return a value as it was read, shortened, and without a password or a secret."""
    value = re.sub(r"\?.*", "?***", re.sub(":.*@", ":***@", value))
    value = re.sub(UUID, "***", value)
    value = value if len(value) <= 80 else f"{value[:77]}..."
    return value if value.isprintable() else repr(value)


def _parse_urls(value: str, problems: list[str]) -> tuple[Address, ...]:
    """Return each address once. Add to `problems` what is wrong with any of them."""
    # A password may contain a comma, and its end would not be recognized and hidden.
    urls = [value] if "@" in value else re.split(r"[,\s]+", value.strip(", "))
    found = [_parse_url(url, problems) for url in urls] if value else []
    return tuple({address.url: address for address in found if address}.values())


def _parse_url(url: str, problems: list[str]) -> Address | None:
    """Return the address, or None after adding to `problems` what is wrong with it."""
    example = "(write it like https://pve.example.com)"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        problems.append(f"PROXMOX_URL is not a URL: {_printable(url)} {example}")
        return None
    prefix = parts.path.strip("/").removesuffix("api2/json").rstrip("/")
    label = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    wrong = ""
    if parts.scheme == "http":
        wrong = f"is {_printable(url)}: http:// would send the token unencrypted"
    elif (
        parts.scheme != "https"
        or "@" in parts.netloc
        or port == 0
        or not re.fullmatch(rf"{label}(\.{label})*\.?|[0-9a-f:]+[0-9.]*", host)
        or not re.fullmatch(r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*", prefix and f"/{prefix}")
    ):
        wrong = f"is not https://host:port but {_printable(url) or 'a comma'}"
    if wrong:
        problems.append(f"PROXMOX_URL {wrong} {example}")
    return None if wrong else Address(host, port, prefix)


def _parse_verify(value: str, problems: list[str]) -> bool | str:
    """Return whether to verify the certificate, or the path of the CA file to do it with.

    Adds to `problems` what is wrong with it.
    """
    value = value or "true"
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    path = os.path.expanduser(value)
    shown = _printable(value) + (f" ({path})" if path != value else "")
    wrong = ""
    if "BEGIN CERTIFICATE" in value:
        wrong = "contains a certificate: it must be the path of a certificate file"
    elif unexpanded := _unexpanded(VERIFY, value):
        wrong = f"{unexpanded}: write the path itself"
    elif re.search(r"[\x00-\x1f\x7f]", value):
        wrong = (
            f"is {shown}, which contains a control character, because \\n and \\t mean one in "
            "double quotes: write the path with forward slashes"
        )
    elif not re.search(r"[/\\.]", value) and not os.path.exists(path):
        wrong = f"is {shown}, which is neither true nor false nor the path of a CA file"
    elif problem := problem_with(path):
        wrong = f"is {shown}, which {problem}"
    if wrong:
        problems.append(f"{VERIFY} {wrong}")
    return path
