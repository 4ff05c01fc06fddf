"""Make fakepve answer like a real Proxmox where it differs by itself."""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web
from fakepve import FakePve
from fakepve.certs import make_cert

from src.config.settings import Address, Settings

GIB = 1024**3
TOKEN = "mcp@pve!t"
SECRET = "0badc0de-5ec7-4e70-8e11-600dfe110w42"
NAMES = ("URL", "USER", "TOKEN_ID", "TOKEN_SECRET", "VERIFY_SSL")
SETTINGS = Settings((Address("pve.lan", 8006),), "mcp@pve", "t", SECRET, True)

HA, BACKUP = "/cluster/ha/status/current", "/cluster/backup-info/not-backed-up"

Row = dict[str, Any]


def variables(*values: str) -> dict[str, str]:
    """Return the first of the five environment variables with these values."""
    return {f"PROXMOX_{name}": value for name, value in zip(NAMES, values, strict=False)}


class Cluster:
    """Wrap a FakePve: add a token, realistic answers, and answers that a test defines.

    By path, `rows` has the data of what the fake invents, `edit` functions that change the
    fake's data, `raw` functions that return whole responses, and `delay` seconds to wait.
    `sent` lists the requests with their query, `bodies` the bodies of POSTs.
    """

    def __init__(self, pve: FakePve) -> None:
        self.pve = pve
        self.sent: list[tuple[str, str]] = []
        self.rows: dict[str, Any] = {"/cluster/tasks": [], BACKUP: [], HA: [{"type": "quorum"}]}
        self.rows["/version"] = {"release": "9.1", "version": "9.1.2", "repoid": "9d436f37a0ac4172"}
        self.edit: dict[str, Callable[[Any], Any]] = {}
        self.raw: dict[str, Callable[[web.Request], Awaitable[web.Response]]] = {}
        self.delay: dict[str, float] = {}
        self.bodies: list[str] = []
        self._original = pve._answer
        pve._answer = self._answer
        pve.apitokens[TOKEN] = SECRET

    @property
    def posts(self) -> list[str]:
        """Return the paths below /nodes that received a POST."""
        paths = (path for method, path in self.sent if method == "POST")
        return [path.removeprefix("/api2/json/nodes") for path in paths]

    def environ(self, cafile: str) -> dict[str, str]:
        return variables(self.pve.url, *TOKEN.split("!"), SECRET, cafile)

    async def _answer(self, request: Any, handler: Any, generic: Any, node: Any) -> web.Response:
        self.sent.append((request.method, request.path_qs))
        if request.method == "POST":
            self.bodies.append(await request.text())
        path = request.path.removeprefix("/api2/json")
        if seconds := self.delay.get(path):
            await asyncio.sleep(seconds)
        if respond := self.raw.get(path):
            return await respond(request)
        response = await self._original(request, handler, generic, node)
        if request.method != "GET" or response.status != 200:
            return response
        if response.content_type != "application/json":
            return response
        change = self.edit.get(path)
        real = path in ("/nodes", "/cluster/resources", *self.rows) or path.count("/") == 3
        real = real or path.endswith("/disks/zfs")
        if not change and not real:
            return response
        data = self._real(path, json.loads(response.text)["data"])
        return web.json_response({"data": change(data) if change else data})

    def _real(self, path: str, data: Any) -> Any:
        """Add or correct, as pve-manager would, what the fake omits or invents."""
        _, top, *rest = path.split("/")
        if path in self.rows or path.endswith("/disks/zfs"):
            return self.rows.get(path, [])
        if top == "nodes" and rest[1:] == ["status"]:
            return node_status(self._usage(rest[0]))
        if path == "/nodes":
            for row in data:
                row |= self._usage(row["node"]) if row["status"] == "online" else {}
        if path == "/cluster/resources":
            for row in data:
                self._resource(row)
        return data

    def _usage(self, name: str) -> Row:
        """Return a node's figures: the fake's own, or those in `pve.nodes[name]["usage"]`."""
        usage: Row = self.pve._node_stats(True) | self.pve.nodes[name].get("usage", {})
        return usage

    def _resource(self, row: Row) -> None:
        if row["type"] == "node" and row["status"] == "online":
            row |= self._usage(row["node"])
        if row["type"] == "storage":
            total, used, _ = self.pve._space(self.pve.storages[row["storage"]])
            row |= {"disk": used, "maxdisk": total}
            if row["status"] == "unknown":
                del row["disk"], row["maxdisk"]
        if row["type"] in ("qemu", "lxc"):
            guest = self.pve.guest(row["vmid"])
            if not self.pve.nodes[row["node"]].get("online", True):
                # After 300 s without a sign of life Proxmox keeps only these.
                keep = ("id", "vmid", "node", "type", "status")
                for key in set(row) - set(keep):
                    del row[key]
            elif row["type"] == "qemu" and row["status"] == "running":
                row["status"] = guest.qmpstatus
            elif row["type"] == "lxc" and row["status"] == "running":
                row["cpu"] = guest.stats.get("cpu", 0.02)


async def drop(request: web.Request) -> web.Response:
    """Close the connection instead of answering; for `raw`."""
    assert request.transport
    request.transport.close()
    return web.Response()


