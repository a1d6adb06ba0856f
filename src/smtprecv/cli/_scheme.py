"""Where mail goes, as it is written on the command line: a scheme, and what stands behind it.

ConfigError or ValueError, whose text names it, for what cannot be a delivery.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Final, Protocol

from smtprecv.cli._hook_url import read_webhook
from smtprecv.cli._relayurl import relay_to, relay_to_unix
from smtprecv.deliveries import Command, Maildir, Mbox, Per, load_delivery
from smtprecv.delivery import Delivery
from smtprecv.errors import ConfigError


class MakeDelivery(Protocol):
    """Makes a delivery for a receiver of this host name. ConfigError if what was asked for cannot be."""

    def __call__(self, *, hostname: str, envelope_to: bool = False) -> Delivery:
        """Make one; change nothing, connect to nobody."""
        ...


class _MakeWhere(Protocol):
    """Makes a delivery to what stands behind a scheme."""

    def __call__(self, where: str, /, *, hostname: str, envelope_to: bool = False) -> Delivery: ...


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
