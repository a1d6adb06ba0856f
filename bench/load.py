"""What Postfix's smtp-source sends, and how a server bears it: rates, CPU, and the time until all is delivered."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

from bench.book import ACCEPTED, CPU, CPU_OF_OCTETS, DELIVERED, THROUGHPUT, Book
from bench.peer import Peer, Running
from bench.process import Trouble, cpu_seconds, find, until

CONNECTIONS: Final[Mapping[str, Sequence[str]]] = {"n": (), "k": ("-d",)}
"""A new connection for each message, or connections that are kept."""
ENVELOPE: Final = ("-f", "anna@example.com", "-t", "ben@example.org")
WARM_UP: Final = 100
"""Messages before the clock starts, when they are small; of large ones one for each session."""
MOST: Final[Mapping[str, int]] = {"n": 20_000, "k": 200_000}
"""Messages of a run: a new connection takes one of the 28,000 ports of an address."""
MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """Sessions at one time, whether connections are new or kept, and the octets of a message."""

    sessions: int
    connection: str
    size: int = 4096

    @property
    def name(self) -> str:
        """The name of its cell: n10, k50, 30 MiB."""
        return f"{self.connection}{self.sessions}" if self.size < 2**20 else f"{self.size // 2**20} MiB"

    @property
    def warm_up(self) -> int:
        """The messages before the clock starts."""
        return max(WARM_UP, 2 * self.sessions) if self.size < 2**20 else self.sessions


LARGE: Final = (Load(10, "k", 2**20), Load(10, "k", 30 * 2**20))


def small(sessions: Sequence[int]) -> Sequence[Load]:
    """Give the loads of small messages."""
    return [Load(*pair) for pair in product(sessions, CONNECTIONS)]


def demand_source() -> None:
    """Raise Trouble if nothing is here that could send."""
    if find("smtp-source") is None:
        reason = "smtp-source is not installed; it is part of Postfix"
        raise Trouble(reason)


def send(address: str, load: Load, messages: int) -> float:
    """Send messages, and give the seconds until the last one was answered; Trouble if one was refused."""
    how = ["-s", str(load.sessions), "-m", str(messages), "-l", str(load.size), *CONNECTIONS[load.connection]]
    began = time.perf_counter()
    done = subprocess.run(
        [find("smtp-source") or "smtp-source", *how, *ENVELOPE, address], check=False, capture_output=True, text=True
    )
    if done.returncode:
        reason = f"smtp-source: {done.stderr.strip()[-300:]}"
        raise Trouble(reason)
    return time.perf_counter() - began


@dataclass(slots=True)
class Sender:
    """Measures one server after the other, each run so long as was asked: it learns how many messages that is."""

    folder: str | None
    seconds: float
    is_delivery: bool = False
    """Whether what counts is that all is in a Maildir."""
    rates: dict[tuple[str, Load], float] = field(default_factory=dict[tuple[str, Load], float])

    def run(self, peer: Peer, load: Load) -> Mapping[str, float]:
        """Measure a new server with an empty folder once."""
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary, peer.running(Path(temporary)) as running:
            warm_up = send(running.address, load, load.warm_up)
            wait_for_files(running, load.warm_up, 0.02)
            rate = self.rates.get((peer.name, load), load.warm_up / warm_up)
            messages = round(min(max(rate * self.seconds, 2 * load.sessions), MOST[load.connection]))
            os.sync()  # nobody pays for what was written before
            before, began = cpu_seconds(running.pid), time.perf_counter()
            accepted = send(running.address, load, messages)
            self.rates[peer.name, load] = messages / accepted
            wait_for_files(running, load.warm_up + messages, 0.005)
            delivered = time.perf_counter() - began
            cpu = (cpu_seconds(running.pid) - before) * 1000
        if load.size < 2**20:
            metrics = {ACCEPTED: messages / accepted, CPU: cpu / messages * 1000}
            return {**metrics, DELIVERED: messages / delivered} if self.is_delivery else metrics
        volume = messages * load.size / MB
        return {THROUGHPUT: volume / accepted, CPU_OF_OCTETS: cpu / volume * 100}


def wait_for_files(running: Running, count: int, pause: float) -> None:
    """Wait until a server that delivers has delivered so many."""
    stored = running.stored
    if stored is not None:
        until(lambda: stored() >= count, f"{count} files", pause)


def measure(book: Book, part: str, sender: Sender, peers: Sequence[Peer], loads: Sequence[Load], runs: int) -> None:
    """Measure every peer under every load, so often; all take turns."""
    for number in range(runs):
        for load in loads:
            for peer in in_turn(peers, number):
                attempt(book, part, load.name, peer, number, partial(sender.run, peer, load))


def in_turn(peers: Sequence[Peer], number: int) -> Sequence[Peer]:
    """Give who is measured in the run of this number: forwards, then backwards, so that nobody always comes first."""
    return peers if number % 2 == 0 else peers[::-1]


def attempt(book: Book, part: str, cell: str, peer: Peer, number: int, work: Callable[[], Mapping[str, float]]) -> None:
    """Measure once, and write down what came of it; a peer that fails stops nobody else."""
    try:
        metrics = work()
    except (Trouble, OSError) as trouble:
        book.failures.append(f"{part}, {cell}, {peer.name}: {trouble}")
        print(book.failures[-1], file=sys.stderr)
        return
    book.add(part, cell, peer.name, metrics)
    numbers = ", ".join(f"{value:,.1f} {metric}" for metric, value in metrics.items())
    print(f"{part} {number + 1}, {cell}, {peer.name}: {numbers}; load {os.getloadavg()[0]:.1f}", file=sys.stderr)
