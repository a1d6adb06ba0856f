"""Tables for people: the median of the runs with the least and the greatest, and below them the ratios of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Final

from bench.book import Book, Key

PAIRS: Final = (
    ("smtprecv", "postfix"),
    ("workers", "postfix"),
    ("workers", "smtprecv"),
    ("smtprecv", "aiosmtpd"),
    ("smtprecv", "floor"),
    ("smtprecv", "floor-socket"),
    ("smtprecv-maildir", "postfix-maildir"),
    ("smtprecv-maildir", "aiosmtpd"),
)
"""Who is divided by whom."""


def spread(values: Sequence[float]) -> str:
    """Give the median, with the least and the greatest."""
    digits = 0 if median(values) >= 100 else 1 if median(values) >= 10 else 2
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def part_table(book: Book, part: str) -> Iterator[str]:
    """Give the lines of a part: each cell with each peer, then the ratios of the medians."""
    keys = [key for key in book.numbers if key.part == part]
    metrics = unique(key.metric for key in keys)
    if not keys:
        return
    yield f"\n{part:<24} {'':<34}" + "".join(f" {metric:>24}" for metric in metrics)
    for cell in unique(key.cell for key in keys):
        peers = unique(key.peer for key in keys if key.cell == cell)
        for peer in peers:
            values = [book.numbers.get(Key(part, cell, peer, metric)) for metric in metrics]
            yield f"{cell:<24} {peer:<34}" + "".join(f" {spread(v) if v else '':>24}" for v in values).rstrip()
        for ours, theirs in PAIRS:
            if ours in peers and theirs in peers:
                ratios = [book.ratio(Key(part, cell, ours, m), Key(part, cell, theirs, m)) for m in metrics]
                cells = "".join(f" {'' if ratio is None else f'{ratio:.2f}':>24}" for ratio in ratios)
                yield f"{'':<24} {f'{ours} / {theirs}':<34}" + cells.rstrip()


def unique(names: Iterable[str]) -> list[str]:
    """Give each name once, in the order of their coming."""
    return [*dict.fromkeys(names)]
