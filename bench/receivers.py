"""smtprecv beside aiosmtpd under the same load, into a Maildir: messages per second, and the server's CPU.

`python bench/receivers.py [FOLDER]`: the disk of FOLDER is measured. Needs Postfix's smtp-source; what is measured and
how, and what it does not say, is in bench/README.md. Every run has a new server with an empty folder; the runs of
the receivers take turns, so that a slow minute of the machine is a slow minute for each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from statistics import median
from typing import Final

WARM_UP: Final = 50
"""Messages before the clock starts."""
DEADLINE: Final = 120.0
"""Seconds after which a server that does not get ready, or does not deliver, ends the benchmark."""

_READY: Final = re.compile(r"listening on (\S+:\d+)$", re.MULTILINE)
_WORKER: Final = re.compile(r"worker 2 is process \d+$", re.MULTILINE)
_AIOSMTPD: Final = Path(__file__).with_name("aiosmtpd_maildir.py")


@dataclass(frozen=True, slots=True)
class Load:
    """What smtp-source is told: sessions at one time, and whether each message has a connection of its own."""

    sessions: int
    connection: str


@dataclass(frozen=True, slots=True)
class Result:
    """What one run gave: messages per second until the last 250 and until the last file, and CPU."""

    accepted: float
    delivered: float
    cpu: float


CONNECTIONS: Final[Mapping[str, Sequence[str]]] = {"new": [], "kept": ["-d"]}
COLUMNS: Final[Mapping[str, str]] = {
    "accepted": "accepted /s",
    "delivered": "delivered /s",
    "cpu": "CPU ms per 1000",
}


def smtprecv(folder: Path) -> list[str]:
    """Give the command that starts smtprecv."""
    where = ["--listen", "127.0.0.1:0", "--queue", str(folder / "queue"), "--deliver", f"maildir:{folder / 'Maildir'}"]
    return [sys.executable, "-m", "smtprecv", "serve", *where]


def aiosmtpd(folder: Path) -> list[str]:
    """Give the command that starts aiosmtpd."""
    return [sys.executable, str(_AIOSMTPD), str(folder / "Maildir")]


def workers(folder: Path) -> list[str]:
    """Give the command that starts smtprecv with two processes."""
    return [*smtprecv(folder), "--workers", "2"]


RECEIVERS: Final[Mapping[str, Callable[[Path], list[str]]]] = {
    "smtprecv": smtprecv,
    "workers": workers,
    "aiosmtpd": aiosmtpd,
}


def until(fact: Callable[[], bool], what: str, pause: float) -> None:
    """Return when the fact holds; SystemExit that names it if it does not in time."""
    deadline = time.monotonic() + DEADLINE
    while not fact():
        if time.monotonic() > deadline:
            sys.exit(f"not within {DEADLINE:g} s: {what}")
        time.sleep(pause)


@contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[tuple[int, str]]:
    """Run a server; give its pid and address once it listens, and end it afterwards."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            until(lambda: process.poll() is not None or _READY.search(log.read_text()) is not None, "ready", 0.02)
            ready = _READY.search(log.read_text())
            if ready is None:
                sys.exit(f"{' '.join(command)} did not start: {log.read_text()}")
            if "--workers" in command:
                until(lambda: _WORKER.search(log.read_text()) is not None, "the second worker", 0.02)
            yield process.pid, ready[1]
        finally:
            process.send_signal(signal.SIGTERM)


