"""Test the image that desktop clients launch, through the real docker client."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.cluster import SECRET, TOKEN, Cluster
from tests.process import ROOT, Server, run, wait_for

IMAGE = "mcp-proxmox-test"
CA = "/pve-root-ca.pem"
HARDENED = ["--read-only", "--cap-drop=ALL", "--user=65534:65534"]
HARDENED += ["--security-opt=no-new-privileges"]


def docker(*arguments: str) -> str:
    """Run a docker command, which must succeed, and return its output."""
    done = run(["docker", *arguments])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def engine() -> str | None:
    """Return why no container engine can be used, None if one can."""
    if not shutil.which("docker"):
        return "the docker command is missing"
    done = run(["docker", "info"])
    return None if done.returncode == 0 else f"docker info: {done.stderr.strip()[:200]}"


def compose() -> list[str]:
    """Return the command of the installed compose: the plugin, or the older program."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and not run([*command, "version"]).returncode:
            return command
    return []


reason = engine()
pytestmark = [
    pytest.mark.skipif(reason is not None, reason=str(reason)),
    pytest.mark.xdist_group("container"),
]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the project as a careless user has it: private modes, a .env and other files."""
    folder = tmp_path_factory.mktemp("checkout")
    recipes = ("Dockerfile", ".dockerignore", "docker-compose.yml", "requirements.txt")
    for name in recipes:
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
    """Write a .env as users do: comments, blank lines, quotes, the full token id."""
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


Command = Callable[..., list[str]]
Start = Callable[..., Server]


@pytest.fixture
def command(image: str, env_file: Path, fakepve_cafile: str) -> Command:
    """Return the README's command, with a network that reaches the fake cluster."""
    Path(fakepve_cafile).chmod(0o644)
    for folder in Path(fakepve_cafile).parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    words = ["docker", "run", "-i", "--rm", "--env-file", str(env_file)]
    words += ["-v", f"{fakepve_cafile}:{CA}:ro", "--network", "host"]
    return lambda *options: [*words, *options, image]


@pytest.fixture
def start(command: Command) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(Server(command(*options)))


# --- Running it -----------------------------------------------------------------------


def test_a_real_client_works_through_docker_run(command: Command, demo: Cluster) -> None:
    program, *arguments = command(*HARDENED)
    keep = ("DOCKER_HOST", "HOME", "PATH")
    environ = {name: os.environ[name] for name in keep if name in os.environ}
    server = StdioServerParameters(command=program, args=arguments, env=environ)
    target = {"vm_id": 106, "node": "pve2"}
    lists = ("list_infrastructure", "list_machines", "list_storage")
    calls: list[Any] = [(tool, {}) for tool in lists]
    calls += [("start_machine", target), ("stop_machine", target)]

    async def session() -> tuple[Any, list[Any]]:
        async with Client(server) as client:
            tools = (await client.list_tools()).tools
            return tools, [await client.call_tool(*each) for each in calls]

    tools, answers = anyio.run(session)
    assert len(tools) == 6
    assert not any(answer.is_error for answer in answers)
    infrastructure, *_, started, stopped = (a.structured_content for a in answers)
    assert infrastructure["cluster"] == "demo"
    assert (started["status"], stopped["status"]) == ("running", "stopped")


def test_stdout_has_only_the_protocol_until_eof(start: Start, demo: Cluster) -> None:
    server = start()
    assert len(server.result("list_machines")["structuredContent"]["machines"]) == 11
    server.close()
    assert server.leaves_within(3)


def test_docker_stop_ends_a_busy_server_without_a_kill(start: Start, demo: Cluster) -> None:
    demo.delay["/nodes"] = 60
    name = f"mcp-proxmox-{uuid.uuid4().hex[:8]}"
    server = start("--name", name)
    server.call(1, "list_machines")
    wait_for(lambda: demo.sent)
    docker("stop", name)
    assert server.process.wait(3) in (0, 143)  # 137 after a kill


@pytest.mark.skipif(not compose(), reason="compose is not installed")
def test_compose_serves_mcp(image: str, checkout: Path, env_file: Path) -> None:
    """Its own network does not reach the fake cluster."""
    shutil.copy(env_file, checkout / ".env")
    (checkout / "docker-compose.override.yml").write_text(
        f"services:\n  mcp-proxmox:\n    image: {image}\n"
        "    environment:\n      PROXMOX_VERIFY_SSL: 'false'\n"
    )
    service = [*compose(), "run", "--rm", "-T", "mcp-proxmox"]
    try:
        with Server(service, cwd=checkout) as server:
            assert len(server.request("tools/list")["tools"]) == 6
            server.close()
            assert server.process.wait(10) == 0
    finally:
        done = run([*compose(), "down"], cwd=checkout)
    assert done.returncode == 0, done.stderr


