"""How long a client waits for the 250 behind its mail data, while messages come at a rate that the server can bear.

Messages come when their time has come, as from many clients that know nothing of each other (exponential gaps, the
same for everybody), not when an answer has come. Connections are kept.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Final

from bench.book import ACCEPTED, P50, P99, SENT, WORST, Book, Key
from bench.client import EHLO, ENVELOPE, LINE, is_complete
from bench.load import Load, Sender, attempt, in_turn, send, wait_for_files
from bench.load import measure as measure_rates
from bench.peer import Peer
from bench.process import DEADLINE, Trouble

SESSIONS: Final = 50
WARM_UP: Final = 0.5
"""Seconds whose messages are not counted."""
SEED: Final = 5321
LATE: Final = "begun late, %"
"""Messages that were begun later than they came, by LATE_BY: for want of an idle session, or the client was slow."""
LATE_BY: Final = 0.01
PERCENTILES: Final = (P50, P99)
OWN_HALF: Final = "half of its own rate"
POSTFIX_HALF: Final = "half of postfix's rate"
LIMIT: Final = Load(10, "k")
"""The load whose rate is taken for the greatest."""
MESSAGE: Final = b"Subject: hello\r\n\r\n" + LINE * 51 + b".\r\n"
TRANSACTION: Final = (*ENVELOPE, MESSAGE)


@dataclass(slots=True)
class Session:
    """A connection on which one thing after the other is said, each when what came before is answered."""

    socket: socket.socket
    said: float = 0.0
    left: Iterator[bytes] = field(default_factory=lambda: iter(()))
    reply: bytes = b""

    def begin(self, things: Iterable[bytes]) -> None:
        """Say the first of these things."""
        self.left = iter(things)
        self._say(next(self.left))

    def _say(self, octets: bytes) -> None:
        self.said = time.perf_counter()
        self.socket.sendall(octets)

    def listen(self) -> bool:
        """Take what has come; when a reply is complete say what comes next, and give True if nothing is left."""
        octets = self.socket.recv(65536)
        self.reply += octets
        if not octets or self.reply[:1] not in b"23":
            reason = f"a session ended, or mail was refused: {self.reply!r}"
            raise Trouble(reason)
        if not is_complete(self.reply):
            return False
        self.reply = b""
        octets = next(self.left, b"")
        if octets:
            self._say(octets)
        return not octets


@dataclass(slots=True)
class Clients:
    """Sessions of which each is idle or waits for a reply; `waits` has when a message ended, and how long it waited."""

    selector: selectors.BaseSelector
    idle: deque[Session] = field(default_factory=deque[Session])
    waits: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    late: int = 0

    def connect(self, stack: ExitStack, host: str, port: int) -> None:
        """Open a session, and say who we are."""
        client = stack.enter_context(socket.create_connection((host, port), timeout=DEADLINE))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(client, left=iter((EHLO,)))
        while not session.listen():
            pass
        self.selector.register(client, selectors.EVENT_READ, session)
        self.idle.append(session)

    def begin(self, due: float) -> None:
        """Begin a message whose time has come."""
        self.idle.popleft().begin(TRANSACTION)
        self.late += time.perf_counter() - due > LATE_BY

    def take(self, pause: float) -> None:
        """Take the replies that are there, or that come before so many seconds have passed."""
        ready = self.selector.select(pause)
        if not ready and pause >= DEADLINE:
            reason = f"no reply within {DEADLINE:g} s"
            raise Trouble(reason)
        for key, _ in ready:
            session: Session = key.data
            if session.listen():
                self.idle.append(session)
                self.waits.append((session.said, time.perf_counter() - session.said))


def come(host: str, port: int, rate: float, seconds: float) -> Mapping[str, float]:
    """Send messages at a rate over kept sessions, for so long, and give how long they waited."""
    gaps = random.Random(SEED)
    # Unlike epoll it does not round what is to be waited for up to milliseconds.
    with ExitStack() as stack, selectors.SelectSelector() as selector:
        clients = Clients(selector)
        for _ in range(SESSIONS):
            clients.connect(stack, host, port)
        began = time.perf_counter() + WARM_UP
        due = time.perf_counter()
        while due < began + seconds:
            now = time.perf_counter()
            if due <= now and clients.idle:
                clients.begin(due)
                due += gaps.expovariate(rate)
                clients.take(0)
            else:
                clients.take(max(due - now, 0) if clients.idle else DEADLINE)
        while len(clients.idle) < SESSIONS:
            clients.take(DEADLINE)
    took = time.perf_counter() - began
    waits = [wait for said, wait in clients.waits if said >= began]
    if len(waits) < 2:
        reason = f"too few messages in {seconds:g} s"
        raise Trouble(reason)
    percentiles = quantiles(waits, n=100, method="inclusive")
    milliseconds = {name: 1000 * wait for name, wait in zip(PERCENTILES, percentiles[49::49], strict=True)}
    late = {LATE: 100 * clients.late / len(clients.waits)}
    return {**milliseconds, WORST: 1000 * max(waits), SENT: len(waits) / took, **late}


@dataclass(frozen=True, slots=True)
class Trial:
    """A new server, to which messages come at a rate."""

    folder: str | None
    seconds: float

    def run(self, peer: Peer, rate: float) -> Mapping[str, float]:
        """Measure it once."""
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary, peer.running(Path(temporary)) as running:
            send(running.address, LIMIT, LIMIT.warm_up)
            wait_for_files(running, LIMIT.warm_up, 0.02)
            os.sync()
            return come(running.host, running.port, rate, self.seconds)


def greatest(book: Book, sender: Sender, peers: Sequence[Peer], runs: int) -> Mapping[str, float]:
    """Give the greatest rate of each, measured if it was not."""
    keys = {peer.name: Key("rates", LIMIT.name, peer.name, ACCEPTED) for peer in peers}
    if any(book.middle(key) is None for key in keys.values()):
        measure_rates(book, "rates", sender, peers, [LIMIT], runs)
    rates = {name: book.middle(key) for name, key in keys.items()}
    return {name: rate for name, rate in rates.items() if rate is not None}


def measure(book: Book, sender: Sender, peers: Sequence[Peer], runs: int) -> None:
    """Measure every peer at half of its own greatest rate, and at half of Postfix's if it bears that; in turn."""
    trial = Trial(sender.folder, sender.seconds)
    rates = greatest(book, sender, peers, runs)
    for number in range(runs):
        for cell, name in ((OWN_HALF, None), (POSTFIX_HALF, "postfix")):
            for peer in in_turn(peers, number):
                rate = rates.get(name or peer.name)
                if rate is not None and rate / 2 < rates.get(peer.name, 0):
                    attempt(book, "latency", cell, peer, number, partial(trial.run, peer, rate / 2))
