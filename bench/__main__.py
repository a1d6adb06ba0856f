"""All that is measured beside other receivers, by one command: `python -m bench [FOLDER]`.

The disk of FOLDER is measured. What is measured and how, and what the numbers do not say, is in bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from bench import latency, load, memory, micro
from bench.book import Book
from bench.image import mounted
from bench.machine import facts
from bench.peer import Peer
from bench.plot import plot
from bench.process import end_at_sigterm
from bench.roster import PARTS, PEERS, present
from bench.table import part_table
from bench.verdict import verdict_table, verdicts

FEW: Final = 3
"""Runs at most of what hardly differs from run to run, and takes long."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    folder: str | None
    only: Sequence[str]
    peers: Sequence[str]
    runs: int
    seconds: float
    sessions: Sequence[int]
    image: bool
    json: Path | None
    plot: Path | None

    def sender(self, *, is_delivery: bool = False) -> load.Sender:
        """Give what sends."""
        return load.Sender(self.folder, self.seconds, is_delivery)


def rates(book: Book, options: Options, peers: Sequence[Peer]) -> None:
    """Measure small messages into the queue."""
    load.measure(book, "rates", options.sender(), peers, load.small(options.sessions), options.runs)


def maildir(book: Book, options: Options, peers: Sequence[Peer]) -> None:
    """Measure small messages until each is a file in a Maildir."""
    load.measure(book, "maildir", options.sender(is_delivery=True), peers, load.small(options.sessions), options.runs)


def large(book: Book, options: Options, peers: Sequence[Peer]) -> None:
    """Measure large messages into the queue."""
    load.measure(book, "large", options.sender(), peers, load.LARGE, options.runs)


def waits(book: Book, options: Options, peers: Sequence[Peer]) -> None:
    """Measure how long the 250 takes."""
    latency.measure(book, options.sender(), peers, options.runs)


def octets(book: Book, options: Options, peers: Sequence[Peer]) -> None:
    """Measure memory."""
    memory.measure(book, options.folder, peers, min(options.runs, FEW))


def parts(book: Book, options: Options, peers: Sequence[Peer]) -> None:
    """Measure the parts alone."""
    micro.measure(book, options.folder, options.runs)


MEASURES: Final[Mapping[str, Callable[[Book, Options, Sequence[Peer]], None]]] = {
    "rates": rates,
    "maildir": maildir,
    "large": large,
    "latency": waits,
    "memory": octets,
    "micro": parts,
}


def some_of(names: Iterable[str]) -> Callable[[str], Sequence[str]]:
    """Give what reads some of these names, separated by commas."""

    def read(text: str) -> Sequence[str]:
        unknown = [name for name in text.split(",") if name not in names]
        if unknown:
            reason = f"{', '.join(unknown)}; there are {', '.join(names)}"
            raise argparse.ArgumentTypeError(reason)
        return text.split(",")

    return read


def counts(text: str) -> Sequence[int]:
    """Read numbers that are separated by commas; ValueError if they are none."""
    return [int(number) for number in text.split(",")]


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure smtprecv beside other receivers.",
        epilog=f"PART: {', '.join(MEASURES)}. PEER: {', '.join(PEERS)}.",
    )
    add = parser.add_argument
    add("folder", nargs="?", help="whose disk is measured, by default that of the temporary folder")
    add("--only", type=some_of(MEASURES), default=[*MEASURES], metavar="PART,PART,…", help="by default all")
    add("--peers", type=some_of(PEERS), default=[*PEERS], metavar="PEER,PEER,…", help="by default all that are there")
    add("--runs", type=int, default=5, metavar="N", help="of each cell, default %(default)s; of memory at most 3")
    add("--seconds", type=float, default=3.0, metavar="S", help="that a run takes, default %(default)s")
    add("--sessions", type=counts, default=[1, 10, 50], metavar="N,N,…", help="at one time, default 1,10,50")
    add("--image", action="store_true", help="measure on an ext4 with a journal in a file in FOLDER; as root")
    add("--json", type=Path, metavar="FILE", help="write all numbers there")
    add("--plot", type=Path, metavar="FILE.svg", help="draw them there")
    return Options(**vars(parser.parse_args(arguments)))


def measure(options: Options) -> Book:
    """Measure all that was asked for; who cannot run here is named on standard error."""
    book = Book()
    for part in options.only:
        MEASURES[part](book, options, present([name for name in PARTS[part] if name in options.peers]))
    return book


def main() -> None:
    """Measure, print and write."""
    options = parse()
    load.demand_source()
    end_at_sigterm()
    with ExitStack() as stack:
        if options.image:
            options = replace(options, folder=stack.enter_context(mounted(options.folder)))
        machine = {"before": facts(options.folder or tempfile.gettempdir())}
        book = measure(options)
        machine["after"] = facts(options.folder or tempfile.gettempdir())
    reached = verdicts(book, options.sessions, options.only)
    for part in options.only:
        print(*part_table(book, part), sep="\n")
    print(*verdict_table(reached), *(f"failed: {failure}" for failure in book.failures), sep="\n")
    print(*(f"{name}: {fact}" for name, fact in machine["after"].items()), sep="\n")
    settings = {name: value for name, value in asdict(options).items() if name not in {"folder", "json", "plot"}}
    document = {"machine": machine, "options": settings, "measured": book.rows(), "verdicts": reached}
    if options.json is not None:
        options.json.write_text(json.dumps({**document, "failures": book.failures}, indent=1) + "\n")
    if options.plot is not None:
        options.plot.write_text(plot(book))


if __name__ == "__main__":
    main()