def check(command: list[str]) -> str:
    """Return the output of a check; some engines do not pass its exit status on."""
    return run([word for word in command if word != "-i"]).stdout


def all_is_well(output: str, url: str) -> bool:
    """Return whether the check of this address, trusted by the CA, found nothing wrong."""
    sections = [line for line in output.splitlines() if not line.startswith("  ")]
    wrong = re.search("ERROR|MISSING", output)
    return url in output and CA in output and "Tools" in sections[-2:] and not wrong


def test_a_container_runs_check_and_watch_only(command: Command, demo: Cluster) -> None:
    output = check([*command(), "--check", "--watch-only"])
    assert all_is_well(output, demo.pve.url)
    assert "\n  list_infrastructure, list_machines, list_storage\n" in output
    output = check([*command("-e", "PROXMOX_VERIFY_SSL=true"), "--check"])
    assert re.search("ERROR.*certificate", output)


def test_a_ca_that_is_not_mounted_is_reported_with_the_option(image: str, env_file: Path) -> None:
    words = ["docker", "run", "--rm", "--env-file", str(env_file)]
    output = check([*words, image, "--check"])
    assert "ERROR" in output
    assert f"-v /absolute/path/to/pve-root-ca.pem:{CA}:ro" in output
    output = check([*words, "-v", f"/tmp:{CA}:ro", image, "--check"])
    assert re.search(f"ERROR.*{CA}.*folder", output)


def test_the_line_that_the_demo_prints_connects_a_container(image: str) -> None:
    demo = [sys.executable, "-u", "-m", "tests.demo", "--serve", "--docker"]
    with subprocess.Popen(demo, cwd=ROOT, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout
            lines = (line for line in serving.stdout if line.startswith("docker run"))
            words = shlex.split(next(lines))
            assert words[-1] == "mcp-proxmox"
            output = check([*words[:-1], image, "--check"])
        finally:
            serving.terminate()
    assert all_is_well(output, "https://host.docker.internal:")


# --- Its contents ---------------------------------------------------------------------


def test_the_image_runs_without_root_and_has_labels(image: str) -> None:
    (config,) = json.loads(docker("inspect", image))
    labels = config["Config"]["Labels"]
    assert config["Config"]["User"] == "10001:10001"
    assert config["Config"]["Entrypoint"] == ["python", "-m", "src.server"]
    assert "PYTHONUNBUFFERED=1" in config["Config"]["Env"]
    assert labels["org.opencontainers.image.title"] == "mcp-proxmox"
    # The registry compares it with the name io.github.OWNER/NAME, which only the owner knows.
    assert "io.modelcontextprotocol.server.name" not in labels
    for name in ("description", "source", "version"):
        assert f"org.opencontainers.image.{name}" in labels
    # Debian, Python, the packages and the source have different licenses.
    assert "org.opencontainers.image.licenses" not in labels


def test_the_image_adds_at_most_60_mib_to_its_base(image: str) -> None:
    (ours,) = json.loads(docker("inspect", image))
    (base,) = json.loads(docker("inspect", "python:3.11-slim"))
    added = (ours["Size"] - base["Size"]) / 2**20
    assert 0 < added <= 60


def inside(image: str, *command: str) -> str:
    return docker("run", "--rm", "--entrypoint", command[0], image, *command[1:])


def test_the_image_contains_only_the_source_and_its_bytecode(image: str) -> None:
    files = inside(image, "find", "/app", "-type", "f").splitlines()
    names = {Path(file).name.replace(".cpython-311", "") for file in files}
    sources = {path.name for path in (ROOT / "src").rglob("*.py")}
    assert names == sources | {f"{name}c" for name in sources}
    search = f"grep -rl {SECRET} /app /tmp /usr/local || true"
    assert inside(image, "sh", "-c", search) == ""


def test_the_build_context_contains_only_what_is_copied(image: str, checkout: Path) -> None:
    recipe = checkout / "all.Dockerfile"
    recipe.write_text(f"FROM {image}\nUSER 0\nCOPY . /context\n")
    tag = f"{IMAGE}-context"
    try:
        docker("build", "-q", "-t", tag, "-f", str(recipe), str(checkout))
    finally:
        recipe.unlink()
    files = inside(tag, "find", "/context", "-type", "f").splitlines()
    assert sorted(file.removeprefix("/context/") for file in files) == [
        "requirements.txt",
        *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py")),
    ]


def needed(names: list[str]) -> set[str]:
    """Return the packages and their dependencies, by the metadata installed here."""
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


def test_only_the_four_packages_and_their_dependencies_are_installed(image: str) -> None:
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
