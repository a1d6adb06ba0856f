"""A queue in which a million messages wait, beside one in which a thousand do: what the depth costs.

`python -m bench.deep_queue [FOLDER]`: the disk of FOLDER is measured. Needs Postfix's smtp-source; what is measured and
how is in bench/README.md. All is done to the two queues in turn, so that a slow minute of the machine is a slow
minute for both, and what counts is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import smtplib
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from typing import Final

import trio
from bench.load import demand_source
from bench.peer import Running
from bench.peers.smtprecv import listening
from bench.process import count_files, cpu_seconds, find, until
from bench.table import spread

from smtprecv import (
    Attempt,
    Backoff,
    Client,
    Domain,
    Envelope,
    ForwardPath,
    Mailbox,
    Recipient,
    Reply,
    ReversePath,
    SessionId,
    open_spool,
    run_once,
    utc_now,
)

DUE: Final = 10
"""Messages that are due in a pass. The spool itself takes so many; the others are copies of their rows."""
PIECE: Final = 20_000
"""Rows of a transaction."""
LATER: Final = Reply(451, "not now")
RETRY: Final = Backoff(first=dt.timedelta(hours=1))
"""What was tried is not due again as long as the measuring takes."""
SMTP_SOURCE: Final = ("-s", "10", "-d", "-l", "4096", "-f", "anna@example.com", "-t", "ben@example.org")

COPIES: Final = """
WITH RECURSIVE copy(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM copy WHERE n < :last)
INSERT INTO smtprecv_{table} ({columns}) SELECT {values} FROM copy, smtprecv_{table} AS seed WHERE {which}
"""
SIZE: Final = "1024 + n * 7919 % 3073"
"""Octets of the body of message n: 1 to 4 KiB."""
OVERRIDES: Final[Mapping[str, Mapping[str, str]]] = {
    "message": {
        "number": "n",
        "id": "printf('00%018d', n)",  # in the form of an id, and before those of fresh mail
        "received": "received - n * 1000",
        "due": ":now + 3600000000 + n * 10000",  # from an hour on, each within 10 ms of the next
        "priority": "n % 3 - 1",
        "client": "replace(client, 'bench', printf('%010x', n))",
        "reverse_path": "printf('anna%d@example.com', n)",
        "size": SIZE,
    },
    "recipient": {"message": "n", "forward_path": "printf('ben%d@example.org', n % 1000)"},
    "body": {"message": "n", "octets": f"randomblob({SIZE})"},
}
STATES: Final[Mapping[str, Sequence[str]]] = {
    "deferred": (),
    "failed": (
        "UPDATE smtprecv_message SET due = NULL WHERE number > 10",
        "UPDATE smtprecv_recipient SET status = 'failed', reply_code = 550, reply_text = 'no' WHERE message > 10",
    ),
    "held": ("UPDATE smtprecv_message SET held = 1 WHERE number > 10",),
}
"""What is done to all that were copied."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that is measured, and what is beside it."""

    folder: Path

    @property
    def spool(self) -> Path:
        """The spool."""
        return self.folder / "queue"

    @property
    def maildir(self) -> Path:
        """Where its mail goes."""
        return self.folder / "Maildir"

    def command(self, *words: str) -> list[str]:
        """Give a command of smtprecv on this queue."""
        return [sys.executable, "-m", "smtprecv", *words, "--queue", str(self.spool)]

    def serve(self) -> list[str]:
        """Give the command of its server."""
        return [*self.command("serve"), "--listen", "127.0.0.1:0", "--deliver", f"maildir:{self.maildir}"]

    def database(self) -> closing[sqlite3.Connection]:
        """Connect, while nobody has the spool open."""
        return closing(sqlite3.connect(self.spool / "queue.sqlite", isolation_level=None))


Measure = Callable[[Queue], Mapping[str, float]]
"""Measures once, and gives numbers by name."""


async def plant(queue: Queue) -> None:
    """Let the spool make its tables, and take the messages of which the others are copies."""
    path = ForwardPath(Mailbox("ben", Domain("example.org")))
    envelope = Envelope(ReversePath(Mailbox("anna", Domain("example.com"))), recipients=(Recipient(path),))
    async with open_spool(queue.spool) as spool:
        for _ in range(DUE):
            draft = await spool.begin(utc_now())
            await draft.write(b"Subject: hello\r\n\r\n" + b"x" * 2000 + b"\r\n")
            await draft.commit(Client(SessionId("bench"), ip_address("192.0.2.7"), 40000), envelope, utc_now())
        await run_once(spool, Defer(), RETRY)


