"""An entry as a text outside the spool: one JSON object, which people can read and another spool can take in.

Its one rule: it is read only if it is just what would be written of the entry that it gives, field by field, for who
wrote it is not known. So nothing is guessed, nothing is passed over, and what is wrong is named with its place.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar, final

from smtprecv.message import QueueId
from smtprecv.protocol import (
    EnhancedStatus,
    Envelope,
    RcptParameters,
    Recipient,
    Reply,
    parse_forward_path,
    parse_reverse_path,
)
from smtprecv.protocol import MailParameters as Mail
from smtprecv.spool._codec import client_fields, read_client, storable
from smtprecv.spool._entry import Entry, Note, Standing, Status
from smtprecv.spool._fields import (
    JsonValue,
    read_flag,
    read_mapping,
    read_number,
    read_optional_text,
    read_sequence,
    read_text,
)
from smtprecv.spool._parameters import mail_fields, rcpt_fields, read_mail, read_rcpt
from smtprecv.spool._queue_id import is_queue_id

T = TypeVar("T")

_FORMAT: Final = "smtprecv message"
_VERSION: Final = 1
_MOST: Final = (1 << 63) - 1
"""The largest number that the database can hold."""
_PRIORITIES: Final = range(-9, 10)
_PORTS: Final = range(1 << 16)
_SHA256: Final = re.compile("[0-9a-f]{64}")
# RFC 3461 section 4.2: an atom.
_ADDRESS_TYPE: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")
_UNREADABLE: Final = (ValueError, TypeError, OverflowError, RecursionError)


@final
@dataclass(frozen=True, slots=True)
class Document:
    """An entry, and the SHA-256 of its message in hexadecimal digits, by which the two are known to belong together."""

    entry: Entry
    sha256: str


def document_text(document: Document) -> str:
    """Write an entry; the same one is always the same text, in pure ASCII."""
    return json.dumps(_fields(document), indent=2) + "\n"


def read_document(octets: bytes) -> Document:
    """Read what ``document_text`` wrote; ValueError for anything else, which says in one line what is wrong where."""
    try:
        value: object = json.loads(
            octets.decode(), object_pairs_hook=_object, parse_float=_no_number, parse_constant=_no_number
        )
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair may stand as an escape
        fields = read_mapping(value)
        if (fields.get("format"), fields.get("version")) != (_FORMAT, _VERSION):
            _refuse(f"it is no {_FORMAT} of version {_VERSION}")
        document = Document(_read_entry(fields), _field(fields, "sha256", _read_sha256))
        _compare(fields, _fields(document))
    except _UNREADABLE as error:
        raise ValueError(_short(str(error))) from error
    return document


def _fields(document: Document) -> Mapping[str, JsonValue]:
    entry = document.entry
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "id": entry.queue_id,
        "size": entry.size,
        "sha256": document.sha256,
        "received": _time_text(entry.received),
        "due": _time_text(entry.due),
        "attempted": _time_text(entry.attempted),
        "warned": _time_text(entry.warned),
        "held": entry.is_held,
        "report_of": entry.report_of,
        "error": None if entry.error is None else storable(entry.error),
        "note": None if entry.note is None else {"version": entry.note.version, "text": storable(entry.note.text)},
        "reverse_path": str(entry.envelope.reverse_path),
        "priority": entry.envelope.parameters.priority,
        "parameters": mail_fields(entry.envelope.parameters),
        "recipients": [_standing_fields(standing) for standing in entry.standings],
        "client": client_fields(entry.client),
    }


def _standing_fields(standing: Standing) -> Mapping[str, JsonValue]:
    recipient, last = standing.recipient, standing.last
    return {
        "forward_path": str(recipient.forward_path),
        "original": None if recipient.original is None else str(recipient.original),
        "parameters": rcpt_fields(recipient.parameters),
        "status": standing.status.value,
        "attempts": standing.attempts,
        "last_reply": None
        if last is None
        else {
            "code": last.code,
            "status": None if last.status is None else str(last.status),
            "text": storable(last.text),
        },
    }


def _read_entry(fields: Mapping[str, object]) -> Entry:
    standings = _field(fields, "recipients", _read_standings)
    priority = _field(fields, "priority", _read_priority)
    envelope = Envelope(
        _field(fields, "reverse_path", lambda value: parse_reverse_path(read_text(value))),
        _field(fields, "parameters", lambda value: _read_mail(value, priority)),
        tuple(standing.recipient for standing in standings),
    )
    entry = Entry(
        queue_id=_field(fields, "id", _read_queue_id),
        received=_field(fields, "received", _read_time),
        client=_field(fields, "client", lambda value: read_client(read_mapping(value))),
        envelope=envelope,
        size=_field(fields, "size", _read_count),
        standings=standings,
        due=_field(fields, "due", _optional(_read_time)),
        attempted=_field(fields, "attempted", _optional(_read_time)),
        error=_field(fields, "error", read_optional_text),
        note=_field(fields, "note", _optional(_read_note)),
        warned=_field(fields, "warned", _optional(_read_time)),
        report_of=_field(fields, "report_of", _optional(_read_queue_id)),
        is_held=_field(fields, "held", read_flag),
    )
    if entry.is_done:
        _refuse("recipients: all of them were served")
    if (entry.due is None) == bool(entry.pending):
        _refuse("due: it is a time if a recipient is pending, and null if none is")
    if not {entry.client.port, entry.client.local_port} <= {None, *_PORTS}:
        _refuse("client: there is no such port")
    return entry


def _read_standings(value: object) -> tuple[Standing, ...]:
    numbered = {f"{number}": each for number, each in enumerate(read_sequence(value), 1)}
    return tuple(_field(numbered, number, _read_standing) for number in numbered)


def _read_standing(value: object) -> Standing:
    fields = read_mapping(value)
    recipient = Recipient(
        _field(fields, "forward_path", lambda path: parse_forward_path(read_text(path))),
        _field(fields, "original", _optional(lambda path: parse_forward_path(read_text(path)))),
        _field(fields, "parameters", _read_rcpt),
    )
    standing = Standing(
        recipient,
        _field(fields, "status", Status),
        _field(fields, "attempts", _read_count),
        _field(fields, "last_reply", _optional(_read_reply)),
    )
    _compare(fields, _standing_fields(standing))
    return standing


def _read_mail(value: object, priority: int) -> Mail:
    parameters = read_mail(read_mapping(value), priority)
    parse_reverse_path(parameters.auth or "")
    return parameters


def _read_rcpt(value: object) -> RcptParameters:
    parameters = read_rcpt(read_mapping(value))
    if parameters.orcpt is not None and not _ADDRESS_TYPE.fullmatch(parameters.orcpt.address_type):
        _refuse(f"{parameters.orcpt.address_type!r} is no type of address")
    return parameters


def _read_reply(value: object) -> Reply:
    fields = read_mapping(value)
    return Reply(
        _field(fields, "code", read_number),
        _field(fields, "text", read_text),
        _field(fields, "status", _optional(lambda status: EnhancedStatus.parse(read_text(status)))),
    )


def _read_note(value: object) -> Note:
    fields = read_mapping(value)
    return Note(_field(fields, "version", _read_count), _field(fields, "text", read_text))


def _read_queue_id(value: object) -> QueueId:
    if not is_queue_id(value):
        _refuse(f"{value!r} is not the id of a message")
    return QueueId(value)


def _read_sha256(value: object) -> str:
    text = read_text(value)
    if not _SHA256.fullmatch(text):
        _refuse("it is 64 hexadecimal digits")
    return text


def _read_count(value: object) -> int:
    number = read_number(value)
    if not 0 <= number <= _MOST:
        _refuse(f"it is from 0 to {_MOST}")
    return number


def _read_priority(value: object) -> int:
    number = read_number(value)
    if number not in _PRIORITIES:
        _refuse("it is from -9 to 9")
    return number


def _time_text(time: dt.datetime | None) -> str | None:
    return None if time is None else time.astimezone(dt.UTC).isoformat()


def _read_time(value: object) -> dt.datetime:
    time = dt.datetime.fromisoformat(read_text(value))
    if time.tzinfo is None:
        _refuse("it has no offset from UTC")
    return time.astimezone(dt.UTC)


def _optional(read: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None else read(value)


def _field(fields: Mapping[str, object], name: str, read: Callable[[object], T]) -> T:
    """Read a field; ValueError, which names it, if that cannot be."""
    if name not in fields:
        _refuse(f"{name} is missing")
    try:
        return read(fields[name])
    except KeyError as error:
        msg = f"{name}: {error.args[0]} is missing"
    except _UNREADABLE as error:
        msg = f"{name}: {error}"
    raise ValueError(msg)


def _compare(given: Mapping[str, object], written: Mapping[str, JsonValue]) -> None:
    """Find a field that is not as it would be written: it does not belong there, or is spelt in another way."""
    for name in {**written, **given}:
        if name not in written:
            _refuse(f"{name}: it does not belong there")
        if given.get(name) != written[name]:
            _refuse(f"{name}: it is not as it would be written")


def _object(pairs: Sequence[tuple[str, object]]) -> Mapping[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        _refuse("a field is there twice")
    return fields


def _no_number(text: str) -> NoReturn:
    _refuse(f"{text} is no whole number")


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:199]}…"


def _refuse(msg: str) -> NoReturn:
    raise ValueError(msg)
