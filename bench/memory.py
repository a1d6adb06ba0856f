"""What a server holds in memory: for each connection that does nothing, and while large messages come.

Connections come from a hundred addresses of loopback, so that none has more of them than a client may have.
"""

from __future__ import annotations

import resource
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

from bench.book import ABOVE_IDLE, PER_CONNECTION, Book
from bench.load import MB, Load, attempt, send, wait_for_files
from bench.peer import Peer, Running, Tls
from bench.process import DEADLINE, Trouble, memory, resident

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
LARGE: Final = Load(10, "k", 50 * MB)
PAUSE: Final = 0.002
"""Seconds between two looks, while messages come."""
LARGE_CELL: Final = "ten 50 MB messages"


@dataclass(frozen=True, slots=True)
class Idle:
    """Clients that connect, say EHLO, and then nothing more."""

    running: Running
    stack: ExitStack
    clients: list[socket.socket] = field(default_factory=list)
    context: ssl.SSLContext = field(default_factory=partial(ssl.SSLContext, ssl.PROTOCOL_TLS_CLIENT))

    def __post_init__(self) -> None:
        """Trust the server, whose certificate nobody knows."""
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE

    def grow(self, count: int) -> None:
        """Connect until there are so many."""
        while len(self.clients) < count:
            source = f"127.0.1.{len(self.clients) % ADDRESSES + 1}"
            self.clients.append(self.stack.enter_context(self._connect(source)))

    def _connect(self, source: str) -> socket.socket:
        where = (self.running.host, self.running.port)
        client = socket.create_connection(where, timeout=DEADLINE, source_address=(source, 0))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.running.tls is Tls.IMPLICIT:
            client = self.context.wrap_socket(client)
        _reply(client)
        _ask(client, b"EHLO client.example.com\r\n")
        if self.running.tls is Tls.STARTTLS:
            _ask(client, b"STARTTLS\r\n")
            client = self.context.wrap_socket(client)
            _ask(client, b"EHLO client.example.com\r\n")
        return client


def _ask(client: socket.socket, command: bytes) -> None:
    client.sendall(command)
    _reply(client)


def _reply(client: socket.socket) -> None:
    reply = b""
    while not reply.endswith(b"\r\n") or reply.splitlines()[-1][3:4] == b"-":
        octets = client.recv(4096)
        reply += octets
        if not octets or reply[:1] != b"2":
            reason = f"a connection was refused: {reply!r}"
            raise Trouble(reason)


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
        with ExitStack() as stack:
            Idle(running, stack).grow(FIRST)
        with ExitStack() as stack:
            time.sleep(SETTLE)
            before = memory(running.pid)
            Idle(running, stack).grow(count)
            time.sleep(SETTLE)
            return {PER_CONNECTION: (memory(running.pid) - before) / count / 1024, CONNECTIONS: count}


@contextmanager
def watched(pid: int) -> Iterator[list[float]]:
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


def above_idle(folder: str | None, peer: Peer) -> Mapping[str, float]:
    """Send ten messages of 50 MB at once to a new server, and give how far it grows beyond what it is when idle."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary, peer.running(Path(temporary)) as running:
        send(running.address, WARM_UP, WARM_UP.warm_up)
        wait_for_files(running, WARM_UP.warm_up, 0.02)
        time.sleep(SETTLE)
        idle = resident(running.pid)
        with watched(running.pid) as most:
            send(running.address, LARGE, LARGE.sessions)
    return {ABOVE_IDLE: (most[0] - idle) / MB}


def measure(book: Book, folder: str | None, peers: Sequence[Peer], runs: int) -> None:
    """Measure every peer so often; all take turns. Large messages come without TLS only."""
    for number in range(runs):
        for count, peer in product(IDLE_COUNTS, peers):
            attempt(book, "memory", f"{count:,}", peer, number, partial(per_connection, folder, count, peer))
        for peer in peers:
            if not peer.name.endswith("tls"):
                attempt(book, "memory", LARGE_CELL, peer, number, partial(above_idle, folder, peer))
