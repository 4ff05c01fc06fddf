"""That the project is what it says it is: its layout, its packages, its README."""

import re
import shutil
import subprocess
import sys

import pytest

from src import server
from tests.process import ROOT

README = (ROOT / "README.md").read_text()
SOURCES = {path.name: path.read_text() for path in (ROOT / "src").glob("*.py")}


def test_nothing_in_the_source_deletes_or_configures() -> None:
    for name, source in SOURCES.items():
        assert not re.search(r"\.(delete|put|create|set)\(", source), name
        assert not re.search(r"\bprint\(", source), name


def test_the_client_knows_no_mcp_and_the_server_no_http() -> None:
    assert set(SOURCES) == {"__init__.py", "client.py", "server.py"}
    client = re.findall(
        r"^(?:from|import) ([\w.]+)", SOURCES["client.py"], re.MULTILINE
    )
    assert not [
        name for name in client if name.startswith(("mcp", "pydantic", "anyio"))
    ]
    mcp = re.findall(r"^(?:from|import) ([\w.]+)", SOURCES["server.py"], re.MULTILINE)
    assert not {"requests", "proxmoxer", "urllib", "urllib3", "http", "ssl"} & {*mcp}


def test_the_requirements_are_the_four_packages_pinned() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    names = [re.fullmatch(r"([\w-]+)==[\d.]+", line)[1] for line in lines]  # type: ignore[index]
    assert names == ["mcp", "proxmoxer", "requests", "python-dotenv"]


def test_the_top_level_is_the_plans() -> None:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {name.split("/")[0] for name in listed} <= {
        ".ci",
        ".dockerignore",
        ".env.example",
        ".gitignore",
        "Dockerfile",
        "README.md",
        "docker-compose.yml",
        "requirements.txt",
        "src",
        "tests",
    }


def test_the_readme_names_every_tool_and_parameter() -> None:
    for tool in server.mcp._tool_manager.list_tools():
        assert f"`{tool.name}`" in README
        assert f"**{tool.name}**" in README
        for name in tool.parameters["properties"]:
            assert f"`{name}`" in README


def test_the_readme_names_the_files_there_are() -> None:
    table = README[README.index("| file | what is tested |") :]
    named = set(re.findall(r"`(test_\w+\.py)`", table))
    assert named == {path.name for path in (ROOT / "tests").glob("test_*.py")}


def test_the_messages_of_the_readme_are_those_of_the_source() -> None:
    table = README[README.index("| symptom |") : README.index("## Security")]
    everything = " ".join("".join(SOURCES.values()).split())
    everything = re.sub(r'" f?"', "", everything)
    # "30 s" is computed, "..." is left out: the pieces between have to be there.
    for row in table.splitlines()[2:]:
        if not row.startswith("|"):
            continue
        symptoms = re.findall(r"`([^`]+)`", row.split("|")[1])
        for symptom in symptoms:
            for piece in re.split(r"\.\.\.|\d+ s\b|\(\w+\)", symptom):
                assert piece.strip() in everything, piece


def test_each_proof_of_the_readme_runs_some_test() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "--no-cov", "tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    proofs = re.findall(r'pytest -k ("[^"]+"|\w+)', README)
    assert len(proofs) >= 6
    for proof in proofs:
        for word in proof.strip('"').split(" or "):
            assert word in listed, word


def test_ci_runs_the_command_of_the_readme() -> None:
    command = re.search(r"^python3 -m venv .* -m pytest.*$", README, re.MULTILINE)
    assert command
    pattern = re.search(r"grep -m 1 -E '(.+)'", (ROOT / ".ci" / "run").read_text())
    assert pattern
    assert re.search(pattern[1], README, re.MULTILINE)[0] in command[0]  # type: ignore[index]


def test_the_links_within_the_readme_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles
    }
    for link in re.findall(r"\]\(#([^)]+)\)", README):
        assert link in anchors
