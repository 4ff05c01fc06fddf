"""Everything that list_infrastructure reads, at once."""

import time
from functools import partial

from src.errors import ProxmoxError
from src.lists import notes
from src.lists.ask_nodes import Answers, ask_nodes
from src.lists.attention import Findings, needs_attention
from src.lists.merge import add_up, merge_nodes
from src.lists.tasks import failed_backups, not_made_good
from src.models import Infrastructure
from src.proxmox.api import Api
from src.proxmox.entry_nodes import probe
from src.proxmox.rows import Row, integer, read_cluster, read_node_resources
from src.proxmox.tasks import UPID, read_log, read_task

CEPH = ("rbd", "cephfs")  # the storages that need it
HA, BACKUP = "ha/status/current", "backup-info/not-backed-up"
# What is asked beside the nodes, and what it tells.
SOURCES = {"status": "quorum", "tasks": "failed tasks", HA: "HA", BACKUP: "backup jobs"}
SOURCES["ceph"] = "Ceph"
NEVER_SEEN = ["inside guests", "disks' health", "updates", "replication"]


def read_overview(api: Api) -> Infrastructure:
    """Return what needs attention, the cluster's name and quorum, nodes and totals.

    Raises ProxmoxError if /nodes cannot be read.
    """
    troubles = probe(api)
    answers = ask_nodes(
        api,
        ["status", "disks/zfs"],
        {path: {} for path in ("status", "resources", "tasks", HA, BACKUP)},
        after={
            "ceph": ("resources", _ask_ceph),
            "logs": ("tasks", partial(_read_logs, own=api.settings.token_id)),
        },
    )
    cluster, quorate = read_cluster(answers.cluster.get("status", []))
    found = _findings(api, answers, quorate, troubles())
    totals = add_up(found.nodes)
    about = notes.about_nodes(answers, cluster, quorate, totals, len(found.stale), SOURCES)
    return Infrastructure(
        attention=needs_attention(found),
        not_seen=[*_refused(answers), *NEVER_SEEN],
        cluster=cluster,
        quorate=quorate,
        nodes=found.nodes,
        totals=totals,
        notes=about,
    )


def _findings(api: Api, answers: Answers, quorate: bool | None, addresses: list[str]) -> Findings:
    """Read the rows of all sources."""
    resources, silent, live = answers.resources, answers.silent, answers.by_node("status")
    nodes = merge_nodes(answers.nodes, live, silent, resources)
    entry = api.addresses.in_order()[0]
    peer = entry.transport.peer
    tasks = answers.cluster.get("tasks")
    return Findings(
        nodes=nodes,
        quorate=quorate,
        silent=silent,
        own={name: read_node_resources(name, row) for name, row in live.items()},
        stale={n for n, row in answers.nodes.items() if row.get("status") == "unknown"} - silent,
        resources=resources,
        addresses=addresses,
        ha=answers.cluster.get(HA, []),
        ceph=next(iter(answers.cluster.get("ceph", [])), {}),
        zfs=answers.by_node("disks/zfs"),
        tasks=None if tasks is None else [read_task(row) for row in tasks],
        logs={row["upid"]: row["lines"] for row in answers.cluster.get("logs", [])},
        not_backed_up=answers.cluster.get(BACKUP, []),
        own_token=api.settings.token_id,
        address=entry.url,
        expires=peer.expires if peer else None,
        now=_now(api, answers.cluster.get(HA, []), tasks or []),
    )


def _now(api: Api, *lists: list[Row]) -> float:
    """Return the cluster's time: by the header Date, or else the newest time in a list."""
    if api.server_time is not None:
        return api.server_time
    for rows in lists:
        times = [row.get(key) for row in rows for key in ("timestamp", "endtime", "starttime")]
        if newest := max((integer(each) or 0 for each in times), default=0):
            return newest
    return time.time()


def _ask_ceph(api: Api, resources: list[Row]) -> list[Row]:
    """GET /cluster/ceph/status, if a storage is on Ceph."""
    if any(row.get("plugintype") in CEPH for row in resources):
        return [api.row(api.root.cluster.ceph.status)]
    return []


def _read_logs(api: Api, rows: list[Row], own: str) -> list[Row]:
    """Read the logs of the newest failed backups, which name the machines."""
    failed = not_made_good(map(read_task, rows), _now(api, rows), own)
    logs: list[Row] = []
    for task in failed_backups(failed):
        try:
            if UPID.fullmatch(task.upid):
                logs.append({"upid": task.upid, "lines": read_log(api, task.upid)})
        except ProxmoxError:
            continue  # its node may be offline, and its exit status says that it failed
    return logs


def _refused(answers: Answers) -> list[str]:
    """Return what the token may not see, or what this version of Proxmox does not have."""
    errors = answers.cluster_errors
    refused = [what for path, what in SOURCES.items() if notes.is_refused(errors.get(path))]
    # Without Sys.Audit on / the list of tasks is not refused, but empty.
    if "tasks" not in errors and notes.is_refused(errors.get(HA)):
        refused.insert(1, SOURCES["tasks"])
    if any(notes.is_refused(error) for error in answers.optional_errors.values()):
        refused.append("ZFS")
    return refused
