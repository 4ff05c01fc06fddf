"""The five variables: what is read, what is refused, and what is said about it."""

import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import server
from src.client import ProxmoxClient
from src.errors import ProxmoxError
from src.settings import PLACEHOLDERS, Settings
from tests.cluster import SECRET
from tests.conftest import Call

GOOD = {
    "PROXMOX_URL": "https://pve.example.com:8006",
    "PROXMOX_USER": "mcp@pve",
    "PROXMOX_TOKEN_ID": "mcp-token",
    "PROXMOX_TOKEN_SECRET": SECRET,
}


def refused(**changes: str) -> str:
    with pytest.raises(ProxmoxError) as caught:
        Settings.from_env(GOOD | changes)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_the_defaults() -> None:
    settings = Settings.from_env(GOOD | {"PROXMOX_URL": "https://pve.example.com"})
    assert settings == Settings(
        "pve.example.com", 8006, "", "mcp@pve", "mcp-token", SECRET, True
    )
    assert settings.address == "https://pve.example.com:8006"
    assert settings.token_id == "mcp@pve!mcp-token"


def test_the_secret_is_in_no_repr() -> None:
    settings = Settings.from_env(GOOD)
    proxmox = ProxmoxClient(settings)
    assert SECRET not in repr(settings) + repr(proxmox) + repr(proxmox._api)


@pytest.mark.parametrize(
    ("url", "host", "port", "prefix"),
    [
        ("https://10.0.0.1:8006", "10.0.0.1", 8006, ""),
        ("https://pve", "pve", 8006, ""),
        ("https://pve.lan:443/", "pve.lan", 443, ""),
        ("https://[fe80::1]:8006", "fe80::1", 8006, ""),
        ("https://[::ffff:10.0.0.1]", "::ffff:10.0.0.1", 8006, ""),
        ("https://proxy.lan/Pve-a/b", "proxy.lan", 8006, "Pve-a/b"),
        ("https://pve.lan:8006/api2/json/", "pve.lan", 8006, ""),
        ("https://proxy.lan/a/api2/json", "proxy.lan", 8006, "a"),
        ("https://pve.lan:8006/#v1:0:18:4", "pve.lan", 8006, ""),
        ("HTTPS://PVE.lan:8006", "pve.lan", 8006, ""),
        ("  'https://pve.lan:8006' ", "pve.lan", 8006, ""),
    ],
)
def test_urls_that_are_understood(url: str, host: str, port: int, prefix: str) -> None:
    settings = Settings.from_env(GOOD | {"PROXMOX_URL": url})
    assert (settings.host, settings.port, settings.prefix) == (host, port, prefix)
    assert settings.address.startswith(
        "https://[" if ":" in host else f"https://{host}"
    )


