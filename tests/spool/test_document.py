"""Entries as texts outside the spool: every one is read back as it was, and nothing else is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spool.spoolhouse import CLIENT, ENVELOPE, NOON
from tests.spool.test_entry import entries, texts, times

from smtprecv.message import QueueId
from smtprecv.protocol import (
    Domain,
    EnhancedStatus,
    ForwardPath,
    Mailbox,
    Recipient,
    Reply,
    ReversePath,
    parse_forward_path,
)
from smtprecv.spool import Document, Entry, Note, Standing, document_text, read_document

SHA256 = "0123456789abcdef" * 4
TRIED = replace(
    Entry(QueueId("0" * 20), NOON, CLIENT, ENVELOPE, 7, tuple(map(Standing, ENVELOPE.recipients)), due=NOON).after(
        [Reply(451, "later", EnhancedStatus(4, 3, 0)), Reply(550, "never")], NOON, "OSError: why not"
    ),
    note=Note(1, "note"),
)

addresses = st.sampled_from(
    ["ada@example.com", '"a \\"b\\"\\\\@ c"@[192.0.2.9]', "j\u00fcrgen@[IPv6:2001:db8::8]", '""@xn--bcher-kva.example']
).map(parse_forward_path)
"""Addresses as clients can give them: no others are read."""
queue_ids = st.text("0123456789abcdefghijklmnopqrstuv", min_size=20, max_size=20).map(QueueId)


@st.composite
def exported(draw: st.DrawFn) -> Entry:
    """Draw any entry that a session could have made, and deliveries after it."""
    entry = draw(entries().filter(lambda entry: not entry.is_done))
    standings = tuple(replace(each, recipient=draw(_recipients(each.recipient))) for each in entry.standings)
    parameters = replace(entry.envelope.parameters, auth=draw(st.none() | st.just("") | addresses.map(str)))
    sender = ReversePath(draw(st.none() | addresses.map(lambda path: path.mailbox)))
    envelope = replace(
        entry.envelope,
        reverse_path=sender,
        parameters=parameters,
        recipients=tuple(each.recipient for each in standings),
    )
    return replace(
        entry,
        queue_id=draw(queue_ids),
        envelope=envelope,
        standings=standings,
        note=draw(st.none() | st.builds(Note, st.integers(0, 99), texts)),
        warned=draw(st.none() | times),
        report_of=draw(st.none() | queue_ids),
        is_held=draw(st.booleans()),
    )


@st.composite
def _recipients(draw: st.DrawFn, recipient: Recipient) -> Recipient:
    orcpt = recipient.parameters.orcpt
    typed = None if orcpt is None else replace(orcpt, address_type=draw(st.sampled_from(["rfc822", "UTF-8"])))
    return Recipient(draw(addresses), draw(st.none() | addresses), replace(recipient.parameters, orcpt=typed))


@pytest.mark.slow
@given(exported())
def test_round_trip(entry: Entry) -> None:
    """Every entry is read back from its text as it was, and the text of what was read is the same."""
    text = document_text(Document(entry, SHA256))
    assert read_document(text.encode()) == Document(entry, SHA256)
    assert document_text(read_document(text.encode())) == text
    assert text.isascii()


def test_nothing_is_left_out() -> None:
    """What an entry has, a document has: who adds a field to one adds it to the other, and a version."""
    assert [[field.name for field in fields(each)] for each in (Entry, Standing, Recipient, Reply, Note)] == [
        [
            "queue_id", "received", "client", "envelope", "size", "standings", "due", "attempted", "error", "note",
            "warned", "report_of", "is_held",
        ],
        ["recipient", "status", "attempts", "last"],
        ["forward_path", "original", "parameters"],
        ["code", "text", "status"],
        ["version", "text"],
    ]  # fmt: skip


def test_same_recipient_twice() -> None:
    """A client may name a recipient twice, and so may a document: nothing forbids it."""
    twice = replace(
        TRIED,
        envelope=replace(ENVELOPE, recipients=ENVELOPE.recipients[:1] * 2),
        standings=TRIED.standings[:1] * 2,
    )
    assert read_document(document_text(Document(twice, SHA256)).encode()).entry == twice


def test_texts_that_utf8_cannot_hold() -> None:
    """What a delivery has said is written as the database has it."""
    odd = replace(TRIED.after([Reply(451, "\ud800")], NOON), error="\udfff", note=Note(1, "\ud800"))
    read = read_document(document_text(Document(odd, SHA256)).encode()).entry
    last = read.standings[0].last
    assert (last and last.text, read.error, read.note) == ("?", "?", Note(1, "?"))


FIELDS: Mapping[str, object] = json.loads(document_text(Document(TRIED, SHA256)))
STANDING: Mapping[str, object] = json.loads(document_text(Document(TRIED, SHA256)))["recipients"][0]
CLIENT_FIELDS: Mapping[str, object] = json.loads(document_text(Document(TRIED, SHA256)))["client"]


def refusal(octets: bytes) -> str:
    """Give the reason for which a text is not read."""
    try:
        read_document(octets)
    except ValueError as error:
        return str(error)
    return "it is read"


def standings(**changes: object) -> list[object]:
    """Give recipients of which the second is changed."""
    return [STANDING, {**STANDING, **changes}]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("format", "other", "it is no smtprecv message of version 1"),
        ("version", 2, "it is no smtprecv message of version 1"),
        ("surprise", 1, "surprise: it does not belong there"),
        ("id", "../../../etc/passwd!", "id: '../../../etc/passwd!' is not the id of a message"),
        ("id", None, "id: None is not the id of a message"),
        ("report_of", "x", "report_of: 'x' is not the id of a message"),
        ("size", True, "size: True is not a number"),
        ("size", "7", "size: '7' is not a number"),
        ("size", -1, "size: it is from 0 to 9223372036854775807"),
        ("size", 1 << 63, "size: it is from 0 to 9223372036854775807"),
        ("sha256", SHA256.upper(), "sha256: it is 64 hexadecimal digits"),
        ("received", "noon", "received: Invalid isoformat string: 'noon'"),
        ("received", "2026-03-01T12:00:00", "received: it has no offset from UTC"),
        ("received", "2026-03-01T12:00:00Z", "received: it is not as it would be written"),
        ("received", "0001-01-01T00:00:00+01:00", "received: date value out of range"),
        ("due", None, "due: it is a time if a recipient is pending, and null if none is"),
        ("held", 0, "held: 0 is not true or false"),
        ("error", 7, "error: 7 is not a text"),
        ("note", {"version": 1}, "note: text is missing"),
        ("note", {"version": -1, "text": ""}, "note: version: it is from 0 to 9223372036854775807"),
        ("reverse_path", "ada\r\nRCPT TO:<eve@example.com>", "reverse_path: the address is malformed"),
        ("reverse_path", "ada@EXAMPLE.com", "reverse_path: it is not as it would be written"),
        ("priority", 10, "priority: it is from -9 to 9"),
        ("parameters", {"size": None, "body": "7BIT"}, "parameters: smtputf8 is missing"),
        ("parameters", [], "parameters: [] is not an object"),
        (
            "parameters",
            {"size": None, "body": "7BIT", "smtputf8": False, "auth": "x\r\n"},
            "parameters: the address is malformed",
        ),
        ("recipients", [], "recipients: all of them were served"),
        ("recipients", {}, "recipients: {} is not an array"),
        ("recipients", [{**STANDING, "status": "delivered"}], "recipients: all of them were served"),
        ("recipients", standings(forward_path="b"), "recipients: 2: forward_path: the address is malformed"),
        ("recipients", standings(original="b"), "recipients: 2: original: the address is malformed"),
        ("recipients", standings(status="gone"), "recipients: 2: status: 'gone' is not a valid Status"),
        ("recipients", standings(status=[]), "recipients: 2: status: [] is not a valid Status"),
        ("recipients", standings(attempts=1 << 64), "recipients: 2: attempts: it is from 0 to 9223372036854775807"),
        ("recipients", standings(more=1), "recipients: 2: more: it does not belong there"),
        (
            "recipients",
            standings(last_reply={"code": 250, "status": "5.1.1", "text": "x"}),
            "recipients: 2: last_reply: the status 5.1.1 does not belong to the code 250",
        ),
        (
            "recipients",
            standings(parameters={"orcpt": ["x y", "z"]}),
            "recipients: 2: parameters: 'x y' is no type of address",
        ),
        (
            "recipients",
            standings(parameters={"notify": ["SUCCESS", "DELAY"]}),
            "recipients: 2: parameters: it is not as it would be written",
        ),
        ("client", {}, "client: address is missing"),
        ("client", {**CLIENT_FIELDS, "port": 65536}, "client: there is no such port"),
        ("error", "\ud800", "'utf-8' codec can't encode character '\\ud800' in position 343: surrogates not allowed"),
    ],
)
def test_fields_that_are_none(name: str, value: object, reason: str) -> None:
    """What an export would not write is refused, with the field and the reason."""
    assert refusal(json.dumps({**FIELDS, name: value}).encode()) == reason


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in {"format", "version"}])
def test_fields_that_are_missing(name: str) -> None:
    """Every field must be there."""
    rest = {each: value for each, value in FIELDS.items() if each != name}
    assert refusal(json.dumps(rest).encode()) == f"{name} is missing"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "Expecting value"),
        (b"[]", "is not an object"),
        (b"\xff", "can't decode"),
        (b"[" * 100_000, "recursion"),
        (b'{"size": NaN}', "NaN is no whole number"),
        (b'{"size": -Infinity}', "-Infinity is no whole number"),
        (b'{"size": 7.0}', "7.0 is no whole number"),
        (b'{"size": 1e400}', "1e400 is no whole number"),
        (b'{"size": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"id": 1, "id": 2}', "a field is there twice"),
        (document_text(Document(TRIED, SHA256)).encode()[:-9], "Unterminated string"),
    ],
)
def test_texts_that_are_none(text: bytes, reason: str) -> None:
    """What is no JSON object, or one with numbers that nobody writes, is refused, however large it is."""
    assert reason in refusal(text)
    assert len(refusal(text)) <= 200


def test_what_is_quoted_is_short() -> None:
    """A reason names what is wrong, and does not repeat a megabyte of it."""
    assert refusal(json.dumps({**FIELDS, "id": "x" * 1_000_000}).encode()) == f"id: '{'x' * 194}\u2026"


def test_an_entry_that_nobody_reads() -> None:
    """What a program has made of nothing that a client can say is written, and not read: the reason names it."""
    odd = Recipient(ForwardPath(Mailbox("b\r\n", Domain("example.net"))))
    entry = replace(TRIED, envelope=replace(ENVELOPE, recipients=(odd,)), standings=(Standing(odd),))
    text = document_text(Document(entry, SHA256))
    assert refusal(text.encode()) == "recipients: 1: forward_path: the address is malformed"
