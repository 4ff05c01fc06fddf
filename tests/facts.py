"""What is untrue in an answer, by the recording alone and however it is worded."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import product
from typing import Any

from tests.conftest import Answer
from tests.replay import Replay, Row

GOALS = defaultdict(lambda: "stopped", start="running", reboot="running")
FROZEN = ("io-error", "internal-error", "guest-panicked", "watchdog", "shutdown")
STATES = "|".join(("running", "stopped", "paused", "suspended", *FROZEN))
ACTIVE = {1: "active", 0: "inactive", None: "unknown"}
LIMITS = {"60", "125", "180", "600"}  # seconds until Proxmox gives up or kills a guest
CUT_SHORT = ("received interrupt", "unexpected status")
UNLOCKED = ("start suspended", "start mounted", "stop mounted")
FAILED = re.compile("(?!OK|WARNINGS|RUNNING).")
NO_CLAIM = re.compile(r"(?i)\b(when|if|once|until|not|of it|task|\w+ of .* is)\b")
WAS_CUT = re.compile(r"(?i)(?<!to )(?<!will )(?<!may )(?<!be )\b(cut|killed)\b")
NODE = re.compile(r"\bpve\d+\b(?!\.)")
COLUMNS = "vmid name node type status template lock hastate live"
LISTS = {  # the key of its rows, what it asks of the cluster and of each node, columns
    "list_infrastructure": ("nodes", "", ["status"], "node status"),
    "list_machines": ("machines", "?type=vm", ["qemu", "lxc"], COLUMNS),
    "list_storage": ("storages", "?type=storage", ["storage"], "storage node status"),
}


def untrue(tool: str, given: Row, answer: Answer, replay: Replay) -> list[str]:
    """Return what is wrong with the answer: nothing where it is true."""
    facts = (_list if tool in LISTS else _power)(tool, given, answer, replay)
    times = {*re.findall(r"\b(?:after|within|for|in) (\d+) s\b", answer.text)} - LIMITS
    late = [f"{s} s" for s in times if int(s) > replay.clock.latest + 1]
    return late + [what for what, true in facts if not true]


def _under_way(row: Row, tasks: list[Row]) -> tuple[str, str | None]:
    for task in tasks:  # HA's own begins some seconds after it was asked
        if task["status"] == "RUNNING":
            return task["type"][2:], task["upid"]
    ha = str(row.get("ha")).replace("'started'", "request_start")
    asked = re.findall(r"(?:request_|\bha)(stop|start)\b", f"{tasks[-1:]} {ha}")
    able = asked and "'managed': 1" in ha and "'error'" not in ha
    return asked[0] if able and GOALS[asked[0]] != row["status"] else "", None


def _power(tool: str, given: Row, answer: Answer, replay: Replay) -> Iterator[Any]:
    vm_id, node, begin, end = given["vm_id"], given["node"], replay.at, replay.end
    said, posts = re.sub(r"(?m)^\| .*", "", answer.text), replay.posts
    action = "stop" if given.get("force") else tool[:-8].replace("stop", "shutdown")
    reboot, graceful = action == "reboot", action in ("shutdown", "reboot")
    unsent, failed = "nothing was sent" in said.lower(), answer.is_error and not posts
    rows = replay.rows("/cluster/resources", begin)
    nodes = {row["node"]: row["status"] for row in rows if row["type"] == "node"}
    found: Row = next((row for row in rows if row.get("vmid") == vm_id), {})
    kind, name = found.get("type", ""), found.get("name")
    labels = re.findall(r"(?i)\b((?:VM|container|machine) \d+)(?: \((\S+)\))?", said)
    label = {f"machine {vm_id}", f"{'container' if kind == 'lxc' else 'vm'} {vm_id}"}
    yield f"{labels}", all(w.lower() in label and n in (name, "") for w, n in labels)
    there = {node, found.get("node", node)} if node in nodes else {*nodes}
    yield "another node", {*NODE.findall(said)} <= there
    away = found.get("node") != node or nodes[node] != "online"
    path, log = f"/nodes/{node}/{kind}/{vm_id}/status/", f"/nodes/{node}/tasks"
    data, last = (replay.recorded(f"{path}current", t) for t in (begin, end))
    before, after, goal = replay.state(data), replay.state(last), GOALS[action]
    if away or before == "unknown":
        there = there - {node} or {str(vm_id)} if away else {node, "othing was sent"}
        yield f"it is not there: {there}", failed and all(w in said for w in there)
        return
    data, last = data["data"], last.get("data") or {}
    old, new = (replay.power_tasks(node, vm_id, t) for t in (begin, end))
    quorate, lock = replay.quorate(begin), data.get("lock")
    other, joined = _under_way(data, old)
    needless, changes = before == goal and not reboot, other and GOALS[other] != goal
    in_the_way = {
        "template": data.get("template"),
        "error": reboot and "'error'" in str(data.get("ha")),
        "quorum": reboot and not quorate and not other,
        other: graceful and other + action not in (2 * action, "stopshutdown", action),
        f"({lock})": lock and f"{action} {lock}" not in UNLOCKED,
        before: action != "stop" and before != ("running" if graceful else "stopped"),
    }
    why = [word for word, true in in_the_way.items() if true and not needless]
    sent, once = [(where, *body) for where, body in posts], (path + action,)
    overrule = (*once, "overrule-shutdown")
    reply = replay.reply(*posts[-1]) if posts else {"status": 200, "data": joined}
    again = sent == [overrule, once] and replay.reply(*posts[0])["status"] == 400
    idle = needless or why or (other and graceful)
    yield f"sent: {sent}", not sent if idle else again or sent in ([once], [overrule])
    yield "sent?", unsent != bool(posts)
    upid = reply.get("data") if not needless or changes else None
    row = replay.recorded(f"{log}/{upid}/status", end).get("data") or {}
    runs, exit_status = row.get("status") == "running", row.get("exitstatus", "")
    anew = not reboot or last.get("pid") not in (None, data.get("pid"))
    reached, reasons = after == goal and anew, why
    if reply["status"] != 200 and not reached:
        reason = re.sub(r".* (\S+)\)$|\.$", r"\1", reply["reason"])
        reasons = [reason if reply["status"] <= 500 else "list_machines"]
    elif FAILED.match(exit_status) and not reached:
        lines = [r["t"] for r in replay.rows(f"{log}/{upid}/log", end)][-2:-1]
        reasons = lines if re.search(r"exit code \d+$", exit_status) else [exit_status]
        reasons = ["cut"] if exit_status in CUT_SHORT else reasons
    elif upid and not (why or reached or needless or runs):
        later = [t for t in new if t["starttime"] >= int(upid.split(":")[4], 16)]
        later = [t["status"] for t in later if t["upid"] != upid][-1:]
        over = not re.search("'managed': 1.*'state': '(?!error)", str(last))
        reasons = [status for status in later if over and FAILED.match(status)]
    told = (answer.is_error, any(reason in said for reason in reasons))
    yield f"error: {reasons}, it was {before}", told == (bool(reasons),) * 2
    yield exit_status, exit_status in said or not exit_status.startswith("WARN")
    claims = {after} if answer.is_error or after == "unknown" else set()
    for clause in re.split(r"[.,;:(\n]|\b(?:and|but)\b", said):
        states = re.findall(rf"\bis (?:\w+ ){{0,2}}?({STATES})\b", clause)
        claims |= {*states} if not NO_CLAIM.search(clause) else set()
    yield f"it is {after}, not {claims}", claims == {after}
    yield "force", "force: true" not in said or after not in ("stopped", "unknown")
    cut = (action == "stop" and posts and reached) or exit_status in CUT_SHORT
    past = WAS_CUT.search(re.sub(r"[^.;\n]*force: true[^.;\n]*", "", said))
    yield f"cut? {cut}", bool(cut) == bool(past)
    if not answer.is_error and not reasons:
        ends = reached and not runs and not (needless and changes)
        facts = {"vm_id": vm_id, "name": name, "node": node, "type": kind, "task": upid}
        facts |= {"action": action, "status": after, "message": answer.text}
        facts |= {"changed": after not in (before, "unknown") or (reboot and reached)}
        yield f"{facts}, {ends}", answer.data == facts | {"finished": ends}


def _list(tool: str, given: Row, answer: Answer, replay: Replay) -> Iterator[Any]:
    key, query, paths, columns = LISTS[tool]
    now, only = (replay.at or 0) + 0.03, given.get("node")
    every = replay.recorded("/nodes", now)
    if every["status"] != 200 or answer.is_error:
        why = every.get("reason", "") if every["status"] != 200 else "no failure"
        yield why, answer.is_error and why.rstrip(".") in answer.text
        return
    nodes = {r["node"]: r["status"] for r in every["data"] if only in (None, r["node"])}
    dark = {node for node in nodes if nodes[node] == "offline"}
    known, lost, silent, took = {}, set(dark), set(), every.get("seconds", 0)
    whole = replay.rows(f"/cluster/resources{query}", now)
    for row in whole:
        unknown = "vmid" not in row or row["node"] in dark
        one = row.get("vmid") or row["node"] + row.get("storage", "")
        known[one] = row | ({"status": "unknown"} if unknown else {})
    for node, path in product(nodes.keys() - dark, paths):
        reply = replay.recorded(f"/nodes/{node}/{path}", now + took)
        late = took + reply.get("seconds", 0) > replay.clock.latest
        lost |= {node} if late or reply.get("status") != 200 else set()
        silent |= {node} if node in lost and reply.get("status") != 403 else set()
        for row in reply["data"] if path != "status" and node not in lost else ():
            one = row.get("vmid") or node + row["storage"]
            old, state = known.get(one, {}), row.get("status") or ACTIVE[row["active"]]
            finer = row.get("qmpstatus") or old.get("status") or "stopped"
            state = finer if state == "running" and finer != "stopped" else state
            new = {"node": node, "type": path, "status": state, "live": True}
            known[one] = old | row | new
    if key == "nodes":
        nodes |= dict.fromkeys(silent, "unknown")
        known = {node: {"node": node, "status": nodes[node]} for node in nodes}
    base = [row for row in known.values() if row["node"] in nodes]
    want = [row for row in base if given.get("status") in (None, row["status"])]
    lines, found, got = answer.text.split("\n"), answer.data[key], []
    for row, line in zip(found, lines[len(lines) - len(found) :], strict=True):
        row = {"vmid": row.get("vm_id"), "hastate": row.get("ha"), "live": True} | row
        for node in row.get("nodes", [row.get("node")]):
            cells = {"status": ACTIVE[row.get("active")]} | row | {"node": node}
            got.append(tuple(cells.get(k) or None for k in columns.split()))
        told = {str(cell) for cell in got[-1] if cell not in (None, True)}
        yield line, told <= {*re.split("[ ,()]+", line)}
    rows = [tuple(row.get(k) or None for k in columns.split()) for row in want]
    yield f"rows: {rows}", Counter(got) == Counter(rows)
    notes = "\n".join(lines[: len(lines) - len(found)])
    kinds = ("template" if r.get("template") else r["status"] for r in want or base)
    tally = Counter(kinds)
    wrong = [s for s, n in tally.items() if not re.search(rf"\b{n} {s}", notes)]
    yield f"counts: {tally}", key == "nodes" or not wrong
    total = f"{tally['online']} of {len(nodes)}" if key == "nodes" else str(len(found))
    yield total, not found or re.search(rf"\b{total} {key[:-1]}", notes)
    named, free = {*NODE.findall(notes)}, {only} if key != "nodes" else {*nodes}
    yield f"nodes: {lost}", not found or lost <= named <= lost | free
    if key != "nodes":
        return
    yield "quorum", (answer.data["quorate"] is False) == ("NOT QUORATE" in notes)
    troubles = {f"node {n}" for n in silent} | {f"{n}.*offline" for n in dark}
    troubles |= set() if replay.quorate(now) else {"NO QUORUM"}
    for row in whole:
        one, node = str(row.get("vmid") or row.get("storage") or "node"), row["node"]
        state, ha, lit = row["status"], row.get("hastate"), node not in dark
        share = row.get("disk", 0) / (row.get("maxdisk") or 1) * ("vmid" not in row)
        words = [ha[:4]] if ha == ("fence" if one == "node" else "error") else []
        words += [state] * (lit and state in FROZEN)
        words += [f"{100 * share:.0f}"] * (lit and share >= 0.9)
        words += ["active"] * (lit and "storage" in row and state != "available")
        troubles |= {f"(?=.*{one})(?=.*{node}).*\\b{word}" for word in words}
    lines = [line[2:] for line in lines if line.startswith("- ")]
    yield "attention, twice", lines == answer.data["attention"]
    fits = [p for p in product(lines, troubles) if re.search(f"(?i){p[1]}", p[0])]
    fits = [{line for line, _ in fits}, {trouble for _, trouble in fits}]
    yield f"{troubles}", fits == [{*lines}, troubles]