@pytest.mark.parametrize(
    "url",
    [
        "pve.example.com:8006",
        "ftp://pve",
        "https://",
        "https://user:pass@pve",
        "https://pve:0",
        "https://pve:99999",
        "https://pve:port",
        "https://[::1",
        "https://pv e",
        "https://pve..lan",
        "https://-pve",
        f"https://{'a' * 64}.lan",
        "https://pve/../x",
        "https://pve/a//b",
        "https://pve/a b",
        "https://pvé.lan",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    text = refused(PROXMOX_URL=url)
    assert "PROXMOX_URL is not " in text
    assert "e.g. https://pve.example.com" in text


def test_http_is_refused_because_it_would_show_the_token() -> None:
    assert "PROXMOX_URL starts with http://, which would send the token in clear" in (
        refused(PROXMOX_URL="http://pve:8006")
    )


@pytest.mark.parametrize("user", ["root@pam", "a.b@x.lan@ldap", "Svc+mcp@PVE-1"])
def test_users_that_are_understood(user: str) -> None:
    assert Settings.from_env(GOOD | {"PROXMOX_USER": user}).user == user


@pytest.mark.parametrize(
    "user", ["root", "@pam", "root@", "a b@pam", "root@pam!t", "é@pve"]
)
def test_users_that_are_refused(user: str) -> None:
    assert "PROXMOX_USER is malformed, e.g. mcp@pve or root@pam" in (
        refused(PROXMOX_USER=user)
    )


def test_the_whole_token_id_is_understood() -> None:
    settings = Settings.from_env(GOOD | {"PROXMOX_TOKEN_ID": "mcp@pve!MCP-Token"})
    assert (settings.user, settings.token_name) == ("mcp@pve", "MCP-Token")


def test_a_token_of_another_user_is_refused() -> None:
    assert (
        "PROXMOX_TOKEN_ID names a token of root@pam, but PROXMOX_USER is mcp@pve: use the "
        "token's owner"
    ) in refused(PROXMOX_TOKEN_ID="root@pam!mcp-token")


@pytest.mark.parametrize("token", ["1x", "a b", "!x", "mcp@pve!", "a/b", f"t={SECRET}"])
def test_token_ids_that_are_refused(token: str) -> None:
    assert "PROXMOX_TOKEN_ID is malformed" in refused(PROXMOX_TOKEN_ID=token)


@pytest.mark.parametrize("secret", ["a b", "a\nb", "sécret", "a\x00"])
def test_secrets_that_are_refused_and_not_shown(secret: str) -> None:
    text = refused(PROXMOX_TOKEN_SECRET=secret)
    assert "PROXMOX_TOKEN_SECRET is malformed" in text
    assert secret not in text


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_pair_of_quotes_is_taken_off(quote: str) -> None:
    quoted = {name: f"{quote}{value}{quote}" for name, value in GOOD.items()}
    quoted["PROXMOX_VERIFY_SSL"] = f"{quote}false{quote}"
    settings = Settings.from_env(quoted)
    assert settings.token_secret == SECRET
    assert settings.verify_ssl is False


def test_one_quote_alone_stays() -> None:
    assert Settings.from_env(GOOD | {"PROXMOX_TOKEN_SECRET": "'a"}).token_secret == "'a"
    assert Settings.from_env(GOOD | {"PROXMOX_TOKEN_SECRET": "'"}).token_secret == "'"


@pytest.mark.parametrize(
    ("value", "verify"),
    [("", True), ("true", True), ("TRUE", True), ("false", False), ("False", False)],
)
def test_verification_is_on_unless_it_is_switched_off(value: str, verify: bool) -> None:
    settings = Settings.from_env(GOOD | {"PROXMOX_VERIFY_SSL": value})
    assert settings.verify_ssl is verify


def test_a_ca_file_is_understood(fakepve_cafile: str) -> None:
    settings = Settings.from_env(GOOD | {"PROXMOX_VERIFY_SSL": fakepve_cafile})
    assert settings.verify_ssl == fakepve_cafile


@pytest.mark.parametrize("value", ["no", "/no/such/file.pem", __file__, ".", "a\x00b"])
def test_what_is_not_a_ca_file_is_refused(value: str) -> None:
    assert (
        "PROXMOX_VERIFY_SSL is neither true nor false nor a CA file that can be read "
        "here, e.g. /etc/pve/pve-root-ca.pem"
    ) in refused(PROXMOX_VERIFY_SSL=value)


def test_all_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(ProxmoxError) as caught:
        Settings.from_env({})
    assert str(caught.value) == (
        "The server is not configured. In the environment or in .env, set: "
        "PROXMOX_URL is missing, e.g. https://pve.example.com:8006; "
        "PROXMOX_USER is missing, e.g. mcp@pve or root@pam; "
        "PROXMOX_TOKEN_ID is missing, e.g. mcp-token or mcp@pve!mcp-token; "
        "PROXMOX_TOKEN_SECRET is missing, e.g. 12345678-1234-1234-1234-1234567890ab."
    )


def test_the_placeholders_of_the_example_file_count_as_missing() -> None:
    with pytest.raises(ProxmoxError) as caught:
        Settings.from_env(PLACEHOLDERS)
    for name in PLACEHOLDERS:
        assert f"{name} is missing" in str(caught.value)


def test_the_example_file_has_the_five_variables_each_with_a_comment() -> None:
    lines = (Path(__file__).parent.parent / ".env.example").read_text().splitlines()
    assert [line[0] == "#" for line in lines] == [True, False] * 5
    values = dict(line.split("=", 1) for line in lines[1::2])
    assert values == PLACEHOLDERS | {"PROXMOX_VERIFY_SSL": "true"}


# --- Never anything else --------------------------------------------------------------

values = st.one_of(
    st.text(max_size=40),
    st.sampled_from([*GOOD.values(), "http://x", "a@b!c", "https://[", "true", "/"]),
    st.builds("https://{}".format, st.text(string.printable, max_size=30)),
)
names = st.sampled_from([*GOOD, "PROXMOX_VERIFY_SSL"])


@given(environ=st.dictionaries(names, values), secret=st.uuids())
def test_settings_or_a_proxmox_error_and_never_the_secret(
    environ: dict[str, str], secret: Any
) -> None:
    environ = environ | {"PROXMOX_TOKEN_SECRET": str(secret)}
    try:
        settings = Settings.from_env(environ)
    except ProxmoxError as error:
        text = str(error)
    else:
        text = repr(settings)
        assert re.match(r"https://[\w.:\[\]-]+:\d+", settings.address)
        ProxmoxClient(settings)
    assert str(secret) not in text


# --- Where they come from -------------------------------------------------------------


def env_file(path: Path, **values: str) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))


def test_the_env_file_is_read_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in GOOD:
        monkeypatch.delenv(name, raising=False)
    env_file(tmp_path / ".env", **GOOD, PROXMOX_VERIFY_SSL='"false"')
    monkeypatch.setenv("PROXMOX_USER", "root@pam")
    server.client.cache_clear()
    settings = server.client().settings
    assert settings.user == "root@pam"
    assert settings.host == "pve.example.com"
    assert settings.verify_ssl is False
    server.client.cache_clear()


def test_a_secret_with_a_dollar_sign_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in GOOD:
        monkeypatch.delenv(name, raising=False)
    env_file(tmp_path / ".env", **(GOOD | {"PROXMOX_TOKEN_SECRET": "a${HOME}b"}))
    server.client.cache_clear()
    assert server.client().settings.token_secret == "a${HOME}b"
    server.client.cache_clear()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"PROXMOX_URL"])
def test_an_env_file_that_is_none_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in GOOD:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_bytes(content)
    server.client.cache_clear()
    with pytest.raises(
        ProxmoxError, match=r"\.env cannot be read|PROXMOX_URL is missing"
    ):
        server.client()


def test_every_tool_says_what_is_missing_and_works_once_it_is_mended(
    call: Call,
    configured: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in configured:
        monkeypatch.delenv(name)
    for tool, arguments in (
        ("list_infrastructure", {}),
        ("list_machines", {}),
        ("list_storage", {}),
        ("start_machine", {"vm_id": 100, "node": "pve1"}),
        ("stop_machine", {"vm_id": 100, "node": "pve1"}),
        ("reboot_machine", {"vm_id": 100, "node": "pve1"}),
    ):
        answer = call(tool, **arguments)
        assert answer.is_error
        assert (
            "PROXMOX_URL is missing, e.g. https://pve.example.com:8006" in answer.text
        )
    env_file(tmp_path / ".env", **configured)
    assert not call("list_infrastructure").is_error
