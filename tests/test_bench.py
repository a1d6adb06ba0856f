"""The parts of bench/ that no run of it checks: what becomes of numbers once they are measured."""

from __future__ import annotations

import json
from xml.dom import minidom

import pytest
from bench.__main__ import parse
from bench.book import ACCEPTED, CPU, PER_CONNECTION, Book, Key, read
from bench.client import is_complete
from bench.plot import plot
from bench.roster import PARTS, PEERS
from bench.soak import Sample, growth
from bench.table import part_table, spread
from bench.verdict import verdict_table, verdicts


def measured() -> Book:
    """Give a book with some numbers of two receivers."""
    book = Book()
    for ours, theirs in ((3000, 1000), (3100, 900), (2000, 1100)):
        book.add("rates", "k10", "smtprecv", {ACCEPTED: ours, CPU: 300})
        book.add("rates", "k10", "postfix", {ACCEPTED: theirs, CPU: 500})
    book.add("memory", "1,000", "smtprecv", {PER_CONNECTION: 9.5})
    return book


def test_book_survives_json() -> None:
    """What was written as JSON is read again, number for number."""
    book = measured()
    assert read(json.loads(json.dumps(book.rows()))) == book


def test_ratio_is_that_of_the_medians() -> None:
    """A ratio divides the medians of the runs; there is none where one of the two was not measured."""
    book, ours = measured(), Key("rates", "k10", "smtprecv", ACCEPTED)
    assert 3.0 == book.ratio(ours, ours._replace(peer="postfix"))
    assert None is book.ratio(ours, ours._replace(peer="aiosmtpd"))


def test_verdicts() -> None:
    """A target is reached, not reached, or not measured; parts that were not asked for have none."""
    rows = {(row["what"], row["cell"]): row["reached"] for row in verdicts(measured(), [10], ["rates", "memory"])}
    assert "yes" == rows["accept rate / Postfix", "k10"]
    assert "NO" == rows["CPU per message / Postfix", "k10"]
    assert "not measured" == rows["accept rate / Postfix", "n10"]
    assert "yes" == rows["KiB for an idle connection", "1,000"]
    assert [] == [what for what, _ in rows if "Maildir" in str(what)]


def test_tables() -> None:
    """A table has the spread of each cell, and the ratio of each pair that was measured."""
    lines = [*part_table(measured(), "rates")]
    assert "3000 (2000-3100)" == spread([3000, 3100, 2000])
    assert [True, True] == ["3000 (2000-3100)" in lines[1], "3.00" in lines[3]]
    assert [] == [*part_table(measured(), "large")]
    assert [True] == [
        "3.00" in line for line in verdict_table(verdicts(measured(), [], ["rates"])) if "at least 3" in line
    ]


def test_plot() -> None:
    """The drawing is XML, with a bar for each cell of each receiver."""
    bars = minidom.parseString(plot(measured())).getElementsByTagName("path")  # noqa: S318 - our own
    assert 5 == len(bars)


def test_options() -> None:
    """Parts, receivers and sessions are lists with commas; a name that is not known ends the program."""
    options = parse(["folder", "--only", "rates,micro", "--sessions", "1,2"])
    assert ("folder", ["rates", "micro"], [*PEERS], [1, 2]) == (
        options.folder,
        options.only,
        options.peers,
        options.sessions,
    )
    with pytest.raises(SystemExit):
        parse(["--only", "rates,rats"])


def test_roster() -> None:
    """Each part names receivers that there are."""
    assert set() == {name for names in PARTS.values() for name in names} - PEERS.keys()


def test_reply_is_complete_with_its_last_line() -> None:
    """A reply of several lines is complete when one without a hyphen has come whole."""
    replies = (b"", b"250-mx.example.org\r\n", b"250-mx.example.org\r\n250 SIZE", b"250-mx.example.org\r\n250 SIZE\r\n")
    assert [False, False, False, True] == [is_complete(reply) for reply in replies]


def test_growth() -> None:
    """Growth is the slope over messages, in units of 100,000; there is none without messages."""
    samples = [Sample(1.0, number * 50_000, 0, 1000 + number * 70, 0, 0, 0, 0) for number in range(4)]
    assert 140 == round(growth(samples, "resident"), 6)
    assert 0 == growth(samples[:1] * 2, "resident")
