"""Entries as rows, and rows as entries.

What is looked for has a column of its own; what is only kept (client, MAIL parameters) is JSON with a
version. Its one rule: a row either gives just the entry that made it, or CorruptEntry; it never guesses.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Final, TypeAlias, TypeGuard

from smtprecv.errors import CorruptEntry
from smtprecv.message import Client, QueueId, SessionId
from smtprecv.protocol import (
    AddressLiteral,
    Body,
    Dialect,
    Domain,
    EnhancedStatus,
    Envelope,
    ForwardPath,
    Host,
    Mailbox,
    MailParameters,
    Recipient,
    Reply,
    ReversePath,
    Session,
    Tls,
)
from smtprecv.spool._entry import Entry, Note, Standing, Status

Row: TypeAlias = Sequence[object]
"""One row as SQLite gives it."""

Value: TypeAlias = str | int | bytes | None
"""What is stored in a column."""

ENTRY_COLUMNS: Final = "id, received, due, attempted, size, reverse_path, parameters, client, error, note_version, note"
STANDING_COLUMNS: Final = "forward_path, status, attempts, reply_code, reply_status, reply_text, original"

_VERSION: Final = 1
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
EARLIEST: Final = (dt.datetime.min.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
LATEST: Final = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
"""The first and the last time that a datetime can tell, in microseconds since 1970."""
_UNREADABLE: Final = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)


def entry_row(entry: Entry) -> tuple[Value, ...]:
    """Give the values of ENTRY_COLUMNS."""
    return (
        entry.queue_id,
        time_number(entry.received),
        None if entry.due is None else time_number(entry.due),
        None if entry.attempted is None else time_number(entry.attempted),
        entry.size,
        str(entry.envelope.reverse_path),
        _parameters_text(entry.envelope.parameters),
        _client_text(entry.client),
        None if entry.error is None else storable(entry.error),
        *((None, None) if entry.note is None else (entry.note.version, storable(entry.note.text))),
    )


def standing_row(standing: Standing) -> tuple[Value, ...]:
    """Give the values of STANDING_COLUMNS."""
    last = standing.last
    reply = (None, None, None) if last is None else (last.code, last.status and str(last.status), storable(last.text))
    recipient = standing.recipient
    original = None if recipient.original is None else str(recipient.original)
    return (str(recipient.forward_path), standing.status.value, standing.attempts, *reply, original)


def read_entry(row: Row, standing_rows: Sequence[Row]) -> Entry:
    """Give the entry of a row of ENTRY_COLUMNS and of its recipients' rows; CorruptEntry if they make none."""
    try:
        queue_id, received, due, attempted, size, reverse_path, parameters, client, error, *note = row
        standings = tuple(_standing(standing_row) for standing_row in standing_rows)
        recipients = tuple(standing.recipient for standing in standings)
        if not recipients:
            msg = "no recipients"
            raise ValueError(msg)
        if (due is None) == any(standing.status is Status.PENDING for standing in standings):
            msg = "due though nobody is pending, or never due though somebody is"
            raise ValueError(msg)
        return Entry(
            queue_id=QueueId(_text(queue_id)),
            received=_time(received),
            client=_client(client),
            envelope=Envelope(_reverse_path(_text(reverse_path)), _parameters(parameters), recipients),
            size=_number(size),
            standings=standings,
            due=None if due is None else _time(due),
            attempted=None if attempted is None else _time(attempted),
            error=_optional_text(error),
            note=_note(*note),
        )
    except _UNREADABLE as reason:
        msg = f"{type(reason).__name__}: {reason}"
        raise CorruptEntry(msg) from reason


def _note(version: object, text: object) -> Note | None:
    return None if version is None else Note(_number(version), _text(text))