def node_status(usage: Row) -> Row:
    """Return what the tools read of GET /nodes/{node}/status, as PVE 9 answers it."""
    cpus, memory, disk = (usage[key] for key in ("maxcpu", "maxmem", "maxdisk"))

    def used(total: int, part: int) -> Row:
        return {"total": total, "used": part, "free": total - part}

    return {
        "uptime": usage["uptime"],
        "cpu": 0,  # the first answer of each worker
        "loadavg": ["0.52", "0.40", "0.31"],
        "cpuinfo": {"cpus": cpus, "cores": cpus // 2, "sockets": 1},
        "memory": {"available": memory - usage["mem"]} | used(memory, usage["mem"]),
        "swap": used(8 * GIB, GIB),
        "rootfs": {"avail": disk - usage["disk"]} | used(disk, usage["disk"]),
        "pveversion": "pve-manager/9.1.2/9d436f37a0ac4172",
    }


def furnish(pve: FakePve) -> None:
    """Add three nodes, one offline, with an example of everything that the tools report."""
    pve.cluster_name = "demo"
    for name in ("pve2", "pve3"):
        pve.add_node(name)
    usage = {"cpu": 0.2, "maxcpu": 16, "mem": 25 * GIB, "maxmem": 63 * GIB}
    usage |= {"disk": 9 * GIB, "maxdisk": 94 * GIB, "uptime": 1_052_000}
    pve.nodes["pve1"]["usage"] = usage
    pve.nodes["pve2"]["usage"] = usage | {"cpu": 0.05, "mem": 11 * GIB}
    day = 86_400

    def vm(vm_id: int, name: str, uptime: int = 0, **options: Any) -> Any:
        config = {"memory": 4096, "cores": 4, "tags": options.pop("tags", "")}
        status = "running" if uptime else "stopped"
        guest = pve.add_vm(vm_id, name, status=status, config=config, **options)
        if uptime:
            guest.started_at -= uptime
            guest.stats.update(cpu=0.07 + vm_id % 5 / 20, mem=(vm_id % 3 + 1) * GIB)
        return guest

    vm(100, "web", 12 * day, tags="prod;front")
    vm(101, "db", 40 * day, node="pve2", tags="prod")
    vm(102, "broken").start_error = "start failed: QEMU exited with code 1"
    vm(103, "paused", 2 * day, qmpstatus="paused")
    vm(104, "in-backup", 3 * day, node="pve2", lock="backup")
    vm(105, "old-windows", 90 * day).acpi = False
    vm(106, "build", node="pve2")
    vm(107, "lost", node="pve3")
    vm(900, "debian-13", template=True)
    pve.set_node_offline("pve3")
    pve.add_ct(200, "dns", status="running").started_at -= 5 * day
    pve.add_ct(201, "proxy", node="pve2")
    volume = {"content": "images", "size": 6 << 40, "ctime": 1, "format": "raw"}
    shared = {"active": 1, "shared": 1, "files": set()}
    pve.storages["nfs1"] = shared | {"type": "nfs", "content": "images,iso"}
    pve.storages["nfs1"] |= {"path": "/mnt/pve/nfs1", "server": "nas"}
    pve.storages["nfs1"] |= {"export": "/export", "total": 10 << 40, "avail": 4 << 40}
    pve.storages["nfs1"] |= {"volumes": {"images/100/a.raw": volume}}
    pve.storages["old-nas"] = shared | {"type": "cifs", "active": 0}
    pve.storages["old-nas"] |= {"content": "backup", "path": "/mnt/pve/old-nas"}
    pve.storages["old-nas"] |= {"server": "old", "share": "s", "files": set()}


def populate(pve: FakePve, nodes: int, machines: int) -> None:
    """Add nodes, the last one offline, and spread machines over them."""
    for n in range(1, nodes + 1):
        pve.add_node(f"pve{n:02}", online=n < nodes)
    del pve.nodes["pve1"]
    for n in range(machines):
        running = n % 5 < 3
        config = {"memory": 4096, "cores": 4}
        node, status = f"pve{n % nodes + 1:02}", "running" if running else "stopped"
        add = pve.add_ct if n % 4 == 3 else pve.add_vm
        guest = add(100 + n, f"app-{n:04}", node=node, status=status, config=config)
        if running:
            guest.started_at -= 86_400 * (n % 90 + 1)
            guest.stats.update(cpu=n % 100 / 100, mem=(n % 40 + 1) * GIB // 10)


@asynccontextmanager
async def serving(
    cluster: Cluster, name: str = "127.0.0.1", listen: str = "127.0.0.1"
) -> AsyncIterator[dict[str, str]]:
    """Serve a cluster; yield the five variables that point to it by `name`."""
    with tempfile.TemporaryDirectory(prefix="fake-proxmox-") as folder:
        certificate, key, _ = make_cert(folder, hosts=(name,))
        cluster.pve.host, cluster.pve.port = listen, 0
        await cluster.pve.start(certificate, key)
        cluster.pve.runner._shutdown_timeout = 0.1
        try:
            environ = cluster.environ(certificate)
            yield environ | {"PROXMOX_URL": f"https://{name}:{cluster.pve.port}"}
        finally:
            await cluster.pve.stop()


@contextmanager
def in_a_process(nodes: int, machines: int, delay: float) -> Iterator[dict[str, str]]:
    """Serve a populated cluster that adds `delay` seconds to each request.

    It has its own process, so it does not share Python's lock with what is measured.
    """
    figures = map(str, (nodes, machines, delay))
    command, pipe = [sys.executable, "-m", "tests.cluster", *figures], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stdin=pipe) as fake:
        assert fake.stdout
        try:
            yield json.loads(fake.stdout.readline())
        finally:
            fake.terminate()


async def main(nodes: int, machines: int, delay: float) -> None:
    cluster = Cluster(FakePve())
    populate(cluster.pve, nodes, machines)
    cluster.pve.time_scale = 1.0 if delay else 0.0  # at 0, nothing takes time
    cluster.pve.slow_network(delay)
    # Editing answers takes time and keeps every request in memory.
    cluster.pve._answer = cluster._original
    async with serving(cluster) as environ:
        print(json.dumps(environ), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
