"""The five variables: what is read, what is refused, and what is said about it."""

import re
import string
from collections.abc import Iterator
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

NAMES = ("URL", "USER", "TOKEN_ID", "TOKEN_SECRET", "VERIFY_SSL")
URL, USER, TOKEN_ID, TOKEN_SECRET, VERIFY = (f"PROXMOX_{name}" for name in NAMES)
GOOD = {
    URL: "https://pve.example.com:8006",
    USER: "mcp@pve",
    TOKEN_ID: "mcp-token",
    TOKEN_SECRET: SECRET,
}


def settings(**changes: str) -> Settings:
    return Settings.from_env(GOOD | changes)


def refused(environ: dict[str, str]) -> str:
    with pytest.raises(ProxmoxError) as caught:
        Settings.from_env(environ)
    assert SECRET not in str(caught.value)
    return str(caught.value)


# --- What is understood ---------------------------------------------------------------


def test_the_defaults_and_that_the_secret_is_in_no_repr() -> None:
    found = settings(PROXMOX_URL="https://pve.example.com")
    host = ("pve.example.com", 8006, "")
    assert found == Settings(*host, "mcp@pve", "mcp-token", SECRET, True)
    assert found.address == "https://pve.example.com:8006"
    assert found.token_id == "mcp@pve!mcp-token"
    proxmox = ProxmoxClient(found)
    assert SECRET not in repr(found) + repr(proxmox) + repr(proxmox._api)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://10.0.0.1:8006", "https://10.0.0.1:8006"),
        ("https://pve", "https://pve:8006"),
        ("https://pve.lan:443/", "https://pve.lan:443"),
        ("https://[fe80::1]:8006", "https://[fe80::1]:8006"),
        ("https://[::ffff:10.0.0.1]", "https://[::ffff:10.0.0.1]:8006"),
        ("https://proxy.lan/Pve-a/b", "https://proxy.lan:8006/Pve-a/b"),
        ("https://pve.lan:8006/api2/json/", "https://pve.lan:8006"),
        ("https://proxy.lan/a/api2/json", "https://proxy.lan:8006/a"),
        ("https://pve.lan:8006/#v1:0:18:4", "https://pve.lan:8006"),
        ("HTTPS://PVE.lan:8006", "https://pve.lan:8006"),
        ("  'https://pve.lan:8006' ", "https://pve.lan:8006"),
    ],
)
def test_urls_that_are_understood(url: str, address: str) -> None:
    found = settings(PROXMOX_URL=url)
    assert found.address == address
    assert found.host == re.sub(r"https://\[?|\]?:\d+(/.*)?$", "", address)


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        (USER, "root@pam", "user", "root@pam"),
        (USER, "a.b@x.lan@ldap", "user", "a.b@x.lan@ldap"),
        (USER, "Svc+mcp@PVE-1", "user", "Svc+mcp@PVE-1"),
        (TOKEN_ID, "mcp@pve!MCP-Token", "token_name", "MCP-Token"),
        (TOKEN_SECRET, "'a", "token_secret", "'a"),  # one quote alone stays
        (TOKEN_SECRET, "'", "token_secret", "'"),
        *((VERIFY, value, "verify_ssl", True) for value in ("", "true", "TRUE")),
        *((VERIFY, value, "verify_ssl", False) for value in ("false", "False")),
    ],
)
def test_values_that_are_understood(
    name: str, value: str, attribute: str, expected: Any
) -> None:
    for text in (value, f'"{value}"', f"'{value}'"):  # a pair of quotes is taken off
        assert getattr(settings(**{name: text}), attribute) == expected


def test_a_ca_file_is_understood(fakepve_cafile: str) -> None:
    found = settings(PROXMOX_VERIFY_SSL=fakepve_cafile)
    assert found.verify_ssl == fakepve_cafile


# --- What is refused ------------------------------------------------------------------