def cpu_seconds(pid: int) -> float:
    """Give the user and system time of a process and of its children, from /proc."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(int, numbers[11:15])) / os.sysconf("SC_CLK_TCK") + sum(cpu_seconds(int(child)) for child in children)


def send(source: str, address: str, load: Load, messages: int, size: int) -> None:
    """Send messages, and return when the last one is answered."""
    how = ["-s", str(load.sessions), "-m", str(messages), "-l", str(size), *CONNECTIONS[load.connection]]
    subprocess.run([source, *how, "-f", "anna@example.com", "-t", "ben@example.org", address], check=True)


def count_files(folder: Path) -> int:
    """Count the messages in a Maildir, which may not be there yet."""
    new = folder / "new"
    return sum(1 for _ in new.iterdir()) if new.exists() else 0


def run(receiver: str, load: Load, options: argparse.Namespace, source: str) -> Result:
    """Measure a new server once."""
    messages: int = options.messages
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        maildir = folder / "Maildir"
        with started(RECEIVERS[receiver](folder), folder / "log") as (pid, address):
            send(source, address, load, max(WARM_UP, load.sessions), options.size)
            expected = max(WARM_UP, load.sessions)
            until(lambda: count_files(maildir) >= expected, "files of the warm-up", 0.02)
            began, began_cpu = time.perf_counter(), cpu_seconds(pid)
            send(source, address, load, messages, options.size)
            accepted = time.perf_counter() - began
            until(lambda: count_files(maildir) >= expected + messages, f"{messages} files", 0.005)
            delivered = time.perf_counter() - began
            cpu = cpu_seconds(pid) - began_cpu
    return Result(messages / accepted, messages / delivered, cpu / messages * 1e6)


def measure(options: argparse.Namespace, source: str) -> dict[tuple[Load, str], list[Result]]:
    """Measure every receiver under every load, so often as was asked, taking turns."""
    loads = [Load(*pair) for pair in product(options.sessions, CONNECTIONS)]
    receivers: list[str] = options.pair
    results: dict[tuple[Load, str], list[Result]] = {pair: [] for pair in product(loads, receivers)}
    for number in range(options.runs):
        for (load, receiver), so_far in results.items():
            so_far.append(run(receiver, load, options, source))
            print(f"run {number + 1}: {receiver}, {load}: {so_far[-1]}", file=sys.stderr)
    return results


def table(results: Mapping[tuple[Load, str], Sequence[Result]]) -> Iterator[str]:
    """Give the lines of the table: medians with least and greatest, and for each load the ratio of the medians."""
    yield f"{'sessions':<9} {'connection':<11} {'':<9}" + "".join(f" {head:>22}" for head in COLUMNS.values())
    for load in dict.fromkeys(load for load, _ in results):
        pair = [receiver for other, receiver in results if other == load]
        for receiver in pair:
            cells = [spread([getattr(r, name) for r in results[load, receiver]]) for name in COLUMNS]
            yield f"{load.sessions:<9} {load.connection:<11} {receiver:<9}" + "".join(f" {c:>22}" for c in cells)
        ours, theirs = (results[load, receiver] for receiver in pair)
        ratios = [median(getattr(r, n) for r in ours) / median(getattr(r, n) for r in theirs) for n in COLUMNS]
        yield f"{'':<9} {'':<11} {'ratio':<9}" + "".join(f" {ratio:>22.2f}" for ratio in ratios)


def spread(values: Sequence[float]) -> str:
    """Give the median, with the least and the greatest."""
    return f"{median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure smtprecv beside aiosmtpd.")
    parser.add_argument("folder", nargs="?", help="where queues and Maildirs are made, by default the temporary folder")
    parser.add_argument("--messages", type=int, default=1000, help="in a run, default %(default)s")
    parser.add_argument("--runs", type=int, default=5, help="of each receiver under each load, default %(default)s")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 10, 50], help="at one time, default 1 10 50")
    parser.add_argument("--size", type=int, default=4096, help="octets of a message, default %(default)s")
    pair = ("smtprecv", "aiosmtpd")
    parser.add_argument("--pair", nargs=2, choices=RECEIVERS, default=pair, help="default smtprecv aiosmtpd")
    parser.add_argument("--json", action="store_true", help="one object a line, for each receiver under each load")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print."""
    options = parse()
    source = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin")
    if source is None:
        sys.exit("smtp-source is not installed; it is part of Postfix")
    results = measure(options, source)
    if not options.json:
        print(*table(results), sep="\n")
        return
    for (load, receiver), runs in results.items():
        numbers = {field.name: [getattr(r, field.name) for r in runs] for field in fields(Result)}
        print(json.dumps({"receiver": receiver, **asdict(load), **numbers}))


if __name__ == "__main__":
    main()
