"""A few hundred calls leave no thread and no socket over; `tests/soak.py` is the long run."""

from typing import Any

import psutil

from src.api import MAX_REQUESTS
from tests.cluster import Cluster
from tests.process import COMMAND, Server

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("list_infrastructure", {}),
    ("list_machines", {}),
    ("list_storage", {}),
    ("start_machine", {"vm_id": 106, "node": "pve2"}),
    ("stop_machine", {"vm_id": 106, "node": "pve2"}),
    ("start_machine", {"vm_id": 102, "node": "pve1"}),  # which fails
]


def test_a_few_hundred_calls_leave_no_thread_and_no_socket_over(
    configured: dict[str, str], demo: Cluster
) -> None:
    server = Server(COMMAND, configured)
    try:
        server.initialize()
        process = psutil.Process(server.process.pid)
        number = 0

        def rounds(count: int) -> tuple[int, int, int]:
            nonlocal number
            for _ in range(count):
                for tool, arguments in CALLS:
                    number += 1
                    server.call(number, tool, **arguments)
                    server.answer(number)
            sockets = process.net_connections()
            return process.num_threads(), len(sockets), process.num_fds()

        threads, sockets, files = rounds(5)
        assert sockets <= MAX_REQUESTS
        for _ in range(3):
            after = rounds(15)
            assert after[0] <= threads + 1
            assert after[1] <= MAX_REQUESTS
            assert after[2] <= files + MAX_REQUESTS - sockets
        assert len(demo.posts) == 3 * 50
    finally:
        server.process.kill()
        server.process.wait()
