"""How this computer reaches Proxmox: proxies, bundles of CAs, and TLS."""

import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from src.config.ca_file import problem_with
from src.config.settings import Settings
from src.errors import ProxmoxError

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True)
class Network:
    """The proxies, and what verifies the server's certificate.

    `proxies` is as requests takes it. `verify` is False, True for the public CAs, or the
    path of a CA file, or of a bundle that a variable of the environment names.
    """

    proxies: Mapping[str, str] = field(repr=False)  # a URL may contain a password
    verify: bool | str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Find out what applies to an address, once: it would make each request 25 % slower."""
        merged = requests.Session().merge_environment_settings(
            settings.address, {}, None, settings.verify_ssl, None
        )
        return cls(dict(merged["proxies"]), merged["verify"] or False)

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


@dataclass(frozen=True)
class Peer:
    """The server as its certificate says. Names and end are unknown without verification."""

    protocol: str  # TLSv1.3
    names: tuple[str, ...] = ()
    expires: float | None = None  # seconds since 1970

    @classmethod
    def of(cls, sock: ssl.SSLSocket) -> Self:
        certificate: Any = sock.getpeercert() or {}
        alternatives = certificate.get("subjectAltName", ())
        names = (name for kind, name in alternatives if kind in ("DNS", "IP Address"))
        end = certificate.get("notAfter")
        expires = ssl.cert_time_to_seconds(end) if end else None
        return cls(sock.version() or "", tuple(names), expires)


def tls_context(verify: bool | str, on_handshake: Callable[[str, Peer], None]) -> ssl.SSLContext:
    """Return the context for all connections of a client.

    Calls `on_handshake` with the host and the Peer after each handshake. Raises OSError if the CAs
    cannot be read.
    """
    if verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        path = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
        folder = path if os.path.isdir(path) else None
        file = None if folder else path
        context = ssl.create_default_context(cafile=file, capath=folder)
        # Python 3.13 sets STRICT, which rejects the CAs that Proxmox made before 2026.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.hostname_checks_common_name = False  # as in urllib3
    # urllib3 would set ALPN again for each connection, though they share this context.
    context.set_alpn_protocols(["http/1.1"])
    context.set_alpn_protocols = lambda alpn_protocols: None  # type: ignore[method-assign]

    class Socket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            on_handshake(str(self.server_hostname), Peer.of(self))

    context.sslsocket_class = Socket
    return context
