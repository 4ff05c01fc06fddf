"""Why a certificate is not trusted: one cause and one cure for each of OpenSSL's verdicts."""

import ssl
import time
from typing import Any

from src.config.ca_file import has_a_ca, has_expired, problem_with
from src.connection.route import Route
from src.connection.tls import Certificate, presented_by, subjects_in
from src.foreign import clean, some_of

# Each cause is followed by its cure.
UNVERIFIED = "; or, in a lab, set PROXMOX_VERIFY_SSL=false."
CA = "/etc/pve/pve-root-ca.pem"
PROXMOX = "PVE Cluster Manager CA"  # the organization in the name of each cluster's own CA
UNKNOWN_CA = (
    "it was signed by a CA that this computer does not know, such as Proxmox's own",
    f"Set PROXMOX_VERIFY_SSL to the path of a copy of Proxmox's CA, {CA}" + UNVERIFIED,
)
OTHER_CA = (
    "the CA in {ca} did not sign it",
    f"Copy {CA} from a node of this cluster; if a public CA signed it, set "
    "PROXMOX_VERIFY_SSL=true" + UNVERIFIED,
)
SAME_NAME = (
    "{ca} contains a CA named {issuer}, but another one of that name signed it",
    f"Copy {CA} from a node of this cluster again" + UNVERIFIED,
)
NO_INTERMEDIATE = (
    "its chain ends at {issuer}, whose certificate is neither in {ca} nor sent by the server",
    "If that is an intermediate CA, let the server send it (upload the certificate with its "
    "chain); otherwise add its certificate to {ca}" + UNVERIFIED,
)
UNKNOWN_ISSUER = (
    "its chain ends at {issuer}, which this computer does not know and the server does not send",
    "If that is an intermediate CA, let the server send it (upload the certificate with its "
    "chain); otherwise set PROXMOX_VERIFY_SSL to the path of that CA's certificate" + UNVERIFIED,
)
NO_ROOT = (
    "{ca} contains an intermediate CA, but not the root CA that signed it",
    "Add the root CA's certificate to {ca}" + UNVERIFIED,
)
NO_CA = (
    "{ca} contains a server's own certificate, not its CA's",
    f"Replace it with a copy of {CA} from a node" + UNVERIFIED,
)
OTHER_SELF_SIGNED = (
    "it is self-signed, and does not match the one in {ca}",
    "Check PROXMOX_URL. If it is right, copy that certificate into the file" + UNVERIFIED,
)
SELF_SIGNED = (
    "it is self-signed",
    "Check PROXMOX_URL. If it is right, set PROXMOX_VERIFY_SSL to the path of a copy of that "
    f"certificate (for Proxmox VE's own, {CA})" + UNVERIFIED,
)
WRONG_NAME = (
    "{reason}",
    "Use a name or an IP address in PROXMOX_URL that the certificate contains" + UNVERIFIED,
)
OTHER_NAMES = (
    "it is not valid for {host}, but for {names}",
    "Use a name or address in PROXMOX_URL that it is valid for" + UNVERIFIED,
)
NO_NAMES = (
    "it has only a common name, {names}, and no subject alternative name",
    "Make a new one: for Proxmox's own, run pvecm updatecerts --force on the node" + UNVERIFIED,
)
BUNDLE = (
    "the CAs in {verifier} did not sign it",
    f"Set PROXMOX_VERIFY_SSL to the path of a copy of Proxmox's CA, {CA}" + UNVERIFIED,
)
EXPIRED = (
    "it has expired",
    "On the node, with quorum, run pvecm updatecerts --force, then systemctl reload-or-restart "
    "pveproxy (if ACME made it: pvenode acme cert renew)" + UNVERIFIED,
)
EXPIRED_INTERMEDIATE = (
    "the intermediate CA {expired}, which the server sends, has expired",
    "Upload the certificate with a new chain to the node" + UNVERIFIED,
)
EXPIRED_CA = (
    "a CA in {ca} has expired",
    f"Copy {CA} from a node again; if that one has expired too, the cluster needs a new CA"
    + UNVERIFIED,
)
NOT_YET = (
    "it is not valid yet, so one of the two clocks is wrong",
    "Compare `date` here and on the node, and correct the wrong clock" + UNVERIFIED,
)
BAD = ("{reason}", "Renew it, or the CA that signed it" + UNVERIFIED)

