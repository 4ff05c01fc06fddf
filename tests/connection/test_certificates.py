"""Test certificates over a real connection, by this Python's rules and by those of 3.13."""

import os
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import requests
from fakepve.certs import make_cert

from src import server
from src.config import ca_file
from src.connection import no_answer, tls
from src.connection.route import Route
from tests.certificates import Authority
from tests.cluster import SETTINGS
from tests.conftest import Answer, Call, Patch, Start
from tests.golden import compare

Meet = Callable[..., Answer]
NO_NODES = 'HTTP/1.1 200 OK\nContent-Type: application/json\n\n{"data": []}'


@pytest.fixture(params=["as it is here", "as in Python 3.13"])
def python(request: pytest.FixtureRequest, monkeypatch: Patch) -> None:
    """Create TLS contexts with this Python's flags, or with those of 3.13."""
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
def meet(python: None, peer: Start, call: Call, monkeypatch: Patch) -> Meet:
    """List the machines of a server with this certificate, verified by `ca`."""
    resolve = socket.getaddrinfo

    def meet(certificate: tuple[str, str], ca: str, host: str = "127.0.0.1") -> Answer:
        url, _ = peer(NO_NODES, certificate)
        here = resolve("127.0.0.1", int(url.rpartition(":")[2]), type=1)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: here)
        monkeypatch.setenv("PROXMOX_URL", url.replace("127.0.0.1", host))
        monkeypatch.setenv("PROXMOX_VERIFY_SSL", ca)
        server.client.forget()
        answer = call("list_machines")
        answer.text = re.sub(r":\d{4,5}: ", ":8006: ", answer.text)
        return answer

    return meet


def copied(path: str, to: Path) -> str:
    to.write_bytes(Path(path).read_bytes())
    return str(to)


def test_a_ca_that_proxmox_made_is_trusted(meet: Meet, authority: Authority) -> None:
    """It has no keyUsage, so Python 3.13 rejects it by default."""
    assert not meet(authority.server(), authority.path).is_error


def test_false_trusts_any_certificate(meet: Meet, authority: Authority, monkeypatch: Patch) -> None:
    """With requests alone, REQUESTS_CA_BUNDLE would turn verification on again."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.path)
    expired = authority.server("pve.example.com", begins=-60)
    assert not meet(expired, "false").is_error


def test_each_bad_certificate_is_named(
    meet: Meet, authority: Authority, monkeypatch: Patch
) -> None:
    ca, name, tmp_path = authority.path, "pve.example.com", authority.folder
    old, other = Authority(tmp_path, "old", -60), Authority(tmp_path, "other")
    # Of another node: Python 3.13 would trust the server's own certificate.
    own = copied(authority.server("pve2.lan")[0], tmp_path / "pve2.pem")
    nameless = authority.server(name, named=False)
    found = {
        "its subject is the name": meet(nameless, ca, name),
        "another name": meet(authority.server("pve1.lan"), ca, name),
        "another address": meet(authority.server("pve1.lan"), ca),
        "it has expired": meet(authority.server(begins=-60), ca),
        "it is not valid yet": meet(authority.server(begins=10), ca),
        "its CA has expired": meet(old.server(), old.path),
        "it is self-signed, by a CA": meet(make_cert(tmp_path)[:2], ca),
        "it is self-signed, by the public CAs": meet(make_cert(tmp_path)[:2], "true"),
        "by the public CAs": meet(authority.server(), "true"),
        "by the CA of another cluster": meet(authority.server(), other.path),
        "by a node's own certificate": meet(authority.server(), own),
    }
    for identifiers in (True, False):
        one, two = (Authority(tmp_path, identifiers=identifiers) for _ in range(2))
        found[f"by another CA of that name, {identifiers}"] = meet(one.server(), two.path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", other.path)
    found["by a bundle of CAs"] = meet(authority.server(), "true")
    assert all(answer.is_error for answer in found.values())
    texts = {case: answer.text.replace(str(tmp_path), "/here") for case, answer in found.items()}
    assert max(map(len, texts.values())) <= 400
    compare("certificates", texts)


def chain(server: tuple[str, str], sent: Authority, folder: Path) -> tuple[str, str]:
    """Return a server's certificate, followed by that of a CA, and its key."""
    path = folder / f"{Path(sent.path).stem}-chain.pem"
    path.write_bytes(Path(server[0]).read_bytes() + Path(sent.path).read_bytes())
    return str(path), copied(server[1], path.with_suffix(".key"))


