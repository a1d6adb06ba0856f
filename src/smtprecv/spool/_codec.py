"""Entries as rows, and rows as entries.

What is looked for has a column of its own; what is only kept (client, parameters) is JSON with a
version. Its one rule: a row either gives just the entry that made it, or CorruptEntry; it never guesses.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final, TypeAlias

from smtprecv.errors import CorruptEntry
from smtprecv.message import Client, QueueId, SessionId
from smtprecv.protocol import (
    AddressLiteral,
    Dialect,
    Domain,
    EnhancedStatus,
    Envelope,
    ForwardPath,
    Host,
    Mailbox,
    Recipient,
    Reply,
    ReversePath,
    Session,
    Tls,
)
from smtprecv.spool._entry import Entry, Note, Standing, Status
from smtprecv.spool._fields import (
    JsonValue,
    fields_text,
    read_fields,
    read_flag,
    read_mapping,
    read_number,
    read_optional_number,
    read_optional_text,
    read_text,
)
from smtprecv.spool._parameters import mail_text, rcpt_text, read_mail, read_rcpt

Row: TypeAlias = Sequence[object]
"""One row as SQLite gives it."""

Value: TypeAlias = str | int | bytes | None
"""What is stored in a column."""

MOVING_COLUMNS: Final = "due, attempted, error, held, warned, note_version, note"
"""What an attempt or an operator changes of a message, beside its recipients."""
ENTRY_COLUMNS: Final = f"id, received, size, reverse_path, parameters, priority, client, report_of, {MOVING_COLUMNS}"
STANDING_COLUMNS: Final = "forward_path, status, attempts, reply_code, reply_status, reply_text, original, parameters"

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
EARLIEST: Final = (dt.datetime.min.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
LATEST: Final = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
"""The first and the last time that a datetime can tell, in microseconds since 1970."""
UNREADABLE: Final = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What the readers of values raise where one is not what it must be."""
_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)


def entry_row(entry: Entry) -> tuple[Value, ...]:
    """Give the values of ENTRY_COLUMNS."""
    return (
        entry.queue_id,
        time_number(entry.received),
        entry.size,
        str(entry.envelope.reverse_path),
        mail_text(entry.envelope.parameters),
        entry.envelope.parameters.priority,
        fields_text(client_fields(entry.client)),
        entry.report_of,
        *moving_row(entry),
    )


def moving_row(entry: Entry) -> tuple[Value, ...]:
    """Give the values of MOVING_COLUMNS."""
    return (
        None if entry.due is None else time_number(entry.due),
        None if entry.attempted is None else time_number(entry.attempted),
        None if entry.error is None else storable(entry.error),
        int(entry.is_held),
        None if entry.warned is None else time_number(entry.warned),
        *((None, None) if entry.note is None else (entry.note.version, storable(entry.note.text))),
    )


def has_moved_only(before: Entry, after: Entry) -> bool:
    """Say whether the two differ in MOVING_COLUMNS alone, if at all."""
    moved = replace(
        before,
        due=after.due,
        attempted=after.attempted,
        error=after.error,
        is_held=after.is_held,
        warned=after.warned,
        note=after.note,
    )
    return moved == after


def standing_row(standing: Standing) -> tuple[Value, ...]:
    """Give the values of STANDING_COLUMNS."""
    last = standing.last
    reply = (None, None, None) if last is None else (last.code, last.status and str(last.status), storable(last.text))
    recipient = standing.recipient
    original = None if recipient.original is None else str(recipient.original)
    parameters = rcpt_text(recipient.parameters)
    return (str(recipient.forward_path), standing.status.value, standing.attempts, *reply, original, parameters)