URLS = [
    *("pve.example.com:8006", "ftp://pve", "https://", "https://pve:0", "https://-pve"),
    *("https://user:pass@pve", "https://pv e", "https://pve..lan", "https://pvé.lan"),
    *(f"https://{'a' * 64}.lan", "https://pve/../x", "https://pve/a//b"),
    "https://pve/a b",
]
NO_URLS = ["https://pve:99999", "https://pve:port", "https://[::1"]
USERS = ["root", "@pam", "root@", "a b@pam", "root@pam!t", "é@pve"]
TOKEN_IDS = ["1x", "a b", "!x", "mcp@pve!", "a/b", f"t={SECRET}"]
CA_FILES = ["no", "/no/such/file.pem", __file__, ".", "a\x00b"]
IN_CLEAR = "starts with http://, which would send the token in clear"
OTHERS = "names a token of root@pam, but PROXMOX_USER is mcp@pve: use the token's owner"
NO_CA = "is neither true nor false nor a CA file that can be read here"
UUID = "12345678-1234-1234-1234-1234567890ab"


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        (URL, URLS, "is not https://host:port, e.g. https://pve.example.com"),
        (URL, NO_URLS, "is not a URL, e.g. https://pve.example.com"),
        (URL, ["http://pve:8006"], f"{IN_CLEAR}, e.g. https://pve.example.com"),
        (USER, USERS, "is malformed, e.g. mcp@pve or root@pam"),
        (TOKEN_ID, TOKEN_IDS, "is malformed, e.g. mcp-token or mcp@pve!mcp-token"),
        (TOKEN_ID, ["root@pam!mcp-token"], OTHERS),
        (TOKEN_SECRET, ["a b", "a\nb", "sé", "a\x00"], f"is malformed, e.g. {UUID}"),
        (VERIFY, CA_FILES, f"{NO_CA}, e.g. /etc/pve/pve-root-ca.pem"),
    ],
)
def test_a_value_that_is_refused_is_told_by_its_name_and_an_example(
    name: str, values: list[str], says: str
) -> None:
    start = "The server is not configured. In the environment or in .env, set: "
    for value in values:
        assert refused(GOOD | {name: value}) == f"{start}{name} {says}.", value


@pytest.mark.parametrize("environ", [{}, PLACEHOLDERS])
def test_all_that_is_missing_is_told_at_once(environ: dict[str, str]) -> None:
    """The placeholders of .env.example count as missing."""
    assert refused(environ).endswith(
        "set: PROXMOX_URL is missing, e.g. https://pve.example.com:8006; "
        "PROXMOX_USER is missing, e.g. mcp@pve or root@pam; "
        "PROXMOX_TOKEN_ID is missing, e.g. mcp-token or mcp@pve!mcp-token; "
        f"PROXMOX_TOKEN_SECRET is missing, e.g. {UUID}."
    )


def test_the_example_file_has_the_five_variables_each_with_a_comment() -> None:
    lines = (Path(__file__).parent.parent / ".env.example").read_text().splitlines()
    assert [line[0] == "#" for line in lines] == [True, False] * 5
    values = dict(line.split("=", 1) for line in lines[1::2])
    assert values == PLACEHOLDERS | {VERIFY: "true"}


values = st.one_of(
    st.text(max_size=40),
    st.sampled_from([*GOOD.values(), "http://x", "a@b!c", "https://[", "true", "/"]),
    st.builds("https://{}".format, st.text(string.printable, max_size=30)),
)


@given(st.dictionaries(st.sampled_from([*GOOD, VERIFY]), values), st.uuids())
def test_settings_or_a_proxmox_error_and_never_the_secret(
    environ: dict[str, str], secret: Any
) -> None:
    try:
        found = Settings.from_env(environ | {TOKEN_SECRET: str(secret)})
    except ProxmoxError as error:
        text = str(error)
    else:
        text = repr(found)
        assert re.match(r"https://[\w.:\[\]-]+:\d+", found.address)
        ProxmoxClient(found)
    assert str(secret) not in text


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where .env is read, with nothing in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in (*GOOD, VERIFY):
        monkeypatch.delenv(name, raising=False)
    server.client.cache_clear()
    yield tmp_path / ".env"
    server.client.cache_clear()


def write(path: Path, values: dict[str, str]) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))


def test_the_env_file_is_read_as_it_is_and_the_environment_wins(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(env_file, GOOD | {TOKEN_SECRET: "a${HOME}b", VERIFY: '"false"'})
    monkeypatch.setenv(USER, "root@pam")
    found = server.client().settings
    assert (found.user, found.host) == ("root@pam", "pve.example.com")
    assert (found.token_secret, found.verify_ssl) == ("a${HOME}b", False)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00", r"^The file \.env cannot be read: .+\.$"),
        (b"PROXMOX_URL", "PROXMOX_URL is missing"),
    ],
)
def test_an_env_file_that_is_none_is_an_error_that_says_so(
    env_file: Path, content: bytes, says: str
) -> None:
    env_file.write_bytes(content)
    with pytest.raises(ProxmoxError, match=says):
        server.client()


def test_every_tool_says_what_is_missing_and_works_once_it_is_mended(
    configured: dict[str, str], call: Call, env_file: Path
) -> None:
    target = {"vm_id": 100, "node": "pve1"}
    calls: list[Any] = [
        (f"{how}_machine", target) for how in ("start", "stop", "reboot")
    ]
    calls += [
        (f"list_{what}", {}) for what in ("machines", "storage", "infrastructure")
    ]
    for tool, arguments in calls:
        assert "PROXMOX_URL is missing" in call(tool, **arguments).text
    write(env_file, configured)
    assert not call("list_infrastructure").is_error
