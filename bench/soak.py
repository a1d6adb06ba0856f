"""A day's load in minutes, and what the server holds meanwhile: `python -m bench.soak [FOLDER]`.

One server, whose Maildir is emptied all the time, under a mix of all that clients do, until the time is over. What
grows is reported, never asserted; bench/README.md says what is in the mix.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Final

from bench.load import demand_source
from bench.machine import facts
from bench.mix import ROLES, Servers
from bench.peer import Running, Tls
from bench.peers.smtprecv import certificate
from bench.process import Trouble, cpu_seconds, descriptors, end_at_sigterm, resident, started, threads

SETTINGS: Final = (
    *("--accept-domain", "example.org", "--accept-domain", "away.example"),
    # Nobody listens there: each message is deferred, and given up after some attempts.
    *("--deliver", "away.example=smtp://127.0.0.1:1", "--retry-first", "2s", "--give-up", "20s"),
    *("--destination-pause", "1s", "--destination-pause-max", "2s", "--hostname", "mx.example.org"),
)
WARM_UP: Final = 0.2
"""The part of the time after which growth is looked at."""
REST: Final = 30.0
"""Seconds without load at the end: longer than a message is tried."""
EMPTYING: Final = 0.2
"""Seconds between two times at which the Maildir is emptied."""
_PLAIN: Final = re.compile(r"listening on (\S+):(\d+)$", re.MULTILINE)
_TLS: Final = re.compile(r"listening on (\S+):(\d+) \(TLS\)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a server has at one moment; `seconds` and `messages` are those since the beginning, the rest is now."""

    seconds: float
    messages: int
    cpu: float
    resident: float
    blocks: float
    descriptors: float
    threads: float
    queue: float


METRICS: Final = {
    "resident": ("resident memory, MiB", 2**20),
    "blocks": ("blocks of memory, thousands", 1000),
    "descriptors": ("descriptors", 1),
    "threads": ("threads", 1),
    "queue": ("the queue's files, MiB", 2**20),
}
"""Of each the name and the unit."""


@contextmanager
def serving(folder: Path) -> Generator[tuple[int, Servers]]:
    """Serve with all that clients of the mix need; give the pid, and where it listens."""
    where = ["--queue", str(folder / "queue"), "--deliver", f"maildir:{folder / 'Maildir'}"]
    listen = ["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--bounce", f"maildir:{folder / 'Maildir'}"]
    program = [sys.executable, str(Path(__file__).parent / "servers" / "counted.py"), str(folder / "blocks")]
    command = [*program, "serve", *where, *listen, *SETTINGS, *certificate(folder)]
    log = folder / "log"
    with started(command, log, lambda text: bool(_PLAIN.search(text) and _TLS.search(text))) as pid:
        plain, tls = _PLAIN.search(log.read_text()), _TLS.search(log.read_text())
        assert plain is not None
        assert tls is not None
        yield (
            pid,
            Servers(
                Running(pid, plain[1], int(plain[2])),
                Running(pid, plain[1], int(plain[2]), tls=Tls.STARTTLS),
                Running(pid, tls[1], int(tls[2]), tls=Tls.IMPLICIT),
            ),
        )


@dataclass(slots=True)
class Soak:
    """A soak that is under way."""

    folder: Path
    pid: int
    began: float = field(default_factory=time.monotonic)
    over: threading.Event = field(default_factory=threading.Event)
    delivered: int = 0
    done: Counter[str] = field(default_factory=Counter[str])
    """How often each role was played to its end; and how often not, with the reason."""

    def play(self, role: str, servers: Servers) -> None:
        """Play a role again and again."""
        while not self.over.is_set():
            try:
                ROLES[role].play(servers)
            except (OSError, Trouble) as error:
                self.done[f"{role}: {error}"] += 1
                self.over.wait(1)
            else:
                self.done[role] += 1
            self.over.wait(ROLES[role].pause)

    def empty(self, is_idle: threading.Event) -> None:
        """Count what is delivered and throw it away, until nothing more comes."""
        new = self.folder / "Maildir" / "new"
        while not is_idle.wait(EMPTYING):
            with suppress(FileNotFoundError):
                for path in new.iterdir():
                    path.unlink()
                    self.delivered += 1

    def sample(self) -> Sample:
        """Look at the server."""
        os.kill(self.pid, signal.SIGUSR2)
        time.sleep(0.1)  # the blocks are written meanwhile; if not, they are those of the last time
        counted = self.folder / "blocks"
        files = [path.stat().st_size for path in (self.folder / "queue").glob("queue.sqlite*")]
        return Sample(
            time.monotonic() - self.began,
            self.delivered,
            cpu_seconds(self.pid),
            resident(self.pid),
            float(counted.read_text() or 0) if counted.exists() else 0,
            descriptors(self.pid),
            threads(self.pid),
            sum(files),
        )


