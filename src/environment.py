"""What requests takes from the environment: a proxy, and the CAs to trust.

from_environment    proxies and CAs for the requests to one address
verifier            by what a certificate is verified
proxy_variable      where a proxy on the way to an address comes from
untrustworthy       what is wrong with a file of CAs, by the name of its variable
"""

from __future__ import annotations

import os

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
    return dict(merged["proxies"]), merged["verify"] or False


def proxy_variable(address: str) -> str:
    """The name of the variable that puts a proxy on the way; "" where there is none."""
    proxies = get_environ_proxies(address)
    used = proxies.get("https") or proxies.get("all")
    names = [name for name in PROXIES if used and os.environ.get(name) == used]
    return names[0] if names else "the system's settings" if used else ""


def verifier(verify: bool | str) -> str:
    """By what a certificate is verified, in words; "" where it is not."""
    if isinstance(verify, bool):
        return "the public CAs" if verify else ""
    names = [name for name in BUNDLES if os.environ.get(name) == verify]
    return f"{verify} of {names[0]}" if names else verify


def untrustworthy(path: str) -> ProxmoxError:
    """A file of CAs that cannot be used, by the name of the variable that it is in."""
    names = [name for name in BUNDLES if os.environ.get(name) == path]
    name, advice = "PROXMOX_VERIFY_SSL", ""
    if names:
        name, own = names[0], "PROXMOX_VERIFY_SSL to the path of Proxmox's own CA"
        advice = f"Or unset {name}, and set {own}."
    problem = wrong_with(path) or "cannot be used"
    return ProxmoxError(f"{name} is {path}, which {problem}", advice, "refused")
