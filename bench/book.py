"""Where all that was measured stands: a list of numbers for each part, cell, peer and metric, one number for each run.

Tables, verdicts, the plot and the JSON are made of this alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final, NamedTuple

ACCEPTED: Final = "accepted /s"
DELIVERED: Final = "delivered /s"
CPU: Final = "CPU ms per 1000"
THROUGHPUT: Final = "MB/s"
CPU_OF_OCTETS: Final = "CPU ms per 100 MB"
PER_CONNECTION: Final = "KiB for a connection"
ABOVE_IDLE: Final = "MB above idle"
P50: Final = "p50 ms"
P99: Final = "p99 ms"
WORST: Final = "max ms"
SENT: Final = "sent /s"
PER_SECOND: Final = "per second"
CPU_OF_ONE: Final = "CPU µs of one"


class Key(NamedTuple):
    """What a number is of; the cell is the load, the metric carries its unit."""

    part: str
    cell: str
    peer: str
    metric: str


@dataclass(frozen=True, slots=True)
class Book:
    """All numbers, in the order in which they came; and in words what could not be measured."""

    numbers: dict[Key, list[float]] = field(default_factory=dict[Key, list[float]])
    failures: list[str] = field(default_factory=list[str])

    def add(self, part: str, cell: str, peer: str, metrics: Mapping[str, float]) -> None:
        """Write down what one run gave."""
        for metric, number in metrics.items():
            self.numbers.setdefault(Key(part, cell, peer, metric), []).append(number)

    def middle(self, key: Key) -> float | None:
        """Give the median of the runs; None if there was none."""
        numbers = self.numbers.get(key)
        return median(numbers) if numbers else None

    def ratio(self, ours: Key, theirs: Key) -> float | None:
        """Give the median of one divided by that of another; None if one of them was not measured."""
        above, below = self.middle(ours), self.middle(theirs)
        return None if above is None or not below else above / below

    def rows(self) -> list[dict[str, str | list[float]]]:
        """Give all numbers as JSON has them."""
        return [{**key._asdict(), "numbers": numbers} for key, numbers in self.numbers.items()]


def read(rows: Iterable[Mapping[str, str | list[float]]]) -> Book:
    """Give the book that `rows()` was made of."""
    book = Book()
    for row in rows:
        match row:
            case {"part": str(), "cell": str(), "peer": str(), "metric": str(), "numbers": list(numbers)}:
                book.numbers[Key(*(str(row[name]) for name in Key._fields))] = [float(number) for number in numbers]
            case _:
                reason = f"not a row of a book: {row}"
                raise ValueError(reason)
    return book