def soak(folder: Path, minutes: float, interval: float) -> tuple[list[Sample], Counter[str]]:
    """Put a server under load; give what was seen (the last sample after a rest), and what was done to it."""
    with serving(folder) as (pid, servers):
        under_way = Soak(folder, pid)
        is_idle = threading.Event()
        emptier = threading.Thread(target=under_way.empty, args=(is_idle,))
        players = [
            threading.Thread(target=under_way.play, args=(name, servers))
            for name, role in ROLES.items()
            for _ in range(role.players)
        ]
        samples = [under_way.sample()]
        for thread in (emptier, *players):
            thread.start()
        try:
            while time.monotonic() < under_way.began + minutes * 60:
                time.sleep(interval)
                samples.append(under_way.sample())
                print(say(samples[-1]), file=sys.stderr)
            under_way.over.set()
            for thread in players:
                thread.join()
            time.sleep(REST)
            samples.append(under_way.sample())
        finally:
            under_way.over.set()
            is_idle.set()
            for thread in (emptier, *players):
                thread.join()
    return samples, under_way.done


def say(sample: Sample) -> str:
    """Give a line of progress."""
    values = ", ".join(f"{name} {getattr(sample, key) / unit:,.1f}" for key, (name, unit) in METRICS.items())
    return f"{sample.seconds:.0f} s, {sample.messages:,} messages: {values}"


def growth(samples: Sequence[Sample], metric: str) -> float:
    """Give by how much a metric grows with 100,000 messages, by the straight line that fits best."""
    messages = [sample.messages / 100_000 for sample in samples]
    if len(set(messages)) < 2:
        return 0.0
    return linear_regression(messages, [getattr(sample, metric) for sample in samples]).slope


def table(samples: Sequence[Sample]) -> Iterator[str]:
    """Give the lines of the table: at rest before and after, under load after the warm-up, and what that grows by."""
    first, *load, last = samples
    warm = [sample for sample in load if sample.seconds >= WARM_UP * load[-1].seconds]
    heads = ("before", "warmed up", "most", "at the end", "at rest", "per 100,000")
    yield f"{'':<30}" + "".join(f" {head:>12}" for head in heads)
    for key, (name, unit) in METRICS.items():
        values: list[float] = [getattr(sample, key) for sample in (first, warm[0], load[-1], last)]
        values.insert(2, max(getattr(sample, key) for sample in warm))
        cells = [f"{value / unit:,.2f}" for value in values] + [f"{growth(warm, key) / unit:+,.3f}"]
        yield f"{name:<30}" + "".join(f" {cell:>12}" for cell in cells)
    took = load[-1].seconds
    rates = f"{load[-1].messages / took:,.0f} per second, {load[-1].cpu / took:.2f} s of CPU per second"
    yield f"{last.messages:,} messages delivered, {rates}"


def main() -> None:
    """Soak and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Put smtprecv under a long, mixed load.")
    parser.add_argument("folder", nargs="?", help="where the queue is, by default the temporary folder")
    parser.add_argument("--minutes", type=float, default=10, help="default %(default)s")
    parser.add_argument("--interval", type=float, default=5, help="seconds between samples, default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    options = parser.parse_args()
    demand_source()
    end_at_sigterm()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        samples, done = soak(Path(temporary), options.minutes, options.interval)
        machine = facts(temporary)
    print(*table(samples), "", *(f"{count:>10,} {role}" for role, count in done.items()), sep="\n")
    if options.json is not None:
        document = {"machine": machine, "samples": [asdict(each) for each in samples], "done": done}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
