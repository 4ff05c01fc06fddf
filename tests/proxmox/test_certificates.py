"""Certificates over a real connection: each cause by its own name, and Python 3.13's way."""

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import requests
from fakepve.certs import make_cert

from src import server
from src.config import ca_file
from src.config.settings import Settings
from src.proxmox import network, no_answer
from tests.certificates import Authority
from tests.conftest import Answer, Call, Start

Meet = Callable[..., Answer]
NO_NODES = 'HTTP/1.1 200 OK\nContent-Type: application/json\n\n{"data": []}'


@pytest.fixture(params=["as it is here", "as in Python 3.13"])
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flags with which Python makes a context, those of 3.13 forced on."""
    if request.param == "as it is here":
        return
    create = ssl.create_default_context

    def strict(*args: Any, **options: Any) -> ssl.SSLContext:
        context = create(*args, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def meet(
    python: None, peer: Start, call: Call, monkeypatch: pytest.MonkeyPatch
) -> Meet:
    """What a list tells of a server with such a certificate, verified by `ca`."""

    def meet(certificate: tuple[str, str], ca: str, host: str = "127.0.0.1") -> Answer:
        url, _ = peer(NO_NODES, certificate)
        here = socket.getaddrinfo("127.0.0.1", int(url.rpartition(":")[2]), type=1)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: here)
        monkeypatch.setenv("PROXMOX_URL", url.replace("127.0.0.1", host))
        monkeypatch.setenv("PROXMOX_VERIFY_SSL", ca)
        server.client.cache_clear()
        answer = call("list_machines")
        assert len(answer.text.replace(ca, "/pve-root-ca.pem")) <= 300
        if answer.is_error:
            assert answer.text.endswith("PROXMOX_VERIFY_SSL=false.")
        return answer

    return meet


def test_a_ca_of_proxmoxs_own_making_is_trusted(
    meet: Meet, authority: Authority
) -> None:
    """It has no keyUsage, for which Python 3.13 refuses it unless told otherwise."""
    answer = meet(authority.server(), authority.path)
    assert "No machines" in answer.text
    assert not answer.is_error


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_false_trusts_whatever_is_there(meet: Meet, authority: Authority) -> None:
    expired = authority.server("pve.example.com", begins=-60)
    assert not meet(expired, "false").is_error


def test_a_name_that_the_certificate_does_not_have(
    meet: Meet, authority: Authority
) -> None:
    for host in ("pve.example.com", "127.0.0.1"):
        text = meet(authority.server("pve1.lan"), authority.path, host).text
        assert f"not valid for '{host}'" in text
        assert "Put a name that the certificate has into PROXMOX_URL" in text


@pytest.mark.parametrize(
    ("begins", "says"),
    [
        (-60, "it has expired. Renew it on the node: pvecm updatecerts"),
        (10, "it is not valid yet, so one of the two clocks is wrong. Compare `date`"),
    ],
)
def test_a_certificate_out_of_its_time(
    meet: Meet, authority: Authority, begins: int, says: str
) -> None:
    text = meet(authority.server(begins=begins), authority.path).text
    assert f"its certificate is not trusted: {says}" in text


def test_a_ca_out_of_its_time(meet: Meet, tmp_path: Path) -> None:
    old = Authority(tmp_path, begins=-60)
    text = meet(old.server(), old.path).text
    assert f"the CA in {old.path} has expired. Copy /etc/pve/pve-root-ca.pem" in text


def test_a_self_signed_certificate_in_place_of_another(
    meet: Meet, authority: Authority, tmp_path: Path
) -> None:
    certificate, key, _ = make_cert(tmp_path)
    text = meet((certificate, key), authority.path).text
    assert f"it is self-signed, and not the one in {authority.path}. Check" in text


def test_a_certificate_of_a_ca_that_nobody_gave(
    meet: Meet, authority: Authority
) -> None:
    text = meet(authority.server(), "true").text
    assert "no CA that is known here signed it" in text
    assert "PROXMOX_VERIFY_SSL to the path of a copy of Proxmox's CA" in text


def test_a_certificate_of_another_ca_than_was_given(
    meet: Meet, authority: Authority, tmp_path: Path
) -> None:
    """As where the CA is of another cluster, or the certificate a public one."""
    other = Authority(tmp_path, "other")
    text = meet(authority.server(), other.path).text
    assert f"the CA in {other.path} did not sign it" in text
    assert "PROXMOX_VERIFY_SSL=true" in text


def test_a_nodes_own_certificate_in_place_of_its_ca(
    meet: Meet, authority: Authority, tmp_path: Path, python: None
) -> None:
    """Of another node, as Python 3.13 trusts the one that is there itself."""
    given = tmp_path / "copy.pem"
    given.write_bytes(Path(authority.server("pve2.lan")[0]).read_bytes())
    text = meet(authority.server(), str(given)).text
    assert f"{given} has a server's own certificate in it, not its CA's" in text
    assert not ca_file.has_a_ca(str(given))
    assert ca_file.has_a_ca(authority.path)


@pytest.mark.parametrize("ca", ["true", "a path"])
def test_the_public_cas_or_the_given_one_are_read_once(
    meet: Meet, authority: Authority, call: Call, monkeypatch: Any, ca: str
) -> None:
    monkeypatch.setattr(network, "DEFAULT_CA_BUNDLE_PATH", authority.path)
    path = authority.path if ca == "a path" else ca
    assert not meet(authority.server(), path).is_error
    reads = MagicMock()
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", reads)
    assert not call("list_machines").is_error  # over connections of its own
    assert not reads.called


def test_a_certificate_without_names_is_not_known_by_its_subject(
    meet: Meet, authority: Authority
) -> None:
    name = "pve.example.com"
    nameless = authority.server(name, named=False)
    assert f"not valid for '{name}'" in meet(nameless, authority.path, name).text


def test_a_file_that_is_mended_counts_from_the_next_call_on(
    meet: Meet, authority: Authority, call: Call, tmp_path: Path
) -> None:
    given = tmp_path / "ca.pem"
    given.write_bytes(Path(Authority(tmp_path, "other").path).read_bytes())
    assert "did not sign it" in meet(authority.server(), str(given)).text
    given.write_bytes(b"")  # and is empty for a moment
    text = call("list_machines").text
    assert f"PROXMOX_VERIFY_SSL is {given}, which is empty" in text
    given.write_bytes(Path(authority.path).read_bytes())
    assert not call("list_machines").is_error


def test_a_file_that_is_gone_when_it_has_failed_is_no_further_error(
    tmp_path: Path,
) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    vars(error).update(verify_code=20, verify_message="x")
    settings = Settings("pve", 8006, "", "a@pve", "t", "s", str(tmp_path / "gone.pem"))
    found = no_answer.unanswered(requests.exceptions.SSLError(error), settings, 0)
    assert "its certificate is not trusted" in str(found)


def test_a_ca_has_expired_where_none_in_the_file_is_alive(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old", -60).path, Authority(tmp_path, "new").path
    both = tmp_path / "both.pem"
    both.write_bytes(Path(old).read_bytes() + Path(new).read_bytes())
    assert ca_file.has_expired(old)
    assert not ca_file.has_expired(str(both))


# --- The file of a CA -----------------------------------------------------------------

AGAIN = "copy /etc/pve/pve-root-ca.pem from a node once more"
MOUNT = "-v /absolute/path/to/pve-root-ca.pem:/pve-root-ca.pem:ro"
PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, (f"is not there: correct the path, or in a container mount the file by its "
         f"absolute path, {MOUNT}")),
        ("", f"is empty: {AGAIN}"),
        (" \n", f"is empty: {AGAIN}"),
        ("<html>", f"has no certificate in it (-----BEGIN CERTIFICATE-----): {AGAIN}"),
        ("\x30\x82\x01", "is in DER form: openssl x509 -inform der -in it -out ca.pem makes a PEM"),
        ("\xff\xfe-\0", "is UTF-16, as PowerShell's > writes it: copy it with scp or cp"),
        ("-----BEGIN PRIVATE KEY-----", ("is a private key, which belongs nowhere but where it "
         f"was made: {AGAIN}")),
        (PEM.format("broken"), f"has a certificate in it that cannot be read: {AGAIN}"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file(tmp_path: Path, content: Any, says: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content, "latin-1")
    assert ca_file.wrong_with(str(path)) == says


def test_a_folder_a_path_that_is_none_and_a_file_that_is_well(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ca_file.wrong_with(str(tmp_path)) == (
        "is a folder, as Docker makes one where the file to mount is missing: remove it, and "
        f"mount the file by its absolute path, {MOUNT}"
    )
    assert ca_file.wrong_with("a\0b") == "cannot be read: it is no path"
    assert ca_file.wrong_with("x" * 300) == "cannot be read: File name too long"
    assert ca_file.wrong_with(authority.path) == ""
    assert "is not there" in ca_file.wrong_with(f"{authority.path}/x")
    os.mkfifo(tmp_path / "pipe")
    assert (
        ca_file.wrong_with(f"{tmp_path}/pipe") == "is no regular file: copy it into one"
    )
    monkeypatch.chdir(tmp_path)
    assert f"is not there in {tmp_path}: " in ca_file.wrong_with("ca.pem")


def test_a_file_that_this_user_may_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    says = "cannot be read by this user: chmod 644 it, and 755 the folders above it"
    assert ca_file.wrong_with("/ca.pem") == says
