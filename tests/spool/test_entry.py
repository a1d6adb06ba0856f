"""Entries: what an attempt makes of them, and that a row gives back just the entry that made it."""

from __future__ import annotations

import datetime as dt
import json
import string
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spool.spoolhouse import CLIENT, ENVELOPE, NOON

from smtprecv.errors import CorruptEntry
from smtprecv.message import Client, QueueId, Redirect, SessionId
from smtprecv.protocol import (
    AddressLiteral,
    Body,
    ByMode,
    DeliverBy,
    Dialect,
    Domain,
    EnhancedStatus,
    Envelope,
    ForwardPath,
    Mailbox,
    MailParameters,
    Notify,
    OriginalRecipient,
    RcptParameters,
    Recipient,
    Reply,
    Ret,
    ReversePath,
    Session,
    Tls,
    Xtext,
)
from smtprecv.spool import Entry, Standing, Status
from smtprecv.spool._codec import entry_row, read_entry, standing_row
from smtprecv.spool._queue_id import QueueIds, base32hex, random_owner_id

OK = Reply(250, "taken")
LATER = Reply(451, "later", EnhancedStatus(4, 3, 0))
NEVER = Reply(550, "never")

ENTRY = Entry(QueueId("0" * 20), NOON, CLIENT, ENVELOPE, 7, tuple(Standing(to) for to in ENVELOPE.recipients), due=NOON)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
hosts = st.one_of(
    st.text(string.ascii_lowercase + ".-", min_size=1).map(Domain),
    st.ip_addresses().map(AddressLiteral),
)
mailboxes = st.builds(Mailbox, texts, hosts)
replies = st.one_of(
    st.builds(Reply, st.integers(200, 599), texts),
    st.builds(
        lambda subject, detail: Reply(450, "x", EnhancedStatus(4, subject, detail)),
        st.integers(0, 9),
        st.integers(0, 99),
    ),
)
times = st.datetimes(timezones=st.just(dt.UTC))
clients = st.builds(
    Client,
    texts.map(SessionId),
    st.none() | st.ip_addresses(),
    st.none() | st.integers(0, 65535),
    st.builds(
        Session,
        st.none() | texts,
        st.booleans(),
        st.none() | texts,
        st.none() | st.builds(Tls, texts, texts, st.integers(0, 999), st.none() | texts),
        st.sampled_from(Dialect),
    ),
    st.none() | texts,
    st.none() | texts,
    st.none() | st.ip_addresses(),
    st.none() | st.integers(0, 65535),
)
forward_paths = st.builds(ForwardPath, mailboxes)
shown_texts = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=9)
xtexts = shown_texts.map(Xtext.of) | st.text("aZ7\u00e9", max_size=9).map(Xtext)
rcpt_parameters = st.builds(
    RcptParameters,
    st.none() | st.frozensets(st.sampled_from(Notify)),
    st.none() | st.builds(OriginalRecipient, texts, xtexts),
)
mail_parameters = st.builds(
    MailParameters,
    st.none() | st.integers(0),
    st.sampled_from(Body),
    st.booleans(),
    st.none() | st.sampled_from(Ret),
    st.none() | xtexts,
    st.none() | st.builds(DeliverBy, st.integers(-999999999, 999999999), st.sampled_from(ByMode), st.booleans()),
    st.integers(-9, 9),
    st.booleans(),
    st.none() | texts,
)
standings = st.builds(
    Standing,
    st.builds(Recipient, forward_paths, st.none() | forward_paths, rcpt_parameters),
    st.sampled_from(Status),
    st.integers(0, 99),
    st.none() | replies,
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Draw any entry there could be."""
    them = tuple(draw(st.lists(standings, min_size=1, max_size=4)))
    parameters = draw(mail_parameters)
    reverse_path = draw(st.builds(ReversePath, st.none() | mailboxes))
    envelope = Envelope(reverse_path, parameters, tuple(standing.recipient for standing in them))
    is_waiting = any(standing.status is Status.PENDING for standing in them)
    return Entry(
        QueueId("q"), draw(times), draw(clients), envelope, draw(st.integers(0, 1 << 40)), them,
        draw(times) if is_waiting else None, draw(st.none() | times), draw(st.none() | texts),
    )  # fmt: skip


@pytest.mark.slow
@given(entries())
def test_round_trip(entry: Entry) -> None:
    """Every entry is read back from its rows as it was."""
    assert read_entry(entry_row(entry), [standing_row(standing) for standing in entry.standings]) == entry


def test_texts_that_utf8_cannot_hold() -> None:
    """An odd text of a delivery does not keep an outcome from being stored."""
    entry = replace(ENTRY.after([LATER, Reply(451, "\ud800")], NOON), error="\udfff")
    read = read_entry(entry_row(entry), [standing_row(standing) for standing in entry.standings])
    assert (read.error, [standing.last for standing in read.standings]) == ("?", [LATER, Reply(451, "?")])


ROW = list(entry_row(ENTRY))


def deliver_by_text(deliver_by: object) -> str:
    """Give the parameters of a row, with this for a time to deliver by."""
    return json.dumps({"v": 1, "size": None, "body": "7BIT", "smtputf8": False, "deliver_by": deliver_by})


STANDING_ROW = list(standing_row(ENTRY.standings[0]))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, None),  # queue id
        (1, "noon"),  # received
        (1, 1 << 62),  # out of range
        (2, None),  # size
        (3, "nobody"),  # reverse_path
        (3, "ada@"),
        (3, "ada@[192.0.2.999]"),
        (3, b"\xff@example.com"),
        (4, "{}"),  # parameters
        (4, "[]"),
        (4, "[" * 100_000),
        (4, '{"v": 2}'),
        (4, '{"v": 1, "size": null, "body": "9BIT", "smtputf8": false}'),
        (4, '{"v": 1, "size": null, "body": "7BIT", "smtputf8": 0}'),
        (4, '{"v": 1, "size": null, "body": "7BIT", "smtputf8": false, "ret": "BODY"}'),
        (4, '{"v": 1, "size": null, "body": "7BIT", "smtputf8": false, "envid": 7}'),
        (4, '{"v": 1, "size": null, "body": "7BIT", "smtputf8": false, "envid": "a=b"}'),
        (4, '{"v": 1, "size": null, "body": "7BIT", "smtputf8": false, "envid": "a+0D+0A"}'),
        (4, '{"v": 1, "size": null, "body": "7BIT", "smtputf8": false, "require_tls": "yes"}'),
        (4, '{"v": 1, "size": null, "body": "7BIT", "smtputf8": false, "auth": []}'),
        (4, deliver_by_text("120;R")),
        (4, deliver_by_text({"seconds": 120, "mode": "X", "is_traced": False})),
        (4, deliver_by_text({"seconds": 10**9, "mode": "N", "is_traced": False})),
        (4, deliver_by_text({"seconds": "120", "mode": "N", "is_traced": False})),
        (5, None),  # priority
        (5, "9"),
        (6, "not json"),  # client
        (6, b"\xff"),
        (6, str(ROW[6]).replace('"tls": null', '"tls": true')),
        (6, str(ROW[6]).replace('"tls": null', '"tls": {"version": "TLSv1.3"}')),
        (6, str(ROW[6]).replace('"SMTP"', '"UUCP"')),
    ],
)
def test_rows_that_are_no_entry(place: int, value: object) -> None:
    """A row that cannot be read is a CorruptEntry, whatever is wrong with it."""
    row: list[object] = [*ROW]
    row[place] = value
    with pytest.raises(CorruptEntry):
        read_entry(row, [STANDING_ROW])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, ""),
        (1, "lost"),
        (2, None),
        (3, 99),
        (3, "x"),
        (6, ""),
        (7, ""),
        (7, "[]"),
        (7, '{"v": 1, "notify": "FAILURE"}'),
        (7, '{"v": 1, "notify": ["NEVER"]}'),
        (7, '{"v": 1, "orcpt": "rfc822;ben@example.com"}'),
        (7, '{"v": 1, "orcpt": ["rfc822"]}'),
        (7, '{"v": 1, "orcpt": ["rfc822", "ben\\u0007"]}'),
    ],
)
def test_recipient_rows_that_are_none(place: int, value: object) -> None:
    """A recipient's row that cannot be read makes a CorruptEntry of the whole."""
    row: list[object] = [*standing_row(ENTRY.standings[0].after(OK))]
    row[place] = value
    with pytest.raises(CorruptEntry):
        read_entry(ROW, [row])


@pytest.mark.parametrize(("due", "status"), [(None, Status.PENDING), (NOON, Status.FAILED), (NOON, Status.DELIVERED)])
def test_due_and_pending_go_together(due: dt.datetime | None, status: Status) -> None:
    """A message is due just when a recipient is pending: otherwise it would be tried for ever, or never, in silence."""
    row = entry_row(replace(ENTRY, due=due))
    with pytest.raises(CorruptEntry, match="due"):
        read_entry(row, [standing_row(replace(ENTRY.standings[0], status=status))])


def test_no_recipients() -> None:
    """A message whose recipients are gone is corrupt, and not done."""
    with pytest.raises(CorruptEntry, match="no recipients"):
        read_entry(ROW, [])


def test_key() -> None:
    """A delivery has the same name in every version and every attempt; other recipients have another one."""
    first, second = ENVELOPE.recipients
    assert ENTRY.key(first) == "0000000000000000000065f46064650b0a44"
    assert ENTRY.after([LATER, LATER], NOON).key(first) == ENTRY.key(first)
    keys = {ENTRY.key(first), ENTRY.key(second), ENTRY.key(first, second), ENTRY.key()}
    keys.add(replace(ENTRY, queue_id=QueueId("1" * 20)).key(first))
    assert len(keys) == 5


def test_after() -> None:
    """Each pending recipient gets its reply: 2yz delivered, 4yz still pending, 5yz failed."""
    after = ENTRY.after([OK, LATER], NOON, "error")
    assert [standing.status for standing in after.standings] == [Status.DELIVERED, Status.PENDING]
    assert (after.due, after.attempted, after.attempts, after.error) == (NOON, NOON, 1, "error")
    last = after.after([NEVER], NOON)
    assert [standing.status for standing in last.standings] == [Status.DELIVERED, Status.FAILED]
    assert (last.due, last.attempts, last.is_done, last.pending) == (None, 2, False, ())


def test_after_with_the_wrong_replies() -> None:
    """One reply for each pending recipient, none of them 3yz: anything else is a ValueError."""
    with pytest.raises(ValueError, match="1 replies for 2"):
        ENTRY.after([OK], NOON)
    with pytest.raises(ValueError, match="3yz"):
        ENTRY.after([OK, Reply(354, "go on")], NOON)


def test_confirmed() -> None:
    """A recipient that turns out to be served is delivered, with no further attempt."""
    half = ENTRY.confirmed([False, True])
    assert [standing.status for standing in half.standings] == [Status.PENDING, Status.DELIVERED]
    assert (half.due, half.attempts) == (NOON, 0)
    whole = half.confirmed([True])
    assert (whole.is_done, whole.due) == (True, None)


def test_given_up() -> None:
    """Giving up fails who is pending and leaves who was served; the last replies stay."""
    given_up = ENTRY.after([OK, LATER], NOON).given_up()
    assert [standing.status for standing in given_up.standings] == [Status.DELIVERED, Status.FAILED]
    assert (given_up.due, given_up.standings[1].last) == (None, LATER)


def test_given_up_for_a_reason() -> None:
    """A reply says why who is pending is given up, and touches nobody else; it is no attempt."""
    given_up = ENTRY.after([OK, LATER], NOON).given_up(NEVER)
    assert [standing.last for standing in given_up.standings] == [OK, NEVER]
    assert (given_up.due, given_up.attempts) == (None, 1)


@pytest.mark.parametrize(
    ("deliver_by", "expected"),
    [
        (None, None),
        (DeliverBy(60, ByMode.NOTIFY), None),
        (DeliverBy(60, ByMode.RETURN), 50),
        (DeliverBy(10, ByMode.RETURN, is_traced=True), 0),
        (DeliverBy(1, ByMode.RETURN), -9),
    ],
)
def test_time_left(deliver_by: DeliverBy | None, expected: int | None) -> None:
    """Only a sender that wants the message back sets a limit, in seconds from its reception."""
    parameters = MailParameters(deliver_by=deliver_by)
    entry = replace(ENTRY, envelope=replace(ENVELOPE, parameters=parameters))
    left = entry.time_left(NOON + dt.timedelta(seconds=10))
    assert left == (None if expected is None else dt.timedelta(seconds=expected))


def test_parameters_survive_a_redirect() -> None:
    """What the sender asked for with a recipient holds for those who stand in its place, and for theirs."""
    parameters = RcptParameters(frozenset(), OriginalRecipient("rfc822", Xtext("Ben+2Bx@Example.com")))
    first = replace(ENTRY.standings[0], recipient=replace(ENTRY.standings[0].recipient, parameters=parameters))
    entry = replace(ENTRY, standings=(first,)).after([Redirect.to("x@example.org", "y@example.org")], NOON)
    entry = entry.after([Redirect.to("z@example.org"), OK], NOON)
    assert [str(standing.recipient) for standing in entry.standings] == ["z@example.org", "y@example.org"]
    assert [standing.recipient.parameters for standing in entry.standings] == [parameters] * 2


def test_parameters_not_given_cost_nothing() -> None:
    """The usual message has no column of recipient parameters, and none of MAIL's but the old ones."""
    assert standing_row(ENTRY.standings[0])[7] is None
    assert json.loads(str(ROW[4])) == {"v": 1, "size": None, "body": "7BIT", "smtputf8": False}


@pytest.mark.parametrize("text", ["qP7+2Bz", "Zo+C3+AB"])
def test_xtext_is_kept_as_it_came(text: str) -> None:
    """An ENVID and an ORCPT have the very characters, and the case, that the client gave them."""
    orcpt = OriginalRecipient("RFC822", Xtext(text))
    standing = Standing(replace(ENVELOPE.recipients[0], parameters=RcptParameters(None, orcpt)))
    envelope = replace(ENVELOPE, parameters=MailParameters(envid=Xtext(text)), recipients=(standing.recipient,))
    entry = replace(ENTRY, envelope=envelope, standings=(standing,))
    read = read_entry(entry_row(entry), [standing_row(standing)])
    [to] = read.envelope.recipients
    assert (read.envelope.parameters.envid, str(to.parameters.orcpt)) == (Xtext(text), f"RFC822;{text}")


def test_queue_ids() -> None:
    """A queue id is time, counter and owner, in 20 characters that sort by time (RFC 4648 section 7)."""
    ids = QueueIds("abcdefghijklmnop")
    time = dt.datetime(1970, 1, 1, 0, 0, 1, 2000, tzinfo=dt.UTC)
    assert [ids.next(time), ids.next(time)] == ["00000000va0000abcdef", "00000000va0001abcdef"]
    assert base32hex(1 << 20, 4) == "0000"
    assert len({random_owner_id() for _ in range(100)}) == 100


def test_an_address_without_a_port_is_read() -> None:
    """A client on a Unix socket and one on the net are both kept as they are."""
    entry = replace(ENTRY, client=Client(SessionId("s"), ip_address("192.0.2.1"), 25))
    assert read_entry(entry_row(entry), [STANDING_ROW, STANDING_ROW]).client == entry.client


def test_a_client_of_an_earlier_version() -> None:
    """What was written before our own end of the connection was kept is read without it."""
    row = list(entry_row(ENTRY))
    [place] = [i for i, value in enumerate(row) if isinstance(value, str) and '"local_port"' in value]
    fields = json.loads(str(row[place]))
    del fields["local_address"], fields["local_port"]
    row[place] = json.dumps(fields)
    client = read_entry(row, [STANDING_ROW, STANDING_ROW]).client
    assert client == replace(ENTRY.client, local_address=None, local_port=None)
