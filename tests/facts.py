"""Check each answer against the recording: is all that it says true, however it says it?

`untrue` reads in the recording what the cluster was like before the call and at its end,
concludes what is true, without the code of src, and returns a sentence for each fact that
does not hold. It searches texts only for states, nodes, ids, names, counts, durations and
Proxmox's own reasons, so they may be reworded. It does not check figures (CPU, memory,
versions, times of day, how full a storage is unless it needs attention), advice other than
`force`, an invented second cause, or the order of rows.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import chain, product

from tests.conftest import Answer
from tests.replay import ACTIVE, GOALS, Replay, Row

Facts = Iterator[tuple[str, object]]  # a sentence for when it does not hold, whether it holds
FROZEN = ("io-error", "internal-error", "guest-panicked", "watchdog", "shutdown")
STATES = "|".join(("running", "stopped", "paused", "suspended", "prelaunch", *FROZEN))
LIMITS = {"60", "70", "125", "180", "600"}  # seconds until Proxmox gives up or kills a guest
CUT_SHORT = ("received interrupt", "unexpected status")  # of a task that a forced stop ended
UNLOCKED = ("start suspended", "start mounted", "stop mounted")  # work in spite of the lock
RESUMED = ("start backup prelaunch", "start backup paused")  # off, and being backed up
FAILED = re.compile("(?!OK|WARNINGS|RUNNING).")
NO_CLAIM = re.compile(r"(?i)\b(when|if|once|until|not|of it|task|process|HA is|\w+ of .* is)\b")
WAS_CUT = re.compile(r"(?i)(?<!to )(?<!will )(?<!may )(?<!be )(?<!not )\b(cut|killed)\b")
NODE = re.compile(r"\bpve\d+\b(?!\.\w)")  # not a host name
LABEL = re.compile(r"(?i)\b((?:VM|container|machine) \d+)(?: \((\S+)\))?")
COLUMNS = "vmid name node type status template lock hastate live"
LISTS = {  # the key of its rows, what it asks of the cluster and of each node, columns
    "list_infrastructure": ("nodes", "", ["status"], "node status"),
    "list_machines": ("machines", "?type=vm", ["qemu", "lxc"], COLUMNS),
    "list_storage": ("storages", "?type=storage", ["storage"], "storage node status"),
}


def untrue(tool: str, given: Row, answer: Answer, replay: Replay) -> list[str]:
    """Return a sentence for each fact that does not hold."""
    facts = _list_facts if tool in LISTS else _power_facts
    wrong = [sentence for sentence, holds in facts(tool, given, answer, replay) if not holds]
    times = {*re.findall(r"\b(?:after|within|for|in) (\d+) s\b", answer.text)} - LIMITS
    late = [seconds for seconds in times if int(seconds) > replay.clock.latest + 1]
    return wrong + [f"The call did not take {seconds} s." for seconds in late]


def _power_facts(tool: str, given: Row, answer: Answer, replay: Replay) -> Facts:
    call = _PowerCall(tool, given, answer, replay)
    can_be_read = not call.is_elsewhere and call.before != "unknown"
    course = chain(call.requests(), call.outcome(), call.states(), call.content())
    yield from chain(call.names(), course if can_be_read else call.refusal())


class _PowerCall:
    """Read what the recording says about a call of a power tool, and check the answer."""

    def __init__(self, tool: str, given: Row, answer: Answer, replay: Replay) -> None:
        self.answer, self.replay, self.posts = answer, replay, replay.posts
        self.text = re.sub(r"(?m)^\| .*", "", answer.text)  # without the lines of a task's log
        self.vm_id, self.node, begin, end = given["vm_id"], given["node"], replay.at, replay.end
        action = "stop" if given.get("force") else tool[:-8].replace("stop", "shutdown")
        self.action, self.goal = action, GOALS[action]
        self.is_reboot, self.is_graceful = action == "reboot", action in ("shutdown", "reboot")
        rows = replay.rows("/cluster/resources", begin)
        nodes = {row["node"]: row["status"] for row in rows if row["type"] == "node"}
        machine: Row = next((row for row in rows if row.get("vmid") == self.vm_id), {})
        self.type, self.name, home = (machine.get(key) for key in ("type", "name", "node"))
        self.nodes = {self.node, home or self.node} if self.node in nodes else {*nodes}
        self.is_elsewhere = home != self.node or nodes[self.node] != "online"
        vms = replay.rows("/cluster/resources?type=vm", end)
        self.moved = {r["node"] for r in vms if r.get("vmid") == self.vm_id} - {home}
        self.nodes |= self.moved
        self.path = f"/nodes/{self.node}/{self.type}/{self.vm_id}/status/"
        looks = [replay.recorded(f"{self.path}current", when) for when in (begin, end)]
        self.before, self.after = map(replay.state, looks)
        self.first, self.last = (look.get("data") or {} for look in looks)
        is_restarted = self.last.get("pid") not in (None, self.first.get("pid"))
        self.is_reached = self.after == self.goal and (is_restarted or not self.is_reboot)
        is_frozen = action == "start" and (self.before, self.after) == ("stopped", "prelaunch")
        self.is_reached |= is_frozen  # its options have it wait there
        tasks, self.tasks = (replay.power_tasks(self.node, self.vm_id, t) for t in (begin, end))
        self.other, upid = replay.under_way(self.first, tasks, replay.clock_at(begin))
        frozen = "'freeze'" in str(self.first.get("ha"))  # HA is disarmed; it restarts containers
        self.is_frozen = frozen and not (self.is_reboot and self.type == "lxc")
        self.is_needless = self.before == self.goal and not self.is_reboot
        opposed = self.other and (self.other == "reboot" or GOALS[self.other] != self.goal)
        self.is_opposed = bool(opposed)
        self.reply = replay.reply(*self.posts[-1]) if self.posts else {"status": 200, "data": upid}
        self.upid = self.reply.get("data") if not self.is_needless or self.is_opposed else None
        self.task = f"/nodes/{self.node}/tasks/{self.upid}"
        task = replay.recorded(f"{self.task}/status", end).get("data") or {}
        self.is_running, self.end = task.get("status") == "running", task.get("exitstatus", "")

    @cached_property
    def obstacles(self) -> list[str]:
        """Return a word for each thing because of which nothing may be sent."""
        lock, in_error = self.first.get("lock"), "'error'" in str(self.first.get("ha"))
        resumes = f"{self.action} {lock} {self.before}" in RESUMED
        agreeing = ("", self.action, "stop" if self.action == "shutdown" else "")
        usual = "running" if self.is_graceful else "stopped"
        words = {
            "template": self.first.get("template"),
            "error": self.is_reboot and in_error,
            "freeze": self.is_frozen and not self.is_needless,
            "quorum": self.is_reboot and not (self.other or self.replay.quorate(self.replay.at)),
            self.other: self.is_graceful and self.other not in agreeing,
            f"({lock})": lock and f"{self.action} {lock}" not in UNLOCKED and not resumes,
            self.before: self.action != "stop" and self.before != usual and not resumes,
        }
        return [word for word, applies in words.items() if applies and not self.is_needless]

    @cached_property
    def reasons(self) -> list[str]:
        """Return the words of which an error must have one; none if all is well."""
        if self.moved and self.after == "unknown":
            return [*self.moved]
        status, reason = self.reply["status"], self.reply.get("reason", "")
        if status != 200 and not self.is_reached:
            reason = re.sub(r".* (\S+)\)$|\.$", r"\1", reason)  # of a 403 only the privilege
            undelivered = status == 595 and self.reply.get("seconds", 0) < 30
            return [reason if status <= 500 or undelivered else "list_machines"]
        if FAILED.match(self.end) and not self.is_reached:
            if re.search(r"ha-manager.*exit code \d+$", self.end):  # it says why in its log
                log = self.replay.rows(f"{self.task}/log", self.replay.end)
                return [row["t"] for row in log[-2:-1]]
            return ["cut" if self.end in CUT_SHORT else re.sub(r"\x1b\[[\d;]*m", "", self.end)]
        ha_acts = re.search("'managed': 1.*'state': '(?!error)", str(self.last))
        is_undecided = self.is_needless or self.is_running or ha_acts or not self.upid
        if self.obstacles or self.is_reached or is_undecided:
            return self.obstacles
        began = int(self.upid.split(":")[4], 16)
        later = [t for t in self.tasks if t["starttime"] >= began and t["upid"] != self.upid]
        return [task["status"] for task in later[-1:] if FAILED.match(task["status"])]

    def names(self) -> Facts:
        """Check that the text mentions no machine and no node but those of the call."""
        kind = "container" if self.type == "lxc" else "vm"
        for label, name in LABEL.findall(self.text):
            is_right = label.lower() in (f"machine {self.vm_id}", f"{kind} {self.vm_id}")
            yield f"{label} ({name}) is another machine.", is_right and name in (self.name, "")
        nodes = {*NODE.findall(self.text)}
        yield f"The text names {nodes}, not only {self.nodes}.", nodes <= self.nodes

    def refusal(self) -> Facts:
        """Check the error about a machine that is elsewhere or cannot be read."""
        place = self.nodes - {self.node} or {str(self.vm_id)}
        words = place if self.is_elsewhere else {self.node, "othing was sent"}
        is_told = self.answer.is_error and all(word in self.text for word in words)
        yield f"An error must say {words}, and nothing be sent.", is_told and not self.posts

    def requests(self) -> Facts:
        """Check that the action was sent once, or not at all, and that the text agrees."""
        sent, once = [(path, *body) for path, body in self.posts], (self.path + self.action,)
        overruling = (*once, "overrule-shutdown")
        allowed = [[once], [overruling]]
        if sent == [overruling, once] and self.replay.reply(*self.posts[0])["status"] == 400:
            allowed = [sent]  # Proxmox before 8.2 does not know the parameter
        if self.is_needless or self.obstacles or (self.other and self.is_graceful):
            allowed = [[]]
        yield f"It sent {sent}; allowed is one of {allowed}.", sent in allowed
        denies = "nothing was sent" in self.text.lower()
        yield f"The text must say whether anything was sent: {sent}.", denies != bool(sent)

    def outcome(self) -> Facts:
        """Check that only a failure is an error, and what the text says of its cause."""
        reasons, fails, end = self.reasons, bool(self.reasons), self.end
        yield f"It must be an error only for a reason: {reasons}.", self.answer.is_error == fails
        yield f"The text must say {reasons}.", any(word in self.text for word in reasons) == fails
        yield f"The text must say {end}.", not end.startswith("WARN") or end in self.text
        is_cut = end in CUT_SHORT or (self.action == "stop" and self.posts and self.is_reached)
        says_cut = WAS_CUT.search(re.sub(r"[^.;\n]*force: true[^.;\n]*", "", self.text))
        yield f"Whether the power was cut: {is_cut}.", bool(is_cut) == bool(says_cut)

    def states(self) -> Facts:
        """Check each state that the text claims; only an error may claim none."""
        after, is_useless = self.after, self.after in ("stopped", "unknown") and not self.moved
        claims = {after} if self.answer.is_error or after == "unknown" else set()
        text = re.sub(r" \([^()]*\)|\".*\"", "", self.text)  # names, and Proxmox's words
        for clause in re.split(r"[.,;:\n]|\b(?:and|but)\b", text):
            if not NO_CLAIM.search(clause):
                claims |= {*re.findall(rf"\b(?:is (?:\w+ ){{0,2}}?|it )({STATES})\b", clause)}
        yield f"The machine is {after}; the text says {claims}.", claims == {after}
        yield f"Force is useless: it is {after}.", not (is_useless and "force: true" in self.text)

    def content(self) -> Facts:
        """Check the structured content of a success, all of it."""
        if self.answer.is_error or self.reasons:
            return
        is_rebooted = self.is_reboot and self.is_reached
        is_changed = is_rebooted or self.after not in (self.before, "unknown")
        is_open = self.is_running or (self.is_needless and self.is_opposed)
        content = {"vm_id": self.vm_id, "name": self.name, "node": self.node, "type": self.type}
        content |= {"action": self.action, "status": self.after, "task": self.upid}
        content |= {"changed": is_changed, "finished": self.is_reached and not is_open}
        content |= {"message": self.answer.text}
        yield f"The structured content must be {content}.", self.answer.data == content


def _list_facts(tool: str, given: Row, answer: Answer, replay: Replay) -> Facts:
    key, query, paths, columns = LISTS[tool]
    now, only = (replay.at or 0) + 0.03, given.get("node")  # after three round trips
    listing = replay.recorded("/nodes", now)
    if listing["status"] != 200 or answer.is_error:
        unreachable = "Cannot talk to" if listing["status"] == 0 else "no failure"
        reason = listing.get("reason", unreachable).rstrip(".")
        yield f"It must be an error: {reason}.", answer.is_error and reason in answer.text
        return
    nodes = {r["node"]: r["status"] for r in listing["data"] if only in (None, r["node"])}
    offline = {node for node, status in nodes.items() if status == "offline"}
    resources = replay.rows(f"/cluster/resources{query}", now)
    known, failed, silent = replay.list_rows(resources, nodes, paths, now)
    if key == "nodes":
        nodes |= dict.fromkeys(silent, "unknown")
        known = [{"node": node, "status": status} for node, status in nodes.items()]
    known = [row for row in known if row["node"] in nodes]
    rows = [row for row in known if given.get("status") in (None, row["status"])]
    shown, lines = answer.data[key], answer.text.split("\n")
    notes = "\n".join(lines[: len(lines) - len(shown)])
    yield from _row_facts(rows, columns.split(), shown, lines[len(lines) - len(shown) :])
    if key == "nodes":
        total, allowed = f"{[*nodes.values()].count('online')} of {len(nodes)}", {*nodes}
        is_split = answer.data["quorate"] is False
        yield "Text and content differ about quorum.", is_split == ("NOT QUORATE" in notes)
        troubles = {f"node {node}" for node in silent} | {f"{node}.*offline" for node in offline}
        troubles |= set() if replay.quorate(now) else {"NO QUORUM"}
        troubles = troubles.union(*(_troubles(row, offline) for row in resources))
        troubles |= _of_tasks(replay, now, resources, offline)
        yield from _attention_facts(troubles, lines, answer.data["attention"])
    else:
        total, allowed = str(len(shown)), {only}
        tally = Counter("template" if r.get("template") else r["status"] for r in rows or known)
        for status, count in tally.items():
            yield f"{count} are {status}.", re.search(rf"\b{count} {status}", notes)
    is_total = re.search(rf"\b{total} (of \d+ )?{key[:-1]}", notes)
    yield f"The total is {total}.", not shown or is_total
    unread, named = offline | failed, {*NODE.findall(notes)}
    yield f"The notes name {named}, not {unread}.", not shown or unread <= named <= unread | allowed


def _row_facts(rows: list[Row], columns: list[str], shown: list[Row], lines: list[str]) -> Facts:
    """Check that each row is shown once, and that its line has what its content has."""
    found = []
    for row, line in zip(shown, lines, strict=True):
        row = {"vmid": row.get("vm_id"), "hastate": row.get("ha"), "live": True} | row
        for node in row.get("nodes", [row.get("node")]):
            row = {"status": ACTIVE[row.get("active")]} | row | {"node": node}
            found.append(tuple(row.get(column) or None for column in columns))
        cells = {str(cell) for cell in found[-1] if cell not in (None, True)}
        yield f"The line {line!r} must have {cells}.", cells <= {*re.split("[ ,()]+", line)}
    expected = [tuple(row.get(column) or None for column in columns) for row in rows]
    yield f"The rows must be {expected}.", Counter(found) == Counter(expected)


def _troubles(row: Row, offline: set[str]) -> set[str]:
    """Return a pattern for each thing that makes a row of resources need attention."""
    name, node = str(row.get("vmid") or row.get("storage") or "node"), row["node"]
    status, ha, is_known = row["status"], row.get("hastate"), node not in offline
    share = 0 if "vmid" in row else row.get("disk", 0) / (row.get("maxdisk") or 1)
    words = {
        str(ha)[:4]: ha in (("fence",) if name == "node" else ("error", "fence", "recovery")),
        status: is_known and status in (*FROZEN, "paused", "suspended"),
        f"{100 * share:.0f}": is_known and share >= 0.9,
        "active": is_known and "storage" in row and status != "available",
    }
    return {f"(?=.*{name})(?=.*{node}).*\\b{word}" for word, applies in words.items() if applies}


def _of_tasks(replay: Replay, now: float, resources: list[Row], offline: set[str]) -> set[str]:
    """Return a pattern for each failed task, left over lock, and dead part of HA."""
    tasks = sorted(replay.rows("/cluster/tasks", now), key=lambda t: t.get("endtime", 0))
    ha = replay.rows("/cluster/ha/status/current", now)
    failed: dict[tuple[str, str, str], str] = {}
    for task in tasks:
        kind = re.sub("^(qm(?=[^i])|q|vz(?=[^d])|ha)", "", task["type"])
        status, key = task.get("status", "RUNNING"), (kind, task["id"], task["node"])
        is_told = re.fullmatch("vzdump|start(all)?|stopall|migrate|.*snapshot|bulk.*", kind)
        is_told = is_told and (kind != "start" or task["user"] == "root@pam")
        if re.match("OK|WARN", status) and not task["type"].startswith("ha"):
            failed.pop(key, None)
        elif is_told and FAILED.match(status) and task["user"] != "mcp@pve":
            failed[key] = rf"(?=.*{task['node']})(?=.*{task['id']}).*failed"
    running = [t for t in tasks if "endtime" not in t]
    busy = {t["id"] or t["node"] for t in running}
    left = [r for r in resources if r.get("lock", "suspended") != "suspended" and tasks]
    left = [r for r in left if not {str(r["vmid"]), r["node"]} & (busy | offline)]
    dead = [r["node"] for r in ha if "dead?" in r["status"] and r["node"] not in offline]
    locked = {rf"(?=.*\b{r['vmid']}\b).*locked" for r in left}
    return {*failed.values()} | locked | {rf"{node}.*dead" for node in dead}


def _attention_facts(troubles: set[str], lines: list[str], content: list[str]) -> Facts:
    """Check that each trouble has a line, and each line a trouble."""
    attention = [line[2:] for line in lines if line.startswith("- ")]
    yield "Text and content differ in what needs attention.", attention == content
    pairs = [p for p in product(troubles, attention) if re.search(f"(?i){p[0]}", p[1])]
    untold = troubles - {trouble for trouble, _ in pairs}
    yield f"No line says {untold}.", not untold
    unfounded = {*attention} - {line for _, line in pairs}
    yield f"Nothing in the recording supports {unfounded}.", not unfounded
