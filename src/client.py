"""ProxmoxClient: API token, TLS, discovery, and one method for each operation.

It knows nothing of MCP, and contacts nothing before the first call. Sizes are in bytes, CPU
is a fraction from 0 to 1, times are in seconds. A value that Proxmox does not report is None.
"""

from functools import partial

from proxmoxer import ProxmoxAPI  # type: ignore[import-untyped]

from src.config.settings import Settings
from src.connection.addresses import Addresses
from src.connection.deadline import STORAGE_TIMEOUT, Progress
from src.errors import ProxmoxError
from src.lists import notes
from src.lists.ask_nodes import ask_nodes
from src.lists.filters import Filters
from src.lists.merge import merge_machines, merge_storages
from src.lists.overview import read_overview
from src.lists.tasks import add_tasks
from src.models import (
    KINDS,
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
from src.proxmox.entry_nodes import identify
from src.proxmox.rights import Rights, read_rights
from src.proxmox.rows import read_cluster, read_node, read_node_resources, text


class ProxmoxClient:
    """A thin client of the Proxmox VE API. Several threads may use it at once.

    Every method raises ProxmoxError, and nothing else, for a failure that a user can run into.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.addresses = Addresses(settings)
        route = self.addresses.entries[0].transport.route
        proxmox = ProxmoxAPI(
            route.address.host,
            port=route.address.port_in_use,
            path_prefix=route.address.prefix or None,
            user=settings.user,
            token_name=settings.token_name,
            token_value=settings.token_secret,
            verify_ssl=route.verify,
            proxies=dict(route.proxies),
        )
        self._api = Api(proxmox, self.addresses)
        self.addresses.identify = partial(identify, self._api)

    def get_version(self) -> str:
        """Return Proxmox VE's version, such as "8.4.21".

        GET /version, which any token may read. Raises ProxmoxError.
        """
        return text(self._api.row(self._api.root.version).get("version")) or "unknown"

    def get_cluster(self) -> str:
        """Return the cluster's name, if the token may read it, and the names of its nodes.

        GET /cluster/status, which needs Sys.Audit on /, and /nodes. Two addresses of one
        cluster give the same. Raises ProxmoxError.
        """
        names = ", ".join(node.node for node in self.get_nodes())
        try:
            name, _ = read_cluster(self._api.rows(self._api.root.cluster.status))
        except ProxmoxError as error:
            if error.code != 403:
                raise
            name = None
        return f"{name or 'no cluster name'} ({names})"

    def get_rights(self) -> Rights:
        """Return which of the rights that the tools need the token has.

        GET /access/permissions, which any token may read about itself. Raises ProxmoxError.
        """
        return read_rights(self._api.row(self._api.root.access.permissions))

    def get_nodes(self) -> list[Node]:
        """Return every node of the cluster by name, offline ones too.

        GET /nodes: what each node broadcasts every 10 s. load and version are None, and
        without Sys.Audit on /nodes/NODE so are the other figures. Raises ProxmoxError.
        """
        rows = self._api.rows(self._api.root.nodes)
        nodes = [read_node(row) for row in rows if row.get("node")]
        return sorted(nodes, key=lambda node: node.node)

    def get_node_resources(self, node: str) -> NodeResources:
        """Return the live CPU, memory, swap, root disk, load and version of one node.

        GET /nodes/{node}/status. The first cpu after a while is 0: that of get_nodes is
        better. Raises ProxmoxError, with code 403 without Sys.Audit on /nodes/NODE.
        """
        check_target(node)
        row = self._api.row(self._api.root.nodes(node).status, node)
        return read_node_resources(node, row)

    def get_overview(self) -> Infrastructure:
        """Return what needs attention, the cluster's name and quorum, nodes and totals.

        GET /nodes, of /cluster: status, resources, tasks, ha/status/current,
        backup-info/not-backed-up, and with Ceph ceph/status, then /nodes/{node}/status and
        /disks/zfs of every node that is not offline, and the logs of failed backups. A node
        that does not answer is unknown. Raises ProxmoxError if /nodes cannot be read.
        """
        return read_overview(self._api)

    def get_all_machines(
        self,
        node: str | None = None,
        status: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        pool: str | None = None,
    ) -> Machines:
        """Return the VMs and containers by vm_id, all or those that match the filters.

        GET /nodes/{node}/qemu and /lxc of every node that is not offline, merged with
        /cluster/resources?type=vm and /cluster/tasks. Proxmox omits machines on which the
        token lacks VM.Audit (/vms/ID). Raises ProxmoxError if nothing can be read, and for a
        node that does not exist.
        """
        cluster: dict[str, dict[str, str]] = {"resources": {"type": "vm"}, "tasks": {}}
        answers = ask_nodes(self._api, list(KINDS), cluster, node)
        answers.raise_if_empty()
        everything = merge_machines(answers.resources, answers.live, answers.offline)
        offline = {n for n, row in answers.nodes.items() if row.get("status") == "offline"}
        add_tasks(everything, answers.cluster.get("tasks", []), offline)
        filters = Filters(node, status, name, tag, pool)
        shown = [machine for machine in everything if filters.match(machine)]
        token = self.settings.token_id
        about = notes.about_machines(answers, everything, shown, filters, token)
        return Machines(shown, about, total=len(shown))

    def get_storage_status(self, node: str) -> list[Storage]:
        """Return the storages of one node by name: capacity, use, whether active.

        GET /nodes/{node}/storage, live. A dead NFS server makes it take 10 s. Proxmox omits
        storages on which the token lacks Datastore.Audit (/storage/ID). Raises ProxmoxError.
        """
        check_target(node)
        rows = self._api.rows(self._api.root.nodes(node).storage, node)
        return merge_storages([], {node: rows}, (), ())

    def get_all_storage(self, progress: Progress | None = None) -> Storages:
        """Return the storages of every node, a shared one once, fullest first.

        GET /nodes/{node}/storage of every node that is not offline, for STORAGE_TIMEOUT at
        most, and /cluster/resources?type=storage for the others. Proxmox omits storages on
        which the token lacks Datastore.Audit (/storage/ID). Raises ProxmoxError if nothing
        can be read.
        """
        answers = ask_nodes(
            self._api,
            ["storage"],
            {"resources": {"type": "storage"}},
            patience=STORAGE_TIMEOUT,
            progress=progress,
        )
        answers.raise_if_empty()
        storages = merge_storages(
            answers.resources, answers.by_node("storage"), answers.errors, answers.offline
        )
        storages.sort(key=lambda each: (-each.fullness, each.active is None))
        about = notes.about_storages(answers, storages, self.settings.token_id)
        return Storages(storages, about, total=len(storages))

    def get_machine_status(self, node: str, vm_id: int) -> Machine:
        """Return the live state of one VM or container.

        GET /cluster/resources, which has its type and node, then
        /nodes/{node}/{qemu|lxc}/{vm_id}/status/current. Raises ProxmoxError, which names
        the right node if the machine is on another one.
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

        Reads the live state, and pending changes, tasks or quorum where they matter. Then
        POST /nodes/{node}/{qemu|lxc}/{vm_id}/status/{action}, once, and reads its task and
        the live state, for POWER_TIMEOUT in all, and calls `progress` about every second.
        Sends nothing once `cancelled` returns true. Writes the audit trail. Raises
        ProxmoxError if the action was refused or failed, or if its outcome is unknown.
        """
        return switch(self._api, node, vm_id, action, progress, cancelled)
