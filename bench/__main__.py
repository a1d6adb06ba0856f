"""All that is measured beside other receivers, by one command: `python -m bench [FOLDER]`.

The disk of FOLDER is measured. What is measured and how, and what the numbers do not say, is in bench/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench import load
from bench.book import Book
from bench.peer import Peer
from bench.roster import PARTS, PEERS, present
from bench.table import part_table


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    folder: str | None
    only: Sequence[str]
    peers: Sequence[str]
    runs: int
    seconds: float
    sessions: Sequence[int]


def rates(book: Book, options: Options, peers: Sequence[Peer]) -> None:
    """Measure small messages into the queue."""
    sender = load.Sender(options.folder, options.seconds)
    load.measure(book, "rates", sender, peers, load.small(options.sessions), options.runs)


PARTS_OF_WORK: Final[Mapping[str, Callable[[Book, Options, Sequence[Peer]], None]]] = {"rates": rates}


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure smtprecv beside other receivers.")
    parser.add_argument("folder", nargs="?", help="whose disk is measured, by default that of the temporary folder")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], help="the parts, by default all")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[*PEERS], help="by default all that are installed")
    parser.add_argument("--runs", type=int, default=5, help="of each cell, default %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="that a run takes, default %(default)s")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 10, 50], help="at one time, default 1 10 50")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> None:
    """Measure and print."""
    options = parse()
    book = Book()
    for part in options.only:
        peers = present([name for name in PARTS[part] if name in options.peers])
        if part in PARTS_OF_WORK:
            PARTS_OF_WORK[part](book, options, [*peers.values()])
    for part in options.only:
        print(*part_table(book, part), sep="\n")
    print(f"load average now: {os.getloadavg()[0]:.1f}", file=sys.stderr)


if __name__ == "__main__":
    main()
