"""Test the five variables: which values are accepted and rejected, and how the errors read."""

import os
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from src import server
from src.client import ProxmoxClient
from src.config.env_file import EnvFile
from src.config.settings import PLACEHOLDERS, Address, Settings, describe
from src.errors import ProxmoxError
from tests.cluster import NAMES, SECRET, Row, variables
from tests.conftest import Call, Patch
from tests.golden import compare
from tests.process import ROOT

GOOD = variables("https://pve.example.com:8006", "mcp@pve", "mcp-token", SECRET)
URL, USER, TOKEN_ID, TOKEN_SECRET, VERIFY = (f"PROXMOX_{name}" for name in NAMES)
UUID = "facade00-1234-1234-1234-1234567890ab"  # a secret in a wrong place


def settings(**changes: str) -> Settings:
    return Settings.from_env(GOOD | changes)


def rejection(environ: dict[str, str], file: EnvFile | None = None) -> str:
    """Return the error, which shows no secret and no password."""
    with pytest.raises(ProxmoxError) as caught:
        Settings.from_env(environ, file)
    assert not re.search(f"{SECRET}|{UUID[1:]}|hunter2", str(caught.value))
    return str(caught.value)


# --- Accepted values ------------------------------------------------------------------


def test_settings_have_defaults_and_show_the_secret_in_no_repr() -> None:
    found = settings(PROXMOX_URL="https://pve.example.com")
    host = Address("pve.example.com")
    fixed = frozenset(GOOD)
    assert found == Settings((host,), "mcp@pve", "mcp-token", SECRET, True, fixed)
    assert host.url == "https://pve.example.com:8006"
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
def test_the_usual_forms_of_a_url_are_accepted(url: str, address: str) -> None:
    (found,) = settings(PROXMOX_URL=url).addresses
    assert found.url == address
    assert found.host == re.sub(r"https://\[?|\]?:\d+(/.*)?$", "", address)


def test_several_addresses_are_read_in_order_and_each_once() -> None:
    value = "https://a, https://a:8006/,https://b:443/x  https://c,"
    urls = [each.url for each in settings(PROXMOX_URL=value).addresses]
    assert urls == ["https://a:8006", "https://b:443/x", "https://c:8006"]


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        (USER, "root@pam", "user", "root@pam"),
        (USER, "a.b@x.lan@ldap", "user", "a.b@x.lan@ldap"),
        (USER, "Svc+mcp@PVE-1", "user", "Svc+mcp@PVE-1"),
        (TOKEN_ID, "mcp@pve!MCP-Token", "token_name", "MCP-Token"),
        (TOKEN_SECRET, "'a", "token_secret", "'a"),  # a single quote is kept
        (TOKEN_SECRET, "'", "token_secret", "'"),
        *((VERIFY, value, "verify_ssl", True) for value in ("", "true", "TRUE")),
        *((VERIFY, value, "verify_ssl", False) for value in ("false", "False")),
    ],
)
def test_a_pair_of_quotes_is_removed(name: str, value: str, attribute: str, expected: Any) -> None:
    for text in (value, f'"{value}"', f"'{value}'"):  # a pair of quotes is removed
        assert getattr(settings(**{name: text}), attribute) == expected


@pytest.mark.parametrize("name", [USER, TOKEN_SECRET, VERIFY])
def test_a_variable_is_read_as_python_dotenv_reads_it(name: str, tmp_path: Path) -> None:
    """`docker --env-file` passes on quotes, a comment after the value and CR unchanged."""
    value = (GOOD | {VERIFY: "false"})[name]
    forms = ["{}", " {} ", "{}\r", "{} # lab", "{}\t#x", "'{}'", '"{}"', '"{}" # "lab"']
    for form in forms:
        raw = form.format(value)
        file = tmp_path / ".env"
        file.write_bytes(f"{name}={raw}\n".encode())
        assert dotenv_values(file)[name] == value
        assert settings(**{name: raw}) == settings(**{name: value}), raw
    assert settings(PROXMOX_TOKEN_SECRET="a#b").token_secret == "a#b"


