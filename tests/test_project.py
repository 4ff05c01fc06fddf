"""Test that the project's layout, packages and README agree."""

import ast
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from src import server
from tests import picture
from tests.process import ROOT

README = (ROOT / "README.md").read_text()
SRC = ROOT / "src"
SOURCES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts): path.read_text()
    for path in SRC.rglob("*.py")
}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}


# From top to bottom; modules of one layer do not import each other.
ORDER = (
    "server > arguments calls cli > client schemas > lists power > proxmox > connection > config > "
    "errors foreign models stdio"
)
LAYERS = {name: depth for depth, names in enumerate(ORDER.split(">")) for name in names.split()}


def imports(name: str) -> set[str]:
    """Return what a module imports, our own `src.x.y` as x.y."""
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module).removeprefix("src").removeprefix(".")
            inner = {f"{module}.{alias.name}".strip(".") for alias in node.names}
            found |= (inner & SOURCES.keys()) or {module}
    return found


@cache
def arrows() -> set[tuple[str, str]]:
    return {(a, b) for a in SOURCES for b in imports(a) if b in SOURCES}


def between_packages() -> set[tuple[str, str]]:
    """Return the arrows between the packages and the modules beside them."""
    tops = {(a.split(".")[0], b.split(".")[0]) for a, b in arrows()}
    return {(a, b) for a, b in tops if a != b}


# --- The source -----------------------------------------------------------------------


def test_no_module_and_no_package_is_too_large() -> None:
    for name, source in SOURCES.items():
        assert len(source.splitlines()) <= 350, name
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno
                assert node.end_lineno - node.lineno < 45, (name, node.name)
    for package in SRC.glob("*/__init__.py"):
        assert len(list(package.parent.glob("*.py"))) <= 10, package


def test_a_package_imports_only_from_those_below_it() -> None:
    for above, below in between_packages() - {("__init__", "__init__")}:
        assert LAYERS[above] < LAYERS[below], f"{above} imports {below}"


@pytest.mark.parametrize("graph", [arrows, between_packages])
def test_imports_point_one_way(graph: Callable[[], set[tuple[str, str]]]) -> None:
    left = {name for arrow in graph() for name in arrow}
    while left:
        lowest = {n for n in left if not {b for a, b in graph() if a == n} & left}
        assert lowest, f"a cycle among {sorted(left)}"
        left -= lowest


def test_only_the_top_modules_know_mcp_and_they_know_no_http() -> None:
    mcp = {"mcp", "anyio", "pydantic"}
    http = {"requests", "proxmoxer", "urllib", "urllib3", "http", "ssl"}
    for name in SOURCES:
        packages = {module.split(".")[0] for module in imports(name)}
        if name in ("server", "calls", "arguments"):
            assert not packages & http, name
        else:
            assert not packages & mcp, name


def test_no_module_uses_private_names_of_another() -> None:
    known = {"__init__", "__cause__", "__context__", "_store", "_exit"}
    for name, tree in TREES.items():
        attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        own = {node.attr for node in attributes if getattr(node.value, "id", "") == "self"}
        private = {node.attr for node in attributes if node.attr.startswith("_")}
        assert private <= own | known, name
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module != "__future__":
                assert not [a.name for a in node.names if a.name.startswith("_")]


def test_every_package_docstring_names_its_modules() -> None:
    for name, tree in TREES.items():
        docstring = ast.get_docstring(tree) or ""
        package = name.removesuffix(".__init__")
        if package != name:
            for module in (each.rpartition(".") for each in SOURCES):
                if module[0] == package and module[2] != "__init__":
                    assert f"`{module[2]}`" in docstring, module
        elif name != "__init__":
            assert docstring, name


def test_nothing_in_the_source_deletes_or_configures() -> None:
    for name, source in SOURCES.items():
        assert not re.search(r"\.(delete|put|create)\(", source), name
        assert not re.search(r"\bprint\(", source), name


# --- The top level --------------------------------------------------------------------


def test_the_requirements_pin_the_four_packages() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    names = [re.fullmatch(r"([\w-]+)==[\d.]+", line)[1] for line in lines]  # type: ignore[index]
    assert names == ["mcp", "proxmoxer", "requests", "python-dotenv"]


