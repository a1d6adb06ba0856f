"""The values that may stand behind the words of the command line.

Each function reads one text; ConfigError or ValueError, whose text names it, for one that it cannot.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import shlex
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from smtprecv.cli._hook_url import read_webhook
from smtprecv.cli._relayurl import relay_to, relay_to_unix
from smtprecv.deliveries import Command, Maildir, Mbox, Per, load_delivery
from smtprecv.delivery import Delivery
from smtprecv.errors import ConfigError
from smtprecv.message import QueueId
from smtprecv.protocol import parse_host
from smtprecv.server import host_in


class MakeDelivery(Protocol):
    """Makes a delivery for a receiver of this host name. ConfigError if what was asked for cannot be."""

    def __call__(self, *, hostname: str, envelope_to: bool = False) -> Delivery:
        """Make one; change nothing, connect to nobody."""
        ...


class _MakeWhere(Protocol):
    """Makes a delivery to what stands behind a scheme."""

    def __call__(self, where: str, /, *, hostname: str, envelope_to: bool = False) -> Delivery: ...


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


def read_address(text: str) -> str:
    """Check an address to listen on."""
    host_in(text)
    return text


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


def read_delivery(text: str) -> MakeDelivery:
    """Read where mail goes, and give what makes the delivery."""
    scheme, colon, rest = text.partition(":")
    if not colon or not rest or scheme not in _DELIVERIES:
        msg = f"{text!r} is none of {FORMS}"
        raise ValueError(msg)
    make: MakeDelivery = partial(_DELIVERIES[scheme], rest)
    make(hostname="localhost")  # connects to nobody, and shows here what is wrong with it
    return make


def _maildir(path: str, *, hostname: str, envelope_to: bool = False) -> Delivery:
    return Maildir(_expanded(path), hostname=hostname, envelope_to=envelope_to)


def _mbox(path: str, *, hostname: str, envelope_to: bool = False) -> Delivery:
    return Mbox(_expanded(path), hostname=hostname, envelope_to=envelope_to)


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        msg = f"path {path!r}: there is no such home folder"
        raise ConfigError(msg) from None


def _command(line: str, *, hostname: str, envelope_to: bool = False) -> Delivery:
    """Run once for a message where the program takes all recipients."""
    try:
        argv = shlex.split(line)
    except ValueError as error:
        msg = f"command {line!r}: {error}"
        raise ConfigError(msg) from None
    per: Per = "message" if "{recipients}" in argv else "recipient"
    return Command(*argv, per=per, hostname=hostname, envelope_to=envelope_to)


def _https(rest: str, *, hostname: str, envelope_to: bool = False) -> Delivery:
    return read_webhook(f"https:{rest}", hostname=hostname, envelope_to=envelope_to)


def _http(rest: str, *, hostname: str, envelope_to: bool = False) -> Delivery:
    return read_webhook(f"http:{rest}", hostname=hostname, envelope_to=envelope_to)


@cache
def _loaded(name: str) -> Delivery:
    return load_delivery(name)


def _python(name: str, **_: object) -> Delivery:
    """Load it once: it may be one that is made only once, and it knows its own name."""
    return _loaded(name)


_DELIVERIES: Final[Mapping[str, _MakeWhere]] = {
    "maildir": _maildir,
    "mbox": _mbox,
    "smtp": partial(relay_to, "smtp"),
    "smtps": partial(relay_to, "smtps"),
    "lmtp": partial(relay_to, "lmtp"),
    "lmtp+unix": relay_to_unix,
    "command": _command,
    "https": _https,
    "http": _http,
    "python": _python,
}
FORMS: Final = (
    "maildir:PATH, mbox:PATH, smtp://HOST:PORT, smtps://HOST:PORT, lmtp://HOST:PORT, lmtp+unix:/PATH, "
    "command:PROGRAM ARG…, https://HOST/…, python:MODULE:NAME"
)
"""How deliveries are written."""
