"""Draw what was measured: `python -m bench.plot JSON SVG`. Bars of medians; a line from the least to the greatest."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from bench.book import ABOVE_IDLE, ACCEPTED, CPU, DELIVERED, P99, PER_CONNECTION, THROUGHPUT, Book, Key, read
from bench.table import unique

PANELS: Final = (
    ("rates", ACCEPTED, "Accepted messages of 4 KiB per second"),
    ("rates", CPU, "Server CPU of 1000 messages, ms: less is better"),
    ("maildir", DELIVERED, "Into a Maildir, messages of 4 KiB per second"),
    ("large", THROUGHPUT, "Large messages, MB per second"),
    ("latency", P99, "From the final dot to the 250, p99 in ms: less is better"),
    ("memory", PER_CONNECTION, "Memory of an idle connection, KiB: less is better"),
    ("memory", ABOVE_IDLE, "Memory for ten messages of 50 MB at once, MB: less is better"),
)
COLORS: Final[Mapping[str, str]] = {
    "smtprecv": "#0a7d33",
    "workers": "#7cc495",
    "smtprecv-maildir": "#0a7d33",
    "smtprecv-tls": "#4fa56b",
    "smtprecv-starttls": "#7cc495",
    "postfix": "#c0281a",
    "postfix-maildir": "#c0281a",
    "exim": "#8a5fb0",
    "aiosmtpd": "#e0a030",
    "floor": "#777",
    "floor-socket": "#bbb",
}
OTHER: Final = "#57a"
WIDTH, LEFT, LABEL, BAR, GAP, HEAD = 860, 150, 130, 11, 8, 46
SCALE: Final = WIDTH - LEFT - LABEL


def plot(book: Book) -> str:
    """Give the drawing as SVG."""
    lines: list[str] = []
    y = 10
    for part, metric, title in PANELS:
        drawn = [*panel(book, part, metric, title, y)]
        if drawn:
            lines += drawn
            y += HEAD + height(book, part, metric)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="11">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *lines, "</svg>", ""])


def cells(book: Book, part: str, metric: str) -> Mapping[str, Sequence[Key]]:
    """Give what a panel has: in each cell the bars."""
    keys = [key for key in book.numbers if (key.part, key.metric) == (part, metric)]
    return {cell: [key for key in keys if key.cell == cell] for cell in unique(key.cell for key in keys)}


def height(book: Book, part: str, metric: str) -> int:
    """Give the height of the bars of a panel."""
    return sum(len(keys) * BAR + GAP for keys in cells(book, part, metric).values())


def panel(book: Book, part: str, metric: str, title: str, top: int) -> Iterator[str]:
    """Draw a panel."""
    groups = cells(book, part, metric)
    if not groups:
        return
    most = max(max(book.numbers[key]) for keys in groups.values() for key in keys) or 1
    yield f'<text x="5" y="{top + 18}" font-size="13" font-weight="bold">{title}</text>'
    y = top + 30
    for cell, keys in groups.items():
        yield f'<text x="5" y="{y + 9}">{cell}</text>'
        for key in keys:
            yield bar(key.peer, book.numbers[key], SCALE / most, y)
            y += BAR
        y += GAP


def bar(peer: str, numbers: Sequence[float], scale: float, y: int) -> str:
    """Draw the bar of a peer, with its name and its number."""
    low, middle, high = (round(number * scale, 1) for number in (min(numbers), median(numbers), max(numbers)))
    number = f"{median(numbers):,.0f}" if median(numbers) >= 100 else f"{median(numbers):.1f}"
    return (
        f'<rect x="{LEFT}" y="{y}" width="{max(middle, 0.5)}" height="{BAR - 1}" fill="{COLORS.get(peer, OTHER)}"/>'
        f'<path stroke="#000" d="M{LEFT + low} {y + BAR / 2 - 0.5}H{LEFT + high}"/>'
        f'<text x="{LEFT + max(high, middle) + 4}" y="{y + 9}" font-size="9">{number} {peer}</text>'
    )


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(plot(read(json.loads(Path(sys.argv[1]).read_text())["measured"])))