def read_entry(row: Row, standing_rows: Sequence[Row]) -> Entry:
    """Give the entry of a row of ENTRY_COLUMNS and of its recipients' rows; CorruptEntry if they make none."""
    try:
        queue_id, received, size, reverse_path, parameters, priority, client, report_of, *moving = row
        due, attempted, error, held, warned, *note = moving
        mail_parameters = read_mail(read_fields(parameters), priority)
        standings = tuple(_standing(standing_row) for standing_row in standing_rows)
        recipients = tuple(standing.recipient for standing in standings)
        if not recipients:
            msg = "no recipients"
            raise ValueError(msg)
        if (due is None) == any(standing.status is Status.PENDING for standing in standings):
            msg = "due though nobody is pending, or never due though somebody is"
            raise ValueError(msg)
        return Entry(
            queue_id=QueueId(read_text(queue_id)),
            received=_time(received),
            client=read_client(read_fields(client)),
            envelope=Envelope(_reverse_path(read_text(reverse_path)), mail_parameters, recipients),
            size=read_number(size),
            standings=standings,
            due=None if due is None else _time(due),
            attempted=None if attempted is None else _time(attempted),
            error=read_optional_text(error),
            note=_note(*note),
            is_held=read_number(held) != 0,
            warned=None if warned is None else _time(warned),
            report_of=None if report_of is None else QueueId(read_text(report_of)),
        )
    except UNREADABLE as reason:
        msg = f"{type(reason).__name__}: {reason}"
        raise CorruptEntry(msg) from reason


def _note(version: object, text: object) -> Note | None:
    return None if version is None else Note(read_number(version), read_text(text))


def time_number(time: dt.datetime) -> int:
    """Give a time (with a zone) in microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def number_time(number: int) -> dt.datetime:
    """Give the time of so many microseconds since 1970, in UTC."""
    return _EPOCH + number * _MICROSECOND


def client_fields(client: Client) -> Mapping[str, JsonValue]:
    """Give a client as the fields of an object."""
    session = client.session
    return {
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


def read_client(fields: Mapping[str, object]) -> Client:
    """Read a client; a field that an earlier version did not write is one that was not known."""
    address, local_address = read_optional_text(fields["address"]), read_optional_text(fields.get("local_address"))
    return Client(
        session_id=SessionId(read_text(fields["session_id"])),
        address=None if address is None else ip_address(address),
        port=read_optional_number(fields["port"]),
        host=read_optional_text(fields["host"]),
        ident=read_optional_text(fields["ident"]),
        local_address=None if local_address is None else ip_address(local_address),
        local_port=read_optional_number(fields.get("local_port")),
        session=Session(
            hello=read_optional_text(fields["hello"]),
            is_extended=read_flag(fields["is_extended"]),
            identity=read_optional_text(fields["identity"]),
            tls=None if fields.get("tls") is None else _tls(fields["tls"]),
            dialect=Dialect(fields.get("dialect", Dialect.SMTP.value)),
        ),
    )


def _tls_fields(tls: Tls) -> Mapping[str, JsonValue]:
    return {"version": tls.version, "cipher": tls.cipher, "bits": tls.bits, "client_name": tls.client_name}


def _tls(value: object) -> Tls:
    fields = read_mapping(value)
    client_name = read_optional_text(fields["client_name"])
    return Tls(read_text(fields["version"]), read_text(fields["cipher"]), read_number(fields["bits"]), client_name)


def _standing(row: Row) -> Standing:
    forward_path, status, attempts, code, reply_status, text, original, parameters = row
    original_path = None if original is None else _forward_path(original)
    rcpt_parameters = read_rcpt({} if parameters is None else read_fields(parameters))
    recipient = Recipient(_forward_path(forward_path), original_path, rcpt_parameters)
    return Standing(recipient, Status(status), read_number(attempts), _last_reply(code, reply_status, text))


def _last_reply(code: object, status: object, text: object) -> Reply | None:
    if code is None:
        return None
    enhanced = None if status is None else EnhancedStatus.parse(read_text(status))
    return Reply(read_number(code), read_text(text), enhanced)


def _reverse_path(text: str) -> ReversePath:
    return ReversePath(_mailbox(text) if text else None)


def _forward_path(text: object) -> ForwardPath:
    return ForwardPath(_mailbox(read_text(text)))


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


def storable(text: str) -> str:
    """Replace what UTF-8 cannot hold: an odd text from a delivery must not keep an outcome from being stored."""
    return text.encode("utf-8", "replace").decode()


def _time(value: object) -> dt.datetime:
    return number_time(read_number(value))
