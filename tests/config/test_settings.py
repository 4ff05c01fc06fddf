"""The five variables: what is read, what is refused, and what is said about it."""

import os
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from src import server
from src.client import ProxmoxClient
from src.config.env_file import EnvFile
from src.config.settings import PLACEHOLDERS, Settings, describe
from src.errors import ProxmoxError
from tests.cluster import SECRET
from tests.conftest import Call
from tests.process import ROOT

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


@pytest.mark.parametrize("name", [USER, TOKEN_SECRET, VERIFY])
def test_a_variable_is_read_as_python_dotenv_reads_it(
    name: str, tmp_path: Path
) -> None:
    """What `docker --env-file` hands on raw: quotes, a comment behind the value, CR."""
    value = (GOOD | {VERIFY: "false"})[name]
    forms = ["{}", " {} ", "{}\r", "{} # lab", "{}\t#x", "'{}'", '"{}"', '"{}" # "lab"']
    for form in forms:
        raw = form.format(value)
        file = tmp_path / ".env"
        file.write_bytes(f"{name}={raw}\n".encode())
        assert dotenv_values(file)[name] == value
        assert settings(**{name: raw}) == settings(**{name: value}), raw
    assert settings(PROXMOX_TOKEN_SECRET="a#b").token_secret == "a#b"


def test_a_ca_file_is_understood(fakepve_cafile: str) -> None:
    found = settings(PROXMOX_VERIFY_SSL=fakepve_cafile)
    assert found.verify_ssl == fakepve_cafile


# --- What is refused ------------------------------------------------------------------


URLS = [
    *("pve.example.com:8006", "ftp://pve", "https://", "https://pve:0", "https://-pve"),
    *("https://pv e", "https://pve..lan", "https://pvé.lan", "https://pve/a b"),
    *(f"https://{'a' * 64}.lan", "https://pve/../x", "https://pve/a//b"),
]
NO_URLS = ["https://pve:99999", "https://pve:port", "https://[::1"]
USERS = ["root", "@pam", "root@", "a b@pam", "root@pam!t", "é@pve"]
TOKEN_IDS = ["1x", "a b", "!x", "mcp@pve!", "a/b", f"t={SECRET}"]
IN_CLEAR = "starts with http://, which would send the token in clear"
OTHERS = "names a token of root@pam, but PROXMOX_USER is mcp@pve: use the token's owner"
UUID = "12345678-1234-1234-1234-1234567890ab"
URL_SAYS = "({}), e.g. https://pve.example.com"


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        (URL, URLS, f"is not https://host:port {URL_SAYS}"),
        (URL, NO_URLS, f"is not a URL {URL_SAYS}"),
        (URL, ["http://pve:8006"], f"{IN_CLEAR}, e.g. https://pve.example.com"),
        (USER, USERS, "is malformed ({}), e.g. mcp@pve or root@pam"),
        (TOKEN_ID, TOKEN_IDS, "is malformed, e.g. mcp-token or mcp@pve!mcp-token"),
        (TOKEN_ID, ["root@pam!mcp-token"], OTHERS),
        (TOKEN_SECRET, ["a b", "a\nb", "sé", "a\x00"], f"is malformed, e.g. {UUID}"),
        (VERIFY, ["no", "1", "yes"], "is {}, neither true nor false nor the path of a CA file"),
        (VERIFY, ["/no/such.pem"], ("is {}, which is not there: correct the path, or in a "
         "container mount the file by its absolute path, -v /absolute/path/to/pve-root-ca.pem:"
         "/pve-root-ca.pem:ro")),
    ],
)  # fmt: skip
def test_a_value_that_is_refused_is_told_by_its_name_and_what_was_read(
    name: str, values: list[str], says: str
) -> None:
    for value in values:
        shown = says.format(value)
        assert refused(GOOD | {name: value}) == (
            f"The server is not configured. {name} {shown}."
        ), value


