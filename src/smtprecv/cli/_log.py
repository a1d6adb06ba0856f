"""Where the log goes: ``--log text|json|syslog|journal``.

The library only calls ``logging``; what becomes of a record is decided here. The one rule: a record is one line,
one object or one datagram, whatever a stranger wrote into it, and carries its session or queue id.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

from smtprecv.cli._terminal import OneLineFormatter

FACILITIES: Final[Mapping[str, int]] = {
    name: number
    for number, name in enumerate(
        (
            *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
            *("ntp", "security", "console", "solaris-cron"),
            *("local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"),
        )
    )
}
"""The facilities of syslog, each with its number; the standard library's table of them costs a module."""

_SOCKETS: Final = {"syslog": "/dev/log", "journal": "/run/systemd/journal/socket"}
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_IDS: Final = re.compile(
    r"(?:(?P<session_id>[0-9a-f]{10})|(?P<queue_id>[0-9a-v]{20}))(?=[: ])(?:.* queued as (?P<queued>[0-9a-v]{20})$)?"
)
_MAX_TEXT_SIZE: Final = 32_768
"""Octets of a record that a datagram carries; the rest of a longer traceback is cut off."""
_SEND_TIMEOUT: Final = 0.1
"""Seconds that a log daemon which does not read may hold us up, at most once in ..."""
_MUTE_TIME: Final = 5.0
"""... so many, in which records are lost instead."""


@final
@dataclass(frozen=True, slots=True)
class LogTarget:
    """What ``--log`` says: a kind, and for a daemon the path of its socket."""

    kind: str = "text"
    path: str = ""

    def handler(self, name: str, facility: str, worker: int | None = None) -> logging.Handler:
        """Open the log of a program of this name; OSError if nobody listens at the socket.

        ``worker``: its number, where several processes log to one standard error; daemons tell them apart by pid.
        """
        if self.kind in _ENCODERS:
            return Datagrams(self.path, _ENCODERS[self.kind](name, FACILITIES[facility]))
        handler = logging.StreamHandler()
        handler.setFormatter(_FORMATTERS[self.kind](worker))
        return handler


def read_log_target(text: str) -> LogTarget:
    """Read ``text``, ``json``, ``syslog``, ``journal``, or one of the last two with ``:PATH``; ValueError otherwise."""
    kind, colon, path = text.partition(":")
    if kind in _SOCKETS and bool(colon) == bool(path) and "\0" not in path:
        return LogTarget(kind, path or _SOCKETS[kind])
    if text in _FORMATTERS:
        return LogTarget(text)
    msg = f"{text!r} is not text, json, syslog or journal"
    raise ValueError(msg)


def read_log_name(text: str) -> str:
    """Read the name of a program as log daemons take it; ValueError otherwise."""
    if not _NAME.fullmatch(text):
        msg = f"{text!r} is not a name of at most 32 letters, digits and _.-"
        raise ValueError(msg)
    return text


def ids_in(message: str) -> dict[str, str]:
    """Give the ``session_id`` and ``queue_id`` that a line of the log is about, as far as it names them."""
    match = _IDS.match(message)
    if match is None:
        return {}
    ids = {"session_id": match["session_id"], "queue_id": match["queue_id"] or match["queued"]}
    return {key: value for key, value in ids.items() if value}


@final
class JsonFormatter(logging.Formatter):
    """Writes one object a line, in ASCII: time, level, logger, message, and what else is known."""

    def __init__(self, worker: int | None = None) -> None:
        """Write for a process, which may be a worker."""
        super().__init__()
        self._process: Final[Mapping[str, int]] = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Give the object."""
        message = record.getMessage()
        fields = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            **self._process,
            **ids_in(message),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def _text_formatter(worker: int | None) -> logging.Formatter:
    return OneLineFormatter(f"%(asctime)s {'' if worker is None else f'worker {worker}: '}%(message)s")


_FORMATTERS: Final[Mapping[str, Callable[[int | None], logging.Formatter]]] = {
    "text": _text_formatter,
    "json": JsonFormatter,
}


@final
class Datagrams(logging.Handler):
    """Sends each record as one datagram to the Unix socket of a log daemon.

    The socket is not connected, so that a daemon may be started anew.
    """

    def __init__(self, path: str, encode: Callable[[logging.LogRecord], bytes]) -> None:
        """Open our end; OSError if nobody listens at ``path``."""
        super().__init__()
        self._path: Final = path
        self._encode: Final = encode
        self._mute_until = 0.0
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.connect(path)
        except OSError as error:
            text = f"cannot log to {path}: {error.strerror or error}"
            raise OSError(error.errno, text) from None
        self._socket: Final = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_SEND_TIMEOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; it is lost if the daemon does not take it."""
        now = time.monotonic()
        if now < self._mute_until:
            return
        try:
            self._socket.sendto(self._encode(record), self._path)
        except OSError:
            self._mute_until = now + _MUTE_TIME
        except (TypeError, ValueError, LookupError):
            self.handleError(record)  # arguments that don't fit their text: logging's own way with them

    def close(self) -> None:
        """Close our end."""
        self._socket.close()
        super().close()


def _syslog(name: str, facility: int) -> Callable[[logging.LogRecord], bytes]:
    """Write as local syslog daemons read (RFC 3164 section 4.1, without the time): ``<PRIORITY>NAME[PID]: TEXT``."""
    tag = f"{name}[{os.getpid()}]"

    def encode(record: logging.LogRecord) -> bytes:
        return f"<{facility << 3 | _severity(record)}>{tag}: ".encode() + _text(record)

    return encode


def _journal(name: str, facility: int) -> Callable[[logging.LogRecord], bytes]:
    """Write in the native protocol of systemd's journal: a line for each field, and MESSAGE by its length."""

    def encode(record: logging.LogRecord) -> bytes:
        fields = {
            "PRIORITY": _severity(record),
            "SYSLOG_IDENTIFIER": name,
            "SYSLOG_FACILITY": facility,
            "LOGGER": record.name,
            **{f"SMTPRECV_{key.upper()}": value for key, value in ids_in(record.getMessage()).items()},
        }
        text = _text(record)
        lines = "".join(f"{key}={value}\n" for key, value in fields.items())
        return lines.encode() + b"MESSAGE\n" + len(text).to_bytes(8, "little") + text + b"\n"

    return encode


def _text(record: logging.LogRecord) -> bytes:
    """Give the message on one line, and below it the traceback of a fault of our own."""
    text = OneLineFormatter().format(record).encode(errors="backslashreplace")
    return text[:_MAX_TEXT_SIZE].decode(errors="ignore").encode()


def _severity(record: logging.LogRecord) -> int:
    """Give the severity that syslog has for a record's level (RFC 5424 section 6.2.1)."""
    return next((severity for level, severity in _SEVERITIES if record.levelno >= level), _DEBUG)


_DEBUG: Final = 7
_SEVERITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

_ENCODERS: Final[Mapping[str, Callable[[str, int], Callable[[logging.LogRecord], bytes]]]] = {
    "syslog": _syslog,
    "journal": _journal,
}