def test_the_path_of_a_ca_may_begin_with_a_tilde(fakepve_cafile: str, monkeypatch: Patch) -> None:
    assert settings(PROXMOX_VERIFY_SSL=fakepve_cafile).verify_ssl == fakepve_cafile
    monkeypatch.setenv("HOME", str(Path(fakepve_cafile).parent))
    home = f"~/{Path(fakepve_cafile).name}"
    assert settings(PROXMOX_VERIFY_SSL=home).verify_ssl == fakepve_cafile


# --- Rejected values ------------------------------------------------------------------

UNEXPANDED = ["${{{}}}", "${{env:{}}}", "${}", "%{}%", "{{{{{}}}}}"]
ALIKE: list[tuple[str, list[str]]] = [  # each list is rejected in the same words
    (URL, [
        *("pve.example.com:8006", "ftp://pve", "https://", "https://pve:0", "https://-pve"),
        *("https://pve..lan", "https://pvé.lan"),
        *(f"https://{'a' * 64}.lan", "https://pve/../x", "https://pve/a//b")
    ]),
    *((URL, [url]) for url in (",", "https://pve, e", "https://a https://b:port https://c http://d")),
    (URL, ["https://pve:99999", "https://pve:port", "https://[::1"]),
    (URL, ["http://pve:8006"]),
    (URL, ["https://your-proxmox-host/"]),
    (USER, ["root", "@pam", "root@", "a b@pam", "root@pam!t", "é@pve"]),
    (USER, ["x" * 1000]),
    (TOKEN_ID, ["1x", "a b", "!x", "mcp@pve!", "a/b", f"t={SECRET}", f"{UUID}!"]),
    (TOKEN_ID, [f"mcp@pve!{UUID}", UUID]),
    (TOKEN_ID, ["root@pam!mcp-token"]),
    (TOKEN_SECRET, [
        *("a b", "a\nb", "sé", "a\x00", "<secret>"),
        *(f"PVEAPIToken=mcp@pve!t={UUID}", f"mcp@pve!t={UUID}")
    ]),
    (VERIFY, ["no", "1", "yes"]),
    (VERIFY, ["/no/such.pem"]),
    (VERIFY, ["~/other.pem"]),
    (VERIFY, ["-----BEGIN CERTIFICATE-----\nMIIB\n"]),
    (VERIFY, ['"C:\\Users\\you\\new\\ca.pem"']),
    (VERIFY, ["/caf\udce9/ca.pem"]),
    *((name, [form.format(name) for form in UNEXPANDED]) for name in (*GOOD, VERIFY)),
    (VERIFY, ["${HOME}/ca.pem", "%USERPROFILE%\\ca.pem"]),
    (URL, ["https://${HOST}:8006"]),
    (USER, ["$USER@pve"])
]  # fmt: skip


