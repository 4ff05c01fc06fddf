"""The CA file that PROXMOX_VERIFY_SSL names, and what can be wrong with it."""

import os
import ssl
import time

from src.config.files import Fault, Unreadable, read_file

MOUNT = (
    "mount the file by its absolute path, -v /absolute/path/to/pve-root-ca.pem:/pve-root-ca.pem:ro"
)
AGAIN = "copy /etc/pve/pve-root-ca.pem from a node again"
CURES: dict[Fault, str] = {
    "missing": "correct the path, or in a container set the variable to /pve-root-ca.pem and "
    f"{MOUNT}",
    "folder": "Docker creates one if the file to mount does not exist; remove the folder, and "
    f"{MOUNT}",
    "special": "copy it into a regular file",
    "forbidden": "run chmod a+r on it, and chmod a+x on the folders above it; for a container "
    "under SELinux, mount it with :ro,z",
    "UTF-16": "copy it with scp or cp",
}


def problem_with(path: str) -> str:
    """Return what is wrong with a CA file and how to mend it, or "" if it is usable."""
    try:
        content = read_file(path)
    except Unreadable as error:
        where = _looked_in(path) if error.fault == "missing" else ""
        cure = CURES.get(error.fault)
        return f"{error.reason}{where}{f': {cure}' if cure else ''}"
    if b"-----BEGIN CERTIFICATE-----" not in content:
        return _other_content(content)
    try:
        _context_of(path)
    except (OSError, ValueError):
        return f"contains a certificate that cannot be parsed: {AGAIN}"
    return ""


def _looked_in(path: str) -> str:
    """Return the folder in which a relative path was looked for."""
    try:
        return "" if os.path.isabs(path) else f" in {os.getcwd()}"
    except OSError:
        return ", nor does the working directory"


def _other_content(content: bytes) -> str:
    if not content.strip():
        return f"is empty: {AGAIN}"
    if b"PRIVATE KEY-----" in content:
        return "is a private key: copy /etc/pve/pve-root-ca.pem from a node instead"
    if content[:1] == b"\x30":
        return "is in DER form: convert it with openssl x509 -inform der -in FILE -out ca.pem"
    return f"contains no certificate (-----BEGIN CERTIFICATE-----): {AGAIN}"


def _context_of(path: str) -> ssl.SSLContext:
    """Return a context with the file's certificates, which ignores the environment."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return context


def has_a_ca(path: str) -> bool:
    """Whether the file contains a CA's certificate, not only a server's own."""
    return _context_of(path).cert_store_stats()["x509_ca"] > 0


def has_expired(path: str) -> bool:
    """Whether every CA in the file has expired."""
    ends = [str(each["notAfter"]) for each in _context_of(path).get_ca_certs()]
    return bool(ends) and all(ssl.cert_time_to_seconds(e) < time.time() for e in ends)
