"""ProxmoxClient: token, TLS, discovery, and a method for each thing that is asked.

Nothing here knows of MCP, and nothing is contacted before the first call. Sizes are
bytes, CPU is a fraction 0..1, times are seconds; what Proxmox does not say is None.
"""

from __future__ import annotations

from proxmoxer import ProxmoxAPI  # type: ignore[import-untyped]

from src.config.settings import Settings
from src.lists import notes
from src.lists.ask_nodes import ask_nodes
from src.lists.attention import needs_attention
from src.lists.filters import Filters
from src.lists.merge import add_up, merge_machines, merge_nodes, merge_storages
from src.models import (
    Action,
    Infrastructure,
    Machine,
    Machines,
    Node,
    NodeResources,
    PowerResult,
    Storage,
    Storages,
)
from src.power.action import Cancelled, switch
from src.power.guest import find_machine, read_state
from src.proxmox.api import Api, check_target
from src.proxmox.deadline import Progress
from src.proxmox.network import from_environment, verifier
from src.proxmox.rights import Rights, read_rights
from src.proxmox.rows import read_cluster, read_node, read_node_resources, text

# A node checks its storages one after another, and a dead NFS server costs it 10 s.
STORAGE_PATIENCE = 30.0


class ProxmoxClient:
    """A thin client of the Proxmox VE API, to be used from several threads at once.

    Every method raises ProxmoxError, and nothing else, for what a user can meet.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # HTTPS_PROXY and the like, once: with each request it is a quarter of the work.
        proxies, verify = from_environment(settings)
        proxmox = ProxmoxAPI(
            settings.host,
            port=settings.port,
            path_prefix=settings.prefix or None,
            user=settings.user,
            token_name=settings.token_name,
            token_value=settings.token_secret,
            verify_ssl=verify,
            proxies=proxies,
        )
        self._api = Api(proxmox, settings)
        self.verified_by = verifier(verify)

    def get_version(self) -> str:
        """Proxmox VE's version, as "8.4.21".

        GET /version, which any token may ask. Raises ProxmoxError.
        """
        return text(self._api.row(self._api.root.version).get("version")) or "unknown"

    def get_rights(self) -> Rights:
        """What the token may do, of what the tools need.

        GET /access/permissions, which any token may ask about itself. Raises
        ProxmoxError.
        """
        return read_rights(self._api.row(self._api.root.access.permissions))

    def get_nodes(self) -> list[Node]:
        """Every node of the cluster, offline ones too, by name.

        GET /nodes, which each node broadcasts every 10 s. load and version are None;
        without Sys.Audit on /nodes/NODE so are the figures. Raises ProxmoxError.
        """
        rows = self._api.rows(self._api.root.nodes)
        nodes = [read_node(row) for row in rows if row.get("node")]
        return sorted(nodes, key=lambda node: node.node)

    def get_node_resources(self, node: str) -> NodeResources:
        """CPU, memory, swap, root disk, load and version of one node, live.

        GET /nodes/{node}/status. cpu is 0 in the first answer after a while: get_nodes
        knows better. Raises ProxmoxError, with code 403 without Sys.Audit.
        """
        check_target(node)
        row = self._api.row(self._api.root.nodes(node).status, node)
        return read_node_resources(node, row)

    def get_overview(self) -> Infrastructure:
        """What needs attention, name and quorum, every node, totals of the online ones.

        GET /nodes, /cluster/status, /cluster/resources, and /nodes/{node}/status of every
        node that is not offline; one that does not answer is unknown. Raises ProxmoxError
        where nothing at all could be had.
        """
        answers = ask_nodes(self._api, ["status"], {"status": {}, "resources": {}})
        resources, silent = answers.resources, answers.silent
        nodes = merge_nodes(answers.nodes, answers.by_node(), silent, resources)
        cluster, quorate = read_cluster(answers.cluster.get("status", []))
        totals = add_up(nodes)
        return Infrastructure(
            attention=needs_attention(nodes, quorate, silent, resources),
            cluster=cluster,
            quorate=quorate,
            nodes=nodes,
            totals=totals,
            notes=notes.about_nodes(answers, cluster, quorate, totals),
        )

    def get_all_machines(
        self,
        node: str | None = None,
        status: str | None = None,
        name: str | None = None,
    ) -> Machines:
        """Every VM and container of every node, by vm_id, or those that the filters match.

        GET /nodes/{node}/qemu and /lxc of every node that is not offline, merged with
        /cluster/resources?type=vm. Proxmox leaves out those without VM.Audit on
        /vms/ID. Raises ProxmoxError where nothing at all could be had, and for a node
        that does not exist.
        """
        cluster = {"resources": {"type": "vm"}}
        answers = ask_nodes(self._api, ["qemu", "lxc"], cluster, node)
        answers.raise_if_empty()
        everything = merge_machines(answers.resources, answers.live, answers.offline)
        filters = Filters(node, status, name)
        shown = [machine for machine in everything if filters.match(machine)]
        token = self.settings.token_id
        about = notes.about_machines(answers, everything, shown, filters, token)
        return Machines(shown, about, total=len(shown))

    def get_storage_status(self, node: str) -> list[Storage]:
        """The storages of one node, by name: capacity, use, whether active.

        GET /nodes/{node}/storage, live; a dead NFS server makes it take 10 s. Proxmox
        leaves out those without Datastore.Audit on /storage/ID. Raises ProxmoxError.
        """
        check_target(node)
        rows = self._api.rows(self._api.root.nodes(node).storage, node)
        return merge_storages([], {node: rows}, (), ())

    def get_all_storage(self, progress: Progress | None = None) -> Storages:
        """Every storage of every node, a shared one once, fullest first.

        GET /nodes/{node}/storage of every node that is not offline, waited for up to
        30 s, and for the others /cluster/resources?type=storage. Proxmox leaves out those
        without Datastore.Audit on /storage/ID. Raises ProxmoxError where nothing at all
        could be had.
        """
        answers = ask_nodes(
            self._api,
            ["storage"],
            {"resources": {"type": "storage"}},
            patience=STORAGE_PATIENCE,
            progress=progress,
        )
        answers.raise_if_empty()
        storages = merge_storages(
            answers.resources, answers.by_node(), answers.errors, answers.offline
        )
        storages.sort(key=lambda each: (-each.fullness, each.active is None))
        about = notes.about_storages(answers, storages, self.settings.token_id)
        return Storages(storages, about, total=len(storages))

    def get_machine_status(self, node: str, vm_id: int) -> Machine:
        """The live state of one machine, VM or container.

        GET /cluster/resources, which tells what it is and where it is, then
        /nodes/{node}/{qemu|lxc}/{vm_id}/status/current. Raises ProxmoxError, which
        names the right node where it is on another one.
        """
        return read_state(self._api, find_machine(self._api, node, vm_id))

    def set_machine_state(
        self,
        node: str,
        vm_id: int,
        action: Action,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> PowerResult:
        """Start, stop (cut the power), shut down or reboot a machine, and wait for it.

        POST /nodes/{node}/{qemu|lxc}/{vm_id}/status/{action}, once; then its task and
        the live state are read, 45 s in all, and `progress` is called about every
        second. Once `cancelled` says so nothing is sent. Writes the audit trail. Raises
        ProxmoxError where the action was refused or failed, or its outcome is unknown.
        """
        return switch(self._api, node, vm_id, action, progress, cancelled)
