"""Many bad clients at once do not keep a good one out, and cost no more than they may."""

from __future__ import annotations

import re
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Final

import pytest
from tests.e2e.peers import crowd
from tests.e2e.served import Served, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.alone]

PATIENCE: Final = 2.0
"""Seconds in which a normal client is served, from connecting to the answer to QUIT."""
MOST: Final = 96 * 1024
"""KiB that the server takes at most, with the crowd in it; it takes some 35,000 alone, and 10 for each connection."""
MORE: Final = 4 * 1024
"""KiB that a second crowd takes more than the first: memory that Python keeps is used again, what is lost is not."""
NORMAL: Final = 100
"""Normal clients, one after the other, while everybody is there."""


def resident(pid: int) -> int:
    """Give the KiB of memory that a process takes now."""
    match = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def files(pid: int) -> int:
    """Give how many files, sockets among them, a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def serve_one(served: Served) -> float:
    """Be a normal client, and give the seconds that it took."""
    start = time.monotonic()
    with smtplib.SMTP(served.host, served.port, "client.example.com", timeout=30) as client:
        assert client.sendmail("anna@example.com", ["ben@example.org"], b"Subject: hello\r\n\r\nhello\r\n") == {}
    return time.monotonic() - start


@contextmanager
def attacking(served: Served) -> Iterator[subprocess.Popen[str]]:
    """Give the crowd, on its way in."""
    command = [sys.executable, crowd.__file__, served.host, str(served.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def serve_in_a_crowd(served: Served) -> tuple[int, int]:
    """Be one normal client after the other while a crowd comes and is there; give how many, and the most memory."""
    opened = files(served.pid)
    times: list[float] = []
    taken: list[int] = []

    def serve_and_look() -> None:
        times.append(serve_one(served))
        taken.append(resident(served.pid))

    with attacking(served) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while not select([process.stdout], [], [], 0)[0]:
            serve_and_look()
        assert process.stdout.readline() == "all are there\n"
        for _ in range(NORMAL):
            serve_and_look()
        assert files(served.pid) > opened + crowd.DRIPPING + crowd.IDLE
        process.stdin.close()
        dripping, idle, refused = map(int, process.stdout.read().split())
    assert (dripping, idle) == (crowd.DRIPPING, crowd.IDLE)
    assert refused > crowd.FLOODING
    assert max(times) < PATIENCE
    until(lambda: files(served.pid) <= opened, "as many open files as before")
    return len(times), max(taken)


def test_a_normal_client_in_a_crowd(tmp_path: Path) -> None:
    """Among 500 clients that drip, 1000 that are silent and a flood past the limit of one address, mail goes on.

    A normal client is served within PATIENCE while they come and while they are there, the server takes no more
    than MOST, its files are closed when they have left, and a second crowd finds the memory of the first free.
    """
    with Served(tmp_path, "--max-connections", "2000") as served:
        serve_one(served)
        served.await_files(1)
        served.await_empty_queue()
        first, most = serve_in_a_crowd(served)
        second, most_again = serve_in_a_crowd(served)
        assert most < MOST
        assert most_again < most + MORE
        served.await_files(1 + first + second)
        served.terminate()
    assert "Traceback" not in served.log