Words = tuple[str, str]
# By OpenSSL's verify_code.
VERDICTS: dict[int, Words] = {
    **dict.fromkeys((19, 20, 21), UNKNOWN_CA),
    **dict.fromkeys((62, 64), WRONG_NAME),
    2: NO_ROOT,
    7: SAME_NAME,
    9: NOT_YET,
    10: EXPIRED,
    18: SELF_SIGNED,
}


def untrusted(error: ssl.SSLCertVerificationError, route: Route, seconds: float) -> Words:
    """Return the cause and the cure. Looks at the certificates once more, for `seconds` at most."""
    words = VERDICTS.get(error.verify_code, BAD)
    host, verify = route.address.host, route.verify
    chain: list[Certificate] = []
    if words in (UNKNOWN_CA, SAME_NAME, WRONG_NAME, EXPIRED) and not route.proxy_variable:
        chain = presented_by(host, route.address.port_in_use, seconds)
    names = [clean(name, 80) for name in _names(chain)]
    expired = [each for each in chain if ssl.cert_time_to_seconds(each["notAfter"]) < time.time()]
    facts: dict[str, Any] = {
        "reason": error.verify_message,
        "host": host,
        "ca": route.verifier,
        "verifier": route.verifier,
        "issuer": clean(_common_name(_missing_issuer(chain)), 80),
        "expired": clean(_common_name(expired[0]["subject"] if expired else ()), 80),
        "names": some_of(names) or clean(_common_name(chain[0]["subject"] if chain else ()), 80),
    }
    if words == WRONG_NAME and chain:
        words = OTHER_NAMES if names else NO_NAMES
    elif words == EXPIRED:
        words = _what_expired(chain, expired, verify)
    elif words in (UNKNOWN_CA, SAME_NAME) or (words == NO_ROOT and isinstance(verify, bool)):
        words = _issuer_unknown(words, chain, route)
    elif words == SELF_SIGNED and isinstance(verify, str) and not problem_with(verify):
        words = OTHER_SELF_SIGNED
    cause, cure = words
    return cause.format_map(facts), cure.format_map(facts)


def _what_expired(
    chain: list[Certificate], expired: list[Certificate], verify: bool | str
) -> Words:
    """Return whether the server's own certificate, one that it sends, or its CA's has expired."""
    if expired:
        return EXPIRED if expired[0] is chain[0] else EXPIRED_INTERMEDIATE
    has_file = isinstance(verify, str) and not problem_with(verify)
    return EXPIRED_CA if has_file and (chain or has_expired(str(verify))) else EXPIRED


def _issuer_unknown(words: Words, chain: list[Certificate], route: Route) -> Words:
    """Return why the CA that signed the certificate is not known."""
    verify, given = route.verify, isinstance(route.settings.verify_ssl, str)
    if given and (problem_with(str(verify)) or not has_a_ca(str(verify))):
        return UNKNOWN_CA if problem_with(str(verify)) else NO_CA
    issuer = _missing_issuer(chain)
    if issuer and issuer in subjects_in(verify):
        return SAME_NAME
    is_sent = any(each["subject"] == issuer for each in chain)
    if issuer and not is_sent and PROXMOX not in str(issuer):
        return NO_INTERMEDIATE if given else UNKNOWN_ISSUER
    if given:
        return OTHER_CA
    return UNKNOWN_CA if verify is True else BUNDLE


def _missing_issuer(chain: list[Certificate]) -> Any:
    """Return the name at which the chain ends: of the first CA that the server does not send,
    or of a self-signed one."""
    by_name = {str(each["subject"]): each for each in chain}
    last = chain[0] if chain else {"issuer": (), "subject": ()}
    for _ in chain:
        last = by_name.get(str(last["issuer"]), last)
    return last["issuer"]


def _names(chain: list[Certificate]) -> list[str]:
    """Return the names and IP addresses that the server's own certificate is for."""
    alternatives = chain[0].get("subjectAltName", ()) if chain else ()
    return [name for kind, name in alternatives if kind in ("DNS", "IP Address")]


def _common_name(name: Any) -> str:
    """Return the common name in a certificate's name, else its first part."""
    parts = dict(part for parts in name for part in parts)
    return str(parts.get("commonName") or next(iter(parts.values()), ""))
