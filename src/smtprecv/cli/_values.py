"""The values that may stand behind the words of the command line.

Each function reads one text; ConfigError or ValueError, whose text names it, for one that it cannot.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from smtprecv.errors import ConfigError
from smtprecv.message import QueueId
from smtprecv.protocol import parse_host

_DURATION: Final = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhd])")
_UNITS: Final = {
    "s": dt.timedelta(seconds=1),
    "m": dt.timedelta(minutes=1),
    "h": dt.timedelta(hours=1),
    "d": dt.timedelta(days=1),
}
_LONGEST: Final = dt.timedelta(days=3650)

_T = TypeVar("_T")


def value(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Let argparse name the argument whose value cannot be read."""

    def convert(text: str) -> _T:
        try:
            return read(text)
        except (ConfigError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def read_duration(text: str) -> dt.timedelta:
    """Read ``30s``, ``5m``, ``4h`` or ``5d``."""
    match = _DURATION.fullmatch(text)
    duration = _LONGEST if match is None else int(match["number"]) * _UNITS[match["unit"]]
    if match is None or duration > _LONGEST:
        msg = f"{text!r} is not a duration of at most 3650d, written 30s, 5m, 4h or 5d"
        raise ValueError(msg)
    return duration


def read_number(least: int) -> Callable[[str], int]:
    """Give what reads a number that is not less."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 16 and int(text) >= least):
            msg = f"{text!r} is not a number of at least {least}"
            raise ValueError(msg)
        return int(text)

    return read


def read_host(text: str) -> str:
    """Read a domain or an address literal."""
    try:
        return str(parse_host(text))
    except ValueError as error:
        msg = f"{text!r} is not a domain or an address literal: {error}"
        raise ValueError(msg) from None


def read_path(text: str) -> Path:
    """Read a path."""
    if not text or "\0" in text:
        msg = f"{text!r} is not a path"
        raise ValueError(msg)
    return Path(text)


def read_queue_id(text: str) -> QueueId:
    """Read the id of a message."""
    if not text.isascii():
        msg = f"{text!r} is not the id of a message"
        raise ValueError(msg)
    return QueueId(text)