def test_no_password_and_no_secret_is_shown_though_it_stands_in_the_wrong_place() -> (
    None
):
    for name in (URL, USER, TOKEN_ID, VERIFY):
        assert "is" in refused(GOOD | {name: f"x {SECRET}"})
    for url in (
        *(
            "https://root:hunter2@pve",
            "root:hunter2@pve:8006",
            "https://a:hunter2/@pve",
        ),
        *("https:/root:hunter2@pve", "ftp://pve/?password=hunter2"),
    ):
        assert "hunter2" not in refused(GOOD | {URL: url}), url
        ((_, shown, _), *_) = describe({URL: url}, EnvFile())
        assert "hunter2" not in shown
    for token_id in (UUID, f"mcp@pve!a{UUID[1:]}", f"a{UUID[1:]}"):
        said = refused(GOOD | {TOKEN_ID: token_id})
        assert said.startswith("The server is not configured. PROXMOX_TOKEN_ID ")
        assert UUID[1:] not in said
    assert "TOKEN_ID has the form of a secret: it is the token's name" in said
    assert len(refused(GOOD | {USER: "x" * 1000})) < 250


MISSING = {
    URL: "{}, e.g. https://pve.example.com:8006",
    USER: "{}, e.g. mcp@pve or root@pam",
    TOKEN_ID: "{}, e.g. mcp-token or mcp@pve!mcp-token",
    TOKEN_SECRET: f"{{}}, e.g. {UUID}",
}


@pytest.mark.parametrize("environ", [{}, PLACEHOLDERS, dict.fromkeys(GOOD, " ")])
def test_all_that_is_missing_is_told_at_once(environ: dict[str, str]) -> None:
    """The placeholders of .env.example count as missing, and are called that."""
    wrong = {
        name: f"is missing: it is still the example's, {environ[name]}"
        if environ.get(name, " ").strip()
        else "is missing"
        for name in GOOD
    }
    said = "; ".join(f"{name} {MISSING[name].format(wrong[name])}" for name in GOOD)
    assert refused(environ) == f"The server is not configured. {said}."


@pytest.mark.parametrize("name", [*GOOD, VERIFY])
@pytest.mark.parametrize(
    "value", ["${{{}}}", "${{env:{}}}", "${}", "%{}%", "{{{{{}}}}}"]
)
def test_what_a_client_did_not_expand_is_called_that(name: str, value: str) -> None:
    value = value.format(name)
    what = "path" if name == VERIFY else "value"
    assert (
        f"{name} is {value}, where a variable was not expanded: write the {what} itself"
    ) in refused(GOOD | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (VERIFY, "${HOME}/ca.pem"),
        (VERIFY, "%USERPROFILE%\\ca.pem"),
        (URL, "https://${HOST}:8006"),
        (USER, "$USER@pve"),
    ],
)
def test_a_variable_within_a_value_is_found(name: str, value: str) -> None:
    said = f"{name} is {value}, where a variable was not expanded"
    assert said in refused(GOOD | {name: value})


def test_what_cannot_be_a_secret_is_refused() -> None:
    for secret in ("<secret>", f"PVEAPIToken=mcp@pve!t={UUID}", f"mcp@pve!t={UUID}"):
        assert "TOKEN_SECRET is malformed" in refused(GOOD | {TOKEN_SECRET: secret})


def test_a_url_of_the_example_without_its_port_is_still_the_examples() -> None:
    said = refused(GOOD | {URL: "https://your-proxmox-host/"})
    assert (
        "URL is missing: it is still the example's, https://your-proxmox-host/" in said
    )


def test_a_certificate_in_place_of_its_path() -> None:
    assert "is a certificate: it is the path of one's file" in refused(
        GOOD | {VERIFY: "-----BEGIN CERTIFICATE-----\nMIIB\n"}
    )


def test_a_blank_variable_that_hides_one_of_the_file_is_called_that() -> None:
    with pytest.raises(ProxmoxError) as caught:
        Settings.from_env(GOOD | {USER: ""}, EnvFile("/x/.env", {USER: "a@pve"}, True))
    said = "PROXMOX_USER is missing: it is blank in the environment, which wins, e.g."
    assert said in str(caught.value)


def test_a_path_in_double_quotes_may_have_a_line_break_in_it() -> None:
    path = '"C:\\Users\\you\\new\\ca.pem"'
    assert refused(GOOD | {VERIFY: path}) == (
        "The server is not configured. PROXMOX_VERIFY_SSL is 'C:\\\\Users\\\\you\\new\\\\ca.pem', "
        "which has a control character in it, as \\n and \\t are in double quotes: write the "
        "path with forward slashes."
    )


