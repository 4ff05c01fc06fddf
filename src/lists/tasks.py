"""What the cluster's tasks say: which failed for good, and what runs: pure functions."""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime

from src.foreign import clean, quote, some_of
from src.lists.texts import count
from src.models import MIN_VM_ID, Machine, RunningTask
from src.proxmox.rows import Row
from src.proxmox.tasks import CONSOLES, PREFIX, Task, read_task, word_for

DAY = 86_400
MAX_LOGS = 3  # of failed backups are read
FEW_FAILURES = 4  # of one backup have room for their whole reasons
BY_ROOT = rf"({PREFIX}|ha)start"
# Worth telling if they fail; starts only by root@pam, which are those by HA and at boot.
TOLD = (
    rf"vzdump|{BY_ROOT}|(q|vz|ha)migrate|({PREFIX})(restore|snapshot|delsnapshot|rollback)|"
    "startall|stopall|bulk-?.*|prunebackups|acme(renew|newcert)|ceph.*"
)
FAILED_BACKUP = re.compile(r"ERROR: Backup of (?:VM|CT) (\d+) failed(?: - (.*))?")


def not_made_good(tasks: Iterable[Task], now: float, own: str) -> dict[Task, int]:
    """Return the failed tasks of the last day since which none of their kind succeeded.

    Only those worth telling, and not those of the token `own`: newest first, the newest of
    each kind, machine and node, and how many of them failed.
    """
    told: dict[tuple[str, str, str], list[Task]] = {}
    ended = sorted((task for task in tasks if task.ended), key=lambda task: task.ended)
    for task in ended:
        key = (word_for(task.type), task.id, task.node)
        if not task.failed:
            if not task.type.startswith("ha"):  # its success is only that of a request to HA
                told.pop(key, None)
        elif _is_worth_telling(task, own) and task.ended > now - DAY:
            told.setdefault(key, []).append(task)
    newest = {failures[-1]: len(failures) for failures in told.values()}
    return dict(sorted(newest.items(), key=lambda each: -each[0].ended))


def _is_worth_telling(task: Task, own: str) -> bool:
    by_root = task.user == "root@pam" or not re.fullmatch(BY_ROOT, task.type)
    return bool(re.fullmatch(TOLD, task.type)) and task.user != own and by_root


def failed_backups(tasks: Iterable[Task]) -> list[Task]:
    """Return the backups whose logs tell which machines failed, the newest ones."""
    return [task for task in tasks if task.type == "vzdump"][:MAX_LOGS]


def about_failure(
    task: Task, times: int, log: Iterable[str], machines: Mapping[int, Machine]
) -> str:
    """Say what failed, when, and why in Proxmox's words."""
    machine = machines.get(_vm_id(task) or 0)
    unknown = f"machine {task.id}" if _vm_id(task) else task.id
    of = f" of {machine.short if machine else unknown}" if task.id else ""
    when = datetime.fromtimestamp(task.ended, UTC)
    failures = [match for line in log if (match := FAILED_BACKUP.search(line))]
    most = 80 if len(failures) <= FEW_FAILURES else 20  # characters, so that all can be named
    reasons = [
        f"{machines[int(vm_id)].short if int(vm_id) in machines else f'machine {vm_id}'} "
        f"({quote(clean(reason or 'no reason', most))})"
        for vm_id, reason in (match.groups() for match in failures)
    ]
    why = some_of(reasons) or quote(clean(task.status, 100))
    if len(failures) > FEW_FAILURES:
        why = f"{len(failures)} machines: {why}"
    often = f" {times} times, last" if times > 1 else ""
    return (
        f"The {word_for(task.type)}{of} on {task.node} failed{often} at {when:%Y-%m-%d %H:%M} UTC: "
        f"{why}"
    )


def running_on(
    machines: Iterable[Machine], tasks: Iterable[Task], offline: Collection[str]
) -> dict[int, RunningTask]:
    """Return what runs on each machine now: by its id, or by its lock for a backup job.

    The rows of an offline node stay as they were, so its tasks seem to run for ever.
    """
    running = [
        task
        for task in sorted(tasks, key=lambda task: -task.began)
        if task.status is None and task.node not in offline and task.type not in CONSOLES
    ]
    by_id = {_vm_id(task): task for task in running}  # the oldest stays
    found: dict[int, RunningTask] = {}
    for machine in machines:
        task = by_id.get(machine.vm_id) or next(
            (each for each in running if _may_lock(each, machine)), None
        )
        if task:
            found[machine.vm_id] = RunningTask(task.type, task.began or None)
    return found


def _may_lock(task: Task, machine: Machine) -> bool:
    """Whether a task of another id may hold the machine's lock: a job, or one that makes it."""
    holders = {"backup": "vzdump", "clone": f"({PREFIX})clone", "create": f"({PREFIX}).*"}
    pattern = holders.get(machine.lock or "")
    is_other = task.id == "" if machine.lock == "backup" else task.id != ""
    return bool(pattern and is_other and task.node == machine.node) and bool(
        re.fullmatch(pattern or "", task.type)
    )


def _vm_id(task: Task) -> int | None:
    """Return the machine of a task. The id may also be that of an OSD, or a word."""
    return int(task.id) if task.id.isdecimal() and int(task.id) >= MIN_VM_ID else None


def add_tasks(machines: list[Machine], rows: Iterable[Row], offline: Collection[str]) -> None:
    """Add to each machine the task that runs on it, from the rows of /cluster/tasks."""
    running = running_on(machines, map(read_task, rows), offline)
    for machine in machines:
        machine.task = running.get(machine.vm_id)


def without_backup(rows: Iterable[Mapping[str, object]]) -> str:
    """Say how many machines are in no backup job, and the first ones."""
    names = [f"{row.get('vmid')} ({clean(row.get('name') or 'no name', 40)})" for row in rows]
    if not names:
        return ""
    are = "is" if len(names) == 1 else "are"
    return f"{count(len(names), 'machine')} {are} in no backup job: {some_of(names)}"
