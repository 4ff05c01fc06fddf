"""TLS: the context of all connections, and what the server says of itself."""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from src.connection.sockets import first_to_accept, resolve

# A certificate as ssl describes it: "subject", "issuer", "subjectAltName", "notAfter".
Certificate = dict[str, Any]


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


def tls_context(
    verify: bool | str,
    on_handshake: Callable[[str, Peer], None],
    time_left: Callable[[], float],
) -> ssl.SSLContext:
    """Return the context for all connections of a client.

    Calls `on_handshake` with the host and the Peer after each handshake. What is received must
    be here within `time_left`, all of it. Raises OSError if the CAs cannot be read.
    """
    if verify is False:
        context = _unverified()
    else:
        context = ssl.create_default_context(**_location(verify))
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

        def recv_into(self, *args: Any, **options: Any) -> int:
            """Receive some bytes. The time-out of a socket would begin anew with each of them."""
            if (left := time_left()) <= 0:
                raise TimeoutError
            self.settimeout(left)
            return super().recv_into(*args, **options)

    context.sslsocket_class = Socket
    return context


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _location(verify: bool | str) -> dict[str, Any]:
    path = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    return {"capath" if os.path.isdir(path) else "cafile": path}


def presented_by(host: str, port: int, timeout: float) -> list[Certificate]:
    """Connect once more and return the certificates that the server sends, its own first.

    Nothing is verified and nothing but the handshake is sent. Returns none if that fails.
    """
    try:
        plain, _ = first_to_accept(resolve(host, port, timeout), timeout, ())
        plain.settimeout(timeout)
        with plain, _unverified().wrap_socket(plain, server_hostname=host.rstrip(".")) as tls:
            # Python 3.13 has a public method, which returns bytes that it cannot read.
            chain: Any = getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", list)()
            return [dict(certificate.get_info()) for certificate in chain or ()]
    except OSError:
        return []


def subjects_in(verify: bool | str) -> list[Any]:
    """Return the names of the CAs that verify certificates. Returns none if they are unreadable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(**_location(verify))
    except (OSError, ValueError):
        return []
    return [certificate["subject"] for certificate in context.get_ca_certs()]
