"""Trace fields: the form of RFC 5321 section 4.4, and nothing in them that a client could have put there to harm."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.message import Client, QueueId, SessionId
from smtprecv.protocol import (
    AddressLiteral,
    Dialect,
    Domain,
    Envelope,
    ForwardPath,
    Mailbox,
    MailParameters,
    Recipient,
    ReversePath,
    Session,
    Tls,
)
from smtprecv.spool import Entry
from smtprecv.trace import delivered_to_field, divider, received_field, return_path_field, trace_fields

BOB = Recipient(ForwardPath(Mailbox("bob", Domain("example.com"))))
ALICE = ReversePath(Mailbox("alice", Domain("example.net")))
SESSION = Session(hello="mail.example.net", is_extended=True)
TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
ENTRY = Entry(
    queue_id=QueueId("0123456789abcdefghij"),
    received=dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=1))),
    client=Client(SessionId("s"), IPv4Address("192.0.2.1"), 40000, SESSION),
    envelope=Envelope(ALICE, recipients=(BOB,)),
    size=0,
    standings=(),
    due=None,
)


def entry_of(client: Client, *, smtputf8: bool = False) -> Entry:
    """Give an entry of this client."""
    parameters = MailParameters(smtputf8=smtputf8)
    return replace(ENTRY, client=client, envelope=replace(ENTRY.envelope, parameters=parameters))


def words(field: bytes) -> list[str]:
    """Give the words of a field, unfolded."""
    return field.decode().split()


def test_received() -> None:
    """A Received field says from whom, by whom, how, which, for whom and when, folded between its clauses.

    RFC 5321 section 4.4, RFC 5322 section 2.2.3.
    """
    assert received_field(ENTRY, "mx.example.com", BOB) == (
        b"Received: from mail.example.net ([192.0.2.1]) by mx.example.com with ESMTP\r\n"
        b"\tid 0123456789abcdefghij for <bob@example.com>;\r\n"
        b"\tTue, 03 Feb 2026 04:05:06 +0100\r\n"
    )


def test_received_without_a_recipient() -> None:
    """No recipient is named where others would read it (RFC 5321 section 7.2)."""
    assert b" for " not in received_field(ENTRY, "mx.example.com")
    assert b"id 0123456789abcdefghij;" in received_field(ENTRY, "mx.example.com")


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (replace(ENTRY.client, host="a.example.net"), "from mail.example.net (a.example.net [192.0.2.1]) by"),
        (replace(ENTRY.client, address=IPv6Address("2001:db8::1")), "from mail.example.net ([IPv6:2001:db8::1]) by"),
        (replace(ENTRY.client, address=IPv6Address("fe80::1%)")), "from mail.example.net ([IPv6:fe80::1??]) by"),
        (replace(ENTRY.client, address=None), "from mail.example.net by"),
        (replace(ENTRY.client, ident="root"), "from mail.example.net ([192.0.2.1]) (ident root) by"),
        (replace(ENTRY.client, ident="r) by (x"), "from mail.example.net ([192.0.2.1]) (ident r??by??x) by"),
        (replace(ENTRY.client, session=Session(hello="[192.0.2.9]")), "from [192.0.2.9] ([192.0.2.1]) by"),
        (replace(ENTRY.client, session=Session(hello="[1](x)]")), "from [1??x?] ([192.0.2.1]) by"),
        (replace(ENTRY.client, session=Session(hello="a\r\nX-Evil: 1")), "from a??X-Evil:?1 ([192.0.2.1]) by"),
        (replace(ENTRY.client, session=Session(hello="b\N{LATIN SMALL LETTER U WITH DIAERESIS}")), "from b? ("),
        (replace(ENTRY.client, session=Session()), "from unknown ([192.0.2.1]) by"),
    ],
)
def test_from_clause(client: Client, expected: str) -> None:
    """The FROM clause has the HELO name as one word, and what the server itself knows of the client in parentheses."""
    assert f"Received: {expected}" in " ".join(words(received_field(entry_of(client), "mx.example.com")))


@pytest.mark.parametrize(
    ("is_extended", "tls", "identity", "smtputf8", "expected"),
    [
        (False, None, None, False, "SMTP"),
        (False, TLS, None, False, "SMTP"),
        (True, None, None, False, "ESMTP"),
        (True, TLS, None, False, "ESMTPS"),
        (True, None, "bob", False, "ESMTPA"),
        (True, TLS, "bob", False, "ESMTPSA"),
        (True, None, None, True, "UTF8SMTP"),
        (True, TLS, None, True, "UTF8SMTPS"),
        (True, None, "bob", True, "UTF8SMTPA"),
        (True, TLS, "bob", True, "UTF8SMTPSA"),
    ],
)
def test_protocol(*, is_extended: bool, tls: Tls | None, identity: str | None, smtputf8: bool, expected: str) -> None:
    """The WITH clause names the protocol as RFC 3848 and RFC 6531 section 4.3 register it."""
    session = Session("mail.example.net", is_extended, identity, tls)
    assert protocol_of(session, smtputf8=smtputf8) == expected


@pytest.mark.parametrize("is_extended", [False, True])
@pytest.mark.parametrize(
    ("tls", "identity", "smtputf8", "expected"),
    [
        (None, None, False, "LMTP"),
        (TLS, None, False, "LMTPS"),
        (None, "bob", False, "LMTPA"),
        (TLS, "bob", False, "LMTPSA"),
        (None, None, True, "UTF8LMTP"),
        (TLS, None, True, "UTF8LMTPS"),
        (None, "bob", True, "UTF8LMTPA"),
        (TLS, "bob", True, "UTF8LMTPSA"),
    ],
)
def test_lmtp(*, is_extended: bool, tls: Tls | None, identity: str | None, smtputf8: bool, expected: str) -> None:
    """LMTP has names of its own in the same registry, and no form without extensions."""
    session = Session("mail.example.net", is_extended, identity, tls, Dialect.LMTP)
    assert protocol_of(session, smtputf8=smtputf8) == expected


def protocol_of(session: Session, *, smtputf8: bool) -> str:
    """Give the protocol that the WITH clause names."""
    entry = entry_of(replace(ENTRY.client, session=session), smtputf8=smtputf8)
    field = words(received_field(entry, "mx.example.com"))
    return field[field.index("with") + 1]


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        (TLS, "with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384 256 bits) id"),
        (Tls("TLSv1.2", "x) by (y"), "with ESMTPS (TLSv1.2 x??by??y 0 bits) id"),
        (Tls("a\r\nX-Evil: 1", "", 1), "with ESMTPS (a??X-Evil:?1 unknown 1 bits) id"),
        (
            replace(TLS, client_name="c.example)\r\nX-Evil: 1"),
            "with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384 256 bits) id",
        ),
    ],
)
def test_tls(tls: Tls, expected: str) -> None:
    """A comment says which TLS there was, in words that stay words; the name in a certificate is not shown."""
    field = received_field(entry_of(replace(ENTRY.client, session=replace(SESSION, tls=tls))), "mx.example.com")
    assert expected in " ".join(words(field))
    assert b"bits" not in received_field(ENTRY, "mx.example.com")


def test_identity() -> None:
    """Who AUTH showed the client to be is told to nobody: that there was somebody is (RFC 3848)."""
    session = replace(SESSION, identity="bob)\r\nX-Evil: 1")
    field = received_field(entry_of(replace(ENTRY.client, session=session)), "mx.example.com", BOB)
    assert field == received_field(ENTRY, "mx.example.com", BOB).replace(b"ESMTP", b"ESMTPA")


def test_utf8() -> None:
    """Where the client asked for SMTPUTF8, addresses are in UTF-8 with U-labels (RFC 6531 section 3.7.3)."""
    recipient = Recipient(ForwardPath(Mailbox("jos\u00e9", Domain.from_text("b\u00fccher.example"))))
    assert delivered_to_field(recipient, is_utf8=True) == "Delivered-To: jos\u00e9@b\u00fccher.example\r\n".encode()
    assert delivered_to_field(recipient) == b"Delivered-To: jos?@xn--bcher-kva.example\r\n"
    client = replace(ENTRY.client, session=replace(SESSION, hello="b\u00fccher.example"))
    assert "from b\u00fccher.example ".encode() in received_field(entry_of(client, smtputf8=True), "mx.example.com")


@pytest.mark.parametrize("name", ["xn--a-0hb", "xn--\u202e".encode("punycode").decode(), "xn--A-zzz", "xn--zzzz9999"])
def test_false_u_label(name: str) -> None:
    """An A-label that stands for nothing that can be shown, or for another name, stays as it is."""
    recipient = Recipient(ForwardPath(Mailbox("bob", Domain(name))))
    field = delivered_to_field(recipient, is_utf8=True).decode().strip()
    shown = field.removeprefix("Delivered-To: bob@")
    assert shown == name or Domain.from_text(shown) == Domain(name)
    assert shown.isprintable()


def test_return_path() -> None:
    """Return-Path keeps the reverse-path, the null one and quoted local parts too (RFC 5321 section 4.5.5)."""
    assert return_path_field(ReversePath(None)) == b"Return-Path: <>\r\n"
    assert return_path_field(ALICE) == b"Return-Path: <alice@example.net>\r\n"
    literal = Mailbox("a b>", AddressLiteral(IPv4Address("192.0.2.1")))
    assert return_path_field(ReversePath(literal), is_utf8=True) == b'Return-Path: <"a b>"@[192.0.2.1]>\r\n'


def test_all_fields() -> None:
    """The copy of a recipient begins with Return-Path, Delivered-To and Received, in this order."""
    fields = trace_fields(ENTRY, BOB, "mx.example.com")
    names = [line.partition(b":")[0] for line in fields.split(b"\r\n") if line and not line.startswith(b"\t")]
    assert names == [b"Return-Path", b"Delivered-To", b"Received"]


HOSTS = st.one_of(st.text().map(Domain), st.ip_addresses().map(AddressLiteral))
MAILBOXES = st.builds(Mailbox, st.text(), HOSTS)
WORDS = st.text() | st.text('()<>[]\\"\r\n\t :;,@\x00\x85\u2028x')
TEXT = st.none() | WORDS
TLSES = st.builds(Tls, WORDS, WORDS, st.integers(0, 999), TEXT)
SESSIONS = st.builds(Session, TEXT, st.booleans(), TEXT, st.none() | TLSES, st.sampled_from(Dialect))
CLIENTS = st.builds(
    Client,
    session_id=st.just(SessionId("s")),
    address=st.none() | st.ip_addresses(),
    port=st.none(),
    session=SESSIONS,
    host=TEXT,
    ident=TEXT,
)


@given(client=CLIENTS, sender=MAILBOXES, recipient=MAILBOXES, smtputf8=st.booleans())
def test_nothing_is_injected(client: Client, sender: Mailbox, recipient: Mailbox, *, smtputf8: bool) -> None:
    """Whatever a client says, there are three fields, no line end of its making, and no octet it may not use."""
    to = Recipient(ForwardPath(recipient))
    envelope = Envelope(ReversePath(sender), MailParameters(smtputf8=smtputf8), (to,))
    octets = trace_fields(replace(ENTRY, client=client, envelope=envelope), to, "mx.example.com")
    lines = octets.split(b"\r\n")
    assert lines.pop() == b""
    assert [line.partition(b" ")[0] for line in lines if not line.startswith(b"\t")] == [
        b"Return-Path:",
        b"Delivered-To:",
        b"Received:",
    ]
    assert all(line.decode().removeprefix("\t").isprintable() and line.strip() for line in lines)
    assert smtputf8 or octets.isascii()
    assert len(email.message_from_bytes(octets + b"\r\nbody", policy=email.policy.compat32).keys()) == 3


WORD = r"""[^\s()<>;,"\\\x00-\x20\x7f-\x9f]+"""
RECEIVED = re.compile(
    rf"Received: from {WORD}(?: \((?:{WORD} )?\[{WORD}\]\))?(?: \(ident {WORD}\))?"
    rf" by mx\.example\.com with [A-Z8]+(?: \({WORD} {WORD} [0-9]+ bits\))?"
    rf" id {ENTRY.queue_id}; Tue, 03 Feb 2026 04:05:06 \+0100\r\n"
)


@given(client=CLIENTS, smtputf8=st.booleans())
def test_one_word_stays_one_word(client: Client, *, smtputf8: bool) -> None:
    """HELO, host, ident and what is known of TLS cannot leave their clause, begin a comment or end one."""
    field = received_field(entry_of(client, smtputf8=smtputf8), "mx.example.com").decode()
    assert RECEIVED.fullmatch(field.replace("\r\n\t", " "))


@given(st.lists(st.sampled_from("ab1.-"), min_size=0, max_size=64).map("".join))
def test_lines_are_short(local_part: str) -> None:
    """A line is longer than 78 only if one clause is, and never longer than 998 octets (RFC 5322 section 2.1.1)."""
    long_name = "a" * 500
    client = replace(ENTRY.client, host=long_name, address=ip_address("2001:db8::1"), session=Session(long_name))
    to = Recipient(ForwardPath(Mailbox(local_part, Domain("example.com"))))
    lines = received_field(entry_of(client), "mx.example.com", to).split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert [len(line) for line in lines if len(line) > 78 and b" [" not in line and b"from" not in line] == []


@pytest.mark.parametrize(
    ("start", "expected"),
    [(b" x", b"\r\n"), (b"\tx", b"\r\n"), (b"Subject: x", b""), (b"\r\nx", b""), (b"x", b""), (b"", b"")],
)
def test_divider(start: bytes, expected: bytes) -> None:
    """Only white space at the very start could continue the last trace field; an empty line keeps it out.

    RFC 5322 section 2.2.3.
    """
    assert divider(start) == expected
