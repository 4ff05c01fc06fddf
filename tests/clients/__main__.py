"""Try the server with real MCP clients: `python -m tests.clients`, or the names of some.

Each client is installed from PyPI or npm into a folder of its own, launches a copy of the server
there, as the README's local Python does, and makes the same calls to a fake cluster of its own.
A table tells what came of each: "right", or what the client itself answers, or does not send. A
second one tells what assistants say about the server that was added to them.

It needs npm, a network and, for the Inspector's page, Chromium on the PATH or at the path in the
variable CHROMIUM. It takes ten minutes.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fakepve import FakePve

from tests.clients import assistants
from tests.clients.assistants import ASSISTANTS, Assistant
from tests.clients.running import PYTHON, execute, home, install_from_npm, server
from tests.cluster import Cluster, furnish, serving

HERE = Path(__file__).parent
PASSED = ("CHROMIUM", "LANG")  # of this environment, which may have keys
Kind = TypeVar("Kind")
TOOLS = ["list_infrastructure", "list_machines", "list_storage"]
TOOLS += ["start_machine", "stop_machine", "reboot_machine"]
POSTS = ["/pve2/qemu/106/status/start", "/pve1/qemu/102/status/start"]
POSTS += ["/pve1/qemu/105/status/shutdown"]


@dataclass(frozen=True)
class Step:
    """A call, and what must come of it: an error or not, and the words that the model reads."""

    column: str
    tool: str
    arguments: dict[str, Any]
    error: bool
    words: str


PVE1, PVE2 = {"node": "pve1"}, {"node": "pve2"}
STOP = {"vm_id": 105} | PVE1
STEPS = [
    Step("lists", "list_infrastructure", {}, False, "Node pve3 is offline"),
    Step("lists", "list_machines", {}, False, "11 machines on 3 nodes"),
    Step("lists", "list_machines", {"tag": "prod"}, False, "2 of 11 machines"),
    Step("lists", "list_storage", {}, False, "old-nas"),
    Step("null", "list_machines", {"node": None}, False, "11 machines on 3 nodes"),
    Step('""', "list_machines", {"node": ""}, False, "11 machines on 3 nodes"),
    Step("start", "start_machine", {"vm_id": 106} | PVE2, False, "106 .* is running"),
    Step("failing start", "start_machine", {"vm_id": 102} | PVE1, True, "exited with code 1"),
    Step("ignored stop", "stop_machine", STOP, True, "call stop_machine with force: true"),
    Step("missing", "stop_machine", {"vm_id": 105}, True, "Nothing was sent"),
    Step("wrong", "stop_machine", STOP | {"vm_id": "web"}, True, "Nothing was sent"),
    Step("wrong", "stop_machine", STOP | {"force": "yes"}, True, "Nothing was sent"),
    Step("wrong", "list_machines", {"state": "running"}, True, "has no argument 'state'"),
    Step("wrong tool", "delete_machine", STOP, True, "The tools are: list_infrastructure"),
]
COLUMNS = list(dict.fromkeys(step.column for step in STEPS))


@dataclass(frozen=True)
class Client:
    """A client: the driver beside this file, and its packages, with itself as the first.

    The columns of `own` are those that it rejects, or alters, by itself. If it is an assistant,
    the server is added to it before the driver runs.
    """

    driver: str
    packages: tuple[str, ...]
    own: tuple[str, ...] = ()
    assistant: Assistant | None = None


INSPECTOR = "@modelcontextprotocol/inspector@latest"
CLAUDE_CODE, CODEX = ASSISTANTS["Claude Code"], ASSISTANTS["Codex"]
# With a tag or a version, because npm otherwise takes an older release for an older Node.js.
CLIENTS = {
    "TypeScript SDK 1.22": Client("with_typescript_sdk.mjs", ("@modelcontextprotocol/sdk@1.22.0",)),
    "TypeScript SDK": Client("with_typescript_sdk.mjs", ("@modelcontextprotocol/sdk@latest",)),
    "TypeScript SDK 2": Client(
        "with_typescript_sdk_2.mjs", ("@modelcontextprotocol/client@latest",)
    ),
    "LangChain.js": Client(
        "with_langchain.mjs",
        ("@langchain/mcp-adapters@latest",),
        ("null", "missing", "wrong", "wrong tool"),
    ),
    "Vercel AI SDK": Client(
        "with_vercel.mjs", ("@ai-sdk/mcp@latest", "ai@latest"), ("wrong tool",)
    ),
    "mcporter": Client("with_mcporter.mjs", ("mcporter@latest",)),
    "Inspector CLI": Client("with_inspector_cli.mjs", (INSPECTOR,), ("wrong", "wrong tool")),
    "Inspector page": Client(
        "with_inspector_page.mjs",
        (INSPECTOR, "playwright-core@latest"),
        ("null", "missing", "wrong", "wrong tool"),
    ),
    "Python SDK 1": Client("with_python_sdk_1.py", ("mcp==1.30.*",)),
    "Python SDK 2": Client("with_python_sdk_2.py", ("mcp==2.3.*",)),
    "FastMCP": Client("with_fastmcp.py", ("fastmcp",)),
    "LangChain": Client("with_langchain.py", ("langchain-mcp-adapters",), ("wrong tool",)),
    "OpenAI Agents SDK": Client(
        "with_openai_agents.py", ("openai-agents",), ("missing", "wrong tool")
    ),
    "Pydantic AI": Client("with_pydantic_ai.py", ("pydantic-ai-slim[mcp]",), ("wrong tool",)),
    "Semantic Kernel": Client(
        "with_semantic_kernel.py", ("semantic-kernel[mcp]",), ("missing", "wrong", "wrong tool")
    ),
    "Claude Code": Client("with_claude_code.mjs", (CLAUDE_CODE.package,), assistant=CLAUDE_CODE),
    "Codex": Client("with_codex.mjs", (CODEX.package,), assistant=CODEX),
}


def install(client: Client, folder: Path) -> tuple[list[str], str]:
    """Install a client; return how to run its driver, and its version."""
    for name in (client.driver, f"drive{Path(client.driver).suffix}"):
        shutil.copy(HERE / name, folder)
    if client.driver.endswith(".py"):
        python = str(folder / "env/bin/python")
        execute([sys.executable, "-m", "venv", "env"], folder)
        execute([python, "-m", "pip", "install", "-q", *client.packages], folder)
        name = re.split(r"[=<>~\[]", client.packages[0])[0]
        ask = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
        return [python, client.driver], execute([python, "-c", ask, name], folder).strip()
    return ["node", client.driver], install_from_npm(client.packages, folder)


def judge(client: Client, step: Step, answer: dict[str, Any]) -> str:
    """Return "right", or what the client does by itself, or what is wrong.

    Some clients give the model only the text, and do not say whether it is an error.
    """
    if answer["error"] in (step.error, None) and re.search(step.words, answer["text"]):
        return "right"
    if step.column in client.own:
        return f"client: {answer['text'][:80]}"
    return f"WRONG: {answer['text'][:300]}"


def summary(verdicts: list[str]) -> str:
    """Return "right" if all are, or else what the others are."""
    return "; ".join(dict.fromkeys(each for each in verdicts if each != "right")) or "right"


async def attempt(client: Client, folder: Path) -> dict[str, str]:
    """Install a client and let it make the calls; return what came of them, by column."""
    command, version = await asyncio.to_thread(install, client, folder)
    if client.assistant:
        await asyncio.to_thread(assistants.tell, client.assistant.add, "proxmox", folder)
    cluster = Cluster(FakePve())
    furnish(cluster.pve)
    cluster.pve.time_scale = 0.01  # an ignored shutdown takes 0.6 s here instead of 60
    calls = [(step.tool, step.arguments) for step in STEPS]
    async with serving(cluster) as environ:
        (folder / ".env").write_text("".join(f"{k}={v}\n" for k, v in environ.items()))
        stdin = json.dumps({"command": PYTHON, "args": [server(folder)], "calls": calls})
        few = home(folder) | {name: os.environ[name] for name in PASSED if name in os.environ}
        output = await asyncio.to_thread(execute, command, folder, input=stdin, environ=few)
    printed = json.loads(output.splitlines()[-1])
    verdicts: dict[str, list[str]] = {}
    for step, answer in zip(STEPS, printed["answers"], strict=True):
        verdicts.setdefault(step.column, []).append(judge(client, step, answer))
    row = {"version": version} | {key: summary(each) for key, each in verdicts.items()}
    if sorted(printed["tools"]) != sorted(TOOLS):
        row["lists"] = f"WRONG tools: {printed['tools']}"
    if cluster.posts != POSTS:
        row["start"] = f"WRONG requests: {cluster.posts}"
    return row


async def table(
    title: str,
    columns: list[str],
    clients: dict[str, Kind],
    attempt: Callable[[Kind, Path], Awaitable[dict[str, str]]],
) -> int:
    """Try the clients, print a row for each, and return the exit status."""
    print(f"| {title} | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}", flush=True)
    status = 0
    for name, client in clients.items():
        with tempfile.TemporaryDirectory(prefix="mcp-client-") as folder:
            try:
                row = await attempt(client, Path(folder))
            except Exception as failure:  # noqa: BLE001 - the others are tried nevertheless
                row = {"version": f"NOT TRIED: {type(failure).__name__}: {failure}"}
        cells = [" ".join(row.get(column, "").split()) for column in columns]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        status |= bool(re.search("WRONG|NOT TRIED", str(cells)))
    return status


async def main(names: list[str]) -> int:
    """Print the tables of what the names stand for, and return the exit status."""
    clients = {name: CLIENTS[name] for name in names if name in CLIENTS}
    added = {name: ASSISTANTS[name] for name in names if name in ASSISTANTS}
    status = 0
    if clients:
        status |= await table("client", ["version", *COLUMNS], clients, attempt)
    if clients and added:
        print()
    if added:
        status |= await table("assistant", assistants.COLUMNS, added, assistants.attempt)
    return status


if __name__ == "__main__":
    known = list(CLIENTS | ASSISTANTS)
    parser = argparse.ArgumentParser(prog="python -m tests.clients")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    chosen = parser.parse_args().names
    if unknown := set(chosen) - set(known):
        parser.error(f"no client is called {', '.join(unknown)}; there are {', '.join(known)}")
    sys.exit(asyncio.run(main(chosen or known)))
