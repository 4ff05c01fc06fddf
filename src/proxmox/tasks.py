"""Proxmox's tasks: what a row of a list of them says, and their logs."""

import re
from dataclasses import dataclass

from src.foreign import clean
from src.models import KINDS
from src.proxmox.api import Api
from src.proxmox.rows import Row, integer

UPID = re.compile(r"UPID:([a-zA-Z0-9-]+)(:[0-9A-Fa-f]{8,9}){3}:[^/\s?#%]+:")
MAX_TIME = 2**33
CONSOLES = ("vncproxy", "vncshell", "termproxy", "spiceproxy", "spiceshell")
PREFIX = "|".join(kind.task for kind in KINDS.values())
# What a type of task does, in a word; the first pattern that matches counts.
WORDS = {
    "vzdump": "backup",
    rf"({PREFIX}|ha)start": "start",
    rf"({PREFIX})(shutdown|reboot|stop|suspend|resume|clone|template)": r"\2",
    "hastop": "stop",
    "(q|vz|ha)migrate": "migration",
    rf"({PREFIX})restore": "restore",
    rf"({PREFIX})snapshot": "snapshot",
    rf"({PREFIX})delsnapshot": "removal of a snapshot",
    rf"({PREFIX})rollback": "rollback",
    rf"({PREFIX})create": "creation",
    rf"({PREFIX})destroy": "removal",
    "startall": "start of all machines",
    "stopall": "shutdown of all machines",
    "bulk-?(start|shutdown|suspend|migrate)": r"bulk \1",
    "prunebackups": "pruning of backups",
    "acme(renew|newcert)": "renewal of the certificate",
    "ceph.*": "work on Ceph",
}
LOG_PAGE, MAX_LOG_PAGES = 5000, 10  # lines in a request, and requests


@dataclass(frozen=True)
class Task:
    """A task of Proxmox. `status` is its exit status, None while it runs. `began` and `ended`
    are in seconds since 1970 by the node's clock, 0 if unknown. `id` is mostly a machine's,
    and "" for a job of several. `user` is the user or the token that began it."""

    upid: str
    type: str
    status: str | None
    began: int
    ended: int = 0
    node: str = ""
    id: str = ""
    user: str = ""

    @property
    def failed(self) -> bool:
        return self.status is not None and not succeeded(self.status)


def succeeded(status: str) -> bool:
    """Whether an exit status means success: OK, or WARNINGS and their number."""
    return status == "OK" or status.startswith("WARNINGS")


def read_task(row: Row) -> Task:
    """Read a row of /nodes/{node}/tasks or /cluster/tasks.

    A running task has the status RUNNING, or none and no end.
    """
    began, ended = (integer(row.get(key)) or 0 for key in ("starttime", "endtime"))
    status = clean(row.get("status") or ("no exit status" if ended else "RUNNING"))
    user, token = clean(row.get("user") or ""), clean(row.get("tokenid") or "")
    return Task(
        upid=clean(row.get("upid") or ""),
        type=clean(row.get("type") or "", 40),
        status=None if status == "RUNNING" else status,
        began=began if 0 < began < MAX_TIME else 0,
        ended=ended if 0 < ended < MAX_TIME else 0,
        node=clean(row.get("node") or "", 63),
        id=clean(row.get("id") or "", 40),
        user=f"{user}!{token}" if token and "!" not in user else user,
    )


def word_for(kind: str) -> str:
    """Return what a type of task does, or the type itself."""
    for pattern, word in WORDS.items():
        if match := re.fullmatch(pattern, kind):
            return match.expand(word)
    return kind


def read_log(api: Api, task: str) -> list[str]:
    """GET /nodes/{node}/tasks/{upid}/log: its lines, cleaned and shortened.

    Raises ProxmoxError, with code 403 without Sys.Audit on /nodes/NODE.
    """
    node = task.split(":")[1]
    log = api.root.nodes(node).tasks(task).log
    rows: list[Row] = []
    for _ in range(MAX_LOG_PAGES):
        page = api.rows(log, node, start=len(rows), limit=LOG_PAGE)
        rows += page
        if len(page) != LOG_PAGE:
            break
    lines = [clean(row.get("t") or "") for row in rows]
    return [line for line in lines if line not in ("", "no content")]
