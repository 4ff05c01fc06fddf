"""What requests takes from the environment: a proxy, and the CAs to trust.

from_environment    proxies and CAs for the requests to one address
verifier            by what a certificate is verified
proxy_variable      where a proxy on the way to an address comes from
no_proxy_variable   what goes past it
bundle_variable     where a bundle of CAs comes from
tls_unavailable     what keeps TLS from being set up, by the name of its variable
"""

from __future__ import annotations

import os
from typing import cast

import requests
from requests.utils import get_environ_proxies

from src.errors import ProxmoxError
from src.settings import Settings
from src.trust import wrong_with

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