def deny(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


FILES: dict[str, Callable[[Path], object]] = {  # what is found in place of .env
    "a name alone": lambda path: path.write_text("PROXMOX_USER\n"),
    "an open quote": lambda path: path.write_text("PROXMOX_USER='a@pve\nX=a\n"),
    "UTF-16": lambda path: path.write_bytes("X=x".encode("utf-16")),
    "Latin-1": lambda path: path.write_bytes("# für pve".encode("latin-1")),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "nothing": lambda _: None,
}


def test_each_rejected_setting_is_named_with_its_cure(env_file: Path, monkeypatch: Patch) -> None:
    folder = str(env_file.parent)
    monkeypatch.setenv("HOME", folder)
    hidden = EnvFile("/x/.env", {USER: "a@pve"}, True)
    texts = {
        "nothing is set": rejection({}),
        "all is blank": rejection(dict.fromkeys(GOOD, " ")),
        ".env.example as it is": rejection(PLACEHOLDERS),
        "blank, which hides the one of .env": rejection(GOOD | {USER: ""}, hidden),
    }
    for name, values in ALIKE:
        for value in values:
            shown = rf"(?<![^ (]){re.escape(value)}(?=[),: ]|$)"
            text = re.sub(shown, "VALUE", rejection(GOOD | {name: value}))
            title = ", ".join(ascii(each)[:70] for each in values)
            title = f"{name}: {title}".replace(SECRET, "SECRET")
            assert texts.setdefault(title, text) == text
    for what, make in FILES.items():
        make(env_file)
        texts[f".env: {what}"] = rejection(GOOD | {USER: ""}, EnvFile.read())
        if env_file.exists():
            (env_file.rmdir if env_file.is_dir() else env_file.unlink)()
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", deny)
        assert Settings.from_env(GOOD, EnvFile.read()).user == "mcp@pve"
        texts[".env: somebody else's"] = rejection({}, EnvFile.read())
    env_file.parent.rmdir()
    assert not EnvFile.read().exists
    texts["a folder that is gone"] = rejection(GOOD | {VERIFY: "ca.pem"})
    monkeypatch.chdir(ROOT)
    compare("settings", {k: v.replace(folder, "/here") for k, v in texts.items()})


def test_a_password_or_secret_in_the_wrong_variable_is_not_shown() -> None:
    for url in (
        *("https://root:hunter2@pve", "root:hunter2@pve:8006", "https://a:hunter2/@pve"),
        *("https:/root:hunter2@pve", "ftp://pve/?password=hunter2", "https://root:hunter2,x@pve"),
    ):
        ((_, shown, _), *_) = describe({URL: url}, EnvFile())
        assert "hunter2" not in shown + rejection(GOOD | {URL: url})
    for name in (URL, USER, TOKEN_ID, VERIFY):
        rejection(GOOD | {name: f"x {SECRET}"})
    assert str(ProxmoxError("x", "\udce9")).encode()


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
def test_any_input_gives_settings_or_an_error_without_the_secret(environ: Row, secret: Any) -> None:
    try:
        found = Settings.from_env(environ | {TOKEN_SECRET: str(secret)})
    except ProxmoxError as error:
        text = str(error)
    else:
        text = repr(found)
        assert re.match(r"https://[\w.:\[\]-]+:\d+", found.addresses[0].url)
        ProxmoxClient(found)
    assert str(secret) not in text


# --- The file .env --------------------------------------------------------------------


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: Patch) -> Iterator[Path]:
    """Return the path at which .env is read, with nothing in the environment."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in (*GOOD, VERIFY):
        monkeypatch.delenv(name, raising=False)
    server.client.forget()
    yield tmp_path / "here" / ".env"
    server.client.forget()


def write(path: Path, values: dict[str, str]) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))


def test_the_environment_overrides_a_literal_env_file(env_file: Path, monkeypatch: Patch) -> None:
    write(env_file, GOOD | {TOKEN_SECRET: "a${HOME}b", VERIFY: '"false"'})
    env_file.write_bytes(b"\xef\xbb\xbf" + env_file.read_bytes())  # a byte order mark
    monkeypatch.setenv(USER, "root@pam")
    found = server.client().settings
    assert (found.user, found.addresses[0].host) == ("root@pam", "pve.example.com")
    assert (found.token_secret, found.verify_ssl) == ("a${HOME}b", False)


def test_each_variable_is_described_with_its_origin_but_never_the_secret() -> None:
    file = EnvFile("/x/.env", {URL: GOOD[URL], TOKEN_SECRET: SECRET}, True)
    assert SECRET not in repr(file)
    environ = {USER: "'mcp@pve' # x", TOKEN_ID: f"t={SECRET}", VERIFY: " "}
    names, shown, origins = zip(*describe(environ, file), strict=True)
    assert names == (URL, USER, TOKEN_ID, TOKEN_SECRET, VERIFY)
    assert shown[:2] == (GOOD[URL], "mcp@pve")
    assert shown[2] == shown[3] != shown[4]
    assert SECRET not in "".join(shown)
    assert [origin == "/x/.env" for origin in origins] == [True, False, False, True, False]
    assert origins[1] == origins[2] == origins[4]


def test_every_tool_names_the_missing_variable_and_works_once_it_is_set(
    configured: dict[str, str], call: Call, env_file: Path
) -> None:
    target = {"vm_id": 100, "node": "pve1"}
    calls = {f"{how}_machine": target for how in ("start", "stop", "reboot")}
    calls |= {f"list_{w}": {} for w in ("machines", "storage", "infrastructure")}
    for tool, arguments in calls.items():
        assert URL in call(tool, **arguments).text
    write(env_file, configured)
    assert not call("list_infrastructure").is_error


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        (TOKEN_SECRET, "wrong", "rejects the API token"),
        (VERIFY, "true", "not trusted"),
        (URL, "https://127.0.0.1:1", "connection refused"),
    ],
)
def test_a_correction_in_the_env_file_counts_at_the_next_call(
    configured: dict[str, str], call: Call, env_file: Path, name: str, wrong: str, words: str
) -> None:
    write(env_file, configured | {name: wrong})
    text = call("list_machines").text
    assert words in text
    assert "restart the client" not in text
    write(env_file, configured)
    for tool in ("list_machines", "list_storage"):
        assert not call(tool).is_error
    client = server.client()
    write(env_file, configured | {"OTHER": "x"})
    assert server.client() is client  # with its open connections
    env_file.unlink()
    assert not call("list_machines").is_error
    write(env_file, configured | {name: "${X}"})
    assert f"{name} is ${{X}}" in call("list_machines").text


def test_another_programs_env_file_does_not_hide_the_projects(
    configured: dict[str, str], call: Call, env_file: Path, monkeypatch: Patch
) -> None:
    project = env_file.parent.parent / ".env"
    monkeypatch.setattr("src.config.env_file.PROJECT", str(project.parent))
    write(project, configured)
    for foreign in (b"PROXMOX_VE_ENDPOINT=x\n", "A=ü\n".encode("utf-16"), b"\xff", b"PROXMOX\n"):
        env_file.write_bytes(foreign)
        assert not call("list_machines").is_error
        assert EnvFile.read().path == str(project)
    write(env_file, configured | {URL: ""})
    assert f"Settings were read from {env_file} and" in call("list_machines").text
    env_file.unlink()
    write(project, configured | {TOKEN_SECRET: "wrong"})
    assert "rejects the API token" in call("list_machines").text
    project.write_text("A=1\n")
    env_file.write_text("MY_PROXMOX_URL=1\n")
    for file, other in ((env_file, project), (project, env_file)):
        words = f"{file} sets none of this server's variables, nor does {other}."
        assert words in EnvFile.read().about
        env_file.unlink(missing_ok=True)
    project.write_bytes("PROXMOX_USER=a@pve\n".encode("utf-16"))
    assert "UTF-16" in EnvFile.read().about


def test_a_file_that_is_gone_leaves_the_client(
    configured: dict[str, str], call: Call, env_file: Path, monkeypatch: Patch
) -> None:
    project = env_file.parent.parent / ".env"
    monkeypatch.setattr("src.config.env_file.PROJECT", str(project.parent))
    for used, other, others in (
        (project, env_file, {"PROXMOX_VE_ENDPOINT": "https://pve"}),
        (env_file, project, configured | {URL: "https://another-cluster.invalid"}),
    ):
        write(other, others)
        write(used, configured)
        client = server.client()
        used.unlink()
        for _ in range(2):
            assert server.client() is client
        write(used, configured | {TOKEN_SECRET: "${X}"})
        for _ in range(2):
            assert "did not expand" in call("list_machines").text
        write(used, configured)
        assert not call("list_machines").is_error
        for file in (used, other):
            file.unlink()
        server.client.forget()


def test_the_env_file_is_read_again_only_if_it_was_changed(
    configured: dict[str, str], env_file: Path, monkeypatch: Patch
) -> None:
    write(env_file, configured)
    client = server.client()
    with monkeypatch.context() as patch:
        patch.setattr(EnvFile, "read", None)
        assert server.client() is client
    times = env_file.stat()
    write(env_file, configured | {VERIFY: "false"})
    os.utime(env_file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert server.client().settings.verify_ssl is False  # the same time, another size
    write(env_file, configured | {VERIFY: "true "})
    assert server.client().settings.verify_ssl is True  # the same size, another time


def test_what_the_environment_sets_needs_a_restart(
    configured: dict[str, str], call: Call, env_file: Path, monkeypatch: Patch
) -> None:
    for name, wrong in ((TOKEN_SECRET, "wrong"), (VERIFY, "true")):
        monkeypatch.setenv(name, wrong)
        write(env_file, {key: configured[key] for key in configured if key != name})
        assert call("list_machines").text.endswith("restart the client after changing one.")
        monkeypatch.delenv(name)
        server.client.forget()