def time_number(time: dt.datetime) -> int:
    """Give a time (with a zone) in microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def number_time(number: int) -> dt.datetime:
    """Give the time of so many microseconds since 1970, in UTC."""
    return _EPOCH + number * _MICROSECOND


def _client_text(client: Client) -> str:
    session = client.session
    fields = {
        "v": _VERSION,
        "session_id": client.session_id,
        "address": None if client.address is None else str(client.address),
        "port": client.port,
        "host": client.host,
        "ident": client.ident,
        "local_address": None if client.local_address is None else str(client.local_address),
        "local_port": client.local_port,
        "hello": session.hello,
        "is_extended": session.is_extended,
        "identity": session.identity,
        "tls": None if session.tls is None else _tls_fields(session.tls),
        "dialect": session.dialect.value,
    }
    return json.dumps(fields)


def _client(text: object) -> Client:
    fields = _fields(text)
    address, local_address = _optional_text(fields["address"]), _optional_text(fields.get("local_address"))
    return Client(
        session_id=SessionId(_text(fields["session_id"])),
        address=None if address is None else ip_address(address),
        port=_optional_number(fields["port"]),
        host=_optional_text(fields["host"]),
        ident=_optional_text(fields["ident"]),
        local_address=None if local_address is None else ip_address(local_address),
        local_port=_optional_number(fields.get("local_port")),
        session=Session(
            hello=_optional_text(fields["hello"]),
            is_extended=_flag(fields["is_extended"]),
            identity=_optional_text(fields["identity"]),
            tls=_tls(fields.get("tls")),
            dialect=Dialect(fields.get("dialect", Dialect.SMTP.value)),
        ),
    )


def _tls_fields(tls: Tls) -> Mapping[str, Value]:
    return {"version": tls.version, "cipher": tls.cipher, "bits": tls.bits, "client_name": tls.client_name}


def _tls(fields: object) -> Tls | None:
    if not _is_mapping(fields):
        return None
    client_name = _optional_text(fields["client_name"])
    return Tls(_text(fields["version"]), _text(fields["cipher"]), _number(fields["bits"]), client_name)


def _parameters_text(parameters: MailParameters) -> str:
    fields = {
        "v": _VERSION,
        "size": parameters.size,
        "body": parameters.body.value,
        "smtputf8": parameters.smtputf8,
    }
    return json.dumps(fields)


def _parameters(text: object) -> MailParameters:
    fields = _fields(text)
    return MailParameters(_optional_number(fields["size"]), Body(fields["body"]), _flag(fields["smtputf8"]))


def _standing(row: Row) -> Standing:
    forward_path, status, attempts, code, reply_status, text, original = row
    recipient = Recipient(_forward_path(forward_path), None if original is None else _forward_path(original))
    return Standing(recipient, Status(status), _number(attempts), _last_reply(code, reply_status, text))


def _last_reply(code: object, status: object, text: object) -> Reply | None:
    if code is None:
        return None
    return Reply(_number(code), _text(text), None if status is None else EnhancedStatus.parse(_text(status)))


def _reverse_path(text: str) -> ReversePath:
    return ReversePath(_mailbox(text) if text else None)


def _forward_path(text: object) -> ForwardPath:
    return ForwardPath(_mailbox(_text(text)))


def _mailbox(text: str) -> Mailbox:
    """Read what ``str(mailbox)`` wrote: this is the spool's own notation, never a client's."""
    local_part, at, host = text.rpartition("@")
    if not at or not host:
        msg = f"{text!r} is not a mailbox"
        raise ValueError(msg)
    if local_part.startswith('"'):
        local_part = _PAIR.sub(r"\1", local_part[1:-1])
    return Mailbox(local_part, _host(host))


def _host(text: str) -> Host:
    if not text.startswith("["):
        return Domain(text)
    return AddressLiteral(ip_address(text[1:-1].removeprefix("IPv6:")))


def _fields(text: object) -> Mapping[str, object]:
    fields: object = json.loads(_text(text))
    if not _is_mapping(fields) or fields["v"] != _VERSION:
        msg = f"not of version {_VERSION}: {text!r}"
        raise ValueError(msg)
    return fields


def _is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, dict)


def storable(text: str) -> str:
    """Replace what UTF-8 cannot hold: an odd text from a delivery must not keep an outcome from being stored."""
    return text.encode("utf-8", "replace").decode()


def _time(value: object) -> dt.datetime:
    return number_time(_number(value))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    msg = f"{value!r} is not a text"
    raise TypeError(msg)


def _number(value: object) -> int:
    if isinstance(value, int):
        return value
    msg = f"{value!r} is not a number"
    raise TypeError(msg)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    msg = f"{value!r} is not true or false"
    raise TypeError(msg)


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _optional_number(value: object) -> int | None:
    return None if value is None else _number(value)
