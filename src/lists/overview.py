"""Everything that list_infrastructure reads, at once."""

import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial

from src.connection.deadline import time_left
from src.lists import notes
from src.lists.ask_nodes import Answers, ask_nodes
from src.lists.attention import Findings, needs_attention
from src.lists.merge import add_up, merge_nodes
from src.lists.tasks import MAX_LOGS, failed_backups, not_made_good
from src.models import KINDS, Infrastructure
from src.proxmox.api import Api
from src.proxmox.entry_nodes import probe
from src.proxmox.rows import Row, integer, read_cluster, read_node_resources
from src.proxmox.tasks import UPID, read_log, read_task

CEPH = ("rbd", "cephfs")  # the storages that need it
HA, BACKUP = "ha/status/current", "backup-info/not-backed-up"
# What is asked beside the nodes, and what it tells.
SOURCES = {"status": "quorum", "tasks": "failed tasks", HA: "HA", BACKUP: "backup jobs"}
SOURCES["ceph"] = "Ceph"
LOG_MARGIN = 0.3  # seconds before the end of the list in which to use them
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
    tasks = answers.cluster.get("tasks", [])
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
        tasks=[read_task(row) for row in tasks] if _sees_tasks(answers) else None,
        logs={row["upid"]: row["lines"] for row in answers.cluster.get("logs", [])},
        not_backed_up=answers.cluster.get(BACKUP, []),
        own_token=api.settings.token_id,
        address=entry.url,
        expires=peer.expires if peer else None,
        now=_now(api, answers.cluster.get(HA, []), tasks),
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
    """Read the logs of the newest failed backups at once, which name the machines.

    Leaves out those that cannot be read in time: the exit status says that they failed.
    """
    failed = failed_backups(not_made_good(map(read_task, rows), _now(api, rows), own))
    upids = [task.upid for task in failed if UPID.fullmatch(task.upid)]
    pool = ThreadPoolExecutor(MAX_LOGS)
    asked = {upid: pool.submit(partial(copy_context().run, read_log, api, upid)) for upid in upids}
    done, _ = wait(asked.values(), max(0.0, time_left() - LOG_MARGIN))
    pool.shutdown(wait=False)
    read = [upid for upid, log in asked.items() if log in done and log.exception() is None]
    return [{"upid": upid, "lines": asked[upid].result()} for upid in read]


def _sees_tasks(answers: Answers) -> bool:
    """Whether the token sees tasks. Without Sys.Audit on / the list is not refused, but empty."""
    is_refused = notes.is_refused(answers.cluster_errors.get(HA))
    return bool(answers.cluster.get("tasks")) or ("tasks" in answers.cluster and not is_refused)


def _refused(answers: Answers) -> list[str]:
    """Return what the token may not see, or what this version of Proxmox does not have."""
    errors = answers.cluster_errors
    refused = [what for path, what in SOURCES.items() if notes.is_refused(errors.get(path))]
    if "tasks" not in errors and not _sees_tasks(answers):
        refused.insert(1, SOURCES["tasks"])
    kinds = {row.get("type") for row in answers.resources}
    refused += [] if kinds & KINDS.keys() else ["machines"]
    refused += [] if "storage" in kinds else ["storages", "Ceph"]
    if any(notes.is_refused(error) for error in answers.optional_errors.values()):
        refused.append("ZFS")
    return refused