def test_a_missing_intermediate_ca_is_named(
    meet: Meet, authority: Authority, monkeypatch: Patch
) -> None:
    folder = authority.folder
    root = Authority(folder, company="Company Root")
    middle = Authority(folder, company="Company Servers", parent=root)
    alone = middle.server()
    alone = copied(alone[0], folder / "alone.pem"), copied(alone[1], folder / "alone.key")
    third = Authority(folder, company="Company Third", parent=middle)
    old = Authority(folder, company="Company Old", parent=root, begins=-60)
    both = chain(alone, middle, folder)
    assert not meet(both, root.path).is_error
    found = {
        "not sent, the root is known": meet(alone, root.path),
        "not sent, the public CAs": meet(alone, "true"),
        "sent, the CA of a cluster": meet(both, authority.path),
        "sent, the public CAs": meet(both, "true"),
        "the wrong one is sent": meet(chain(alone, root, folder), root.path),
        "one of two is sent": meet(chain(third.server(), third, folder), root.path),
        "it has expired": meet(chain(old.server(), old, folder), root.path),
    }
    if not ssl.create_default_context().verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN:
        for case, server in (("not sent", alone), ("sent", both)):
            found[f"{case}, only the intermediate is known"] = meet(server, middle.path)
    assert all(answer.is_error for answer in found.values())
    texts = {case: answer.text.replace(str(folder), "/here") for case, answer in found.items()}
    known = "only the intermediate is known"
    shared = {case: text for case, text in texts.items() if known not in case}
    compare("intermediates", shared)
    for case in texts.keys() - shared.keys():
        assert "an intermediate CA, but not the root CA that signed it. Add" in texts[case]


@pytest.mark.parametrize("ca", ["true", "a path"])
def test_ca_certificates_are_read_once(
    meet: Meet, authority: Authority, call: Call, monkeypatch: Any, ca: str
) -> None:
    monkeypatch.setattr(tls, "DEFAULT_CA_BUNDLE_PATH", authority.path)
    path = authority.path if ca == "a path" else ca
    assert not meet(authority.server(), path).is_error
    reads = MagicMock()
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", reads)
    assert not call("list_machines").is_error  # over new connections
    assert not reads.called


def test_a_corrected_ca_file_is_read(meet: Meet, authority: Authority, call: Call) -> None:
    path = copied(Authority(authority.folder, "other").path, authority.folder / "ca.pem")
    assert meet(authority.server(), path).is_error
    Path(path).write_bytes(b"")  # and is empty for a moment
    assert f"PROXMOX_VERIFY_SSL is {path}, which" in call("list_machines").text
    copied(authority.path, Path(path))
    assert not call("list_machines").is_error


def test_a_ca_file_that_vanishes_causes_no_second_error(tmp_path: Path) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    vars(error).update(verify_code=20, verify_message="x")
    settings = replace(SETTINGS, verify_ssl=str(tmp_path / "missing.pem"))
    failure, direct = requests.exceptions.SSLError(error), Route.to(settings.addresses[0], settings)
    found = no_answer.unanswered(failure, direct, 0)
    assert "PROXMOX_VERIFY_SSL" in found.advice


# --- The CA file ----------------------------------------------------------------------


def test_a_ca_file_has_expired_only_if_every_ca_in_it_has(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old", -60), Authority(tmp_path, "new")
    both = tmp_path / "both.pem"
    both.write_bytes(Path(old.path).read_bytes() + Path(new.path).read_bytes())
    assert ca_file.has_expired(old.path)
    assert not ca_file.has_expired(str(both))
    assert ca_file.has_a_ca(new.path)
    assert not ca_file.has_a_ca(new.server()[0])


FILES = {
    "an empty file": b"",
    "a blank file": b" \n",
    "another file": b"<html>",
    "DER": b"\x30\x82\x01",
    "UTF-16": b"\xff\xfe-\0",
    "UTF-16, the other way round": b"\xfe\xff\0-",
    "a private key": b"-----BEGIN PRIVATE KEY-----",
    "broken": b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
}


def test_each_defect_of_a_ca_file_is_named(authority: Authority, monkeypatch: Patch) -> None:
    tmp_path = authority.folder
    assert ca_file.problem_with(authority.path) == ""
    paths = {case: tmp_path / case for case in FILES}
    for case, content in FILES.items():
        paths[case].write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    more = {
        "no file": tmp_path / "none",
        "no file, by a relative path": "none",
        "a file as a folder": f"{authority.path}/x",
        "a folder": tmp_path,
        "a pipe": tmp_path / "pipe",
        "no path": "a\0b",
        "too long": "x" * 300,
    }
    texts = {case: ca_file.problem_with(str(p)) for case, p in (paths | more).items()}

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", deny)
        texts["somebody else's"] = ca_file.problem_with("/ca.pem")
    here = str(tmp_path)
    compare("ca-file", {k: v.replace(here, "/here") for k, v in texts.items()})
