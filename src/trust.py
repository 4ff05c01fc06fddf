"""Which certificates are trusted: the file of a CA, and what TLS checks by it.

wrong_with      what is wrong with the file of a CA, and what to do
has_a_ca        whether there is a CA's certificate in it
tls_context     what checks a server's certificate
"""

from __future__ import annotations

import os
import ssl

from requests.utils import DEFAULT_CA_BUNDLE_PATH

MOUNT = "-v /whole/path/to/pve-root-ca.pem:/pve-root-ca.pem:ro"
AGAIN = "copy /etc/pve/pve-root-ca.pem from a node once more"


def wrong_with(path: str) -> str:
    """What is wrong with the file of a CA, and what to do; "" where all is well."""
    problem = _unreadable(path)
    if problem:
        return problem
    try:
        tls_context(path)
    except (OSError, ValueError):
        return f"has a certificate in it that cannot be read: {AGAIN}"
    return ""


def _unreadable(path: str) -> str:
    """Why there is no certificate to be read from a file."""
    try:
        if os.path.isdir(path):
            return (
                "is a folder, as Docker makes one where the file to mount is missing: "
                f"remove it, and mount the file by its whole path, {MOUNT}"
            )
        with open(path, "rb") as file:
            content = file.read(1 << 20)
    except (FileNotFoundError, NotADirectoryError):
        folder = "" if os.path.isabs(path) else f" in {os.getcwd()}"
        return (
            f"is not there{folder}: correct the path, or in a container mount the file by "
            f"its whole path, {MOUNT}"
        )
    except PermissionError:
        return "cannot be read by this user: chmod 644 it where it lies"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or 'it is no path'}"
    if not content.strip():
        return f"is empty: {AGAIN}"
    if b"-----BEGIN CERTIFICATE-----" in content:
        return ""
    if b"PRIVATE KEY-----" in content:
        return f"is a private key, which belongs nowhere but where it was made: {AGAIN}"
    return f"has no certificate in it (-----BEGIN CERTIFICATE-----): {AGAIN}"


def has_a_ca(path: str) -> bool:
    """Whether there is a CA's certificate in a file, not only a server's own."""
    return tls_context(path).cert_store_stats()["x509_ca"] > 0


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """What checks a server's certificate: by public CAs, a file or folder of them, or not.

    Raises OSError where that cannot be read.
    """
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    path = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
    if os.path.isdir(path):
        context = ssl.create_default_context(capath=path)
    else:
        context = ssl.create_default_context(cafile=path)
    # Python 3.13 sets it, and refuses by it the CA that Proxmox made before 2026.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
