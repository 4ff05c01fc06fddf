"""The way there, as this machine has it: proxies, bundles of CAs, and TLS."""

from __future__ import annotations

import os
import ssl
from typing import cast

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies

from src.config.ca_file import wrong_with
from src.config.settings import Settings
from src.errors import ProxmoxError

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def from_environment(settings: Settings) -> tuple[dict[str, str], bool | str]:
    """The proxies, and what PROXMOX_VERIFY_SSL means then: true may be a bundle."""
    merged = requests.Session().merge_environment_settings(
        settings.address, {}, None, settings.verify_ssl, None
    )
    return dict(merged["proxies"]), cast(bool | str, merged["verify"])


def proxy_variable(address: str) -> str:
    """The name of the variable that puts a proxy on the way; "" where there is none."""
    proxies = get_environ_proxies(address)
    used = proxies.get("https") or proxies.get("all")
    names = [name for name in PROXIES if used and os.environ.get(name) == used]
    return names[0] if names else "the system's settings" if used else ""


def no_proxy_variable() -> str:
    """The variable that a host is to be put into to go past a proxy: lower case wins."""
    return "no_proxy" if os.environ.get("no_proxy") else "NO_PROXY"


def bundle_variable(verify: bool | str) -> str:
    """The name of the variable that `verify` comes from, where that is a bundle's."""
    names = [name for name in BUNDLES if os.environ.get(name) == verify]
    return names[0] if names else ""


def verifier(verify: bool | str) -> str:
    """By what a certificate is verified, in words; "" where it is not."""
    if isinstance(verify, bool):
        return "the public CAs" if verify else ""
    variable = bundle_variable(verify)
    return f"{verify} of {variable}" if variable else verify


def tls_unavailable(verify: bool | str) -> ProxmoxError:
    """What keeps TLS from being set up, by the name of the variable that it is in."""
    problem = "" if isinstance(verify, bool) else wrong_with(verify)
    log = os.environ.get("SSLKEYLOGFILE")
    if log and not problem:
        said = f"SSLKEYLOGFILE is {log}, which cannot be written"
        return ProxmoxError(said, "Unset it.", "refused")
    name, advice = "PROXMOX_VERIFY_SSL", ""
    if variable := bundle_variable(verify):
        name, own = variable, "PROXMOX_VERIFY_SSL to the path of Proxmox's own CA"
        advice = f"Or unset {name}, and set {own}."
    said = f"{name} is {verify}, which {problem or 'cannot be used'}"
    return ProxmoxError(said, advice, "refused")


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """What checks a server's certificate: by public CAs, a file or folder of them, or not.

    For all connections of a client, at once. Raises OSError where that cannot be read.
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
        # Python 3.13 sets it, and refuses by it the CA that Proxmox made before 2026.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.hostname_checks_common_name = False  # as urllib3 has it
    # urllib3 sets it for each connection, while others are being made by the same context.
    context.set_alpn_protocols(["http/1.1"])
    context.set_alpn_protocols = lambda alpn_protocols: None  # type: ignore[method-assign]
    return context
