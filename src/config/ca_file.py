"""The file of a CA that PROXMOX_VERIFY_SSL names, and what can be wrong with it."""

from __future__ import annotations

import os
import ssl
import time

MOUNT = "-v /absolute/path/to/pve-root-ca.pem:/pve-root-ca.pem:ro"
AGAIN = "copy /etc/pve/pve-root-ca.pem from a node once more"


def wrong_with(path: str) -> str:
    """What is wrong with the file of a CA, and what to do; "" where all is well."""
    problem = _unreadable(path)
    if problem:
        return problem
    try:
        _context_of(path)
    except (OSError, ValueError):
        return f"has a certificate in it that cannot be read: {AGAIN}"
    return ""


def _unreadable(path: str) -> str:
    """Why there is no certificate to be read from a file."""
    try:
        if os.path.isdir(path):
            return (
                "is a folder, as Docker makes one where the file to mount is missing: "
                f"remove it, and mount the file by its absolute path, {MOUNT}"
            )
        if os.path.exists(path) and not os.path.isfile(path):
            return "is no regular file: copy it into one"
        with open(path, "rb") as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return (
            f"is not there{_here(path)}: correct the path, or in a container mount the "
            f"file by its absolute path, {MOUNT}"
        )
    except PermissionError:
        return "cannot be read by this user: chmod 644 it, and 755 the folders above it"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or 'it is no path'}"
    if b"-----BEGIN CERTIFICATE-----" in content:
        return ""
    return _what_else(content)


def _here(path: str) -> str:
    """In which folder a relative path was looked for."""
    try:
        return "" if os.path.isabs(path) else f" in {os.getcwd()}"
    except OSError:
        return ": the working directory no longer exists"


def _what_else(content: bytes) -> str:
    if not content.strip():
        return f"is empty: {AGAIN}"
    if b"PRIVATE KEY-----" in content:
        return f"is a private key, which belongs nowhere but where it was made: {AGAIN}"
    if content[:1] == b"\x30":
        return "is in DER form: openssl x509 -inform der -in it -out ca.pem makes a PEM"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "is UTF-16, as PowerShell's > writes it: copy it with scp or cp"
    return f"has no certificate in it (-----BEGIN CERTIFICATE-----): {AGAIN}"


def _context_of(path: str) -> ssl.SSLContext:
    """A context with a file's certificates, and nothing of the environment."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return context


def has_a_ca(path: str) -> bool:
    """Whether there is a CA's certificate in a file, not only a server's own."""
    return _context_of(path).cert_store_stats()["x509_ca"] > 0


def has_expired(path: str) -> bool:
    """Whether each CA in a file has expired."""
    ends = [str(each["notAfter"]) for each in _context_of(path).get_ca_certs()]
    return bool(ends) and all(ssl.cert_time_to_seconds(e) < time.time() for e in ends)
