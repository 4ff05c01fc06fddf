"""ProxmoxClient: token, TLS, discovery, and a method for each thing that is asked.

Nothing here knows of MCP, and nothing is contacted before the first call. Sizes are
bytes, CPU is a fraction 0..1, times are seconds; what Proxmox does not say is None.
"""

from __future__ import annotations

from typing import Any

import requests
from proxmoxer import ProxmoxAPI  # type: ignore[import-untyped]

from src import notes
from src.api import Api, check_target
from src.fanout import ask_nodes
from src.guest import find_machine, read_state
from src.merge import add_up, merge_machines, merge_node, merge_storages
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
from src.power import Progress, switch
from src.rows import flag, read_node, read_node_resources
from src.settings import Settings


class ProxmoxClient:
    """A thin client of the Proxmox VE API, to be used from several threads at once.

    Every method raises ProxmoxError, and nothing else, for what a user can meet.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # HTTPS_PROXY and the like, once: with each request it is a quarter of the work.
        environment = requests.Session().merge_environment_settings(
            settings.address, {}, None, settings.verify_ssl, None
        )
        proxmox = ProxmoxAPI(
            settings.host,
            port=settings.port,
            path_prefix=settings.prefix or None,
            user=settings.user,
            token_name=settings.token_name,
            token_value=settings.token_secret,
            verify_ssl=environment["verify"],
            proxies=environment["proxies"],
        )
        self._api = Api(proxmox, settings)

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
        """The cluster's name and quorum, every node, and the totals of the online ones.

        GET /nodes, /cluster/status, and /nodes/{node}/status of every node that is not
        offline. Raises ProxmoxError where nothing at all could be had.
        """
        answers = ask_nodes(self._api, ["status"], "status", {})
        live: dict[str, Any] = {name: row for (name, _), row in answers.came.items()}
        nodes = [
            merge_node(
                read_node(row),
                read_node_resources(name, live[name]) if name in live else None,
            )
            for name, row in sorted(answers.nodes.items())
        ]
        clusters = [row for row in answers.cluster if row.get("type") == "cluster"]
        cluster = clusters[0] if clusters else {}
        missing = "load, version and fresh figures are missing"
        said = notes.failed_nodes(answers.errors, missing)
        # Without the right to ask (403) both are null, as on a standalone host.
        if answers.cluster_error and answers.cluster_error.code != 403:
            said.append(notes.no_cluster(answers.cluster_error))
        return Infrastructure(
            cluster=cluster.get("name"),
            quorate=flag(cluster.get("quorate")) if cluster else None,
            nodes=nodes,
            totals=add_up(nodes),
            notes=said,
        )

    def get_all_machines(self, node: str | None = None) -> Machines:
        """Every VM and container of every node, or of one, by vm_id.

        GET /nodes/{node}/qemu and /lxc of every node that is not offline, merged with
        /cluster/resources?type=vm. Proxmox leaves out those without VM.Audit on
        /vms/ID. Raises ProxmoxError where nothing at all could be had, and for a node
        that does not exist.
        """
        answers = ask_nodes(
            self._api, ["qemu", "lxc"], "resources", {"type": "vm"}, node
        )
        answers.raise_if_empty()
        machines = [
            machine
            for machine in merge_machines(
                answers.cluster, answers.came, answers.offline
            )
            if node in (None, machine.node)
        ]
        said = notes.missing(answers, "machines")
        if not machines and not answers.errors:
            right = "VM.Audit on /vms"
            said.append(notes.nothing_shown("machines", right, self.settings.token_id))
        return Machines(machines, said)

    def get_storage_status(self, node: str) -> list[Storage]:
        """The storages of one node, by name: capacity, use, whether active.

        GET /nodes/{node}/storage, live; a dead NFS server makes it take 10 s. Proxmox
        leaves out those without Datastore.Audit on /storage/ID. Raises ProxmoxError.
        """
        check_target(node)
        rows = self._api.rows(self._api.root.nodes(node).storage, node)
        return merge_storages([], {node: rows}, (), ())

    def get_all_storage(self) -> Storages:
        """Every storage of every node, a shared one once, by name and node.

        GET /nodes/{node}/storage of every node that is not offline, and for the others
        /cluster/resources?type=storage. Proxmox leaves out those without
        Datastore.Audit on /storage/ID. Raises ProxmoxError where nothing at all could
        be had.
        """
        answers = ask_nodes(self._api, ["storage"], "resources", {"type": "storage"})
        answers.raise_if_empty()
        live = {name: rows for (name, _), rows in answers.came.items()}
        storages = merge_storages(
            answers.cluster, live, answers.errors, answers.offline
        )
        said = notes.missing(answers, "storages")
        said += notes.inactive_somewhere(storages, live)
        if not storages and not answers.errors:
            right = "Datastore.Audit on /storage"
            said.append(notes.nothing_shown("storages", right, self.settings.token_id))
        return Storages(storages, said)

    def get_machine_status(self, node: str, vm_id: int) -> Machine:
        """The live state of one machine, VM or container.

        GET /cluster/resources, which tells what it is and where it is, then
        /nodes/{node}/{qemu|lxc}/{vm_id}/status/current. Raises ProxmoxError, which
        names the right node where it is on another one.
        """
        return read_state(self._api, find_machine(self._api, node, vm_id))

    def set_machine_state(
        self, node: str, vm_id: int, action: Action, progress: Progress | None = None
    ) -> PowerResult:
        """Start, stop (cut the power), shut down or reboot a machine, and wait for it.

        POST /nodes/{node}/{qemu|lxc}/{vm_id}/status/{action}, once; then its task and
        the live state are read, 45 s in all, and `progress` is called about every
        second. Writes the audit trail. Raises ProxmoxError where the action was refused
        or failed, or where its outcome is unknown.
        """
        return switch(self._api, node, vm_id, action, progress)