def test_the_home_folder_is_expanded(
    tmp_path: Path, fakepve_cafile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ca.pem").write_bytes(Path(fakepve_cafile).read_bytes())
    found = settings(PROXMOX_VERIFY_SSL="~/ca.pem")
    assert found.verify_ssl == str(tmp_path / "ca.pem")
    said = refused(GOOD | {VERIFY: "~/other.pem"})
    assert f"is ~/other.pem ({tmp_path}/other.pem), which is not there" in said


def test_the_example_file_has_the_five_variables_each_with_a_comment() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
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
        ("PROXMOX_URL=x".encode("utf-16"), "it is UTF-16, as PowerShell's > writes it"),
        ("# für pve".encode("latin-1"), "it is not UTF-8"),
    ],
)
def test_an_env_file_in_another_encoding(
    env_file: Path, content: bytes, says: str
) -> None:
    env_file.write_bytes(content)
    with pytest.raises(ProxmoxError) as caught:
        server.client()
    assert str(caught.value) == (
        f"The file {env_file} cannot be read: {says}. Save it as UTF-8, or set the variables "
        "in the environment."
    )


def test_an_env_file_that_begins_with_a_byte_order_mark_is_read(env_file: Path) -> None:
    write(env_file, GOOD)
    env_file.write_bytes(b"\xef\xbb\xbf" + env_file.read_bytes())
    assert server.client().settings.user == "mcp@pve"


def test_an_env_file_that_cannot_be_opened(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(env_file)
    with pytest.raises(
        ProxmoxError, match=r"it is no regular file\. Remove it, or set"
    ):
        server.client()
    env_file.unlink()
    env_file.mkdir()
    with pytest.raises(
        ProxmoxError, match=r"it is a folder\. Remove it, or set the va"
    ):
        server.client()
    env_file.rmdir()

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(
        ProxmoxError, match=r"Permission denied\. Let this user read it "
    ):
        server.client()
    # Somebody else's, where the environment has all that is needed.
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    assert server.client().settings.user == "mcp@pve"


def test_a_working_directory_that_is_gone_has_no_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert not EnvFile.read().there
    assert ": the working directory no longer exists: correct" in refused(
        GOOD | {VERIFY: "ca.pem"}
    )
    monkeypatch.chdir(tmp_path)


def test_a_path_that_is_not_utf_8_can_be_told() -> None:
    said = refused(GOOD | {VERIFY: "/caf\udce9/ca.pem"})
    assert "is '/caf\\udce9/ca.pem'" in said
    assert said.encode()
    assert str(ProxmoxError("x", "\udce9")).encode()


def test_what_was_read_is_told_by_its_whole_path(env_file: Path) -> None:
    def said() -> str:
        with pytest.raises(ProxmoxError) as caught:
            server.client()
        return caught.value.advice

    assert said() == (
        f"Only the environment was read, for there is no {env_file} (docker run: --env-file)."
    )
    env_file.write_text("PROXMOX_URL\n")
    read = f"The environment, which wins, and {env_file} were read."
    assert said() == read
    env_file.write_text("PROXMOX_URL='https://pve\nPROXMOX_USER=a@pve\n")
    assert said() == f"{read} Line 1 of it is no NAME=value."


def test_each_variable_is_described_by_its_origin_and_never_the_secret() -> None:
    file = EnvFile("/x/.env", {URL: GOOD[URL], TOKEN_SECRET: SECRET}, True)
    assert SECRET not in repr(file)
    lines = describe(
        {USER: "'mcp@pve' # x", TOKEN_ID: f"t={SECRET}", VERIFY: " "}, file
    )
    assert lines == [
        (URL, GOOD[URL], "/x/.env"),
        (USER, "mcp@pve", "the environment"),
        (TOKEN_ID, "set, not shown", "the environment"),
        (TOKEN_SECRET, "set, not shown", "/x/.env"),
        (VERIFY, "not set", "the environment"),
    ]


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
