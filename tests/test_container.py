"""The image that desktop clients launch, through the real docker client."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.cluster import SECRET, TOKEN, Cluster
from tests.process import ROOT, Server, wait_for

IMAGE = "mcp-proxmox-test"
CA = "/pve-root-ca.pem"
HARDENED = [
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--user=65534:65534",
]


def docker(*arguments: str, program: str = "docker", **options: Any) -> str:
    """The output of a docker command that has to work."""
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def engine() -> str | None:
    """Why there is no container engine; None if there is one."""
    if not shutil.which("docker"):
        return "there is no docker command"
    done = subprocess.run(
        ["docker", "info"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else f"docker info: {done.stderr.strip()[:200]}"


reason = engine()
pytestmark = [
    pytest.mark.skipif(reason is not None, reason=str(reason)),
    pytest.mark.xdist_group("container"),
]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project as a careless user has it: private modes, a .env, more."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in (
        "Dockerfile",
        ".dockerignore",
        "docker-compose.yml",
        "requirements.txt",
    ):
        shutil.copy(ROOT / name, folder)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignore)
    for name in (".env", ".git/config", "tests/test.py", "notes.txt", "src/x.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"PROXMOX_TOKEN_SECRET={SECRET}\n")
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


@pytest.fixture(scope="session")
def image(checkout: Path) -> str:
    docker("build", "-t", IMAGE, str(checkout))
    return IMAGE


@pytest.fixture
def env_file(demo: Cluster, tmp_path: Path) -> Path:
    """As users write it: comments, blank lines, quotes, the whole token id."""
    path = tmp_path / ".env"
    path.write_text(
        "# The Proxmox of the cellar\n\n"
        f'PROXMOX_URL="{demo.pve.url}"\n'
        "PROXMOX_USER='mcp@pve'\n"
        "\n# root@pam!x is another one\n"
        f"PROXMOX_TOKEN_ID={TOKEN}\n"
        f'PROXMOX_TOKEN_SECRET="{SECRET}"\n'
        f"PROXMOX_VERIFY_SSL={CA}\n"
    )
    return path


Run = Callable[..., list[str]]


@pytest.fixture
def run(image: str, env_file: Path, fakepve_cafile: str) -> Run:
    """The command of the README, with the network that reaches the fake cluster."""

    def run(*options: str) -> list[str]:
        mount = ["-v", f"{fakepve_cafile}:{CA}:ro"]
        command = ["docker", "run", "-i", "--rm", "--env-file", str(env_file), *mount]
        return [*command, "--network", "host", *options, image]

    Path(fakepve_cafile).chmod(0o644)
    for folder in Path(fakepve_cafile).parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    return run


@pytest.fixture
def start(run: Run) -> Iterator[Callable[..., Server]]:
    servers = []

    def start(*options: str) -> Server:
        servers.append(Server(run(*options)))
        servers[-1].initialize()
        return servers[-1]

    yield start
    for each in servers:
        each.process.kill()
        each.process.wait()


# --- What it does ---------------------------------------------------------------------


def test_a_real_client_works_through_docker_run(
    mode: str, run: Run, demo: Cluster
) -> None:
    command, *arguments = run(*HARDENED)
    keep = ("DOCKER_HOST", "HOME", "PATH")
    server = StdioServerParameters(
        command=command,
        args=arguments,
        env={name: os.environ[name] for name in keep if name in os.environ},
    )

    async def session() -> tuple[Any, ...]:
        async with Client(server, mode=mode) as client:
            target = {"vm_id": 106, "node": "pve2"}
            return (
                await client.list_tools(),
                await client.call_tool("list_infrastructure", {}),
                await client.call_tool("list_machines", {}),
                await client.call_tool("list_storage", {}),
                await client.call_tool("start_machine", target),
                await client.call_tool("stop_machine", target),
            )

    tools, *lists, started, stopped = anyio.run(session)
    assert len(tools.tools) == 6
    assert not any(answer.is_error for answer in lists)
    assert "\nCluster demo, quorate" in lists[0].content[0].text
    assert started.structured_content["status"] == "running"
    assert stopped.structured_content["status"] == "stopped"


@pytest.mark.parametrize("options", [[], HARDENED], ids=["plain", "hardened"])
def test_nothing_but_the_protocol_is_on_stdout_and_eof_ends_it(
    start: Callable[..., Server], demo: Cluster, options: list[str]
) -> None:
    server = start(*options)
    server.call(1, "list_machines")
    assert "11 machines on 3 nodes" in server.answer(1)["result"]["content"][0]["text"]
    assert server.process.stdin
    server.process.stdin.close()
    assert server.leaves_within(3)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_docker_stop_ends_it_at_once(
    start: Callable[..., Server], demo: Cluster, busy: bool
) -> None:
    demo.delay["/nodes"] = 20
    name = f"mcp-proxmox-{uuid.uuid4().hex[:8]}"
    server = start("--name", name)
    if busy:
        server.call(1, "list_machines")
        wait_for(lambda: demo.sent)
    began = time.monotonic()
    docker("stop", name)
    assert time.monotonic() - began < 3  # it kills after 10
    assert server.process.wait(3) in (0, 143)


def test_an_untrusted_proxmox_is_named_without_its_ca(
    start: Callable[..., Server], demo: Cluster
) -> None:
    server = start("-e", "PROXMOX_VERIFY_SSL=true")
    server.call(1, "list_machines")
    text = server.answer(1)["result"]["content"][0]["text"]
    assert "its certificate is not trusted" in text


def compose() -> list[str] | None:
    """The command of the compose that there is: the plugin, or the older program."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            version = [*command, "version"]
            if (
                subprocess.run(version, capture_output=True, check=False).returncode
                == 0
            ):
                return command
    return None


