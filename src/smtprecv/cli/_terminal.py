"""Text for a terminal: what a stranger wrote must neither move the cursor nor break a line or a column."""

from __future__ import annotations

import logging
import sys
import time
import unicodedata
from itertools import accumulate
from types import TracebackType
from typing import Final, TypeAlias, final

from smtprecv.errors import is_group

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def printable(text: str) -> str:
    r"""Show control and format characters as escapes: ``\x1b``, ``\n``, ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def pad(text: str, width: int) -> str:
    """Fill up with spaces to a width in terminal cells."""
    return text + " " * (width - cells(text))


def cells(text: str) -> int:
    """Count the terminal cells that a text takes: East Asian wide characters two, combining ones none."""
    return len(text) if text.isascii() else sum(_cells_of(character) for character in text)


def cut(text: str, width: int | None) -> str:
    """Shorten to a width in terminal cells, ending in ``…``; None is as wide as it takes."""
    if width is None or cells(text) <= width:
        return text
    ends = accumulate(_cells_of(character) for character in text)
    return text[: sum(end < width for end in ends)] + "…"


def say(command: str, text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"{command}: {printable(text)}\n")


def reason(error: BaseException) -> str:
    """Give what went wrong, of the first in a group, without the marks of Python."""
    while is_group(error):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)


@final
class OneLineFormatter(logging.Formatter):
    """Keeps every record on one line; below it, indented, stands the traceback of a fault of our own."""

    _second = 0, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Give the time as ``logging`` does, whose text is the same for all records of a second but for its end."""
        if datefmt is not None:
            return super().formatTime(record, datefmt)
        second, text = self._second
        if second != int(record.created):
            second, text = int(record.created), time.strftime(self.default_time_format, self.converter(record.created))
            self._second = second, text
        return f"{text},{int(record.msecs):03d}"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Give the line."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802
        """Give the traceback, of which no line looks like a record: an exception may quote a stranger."""
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


@final
class Sparing(logging.Filter):
    """Lets one record through in so many seconds, without its traceback: for a trouble that goes on and on."""

    def __init__(self, seconds: float) -> None:
        """Begin with the next record."""
        super().__init__()
        self._seconds: Final = seconds
        self._last: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is shown."""
        if self._last is not None and record.created < self._last + self._seconds:
            return False
        self._last = record.created
        record.exc_info = None
        return True


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
