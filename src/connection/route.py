"""How this computer reaches an address: through which proxy, and with which CAs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import requests

from src.config.ca_file import problem_with
from src.config.settings import Address, Settings
from src.errors import ProxmoxError

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True)
class Route:
    """The way to one address: the proxies, and what verifies the server's certificate.

    `proxies` is as requests takes it. `verify` is False, True for the public CAs, or the
    path of a CA file, or of a bundle that a variable of the environment names.
    """

    settings: Settings
    address: Address
    proxies: Mapping[str, str] = field(repr=False)  # a URL may contain a password
    verify: bool | str

    @classmethod
    def to(cls, address: Address, settings: Settings) -> Self:
        """Find out what applies to an address, once: it would make each request 25 % slower."""
        merged = requests.Session().merge_environment_settings(
            address.url, {}, None, settings.verify_ssl, None
        )
        return cls(settings, address, dict(merged["proxies"]), merged["verify"] or False)

    @property
    def proxy_variable(self) -> str:
        """The variable that names the proxy in use, or "" without one."""
        used = self.proxies.get("https") or self.proxies.get("all")
        names = [name for name in PROXIES if used and os.environ.get(name) == used]
        return names[0] if names else "the system's settings" if used else ""

    @property
    def no_proxy_variable(self) -> str:
        """The variable that lists the hosts to bypass a proxy for. Lower case wins."""
        return "no_proxy" if os.environ.get("no_proxy") else "NO_PROXY"

    @property
    def bundle_variable(self) -> str:
        """The variable that names the bundle in use, or "" without one."""
        names = [name for name in BUNDLES if os.environ.get(name) == self.verify]
        return names[0] if names else ""

    @property
    def verifier(self) -> str:
        """What verifies the certificate, in words, or "" if nothing does."""
        if isinstance(self.verify, bool):
            return "the public CAs" if self.verify else ""
        variable = self.bundle_variable
        return f"{self.verify} (from {variable})" if variable else self.verify

    @property
    def version(self) -> tuple[int, int] | None:
        """Which version of the CA file there is, to notice when it has been mended."""
        try:
            found = os.stat(self.verify) if isinstance(self.verify, str) else None
        except (OSError, ValueError):
            return None
        return found and (found.st_mtime_ns, found.st_size)

    def tls_unavailable(self) -> ProxmoxError:
        """Say which variable keeps TLS from being set up, and how to mend it."""
        problem = "" if isinstance(self.verify, bool) else problem_with(self.verify)
        log = os.environ.get("SSLKEYLOGFILE")
        if log and not problem:
            cause = f"SSLKEYLOGFILE is {log}, which cannot be written"
            return ProxmoxError(cause, "Unset it.", "refused")
        name, advice = "PROXMOX_VERIFY_SSL", ""
        if variable := self.bundle_variable:
            name, own = variable, "PROXMOX_VERIFY_SSL to the path of Proxmox's own CA"
            advice = f"Or unset {name}, and set {own}."
        cause = f"{name} is {self.verify}, which {problem or 'cannot be used'}"
        return ProxmoxError(cause, advice, "refused")