def test_the_top_level_contains_only_the_planned_files() -> None:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.split("/")[0] for name in listed.stdout.split()} == {
        *(".ci", ".dockerignore", ".env.example", ".gitignore", "Dockerfile"),
        *("README.md", "docker-compose.yml", "requirements.txt", "src", "tests"),
    }


# --- The README -----------------------------------------------------------------------


def test_the_readme_names_every_tool_and_parameter() -> None:
    for tool in server.mcp._tool_manager.list_tools():
        assert f"`{tool.name}`" in README
        assert f"**{tool.name}**" in README
        for name in tool.parameters["properties"]:
            assert f"`{name}`" in README


def test_the_package_diagram_shows_the_imports() -> None:
    """The diagram may omit an arrow that others imply, but draws no wrong one."""
    start = README.index("flowchart TD")
    drawn: set[tuple[str, str]] = set()
    for line in README[start : README.index("```", start)].splitlines()[1:]:
        stops = [re.findall(r"\w+", stop) for stop in line.split("-->")]
        for before, after in itertools.pairwise(stops):
            drawn |= {(a, b) for a in before for b in after}
    assert drawn <= between_packages()

    def reach(name: str) -> set[str]:
        below = {b for a, b in drawn if a == name}
        return below.union(*map(reach, below))

    for above, below in between_packages():
        assert below in reach(above), (above, below)


def test_the_readme_names_every_test_file() -> None:
    table = README[README.index("| what is tested |") :]
    named = set(re.findall(r"`(test_\w+\.py|\w+/)`", table))
    tests = ROOT / "tests"
    folders = {f"{path.parent.name}/" for path in tests.glob("*/__init__.py")}
    assert named == {path.name for path in tests.glob("test_*.py")} | folders


def test_the_messages_in_the_readme_occur_in_the_source() -> None:
    table = README[README.index("| symptom |") : README.index("## Security")]
    everything = " ".join("".join(SOURCES.values()).split())
    everything = re.sub(r'" f?"', "", everything)
    # "30 s" is computed and "..." is omitted: the pieces between must occur.
    for row in table.splitlines()[2:]:
        if not row.startswith("|"):
            continue
        for symptom in re.findall(r"`([^`]+)`", row.split("|")[1]):
            for piece in re.split(r"\.\.\.|\d+ s\b|\(\w+\)", symptom):
                assert piece.strip() in everything, piece


def test_each_proof_in_the_readme_names_existing_tests() -> None:
    files = Path(ROOT / "tests").rglob("test_*.py")
    tests = " ".join(re.findall(r"def (test_\w+)", "".join(map(Path.read_text, files))))
    proofs = re.findall(r'pytest -k ("[^"]+"|\w+)', README)
    assert len(proofs) >= 6
    for proof in proofs:
        for word in proof.strip('"').split(" or "):
            assert word in tests, word


def test_ci_runs_the_command_of_the_readme() -> None:
    command = re.search(r"^python3 -m venv .* -m pytest .*$", README, re.MULTILINE)
    assert command
    pattern = re.search(r"grep -m 1 -E '(.+)'", (ROOT / ".ci" / "run").read_text())
    assert pattern
    assert re.search(pattern[1], README, re.MULTILINE)[0] in command[0]  # type: ignore[index]


def test_the_picture_in_the_readme_shows_what_the_demo_prints() -> None:
    """Run python -m tests.picture to update it."""

    def texts(svg: str) -> list[str]:
        return re.findall(r"<text [^>]*>([^<]*)</text>", svg)

    assert f"(tests/{picture.PICTURE.name})" in README
    drawn = texts(picture.draw(picture.session()))
    assert drawn == texts(picture.PICTURE.read_text())
    assert len(drawn) > 30


def test_the_readme_can_be_read_in_one_sitting() -> None:
    folded = re.findall(r"<details>.*?</details>", README, re.DOTALL)
    assert len(README) <= 26_000
    assert len(README) - sum(map(len, folded)) <= 15_000


def test_the_links_within_the_readme_resolve() -> None:
    titles = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for link in re.findall(r"\]\(#([^)]+)\)", README):
        assert link in anchors
