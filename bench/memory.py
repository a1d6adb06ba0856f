"""What a server holds in memory: for each connection that does nothing, and while large messages come.

Connections come from a hundred addresses of loopback, so that none has more of them than a client may have.
"""

from __future__ import annotations

import resource
import ssl
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import product, repeat
from pathlib import Path
from typing import Final

from bench.book import ABOVE_IDLE, PER_CONNECTION, Book
from bench.client import LINE, Client, trusting
from bench.load import MB, Load, attempt, in_turn, send, wait_for_files
from bench.peer import Peer, Running
from bench.process import memory, resident

IDLE_COUNTS: Final = (1000, 10_000)
ADDRESSES: Final = 100
SPARE: Final = 100
"""Connections that a server may have beside those that are counted."""
FILES: Final = 2
"""Descriptors that it may want for each: some are for the files of messages."""
CONNECTIONS: Final = "connections"
"""How many there were: fewer than the cell says where a process may not have so many descriptors."""
WARM_UP: Final = Load(10, "k")
FIRST: Final = 20
"""Connections that come and go before the others, so that what is made for the first one is there."""
SETTLE: Final = 1.0
"""Seconds before memory is looked at."""
LARGE_MESSAGES: Final = 10
LARGE_SIZE: Final = 50 * MB
LINES: Final = 800
"""Lines that are sent at once."""
PAUSE: Final = 0.002
"""Seconds between two looks, while messages come."""
LARGE_CELL: Final = "ten 50 MB messages"


def connect(running: Running, stack: ExitStack, context: ssl.SSLContext, count: int) -> None:
    """Open connections whose clients say EHLO, and then nothing more."""
    for number in range(count):
        stack.enter_context(Client(running, context, f"127.0.1.{number % ADDRESSES + 1}"))


def allowed(count: int) -> int:
    """Let this process, and those that it starts, have descriptors for so many connections; give how many may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES * (count + SPARE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return count
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return min(count, hard // FILES - SPARE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return count


def per_connection(folder: str | None, wanted: int, peer: Peer) -> Mapping[str, float]:
    """Open so many connections, or as many as are allowed, to a new server, and give what one of them holds."""
    count = allowed(wanted)
    with (
        tempfile.TemporaryDirectory(dir=folder) as temporary,
        peer.running(Path(temporary), count + SPARE) as running,
    ):
        context = trusting()
        with ExitStack() as stack:
            connect(running, stack, context, FIRST)
        with ExitStack() as stack:
            time.sleep(SETTLE)
            before = memory(running.pid)
            connect(running, stack, context, count)
            time.sleep(SETTLE)
            return {PER_CONNECTION: (memory(running.pid) - before) / count / 1024, CONNECTIONS: count}


@contextmanager
def watched(pid: int) -> Generator[list[float]]:
    """Look at the resident octets of a server all the time; the list has one member, the most that there was."""
    most = [resident(pid)]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PAUSE):
            most[0] = max(most[0], resident(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def upload(running: Running) -> None:
    """Send a large message. smtp-source would not do: each of its sessions waits until another's message is sent."""
    with Client(running) as client:
        client.transact(repeat(LINE * LINES, LARGE_SIZE // (LINES * len(LINE))))


def above_idle(folder: str | None, peer: Peer) -> Mapping[str, float]:
    """Send ten messages of 50 MB at once to a new server, and give how far it grows beyond what it is when idle."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary, peer.running(Path(temporary)) as running:
        send(running.address, WARM_UP, WARM_UP.warm_up)
        wait_for_files(running, WARM_UP.warm_up, 0.02)
        time.sleep(SETTLE)
        idle = resident(running.pid)
        with watched(running.pid) as most, ThreadPoolExecutor(LARGE_MESSAGES) as pool:
            for sent in [pool.submit(upload, running) for _ in range(LARGE_MESSAGES)]:
                sent.result()
    return {ABOVE_IDLE: (most[0] - idle) / MB}


def measure(book: Book, folder: str | None, peers: Sequence[Peer], runs: int) -> None:
    """Measure every peer so often; all take turns. Large messages come without TLS only."""
    for number in range(runs):
        for count, peer in product(IDLE_COUNTS, in_turn(peers, number)):
            attempt(book, "memory", f"{count:,}", peer, number, partial(per_connection, folder, count, peer))
        for peer in in_turn(peers, number):
            if not peer.name.endswith("tls"):
                attempt(book, "memory", LARGE_CELL, peer, number, partial(above_idle, folder, peer))