@pytest.mark.skipif(compose() is None, reason="there is no compose")
def test_compose_speaks_mcp(image: str, checkout: Path, env_file: Path) -> None:
    """On a network of its own, from which the fake cluster cannot be reached."""
    shutil.copy(env_file, checkout / ".env")
    (checkout / "docker-compose.override.yml").write_text(
        f"services:\n  mcp-proxmox:\n    image: {image}\n"
        "    environment:\n      PROXMOX_VERIFY_SSL: 'false'\n"
    )
    command = compose() or []
    server = Server([*command, "run", "--rm", "-T", "mcp-proxmox"], cwd=checkout)
    try:
        server.initialize(timeout=60)
        server.send("tools/list", id=1)
        assert len(server.answer(1)["result"]["tools"]) == 6
        assert server.process.stdin
        server.process.stdin.close()
        assert server.process.wait(10) == 0
    finally:
        server.process.kill()
        docker(*command[1:], "down", program=command[0], cwd=checkout)


def check(command: list[str]) -> str:
    """What a check says. Its status is not looked at: some engines keep it."""
    command = [word for word in command if word != "-i"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout


def test_a_container_is_checked_and_only_watches(run: Run, demo: Cluster) -> None:
    said = check([*run(), "--check", "--watch-only"])
    assert said.startswith(f"Settings\n  PROXMOX_URL: {demo.pve.url} (from the env")
    assert f"verified by {CA}" in said
    assert "\nTools\n  list_infrastructure, list_machines, list_storage\n" in said
    assert said.endswith("All is well with the set-up.\n")


def test_a_ca_that_is_not_mounted_is_told_with_the_option_that_mounts_it(
    image: str, env_file: Path
) -> None:
    command = ["docker", "run", "--rm", "--env-file", str(env_file)]
    said = check([*command, image, "--check"])
    assert (
        f"PROXMOX_VERIFY_SSL is {CA}, which is not there: correct the path, or " in said
    )
    assert "-v /absolute/path/to/pve-root-ca.pem:/pve-root-ca.pem:ro" in said
    said = check([*command, "-v", f"/tmp:{CA}:ro", image, "--check"])
    assert f"PROXMOX_VERIFY_SSL is {CA}, which is a folder, as Docker makes one" in said


def test_the_demo_serves_a_container_with_the_line_that_it_prints(image: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.demo", "--serve", "--docker"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as serving:
        try:
            assert serving.stdout
            lines = (line for line in serving.stdout if line.startswith("docker run"))
            words = shlex.split(next(lines))
            assert words[-1] == "mcp-proxmox"
            said = check([*words[:-1], image, "--check"])
        finally:
            serving.terminate()
    assert "https://host.docker.internal:" in said
    assert "verified by /pve-root-ca.pem" in said
    assert said.endswith("All is well with the set-up.\n")


# --- What is in it --------------------------------------------------------------------


def test_it_runs_as_nobody_special_and_says_what_it_is(image: str) -> None:
    (config,) = json.loads(docker("inspect", image))
    labels = config["Config"]["Labels"]
    assert config["Config"]["User"] == "10001:10001"
    assert config["Config"]["Entrypoint"] == ["python", "-m", "src.server"]
    assert "PYTHONUNBUFFERED=1" in config["Config"]["Env"]
    assert labels["org.opencontainers.image.title"] == "mcp-proxmox"
    assert labels["io.modelcontextprotocol.server.name"] == "mcp-proxmox"
    for name in ("description", "source", "version"):
        assert f"org.opencontainers.image.{name}" in labels
    # Debian, Python, the packages and the source each have their own, or none is stated.
    assert "org.opencontainers.image.licenses" not in labels


def test_it_adds_at_most_60_mib_to_its_base(image: str) -> None:
    (ours,) = json.loads(docker("inspect", image))
    (base,) = json.loads(docker("inspect", "python:3.11-slim"))
    added = (ours["Size"] - base["Size"]) / 2**20
    assert 0 < added <= 60


def inside(image: str, *command: str) -> str:
    return docker("run", "--rm", "--entrypoint", command[0], image, *command[1:])


def test_only_the_source_is_copied_and_it_is_compiled(image: str) -> None:
    files = inside(image, "find", "/app", "-type", "f").splitlines()
    names = {Path(file).name.replace(".cpython-311", "") for file in files}
    sources = {path.name for path in (ROOT / "src").rglob("*.py")}
    assert names == sources | {f"{name}c" for name in sources}
    search = f"grep -rl {SECRET} /app /tmp /usr/local || true"
    assert inside(image, "sh", "-c", search) == ""


def test_the_build_is_given_only_what_is_copied(image: str, checkout: Path) -> None:
    recipe = checkout / "all.Dockerfile"
    recipe.write_text(f"FROM {image}\nUSER 0\nCOPY . /context\n")
    try:
        docker(
            "build", "-q", "-t", f"{IMAGE}-context", "-f", str(recipe), str(checkout)
        )
    finally:
        recipe.unlink()
    files = inside(f"{IMAGE}-context", "find", "/context", "-type", "f").splitlines()
    assert sorted(file.removeprefix("/context/") for file in files) == [
        "requirements.txt",
        *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py")),
    ]


def needed(names: list[str]) -> set[str]:
    """What the packages need, and they themselves, by the metadata installed here."""
    found: set[str] = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        plain = [line for line in requires if "extra ==" not in line]
        names += [re.split(r"[^\w.-]", line)[0] for line in plain]
        if any("[crypto]" in line for line in plain):
            names += ["cryptography"]
    return found


def test_nothing_is_installed_but_what_the_four_packages_need(image: str) -> None:
    script = (
        "import importlib.metadata as m;"
        "print(*{d.metadata['Name'] for d in m.distributions()}, sep='\\n')"
    )
    base = docker("run", "--rm", "python:3.11-slim", "python", "-c", script)
    ours = inside(image, "python", "-c", script)
    added = set(ours.splitlines()) - set(base.splitlines())
    wanted = (ROOT / "requirements.txt").read_text().split()
    normal = {re.sub(r"[-_.]+", "-", name).lower() for name in added}
    assert normal <= needed([line.split("==")[0] for line in wanted])
    assert {"mcp", "proxmoxer", "requests", "python-dotenv"} <= normal
