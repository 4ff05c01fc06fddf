"""What is untrue in an answer, by the recording that was played.

The facts come from the recording alone. Of the answer only what no rewording changes is
read: states, ids, names, numbers, Proxmox's words, names of tools, structured content.
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tests.conftest import Answer
from tests.replay import Replay

Row = dict[str, Any]
Facts = Iterator[tuple[str, object]]

FROZEN = ("io-error", "internal-error", "guest-panicked", "watchdog", "shutdown")
STATES = ("running", "stopped", "paused", "suspended", *FROZEN)
ALL_STATES = {*STATES, "unknown", "online", "offline", "active", "inactive"}
LIMITS = (60, 125, 180, 600)  # seconds after which Proxmox gives up or kills a guest
CUT_SHORT = ("received interrupt", "unexpected status")
POWER_TASK = re.compile("(?:qm|vz|ha)(start|stop|shutdown|reboot)")
SUCCESS = re.compile("OK|WARNINGS|RUNNING")
IN_SPITE_OF = {("start", "suspended"), ("start", "mounted"), ("stop", "mounted")}
IS_STATE = re.compile(rf"\bis (?:\w+ ){{0,2}}?({'|'.join(STATES)})\b")
NO_CLAIM = re.compile(
    r"(?i)\b(when|if|once|until|unless|whether|not|of it|task|(start|stop|shutdown|reboot)"
    r" of .* is)\b"
)
WAS_CUT = re.compile(
    r"(?i)(?<!to )(?<!will )(?<!may )(?<!can )(?<!be )\b(cut|killed)\b"
)
MACHINE = re.compile(r"(?i)\b(VM|container|machine) (\d+)(?: \((\S+)\))?")
NODE = re.compile(r"\bpve\d+\b(?!\.)")
VERBS = {
    "start_machine": "start",
    "stop_machine": "shutdown",
    "reboot_machine": "reboot",
}
LISTS = {
    "list_infrastructure": ("nodes", "", ["status"]),
    "list_machines": ("machines", "?type=vm", ["qemu", "lxc"]),
    "list_storage": ("storages", "?type=storage", ["storage"]),
}


def untrue(tool: str, given: Row, answer: Answer, replay: Replay) -> list[str]:
    """Return what is wrong with the answer: nothing where it is true."""
    facts = (_list if tool in LISTS else _power)(tool, given, answer, replay)
    found = re.findall(r"\b(?:after|within|for|in) (\d+) s\b", answer.text)
    past, limits = replay.clock.latest + 0.5, [*map(str, LIMITS)]
    wrong = [
        f"{s} s have not passed" for s in found if int(s) > past and s not in limits
    ]
    return wrong + [what for what, true in facts if not true] + ["slow"] * (past > 58)


def _state(answer: Row) -> str:
    """Return the state in an answer of status/current, unknown where there is none."""
    row = answer.get("data") or {} if answer.get("status") == 200 else {}
    return str(row.get("qmpstatus") or row.get("status") or "unknown")


def _goal(verb: str) -> str:
    return "stopped" if verb in ("stop", "shutdown") else "running"


def _under_way(row: Row, tasks: list[Row]) -> tuple[str, str | None]:
    """Return the action that is under way on a machine, and its task unless HA has it."""
    for task in tasks:
        if task["status"] == "RUNNING":
            return task["type"][2:], task["upid"]
    ha, newest = row.get("ha") or {}, tasks[-1] if tasks else {}
    if not ha.get("managed") or ha.get("state") == "error":
        return "", None
    asked = newest.get("type") if newest.get("status") == "OK" else ""
    if row["status"] == "stopped":
        starts = asked == "hastart" or ha.get("state") in ("started", "request_start")
        return "start" if starts and asked != "hastop" else "", None
    return "stop" if "hastop" == asked or ha["state"] == "request_stop" else "", None


def _obstacle(verb: str, row: Row, quorate: bool, other: str) -> str:
    """Return the word for why the action cannot work, "" where it can."""
    state, lock = row.get("qmpstatus") or row["status"], row.get("lock")
    joins = other == verb or (verb, other) == ("shutdown", "stop")
    if state == _goal(verb) and verb != "reboot":
        return ""
    found = (
        ("template", row.get("template")),
        ("stopped", state == "stopped" and verb == "reboot"),
        (lock, lock and (verb, lock) not in IN_SPITE_OF),
        (state, state not in ("running", "stopped") and verb != "stop"),
        ("error", verb == "reboot" and (row.get("ha") or {}).get("state") == "error"),
        (other, other and verb in ("shutdown", "reboot") and not joins),
        ("quorum", verb == "reboot" and not quorate and not other),
    )
    return next((word for word, true in found if true), "")


def _power(tool: str, given: Row, answer: Answer, replay: Replay) -> Facts:
    vm_id, node, begin, end = given["vm_id"], given["node"], replay.at, replay.end
    said = re.sub(r"(?m)^\| .*", "", answer.text)
    unsent = "nothing was sent" in said.lower()
    verb = "stop" if given.get("force") else VERBS[tool]
    rows = replay.rows("/cluster/resources", begin)
    nodes = {row["node"]: row["status"] for row in rows if row["type"] == "node"}
    found: Row = next((row for row in rows if row.get("vmid") == vm_id), {})
    kind, name = found.get("type", ""), found.get("name")
    words = {"qemu": "vm", "lxc": "container"}
    for word, number, of in MACHINE.findall(said):
        right = int(number) == vm_id and of in ("", name)
        yield (
            f"{word} {number} {of}",
            right and word.lower() in ("machine", words.get(kind)),
        )
    strange = {*NODE.findall(said)} - (
        {node, found.get("node")} if node in nodes else {*nodes}
    )
    yield f"another node: {strange}", not strange
    nothing_done = answer.is_error and not replay.posts
    if found.get("node") != node or nodes[node] != "online":
        there = [found.get("node", str(vm_id))] if node in nodes else sorted(nodes)
        yield f"not there, but {there}", nothing_done and all(w in said for w in there)
        return
    path, node_tasks = f"/nodes/{node}/{kind}/{vm_id}/status/", f"/nodes/{node}/tasks"
    was = replay.recorded(f"{path}current", begin)
    if was["status"] != 200:
        yield "its state was not read", nothing_done and unsent and node in said
        return

    def tasks(now: float | None) -> list[Row]:
        path = f"{node_tasks}?source=all&vmid={vm_id}"
        found = [
            row for row in replay.rows(path, now) if POWER_TASK.fullmatch(row["type"])
        ]
        return sorted(found, key=lambda row: row["starttime"])

    before, goal = _state(was), _goal(verb)
    needless = before == goal and verb != "reboot"
    other, joined = _under_way(was["data"], tasks(begin))
    cluster = replay.rows("/cluster/status", begin)
    quorate = all(row.get("quorate", 1) for row in cluster)
    why = _obstacle(verb, was["data"], quorate, other)
    joins = other and verb in ("shutdown", "reboot")
    # What was sent.
    bodies = [list(body) for _, body in replay.posts]
    reply = (
        replay.reply(*replay.posts[-1]) if bodies else {"status": 200, "data": joined}
    )
    refused = bodies and replay.reply(*replay.posts[0])["status"] == 400
    once = bodies in ([[]], [["overrule-shutdown"]]) or (
        refused and bodies == [["overrule-shutdown"], []]
    )
    yield f"{bodies} sent, {why}, {other}", once != bool(needless or why or joins)
    yield "wrong path", all(sent == path + verb for sent, _ in replay.posts)
    optional = why not in ("", "error", "quorum", other) or why == "stopped"
    yield "sent or not?", unsent != bool(bodies) or optional and not bodies
    # What became of it.
    upid = reply.get("data") if not needless or _goal(other) != goal else None
    task = (
        replay.recorded(f"{node_tasks}/{upid}/status", end) if upid else {"status": 0}
    )
    row, last = task.get("data") or {}, replay.recorded(f"{path}current", end)
    exit_status = " ".join(row.get("exitstatus", "").split())
    runs, after = bool(row) and row["status"] != "stopped", _state(last)
    looks = [
        a for a in replay.after.get(f"{path}current", []) if 0 <= a["t"] <= (end or 0)
    ]
    pids = {(look.get("data") or {}).get("pid") for look in looks} - {None}
    again = pids - {was["data"].get("pid")} or "stopped" in map(_state, looks)
    reached = after == goal and bool(verb != "reboot" or again)
    reasons = [why] if why else []
    if reply["status"] != 200 and not reached:
        right = re.search(r"check failed \(\S+ (\S+)\)", reply["reason"])
        reasons = [right[1] if right else reply["reason"].rstrip(".")]
        reasons = ["list_machines"] if reply["status"] > 500 else reasons
    elif exit_status and not SUCCESS.match(exit_status) and not reached:
        log = replay.rows(f"{node_tasks}/{upid}/log", end)
        lines = [r["t"] for r in log if not re.match("TASK|Requesting|$", r["t"])]
        reasons = lines if re.search(r"exit code \d+$", exit_status) else [exit_status]
        reasons = ["cut"] if exit_status in CUT_SHORT else reasons
    elif not (why or reached or needless or runs) and upid:
        ha, began = (
            (last.get("data") or {}).get("ha") or {},
            int(upid.split(":")[4], 16),
        )
        later = [t for t in tasks(end) if t["starttime"] >= began and t["upid"] != upid]
        failed = [t["status"] for t in later[-1:] if not SUCCESS.match(t["status"])]
        in_error = ha.get("state") == "error"
        reasons = (
            (failed or ["error"]) if in_error else failed * (not ha.get("managed"))
        )
    yield f"error? {reasons}, it was {before}", answer.is_error == bool(reasons)
    yield f"reason {reasons}", not reasons or any(reason in said for reason in reasons)
    yield exit_status, not exit_status.startswith("WARN") or exit_status in said
    # What is said of it.
    clauses = re.split(r"[.,;:(\n]|\b(?:and|but)\b", said)
    claims = [
        m[1] for c in clauses if (m := IS_STATE.search(c)) and not NO_CLAIM.search(c)
    ]
    yield f"it is {after}, not {claims}", {*claims} <= {after}
    yield f"it is {after}", claims or answer.is_error or after == "unknown"
    useful = after not in ("stopped", "unknown") and verb != "stop"
    yield "force is of no use", useful or "force: true" not in said
    cut = verb == "stop" and bodies and reached or exit_status in CUT_SHORT
    past = [
        s for s in re.split(r"[.;\n]", said) if WAS_CUT.search(s) and "force" not in s
    ]
    past += re.findall("a forced stop cut", said)
    yield f"cut? {past}", bool(past) == bool(cut)
    no_quorum = not quorate or "quorum" in str(reply.get("reason"))
    yield "template", "template" not in said or was["data"].get("template")
    yield "no quorum", not re.search("(?i)no quorum", said) or no_quorum
    yield (
        "HA error",
        not re.search(r"HA\b[^.]*\berror", said) or "'error'" in f"{was}{last}",
    )
    yield "lock", not re.search(r"locked \(|unlock", said) or was["data"].get("lock")
    began = [
        t["starttime"] + s for t in tasks(begin) + tasks(end) for s in (0, *LIMITS)
    ]
    times = {datetime.fromtimestamp(s, UTC).strftime("%H:%M:%S") for s in began}
    yield f"times, not {times}", {*re.findall(r"\d\d:\d\d:\d\d", said)} <= times
    if not answer.is_error and not reasons:
        ends = (
            reached and not runs and not (needless and other and _goal(other) != goal)
        )
        facts = {
            "vm_id": vm_id,
            "name": name,
            "node": node,
            "type": kind,
            "action": verb,
        }
        facts |= {
            "status": after,
            "task": upid,
            "finished": ends,
            "message": answer.text,
        }
        again = reached and verb == "reboot"
        facts |= {"changed": again or after not in (before, "unknown")}
        for key, value in facts.items():
            yield f"{key} is {value!r}", answer.data.get(key) == value
        look = re.search("list_machines|not finished|Call start_machine", said)
        yield "is it finished?", bool(look) != ends


def _list(tool: str, given: Row, answer: Answer, replay: Replay) -> Facts:
    key, query, paths = LISTS[tool]
    now, only = (replay.at or 0) + 0.03, given.get("node")
    listing = replay.recorded("/nodes", now)
    if listing["status"] != 200 or answer.is_error:
        why = listing.get("reason", "none").rstrip(".")
        yield f"error: {why}", answer.is_error and why in answer.text
        return
    nodes = {r["node"]: r for r in listing["data"] if only in (None, r["node"])}
    dark = {name for name, row in nodes.items() if row["status"] == "offline"}
    later = listing.get("seconds", 0)
    live: dict[tuple[str, str], Any] = {}
    lost: dict[str, int] = {}
    for name, path in ((n, p) for n in nodes.keys() - dark for p in paths):
        reply = replay.recorded(f"/nodes/{name}/{path}", now + later)
        if (
            reply.get("status") == 200
            and reply.get("seconds", 0) <= replay.clock.latest - later
        ):
            live[name, path] = reply["data"]
        else:
            lost[name] = reply.get("status", 0)
    silent = {name for name, status in lost.items() if status != 403}
    whole = replay.rows(f"/cluster/resources{query}", now)
    machines = _machines(whole, live if key == "machines" else {}, dark)
    storages = [
        {"storage": r["storage"], "node": n, "active": bool(r["active"])}
        for (n, path), found in live.items()
        for r in found
        if path == "storage" and r.get("enabled", 1)
    ] + [
        {"storage": r["storage"], "node": r["node"], "active": None}
        for r in whole
        if r["type"] == "storage" and r["node"] in {*lost, *dark}
    ]
    states = [
        {"node": n, "status": "unknown" if n in silent else r["status"]}
        for n, r in nodes.items()
    ]
    there = {"machines": machines, "storages": storages, "nodes": states}[key]
    there = [row for row in there if only in (None, row["node"])]
    want = [
        row
        for row in there
        if given.get("status", row.get("status")) == row.get("status")
    ]
    # The rows, in the structured content and in the text.
    rows, lines = answer.data[key], answer.text.split("\n")
    notes = "\n".join(lines[: len(lines) - len(rows)])
    each = [r | {"node": n} for r in rows for n in r.get("nodes", [r.get("node")])]
    got = (
        [{k: r.get(k, k == "live" or None) for k in want[0]} for r in each]
        if want
        else each
    )
    yield f"rows: {want}", sorted(map(str, got)) == sorted(map(str, want))
    for row, line in zip(rows, lines[len(lines) - len(rows) :], strict=True):
        kept = ("vm_id", "name", "node", "type", "lock", "ha", "storage")
        told = {str(row[k]) for k in kept if row.get(k)} | {*row.get("nodes", [])}
        told |= {"template"} if row.get("template") else set()
        words = re.split("[ ,()]+", line)
        state = {*words[:6]} & ALL_STATES == {_status(row)}
        yield f"row: {line}", state and told <= {*words}
    # The tally, and the nodes that are named.
    kinds = "|".join(sorted(ALL_STATES | {"template"}))
    counts = {s: int(n) for n, s in re.findall(rf"(\d+) ({kinds})\b", notes)}
    tally = Counter(
        "template" if r.get("template") else _status(r) for r in rows or there
    )
    online = sum(r["status"] == "online" for r in states)
    of = re.findall(
        r"(\d+) of (\d+) nodes?|^(\d+) (?:machine|storage)s?\b", notes, re.M
    )
    right = (
        [(str(online), str(len(nodes)), "")]
        if key == "nodes"
        else [("", "", str(len(rows)))]
    )
    yield f"{of} are {right}", of == right or not rows
    yield f"counts: {tally}", key == "nodes" or counts == tally
    troubled = {*lost, *dark} | ({only} if only else set())
    named = {*NODE.findall(notes)}
    others = named - troubled if rows and key != "nodes" else set()
    yield f"nodes named: {named}", not others and {*lost, *dark} <= named
    # What needs attention.
    if key == "nodes":
        status = replay.rows("/cluster/status", now)
        quorate = all(row.get("quorate", 1) for row in status)
        yield (
            "quorum",
            ("NOT QUORATE" in notes) == ("NO QUORUM" in notes) == (not quorate),
        )
        expected = [*_troubles(whole, machines, dark), *([n] for n in silent)]
        expected += [["NO QUORUM"]] * (not quorate)
        found = [line[2:] for line in lines if line.startswith("- ")]
        yield "attention twice", found == answer.data["attention"]
        free = list(found)
        for words in sorted(expected, key=len, reverse=True):
            line = next(
                (
                    a
                    for a in free
                    if all(
                        w in re.split(r"[ ,.:()]+", a) or " " in w and w in a
                        for w in words
                    )
                ),
                None,
            )
            yield f"attention: {words}", line
            free = [a for a in free if a != line]
        yield f"no trouble: {free}", not free


def _status(row: Row) -> str:
    active = {True: "active", False: "inactive", None: "unknown"}
    return str(row["status"] if "status" in row else active[row["active"]])


def _machines(whole: list[Row], live: Row, dark: set[str]) -> list[Row]:
    """Return what a list of machines has to say of each."""
    known = {row["vmid"]: row | {"live": False} for row in whole if "vmid" in row}
    for row in known.values():
        row["status"] = "unknown" if row["node"] in dark else row["status"]
    for (node, kind), rows in live.items():
        for row in rows:
            old = known.get(row["vmid"], {})
            finer = row.get("qmpstatus") or old.get("status") or "stopped"
            finer = finer if finer not in ("stopped", "unknown") else row["status"]
            state = finer if row["status"] == "running" else row["status"]
            more = {"node": node, "type": kind, "status": state, "live": True}
            known[row["vmid"]] = old | row | more
    return [
        {
            "vm_id": row["vmid"],
            "name": row.get("name"),
            "node": row["node"],
            "type": row["type"],
            "status": row["status"],
            "template": True if row.get("template") else None,
            "lock": row.get("lock"),
            "ha": row.get("hastate"),
            "live": row["live"],
        }
        for row in known.values()
    ]


def _troubles(whole: list[Row], machines: list[Row], dark: set[str]) -> list[list[str]]:
    """Return the words that a line about each recorded trouble has."""
    words = [[node, "offline"] for node in dark]
    words += [
        [r["node"], "fencing"]
        for r in whole
        if r["type"] == "node" and r.get("hastate") == "fence"
    ]
    for row in machines:
        if row["ha"] == "error":
            words.append([str(row["vm_id"]), row["node"], "error"])
        if row["status"] in FROZEN:
            words.append([str(row["vm_id"]), row["node"], row["status"]])
    down: dict[str, list[str]] = {}
    for row in (r for r in whole if r["type"] in ("storage", "node")):
        what = row.get("storage") or row["node"]
        if (
            row["type"] == "storage"
            and row["status"] != "available"
            and row["node"] not in dark
        ):
            down.setdefault(what, [what]).append(row["node"])
        elif (
            row["type"] == "storage"
            and row["node"] not in dark
            and (share := row.get("disk", 0) / row.get("maxdisk", 1)) >= 0.9
        ):
            words.append([what, row["node"], f"{100 * share:.0f}"])
    return words + list(down.values())
