"""What was aimed at, as a table, and what was reached."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.book import ABOVE_IDLE, ACCEPTED, CPU, DELIVERED, P99, PER_CONNECTION, THROUGHPUT, Book, Key
from bench.latency import OWN_HALF, POSTFIX_HALF
from bench.load import small
from bench.memory import IDLE_COUNTS, LARGE_CELL

COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "below": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Target:
    """A number of ours, divided by one of theirs where there is one, and where it should be."""

    what: str
    comparison: str
    bound: float
    ours: Key
    theirs: Key | None = None

    def reached(self, book: Book) -> float | None:
        """Give what was measured; None if it was not."""
        return book.middle(self.ours) if self.theirs is None else book.ratio(self.ours, self.theirs)


def against(
    what: str, comparison: str, bound: float, part: str, metric: str, cell: str, ours: str, theirs: str
) -> Target:
    """Aim at a ratio within one cell."""
    return Target(what, comparison, bound, Key(part, cell, ours, metric), Key(part, cell, theirs, metric))


def targets(sessions: Sequence[int]) -> Iterator[Target]:
    """Give what is aimed at, of all cells that are measured with so many sessions."""
    what = "accept rate / Postfix"
    for cell, bound in (("n10", 1.5), ("k10", 3.0), ("k50", 4.0)):
        yield against(what, "at least", bound, "rates", ACCEPTED, cell, "smtprecv", "postfix")
    yield against(f"{what}, 2 workers", "at least", 2.5, "rates", ACCEPTED, "n50", "workers", "postfix")
    for cell in ("n10", "k10"):
        yield against("CPU per message / Postfix", "at most", 0.5, "rates", CPU, cell, "smtprecv", "postfix")
    for load in small(sessions):
        yield against("accept rate / aiosmtpd", "at least", 4, "rates", ACCEPTED, load.name, "smtprecv", "aiosmtpd")
    for cell in ("n10", "k10", "k50"):
        yield against("accept rate / Trio floor", "at least", 0.6, "rates", ACCEPTED, cell, "smtprecv", "floor")
    what, peers = "into a Maildir / Postfix", ("smtprecv-maildir", "postfix-maildir")
    yield against(what, "at least", 1.5, "maildir", DELIVERED, "n10", *peers)
    yield against(what, "at least", 2, "maildir", DELIVERED, "k10", *peers)
    yield against("MB/s / Postfix", "at least", 1.2, "large", THROUGHPUT, "1 MiB", "smtprecv", "postfix")
    for count in IDLE_COUNTS:
        key = Key("memory", f"{count:,}", "smtprecv", PER_CONNECTION)
        yield Target("KiB for an idle connection", "at most", 10, key)
    yield Target("MB above idle", "below", 40, Key("memory", LARGE_CELL, "smtprecv", ABOVE_IDLE))
    for cell in (OWN_HALF, POSTFIX_HALF):
        yield against("p99 of the 250 / Postfix", "below", 1, "latency", P99, cell, "smtprecv", "postfix")


def verdicts(book: Book, sessions: Sequence[int], parts: Sequence[str]) -> list[dict[str, str | float | None]]:
    """Say of each target of these parts what was measured, and whether that reaches it."""
    rows: list[dict[str, str | float | None]] = []
    for target in targets(sessions):
        if target.ours.part not in parts:
            continue
        number = target.reached(book)
        reached = "not measured"
        if number is not None:
            reached = "yes" if COMPARISONS[target.comparison](number, target.bound) else "NO"
        aim = f"{target.comparison} {target.bound:g}"
        row = {"what": target.what, "cell": target.ours.cell, "target": aim, "measured": number, "reached": reached}
        rows.append(row)
    return rows


def verdict_table(rows: Iterable[Mapping[str, str | float | None]]) -> Iterator[str]:
    """Give the lines of the table."""
    yield f"\n{'target':<34} {'cell':<24} {'':<14} {'measured':>9}  reached"
    for row in rows:
        number = row["measured"]
        measured = f"{number:.2f}" if isinstance(number, float) else "-"
        yield f"{row['what']:<34} {row['cell']:<24} {row['target']:<14} {measured:>9}  {row['reached']}"