class Defer:
    """A delivery that never has time."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Say so for each recipient."""
        return [LATER] * len(attempt.recipients)


def fill(queue: Queue, count: int, state: str) -> None:
    """Make a queue of so many messages, by copying rows of a few that the spool has written itself."""
    trio.run(plant, queue)
    with queue.database() as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for first in range(DUE + 1, count + 1, PIECE):
            connection.execute("BEGIN")
            for table in OVERRIDES:
                copy(connection, table, first, min(first + PIECE - 1, count))
            connection.execute("COMMIT")
        for statement in STATES[state]:
            connection.execute(statement)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.sync()


def copy(connection: sqlite3.Connection, table: str, first: int, last: int) -> None:
    """Copy the rows of the first message, once for each number."""
    columns = [str(row[1]) for row in connection.execute(f"PRAGMA table_info(smtprecv_{table})")]
    values = [OVERRIDES[table].get(column, column) for column in columns]
    which = "seed.number = 1" if table == "message" else "seed.message = 1"
    query = COPIES.format(table=table, columns=", ".join(columns), values=", ".join(values), which=which)
    numbers = {"first": first, "last": last, "now": time.time_ns() // 1000}
    connection.execute(query, numbers if ":now" in query else {"first": first, "last": last})


def make_due(queue: Queue) -> None:
    """Let the time of ten messages have come."""
    with queue.database() as connection:
        connection.execute("UPDATE smtprecv_message SET due = received WHERE number <= ?", (DUE,))


def timed(work: Callable[[], object]) -> float:
    """Give the milliseconds that it took."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def run_command(command: Sequence[str], what: str) -> Mapping[str, float]:
    """Give the milliseconds that a command takes from its start to its end, and those of CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = timed(partial(subprocess.run, command, stdout=subprocess.DEVNULL, check=True))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {f"{what}, ms": wall, f"{what}, ms of CPU": cpu * 1000}


def opening(queue: Queue) -> Mapping[str, float]:
    """Open the spool and close it again."""

    async def open_and_close() -> None:
        async with open_spool(queue.spool):
            pass

    return {"open_spool and its end, ms": timed(partial(trio.run, open_and_close))}


def listing(queue: Queue) -> Mapping[str, float]:
    """Look at the first messages."""
    return run_command(queue.command("queue", "list", "--limit", "20"), "queue list --limit 20")


def passing(queue: Queue) -> Mapping[str, float]:
    """Make one pass over ten messages that are due, in an open spool."""
    make_due(queue)

    async def make_pass() -> float:
        async with open_spool(queue.spool) as spool:
            began = time.perf_counter()
            report = await run_once(spool, Defer(), RETRY)
            took = time.perf_counter() - began
        if report.deferred != DUE:
            sys.exit(f"{report.deferred} were due, and not {DUE}")
        return took * 1000

    return {f"run_once, {DUE} due, ms": trio.run(make_pass)}


def running(queue: Queue) -> Mapping[str, float]:
    """Make one pass by the command, to where nobody listens: each message is tried, and deferred."""
    make_due(queue)
    deliver = ["--deliver", "smtp://127.0.0.1:1", "--retry-first", "1h"]
    return run_command([*queue.command("runqueue"), *deliver], f"runqueue, {DUE} due")


def starting(queue: Queue) -> Mapping[str, float]:
    """Start a server, until it says that it listens; and end it."""
    began = time.perf_counter()
    with listening(queue.serve(), queue.folder / "log"):
        took = time.perf_counter() - began
    return {"serve until it listens, ms": took * 1000}


@dataclass(frozen=True, slots=True)
class Serving:
    """The servers that run while they are measured in turn."""

    messages: int
    servers: Mapping[Queue, Running]

    def accepting(self, queue: Queue) -> Mapping[str, float]:
        """Send messages, and wait until all are delivered."""
        running = self.servers[queue]
        before, before_cpu = count_files(queue.maildir), cpu_seconds(running.pid)
        command = [find("smtp-source") or "smtp-source", *SMTP_SOURCE, "-m", str(self.messages), running.address]
        took = timed(partial(subprocess.run, command, check=True))
        until(lambda: count_files(queue.maildir) >= before + self.messages, "delivered", 0.02)
        cpu = (cpu_seconds(running.pid) - before_cpu) / self.messages * 1e6
        return {"accepted, per second": self.messages / took * 1000, "CPU ms of 1000, delivery included": cpu}

    def latency(self, queue: Queue) -> Mapping[str, float]:
        """Send one message, and wait for its file."""
        running = self.servers[queue]
        before = count_files(queue.maildir)
        with smtplib.SMTP(running.host, running.port) as client:
            client.sendmail("anna@example.com", ["ben@example.org"], b"Subject: fresh\r\n\r\nfresh\r\n")
            accepted = time.perf_counter()
            until(lambda: count_files(queue.maildir) > before, "delivered", 0.0005)
            took = time.perf_counter() - accepted
        return {"a fresh message, from its 250 to its file, ms": took * 1000}

    def memory(self, queue: Queue) -> Mapping[str, float]:
        """Give the memory of a server, and the most that it ever had."""
        lines = map(str.split, Path(f"/proc/{self.servers[queue].pid}/status").read_text().splitlines())
        sizes = {words[0]: int(words[1]) / 1024 for words in lines if words[0].startswith("Vm")}
        return {"resident memory of serve, MiB": sizes["VmRSS:"], "and at most, MiB": sizes["VmHWM:"]}


Numbers = dict[str, dict[Queue, list[float]]]


def take(numbers: Numbers, measure: Measure, queues: Sequence[Queue], runs: int) -> None:
    """Measure the queues in turn, each so often."""
    for _ in range(runs):
        for queue in queues:
            for name, number in measure(queue).items():
                numbers.setdefault(name, {}).setdefault(queue, []).append(number)
    print(f"{measure.__name__}: load {os.getloadavg()[0]:.1f}", file=sys.stderr)


def measured(queues: Sequence[Queue], options: argparse.Namespace) -> Numbers:
    """Measure all there is."""
    numbers: Numbers = {}
    for measure, runs in ((opening, 7), (passing, 7), (listing, 7), (running, 7), (starting, 5)):
        take(numbers, measure, queues, runs)
    with ExitStack() as stack:
        servers = {queue: stack.enter_context(listening(queue.serve(), queue.folder / "log")) for queue in queues}
        serving = Serving(options.load, servers)
        for queue in queues:
            serving.accepting(queue)  # a first time, which nobody counts
        take(numbers, serving.accepting, queues, options.runs)
        take(numbers, serving.latency, queues, 11)
        take(numbers, serving.memory, queues, 1)
    return numbers


def table(numbers: Numbers, counts: Mapping[Queue, int]) -> Iterator[str]:
    """Give the lines of the table: medians with least and greatest, and the ratio of the medians."""
    deep, shallow = counts
    yield f"{'':<46} {counts[deep]:>24,} {counts[shallow]:>24,} {'ratio':>6}"
    for name, runs in numbers.items():
        row = f"{name:<46} {spread(runs[deep]):>24} {spread(runs[shallow]):>24}"
        yield f"{row} {median(runs[deep]) / median(runs[shallow]):>6.2f}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure a deep queue beside a shallow one.")
    parser.add_argument("folder", nargs="?", help="where the queues are made, by default the temporary folder")
    parser.add_argument("--messages", type=int, default=1_000_000, help="in the deep queue, default %(default)s")
    parser.add_argument("--beside", type=int, default=1000, help="in the shallow one, default %(default)s")
    parser.add_argument("--state", choices=STATES, default="deferred", help="of all of them, default %(default)s")
    parser.add_argument("--load", type=int, default=1000, help="messages that are sent at once, default %(default)s")
    parser.add_argument("--runs", type=int, default=5, help="of the sending, default %(default)s")
    parser.add_argument("--keep", action="store_true", help="leave the queues, and take those that are there")
    parser.add_argument("--json", action="store_true", help="write one object with all numbers")
    return parser.parse_args(arguments)


def main() -> None:
    """Make the queues, measure and print."""
    options = parse()
    demand_source()
    with ExitStack() as stack:
        new = None if options.keep else stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder))
        parent = Path(new or options.folder or ".")
        counts: dict[Queue, int] = {}
        for count in (options.messages, options.beside):
            queue = Queue(parent.absolute() / f"{options.state}-{count}")
            counts[queue] = count
            with suppress(FileExistsError):
                queue.folder.mkdir(parents=True)
                seconds = timed(partial(fill, queue, count, options.state)) / 1000
                size = (queue.spool / "queue.sqlite").stat().st_size / 2**20
                print(f"{count} messages made in {seconds:.0f} s, {size:.0f} MiB", file=sys.stderr)
        numbers = measured([*counts], options)
    if options.json:
        print(json.dumps({name: {counts[queue]: runs for queue, runs in of.items()} for name, of in numbers.items()}))
        return
    print(*table(numbers, counts), f"load average now: {os.getloadavg()[0]:.1f}", sep="\n")


if __name__ == "__main__":
    main()
