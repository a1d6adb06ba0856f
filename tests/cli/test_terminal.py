"""Text for terminals."""

from __future__ import annotations

import logging

import pytest

from smtprecv.cli._terminal import OneLineFormatter, Sparing, cells, cut, pad, printable, reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain \u00e9", "plain \u00e9"), ("\x1b[2J\n", "\\x1b[2J\\n"), ("a\u202eb\x9b", "a\\u202eb\\x9b")],
)
def test_printable(text: str, expected: str) -> None:
    """No character that steers a terminal is let through."""
    assert printable(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("abc", 3), ("\u90f5\u4ef6", 4), ("e\u0301", 1), ("", 0)])
def test_cells(text: str, expected: int) -> None:
    """Wide characters take two cells, combining ones none."""
    assert cells(text) == expected
    assert cells(pad(text, 6)) == 6


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("abcdef", None, "abcdef"),
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd\u2026"),
        ("\u90f5\u4ef6\u90f5", 4, "\u90f5\u2026"),
    ],
)
def test_cut(text: str, width: int | None, expected: str) -> None:
    """A line is cut at the width in cells, and shows it."""
    assert cut(text, width) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("x"), "x"),
        (OSError("x"), "x"),
        (OSError(2, "No such file"), "No such file"),
        (OSError(2, "No such file", "name"), "name: No such file"),
        (ExceptionGroup("g", [ExceptionGroup("h", [ValueError("x")]), ValueError("y")]), "x"),
    ],
)
def test_reason(error: Exception, expected: str) -> None:
    """What went wrong is told in its own words, of a group the first."""
    assert reason(error) == expected


def test_log_lines() -> None:
    """What a stranger says cannot forge a line of the log."""
    record = logging.LogRecord("x", logging.INFO, "f", 1, "from %s", ("a\n2026 forged",), None)
    assert OneLineFormatter("%(message)s").format(record) == "from a\\n2026 forged"


def test_a_traceback_forges_no_line() -> None:
    """An exception that quotes a stranger neither looks like a record nor steers a terminal."""
    error = ValueError("cannot read x\n2026 forged\x1b[2J")
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "it raised", (), (ValueError, error, None))
    told = OneLineFormatter("%(message)s").format(record)
    assert told == "it raised\n  ValueError: cannot read x\n  2026 forged\\x1b[2J"


def test_sparing() -> None:
    """A trouble that goes on is told once in a while, in one line."""
    sparing = Sparing(60)
    told = []
    for second in (0, 1, 59, 60, 61, 119, 121):
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "no descriptors", None, (OSError, OSError(), None))
        record.created = 1000.0 + second
        if sparing.filter(record):
            told.append(second)
            assert record.exc_info is None

    assert told == [0, 60, 121]


def test_time_of_a_record() -> None:
    """The time of a line is what ``logging`` writes, in one second and the next, and in a given format."""
    ours, theirs = OneLineFormatter("%(asctime)s"), logging.Formatter("%(asctime)s")
    for created in (1_700_000_000.25, 1_700_000_000.75, 1_700_000_001.0):
        record = logging.makeLogRecord({"created": created, "msecs": created % 1 * 1000})
        assert ours.format(record) == theirs.format(record)
        assert ours.formatTime(record, "%H:%M") == theirs.formatTime(record, "%H:%M")
