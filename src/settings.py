"""The five PROXMOX_* variables, from the environment or from .env.

Settings          where the API is and who asks
read_settings     Settings of the environment and of .env in the working directory
PLACEHOLDERS      the values of .env.example
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dotenv import dotenv_values

from src.errors import ProxmoxError

PLACEHOLDERS = {  # .env.example's: copied and left as they are, they count as missing
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
    "PROXMOX_TOKEN_SECRET": (r"[!-~]+", "12345678-1234-1234-1234-1234567890ab"),
}


@dataclass(frozen=True)
class Settings:
    """Where the API is and who asks. Made by `from_env`; its repr hides the secret."""

    host: str
    port: int
    prefix: str  # of the path, behind a reverse proxy
    user: str
    token_name: str
    token_secret: str = field(repr=False)
    verify_ssl: bool | str  # a string is the path of a CA file

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}/{self.prefix}".rstrip("/")

    @property
    def token_id(self) -> str:
        return f"{self.user}!{self.token_name}"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the five PROXMOX_* variables.

        Raises ProxmoxError naming each variable that is missing or malformed.
        """
        problems: list[str] = []
        values = {name: _expected(name, environ, problems) for name in EXPECTED}
        host, port, prefix = _parse_url(values["PROXMOX_URL"], problems)
        user = values["PROXMOX_USER"]
        owner, _, token_name = values["PROXMOX_TOKEN_ID"].rpartition("!")
        if owner and user and owner != user:
            problems.append(
                f"PROXMOX_TOKEN_ID names a token of {owner[:64]}, but PROXMOX_USER is "
                f"{user[:64]}: use the token's owner"
            )
        verify_ssl = _parse_verify(environ.get("PROXMOX_VERIFY_SSL", ""), problems)
        if problems:
            raise ProxmoxError(
                "The server is not configured. In the environment or in .env, set: "
                + "; ".join(problems)
            )
        secret = values["PROXMOX_TOKEN_SECRET"]
        return cls(host, port, prefix, user, token_name, secret, verify_ssl)


def read_settings() -> Settings:
    """Settings of .env in the working directory and of the environment, which wins.

    Raises ProxmoxError for a file that cannot be read, and as `Settings.from_env`.
    """
    try:
        file = dotenv_values(".env", interpolate=False)
    except (OSError, ValueError) as error:
        raise ProxmoxError(f"The file .env cannot be read: {error}.") from None
    return Settings.from_env({k: v or "" for k, v in file.items()} | dict(os.environ))


def _expected(name: str, environ: Mapping[str, str], problems: list[str]) -> str:
    """The variable's value; "" and one problem more where that is not as it must be."""
    pattern, example = EXPECTED[name]
    value = _unquoted(environ.get(name, ""))
    if value in ("", PLACEHOLDERS[name]):
        problems.append(f"{name} is missing, e.g. {example}")
        return ""
    if not re.fullmatch(pattern, value):
        problems.append(f"{name} is malformed, e.g. {example}")
        return ""
    return value


def _unquoted(value: str) -> str:
    """The value without the pair of quotes that `docker --env-file` leaves on it."""
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1].strip()
    return value


def _parse_url(url: str, problems: list[str]) -> tuple[str, int, str]:
    """Host, port and path prefix; one problem more where it is no address of an API."""
    if not url:
        return "", 0, ""
    wrong = "is not https://host:port"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port, wrong = urlsplit(""), "", None, "is not a URL"
    if parts.scheme == "http":
        wrong = "starts with http://, which would send the token in clear"
    prefix = parts.path.strip("/").removesuffix("api2/json").rstrip("/")
    label = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    if (
        parts.scheme != "https"
        or "@" in parts.netloc
        or port == 0
        or not re.fullmatch(rf"{label}(\.{label})*\.?|[0-9a-f:]+[0-9.]*", host)
        or not re.fullmatch(
            r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*", prefix and f"/{prefix}"
        )
    ):
        problems.append(f"PROXMOX_URL {wrong}, e.g. https://pve.example.com")
    return host, port or 8006, prefix


def _parse_verify(value: str, problems: list[str]) -> bool | str:
    """Whether the certificate is checked, or the path of the CA file to check it by."""
    value = _unquoted(value) or "true"
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        ssl.create_default_context(cafile=value)
    except (OSError, ValueError):
        problems.append(
            "PROXMOX_VERIFY_SSL is neither true nor false nor a CA file that can be "
            "read here, e.g. /etc/pve/pve-root-ca.pem"
        )
    return value
