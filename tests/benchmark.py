"""Measure speed and size, as ratios within one run: `python -m tests.benchmark`.

The fake cluster runs in its own process and adds 20 ms to each request. Every time is a
median; runs that are compared take turns. Tools are called over stdio.
"""

import asyncio
import json
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
from fakepve import FakePve
from proxmoxer import ProxmoxAPI

from src.client import ProxmoxClient
from src.config.settings import Settings
from tests.cluster import Cluster, in_a_process, populate, serving
from tests.process import COMMAND, Server, run

DELAY = 0.02
ROUNDS = 15
MS = 1000


def timed(*runs: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> list[float]:
    """Run each in turn, and return its median seconds; the first run does not count."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(ROUNDS + 1):
        for each, seconds in zip(runs, times, strict=True):
            prepare()
            start = time.perf_counter()
            each()
            if number:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def call(server: Server, tool: str, **arguments: Any) -> Any:
    result = server.result(tool, **arguments)
    assert not result.get("isError"), result
    return result


def proxmox(environ: dict[str, str]) -> Any:
    """Return proxmoxer alone, as a script would use it."""
    return ProxmoxAPI(
        environ["PROXMOX_URL"].removeprefix("https://"),
        user=environ["PROXMOX_USER"],
        token_name=environ["PROXMOX_TOKEN_ID"],
        token_value=environ["PROXMOX_TOKEN_SECRET"],
        verify_ssl=environ["PROXMOX_VERIFY_SSL"],
    )


def loop_over_nodes(api: Any) -> None:
    for node in api.nodes.get():
        if node["status"] == "online":
            api.nodes(node["node"]).qemu.get()
            api.nodes(node["node"]).lxc.get()


def two_requests(api: Any) -> None:
    api.nodes.get()
    api.nodes("pve01").qemu.get()


def start_by_hand(api: Any, vm_id: int, node: str) -> None:
    """Send the requests of a start_machine whose task ends at once, in sequence."""
    guest = api.nodes(node).qemu(vm_id)
    api.cluster.resources.get()
    guest.status.current.get()
    task = guest.status.start.post()
    api.nodes(node).tasks(task).status.get()
    guest.status.current.get()


def launch(command: list[str], environ: dict[str, str]) -> float:
    """Start a server, ask for its tools, and return its memory in MiB."""
    with Server(command, environ) as server:
        server.request("tools/list")
        memory: int = psutil.Process(server.process.pid).memory_info().rss
    return memory / 2**20


Row = str  # what | against | measured | to reach
Bars = list[tuple[str, list[tuple[str, float]]]]


def measure_start(environ: dict[str, str]) -> tuple[list[Row], Bars]:
    memory: dict[str, list[float]] = {"ours": [], "one tool": []}
    one_tool = [sys.executable, "-m", "tests.one_tool"]
    ours, other = timed(
        lambda: memory["ours"].append(launch(COMMAND, environ)),
        lambda: memory["one tool"].append(launch(one_tool, environ)),
    )
    rss, other_rss = (statistics.median(values) for values in memory.values())
    against = f"a server of one tool: {other * MS:.0f} ms | {ours / other:.2f} times"
    same = f"the same: {other_rss:.1f} MiB | {rss / other_rss:.2f} times"
    rows = [
        f"start to the tools/list answer: {ours * MS:.0f} ms | {against} | 1.05",
        f"memory after it: {rss:.1f} MiB | {same} | 1.10",
    ]
    return rows, [("start, ms", [("one tool", other * MS), ("mcp-proxmox", ours * MS)])]


def measure_container(environ: dict[str, str]) -> list[Row]:
    """Measure how fast the image starts, if an engine has the image of the README."""
    inspect = ["docker", "image", "inspect", "mcp-proxmox"]
    if not shutil.which("docker") or run(inspect).returncode:
        return []
    in_docker = ["docker", "run", "-i", "--rm", "mcp-proxmox"]
    times: dict[str, list[float]] = {"docker": [], "local": []}
    for _ in range(5):
        for name, command in zip(times, (in_docker, COMMAND), strict=True):
            start = time.perf_counter()
            with Server(command, environ) as server:
                times[name].append(time.perf_counter() - start)
                server.close()
                server.process.wait(10)
    docker, local = map(statistics.median, times.values())
    against = f"python -m src.server: {local * MS:.0f} ms | {docker / local:.2f} times"
    return [f"docker run to the initialize answer: {docker * MS:.0f} ms | {against} | "]


def measure_lists(environ: dict[str, str]) -> tuple[list[Row], Bars, float]:
    api, lists = proxmox(environ), ("list_machines", "list_infrastructure", "list_storage")
    with Server(COMMAND, environ) as server:
        machines, infrastructure, storage, loop, two = timed(
            *(partial(call, server, tool) for tool in lists),
            partial(loop_over_nodes, api),
            partial(two_requests, api),
        )
        answer = call(server, "list_machines")
    text, rows = answer["content"][0]["text"], answer["structuredContent"]["machines"]
    structured = len(json.dumps(rows, separators=(",", ":"))) / len(rows)
    lines = [line for line in text.splitlines() if " app-" in line]
    characters = sum(map(len, lines)) / len(lines) + 1
    ratios = (loop / machines, machines / two, infrastructure / two, storage / two)
    faster, slower, *others = (f"{ratio:.1f} times" for ratio in ratios)
    pair = "two requests in sequence"
    against = f"a loop over the nodes: {loop * MS:.0f} ms | {faster} faster"
    rows = [
        f"list_machines, 16 nodes, 400 machines: {machines * MS:.0f} ms | {against} | 5",
        f"the same | {pair}: {two * MS:.0f} ms | {slower} | 1.9",
        f"list_infrastructure: {infrastructure * MS:.0f} ms | {pair} | {others[0]} | 1.6",
        f"list_storage: {storage * MS:.0f} ms | {pair} | {others[1]} | 3",
        f"text a machine |  | {characters:.1f} characters | 60",
        f"structured content a machine |  | {structured:.1f} characters | 150",
    ]
    bars = [
        ("two requests", two * MS),
        ("list_storage", storage * MS),
        ("list_infrastructure", infrastructure * MS),
        ("list_machines", machines * MS),
        ("a loop over the nodes", loop * MS),
    ]
    return rows, [("lists of 16 nodes and 400 machines, ms", bars)], machines


def measure_failover(environ: dict[str, str]) -> list[Row]:
    """Compare one address with two of which the first refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = f"https://127.0.0.1:{listener.getsockname()[1]}"
    url = environ["PROXMOX_URL"]
    both = environ | {"PROXMOX_URL": f"{dead}, {url}"}
    with Server(COMMAND, environ) as one, Server(COMMAND, both) as two:
        alone, other = timed(*(partial(call, each, "list_machines") for each in (one, two)))
    what = f"the first of two addresses is down: {other * MS:.0f} ms"
    return [f"{what} | one address: {alone * MS:.0f} ms | {other / alone:.2f} times | 1.1"]


def measure_growth(environ: dict[str, str], small: float) -> list[Row]:
    with Server(COMMAND, environ) as server:
        (large,) = timed(partial(call, server, "list_machines"))
    ratio = f"{large / small:.1f} times, for 6.2 times the machines"
    what = f"list_machines, 32 nodes, 2,500 machines: {large * MS:.0f} ms"
    return [f"{what} | 16 nodes, 400 machines | {ratio} | 6.2"]


def measure_power(environ: dict[str, str]) -> list[Row]:
    api, target = proxmox(environ), {"vm_id": 100, "node": "pve01"}
    status = api.nodes("pve01").qemu(100).status

    def switch_off() -> None:
        status.stop.post()
        while status.current.get()["status"] != "stopped":
            time.sleep(0.01)

    with Server(COMMAND, environ) as server:
        start = partial(call, server, "start_machine", **target)
        tool, hand = timed(start, partial(start_by_hand, api, **target), prepare=switch_off)
    against = f"its five requests in sequence: {hand * MS:.0f} ms | {tool / hand:.2f} times"
    return [f"start_machine, its task over at once: {tool * MS:.0f} ms | {against} | 1.5"]


def measure_ping(environ: dict[str, str]) -> list[Row]:
    """Ping while list_machines waits for a cluster that needs 0.5 s for each request."""
    times: list[float] = []
    with Server(COMMAND, environ) as server:
        server.call(1, "list_machines")
        while 1 not in server.answers:
            start, number = time.perf_counter(), len(times) + 2
            server.send("ping", id=number)
            server.answer(number)
            times.append(time.perf_counter() - start)
            time.sleep(0.02)
    typical, worst = statistics.median(times) * MS, max(times) * MS
    shown = f"{typical:.1f} ms, at worst {worst:.0f} ms"
    return [f"ping while list_machines waits ({len(times)}) |  | {shown} | 20"]


async def count_requests() -> list[Row]:
    """Count the requests of one list_machines in the cluster that answers them."""
    cluster = Cluster(FakePve())
    populate(cluster.pve, 16, 400)
    async with serving(cluster) as environ:
        proxmox = ProxmoxClient(Settings.from_env(environ))
        await asyncio.to_thread(proxmox.get_all_machines)
    what = "requests of list_machines, N = 15 nodes online"
    return [f"{what} |  | {len(cluster.sent)} | 2N + 3 = 33"]


def measure_texts(environ: dict[str, str]) -> list[Row]:
    with Server(COMMAND, environ) as server:
        tools = server.request("tools/list")["tools"]
    read = [tool["name"] + tool["description"] + json.dumps(tool["inputSchema"]) for tool in tools]
    size = sum(map(len, read))
    return [f"what the model reads of the six tools |  | {size:,} characters | 3,000"]


def table(rows: list[Row]) -> str:
    head = ["what | against | measured | to reach", "--- | --- | --- | ---"]
    return "\n".join(f"| {line} |" for line in (*head, *rows))


def chart(title: str, bars: list[tuple[str, float]]) -> str:
    most = max(value for _, value in bars)
    lines = [f"{name:>22} {'█' * round(50 * v / most)} {v:.0f}" for name, v in bars]
    return "\n".join([f"\n{title}", *lines])


def main() -> None:
    rows: list[Row] = []
    with in_a_process(16, 400, DELAY) as environ:
        start_rows, start_bars = measure_start(environ)
        list_rows, list_bars, small = measure_lists(environ)
        rows += start_rows + measure_container(environ) + list_rows
        rows += measure_failover(environ)
        power_rows = measure_power(environ) + measure_texts(environ)
    with in_a_process(32, 2500, DELAY) as environ:
        rows += measure_growth(environ, small)
    with in_a_process(16, 400, 0.5) as environ:
        rows += measure_ping(environ)
    rows += power_rows + asyncio.run(count_requests())
    print(table(rows))
    for title, bars in start_bars + list_bars:
        print(chart(title, bars))


if __name__ == "__main__":
    main()
