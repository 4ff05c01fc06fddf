"""Show the server without a Proxmox: `python -m tests.demo`, or with `--serve` to stay up.

It starts a fake cluster of three nodes, launches the server over stdio as a desktop client
does, calls the tools, and prints each call with the text that the model reads. With
`--serve --docker`, containers can reach the fake cluster, too.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import tempfile
from pathlib import Path
from typing import Any

from fakepve import FakePve
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.cluster import Cluster, furnish, serving
from tests.process import COMMAND, ROOT

NAME_FOR_CONTAINERS = "host.docker.internal"
PVE1, PVE2 = {"node": "pve1"}, {"node": "pve2"}
Calls = list[tuple[str, str, dict[str, Any]]]
CALLS: Calls = [
    ("The physical servers", "list_infrastructure", {}),
    ("Everything that runs on them", "list_machines", {}),
    ("Only a part of it", "list_machines", PVE2 | {"status": "running"}),
    ("The storage", "list_storage", {}),
    ("A machine is started", "start_machine", {"vm_id": 106} | PVE2),
    ("Once more: nothing to do", "start_machine", {"vm_id": 106} | PVE2),
    ("A container is rebooted", "reboot_machine", {"vm_id": 200} | PVE1),
    ("A machine is shut down", "stop_machine", {"vm_id": 100} | PVE1),
    ("One that ignores its shutdown", "stop_machine", {"vm_id": 105} | PVE1),
    ("The same by force", "stop_machine", {"vm_id": 105, **PVE1, "force": True}),
    ("A start that fails", "start_machine", {"vm_id": 102} | PVE1),
    ("A machine that is paused", "reboot_machine", {"vm_id": 103} | PVE1),
    ("One that is in a backup", "stop_machine", {"vm_id": 104} | PVE2),
    ("A template", "start_machine", {"vm_id": 900} | PVE1),
    ("The wrong node", "start_machine", {"vm_id": 201} | PVE1),
    ("A node that is offline", "start_machine", {"vm_id": 107, "node": "pve3"}),
    ("No such machine", "stop_machine", {"vm_id": 999} | PVE1),
    ("No such node", "list_machines", {"node": "pve9"}),
    ("A path as a node", "stop_machine", {"vm_id": 100, "node": "pve1/qemu/103/status/stop?x="}),
]


async def show(environ: dict[str, str], calls: Calls = CALLS) -> None:
    """Call the tools in the protocol era that desktop clients speak, and print the answers."""
    server = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=environ, cwd=ROOT)
    with tempfile.TemporaryFile("w+") as stderr:
        async with Client(stdio_client(server, stderr), mode="legacy") as client:
            for title, tool, arguments in calls:
                shown = ", ".join(f"{k}={json.dumps(v)}" for k, v in arguments.items())
                print(f"\n# {title}\n> {tool}({shown})")
                result = await client.call_tool(tool, arguments)
                print(f"{'ERROR: ' if result.is_error else ''}{result.content[0].text}")
        stderr.seek(0)
        print(f"\n# What the server left on stderr: its audit trail\n{stderr.read()}")


def print_settings(environ: dict[str, str]) -> None:
    """Print how to point a server on this computer at the fake cluster."""
    values = "\n".join(f"{name}={value}" for name, value in environ.items())
    options = " ".join(f"-e {name}='{value}'" for name, value in environ.items())
    print(f"For the .env of a local Python:\n\n{values}\n\nFor the Inspector:\n")
    entry = {"command": COMMAND[0], "args": [str(ROOT / "src/server.py")], "env": environ}
    print(
        f"npx -y @modelcontextprotocol/inspector@latest --cli {options} {entry['command']} "
        f"{ROOT / 'src/server.py'} --method tools/call --tool-name list_machines"
    )
    print("\nFor a client's configuration:\n")
    print(json.dumps({"mcpServers": {"proxmox": entry}}, indent=2))
    print("\nOn pve2, 106 starts. On pve1, 102 fails to start and 105 ignores a stop.", flush=True)


def own_address() -> str:
    """Return an address of this computer that containers of every engine reach.

    Docker understands `host-gateway` as well, but Podman before 4.7 does not. Nothing is sent.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:  # no network at all
            return "host-gateway"
        return str(probe.getsockname()[0])


def print_docker_command(environ: dict[str, str]) -> None:
    """Print how to point a container at it, by Docker Desktop's name for the host."""
    certificate, inside = environ["PROXMOX_VERIFY_SSL"], "/pve-root-ca.pem"
    Path(certificate).chmod(0o644)
    settings = environ | {"PROXMOX_VERIFY_SSL": inside}
    options = [
        f"--add-host {NAME_FOR_CONTAINERS}:{own_address()}",
        f"-v {certificate}:{inside}:ro",
        *(f"-e {name}={value}" for name, value in settings.items()),
    ]
    print("After docker build -t mcp-proxmox . a client runs this. Add --check to try it:\n")
    print(f"docker run -i --rm {' '.join(options)} mcp-proxmox", flush=True)


async def main(serve: bool = False, docker: bool = False, calls: Calls = CALLS) -> None:
    cluster = Cluster(FakePve())
    furnish(cluster.pve)
    # An ignored shutdown takes 0.6 s here instead of 60.
    cluster.pve.time_scale = 0.01
    # A container connects from a different address.
    address = (NAME_FOR_CONTAINERS, "0.0.0.0") if docker else ()
    async with serving(cluster, *address) as environ:
        if not serve:
            await show(environ, calls)
            return
        print("A fake Proxmox cluster is up until you press Ctrl+C.", end=" ")
        (print_docker_command if docker else print_settings)(environ)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.demo")
    parser.add_argument("--serve", action="store_true", help="stay up for clients")
    parser.add_argument(
        "--docker", action="store_true", help="with --serve: let containers connect"
    )
    chosen = parser.parse_args()
    if chosen.docker and not chosen.serve:
        parser.error("--docker goes with --serve")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(chosen.serve, chosen.docker))
