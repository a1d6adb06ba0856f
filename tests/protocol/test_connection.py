"""The machine: one test for each thing that it promises."""

from __future__ import annotations

import pytest

from smtprecv.protocol import (
    Config,
    Connected,
    Connection,
    ConnectionClosed,
    Data,
    Domain,
    EndOfMailData,
    EnhancedStatus,
    Envelope,
    ForwardPath,
    Hello,
    LocalProtocolError,
    Mail,
    Mailbox,
    MailData,
    MailParameters,
    Noop,
    Quit,
    Rcpt,
    Recipient,
    Rejected,
    Reply,
    ReversePath,
    Rset,
    Session,
    Signal,
    State,
)

CONFIG = Config("mx.example.com", max_message_size=65536, max_recipients=100)
OK = Reply(250, "OK")
GO = Reply(354, "go")
BYE = Reply(221, "bye")
BUSY = Reply(421, "busy")

SENDER = ReversePath(Mailbox("a", Domain("example.com")))
RECIPIENT = Recipient(ForwardPath(Mailbox("b", Domain("example.org"))))

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.com>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"
DATA = b"DATA\r\n"


def connect(octets: bytes = b"", *replies: Reply) -> Connection:
    """Give a connection that was greeted, got these octets and answered with these replies."""
    connection = Connection(CONFIG)
    assert connection.next_event() == Connected()
    connection.send(Reply(220, "mx.example.com"))
    if octets:
        connection.receive_data(octets)
    for reply in replies:
        connection.next_event()
        connection.send(reply)
    return connection


def test_the_first_event_is_connected() -> None:
    """The greeting is an answer like all others, and goes first even when the client did (RFC 5321 section 3.1)."""
    connection = Connection(CONFIG)
    connection.receive_data(b"QUIT\r\n")
    assert connection.next_event() == Connected()
    assert connection.send(Reply(220, "mx.example.com ESMTP")) == b"220 mx.example.com ESMTP\r\n"
    assert connection.state is State.GREETED
    assert connection.next_event() == Quit()


def test_nothing_is_read_until_the_open_event_is_answered() -> None:
    """While a reply is due, next_event is PAUSED and the rest of the group is unread.

    RFC 821 section 2, RFC 5321 section 4.2.
    """
    connection = connect(b"NOOP\r\nRSET\r\n")
    assert connection.next_event() == Noop()
    assert (connection.replies_due, connection.pipelined) == (1, True)
    assert [Signal.PAUSED] * 2 == [connection.next_event() for _ in range(2)]
    connection.send(OK)
    assert (connection.replies_due, connection.pipelined) == (0, True)
    assert connection.next_event() == Rset()
    assert not connection.pipelined


def test_used_up_input_needs_data() -> None:
    """At NEED_DATA everything that came has been used, but for the start of a line."""
    connection = connect(b"NOO")
    assert connection.next_event() is Signal.NEED_DATA
    connection.receive_data(b"P\r\n")
    assert connection.next_event() == Noop()


def test_commands_ask_and_replies_move() -> None:
    """The state, the session and the envelope change when the reply is sent, and not before."""
    connection = connect(EHLO + MAIL + RCPT + DATA)

    def snapshot() -> tuple[State, Session, Envelope | None]:
        return connection.state, connection.session, connection.envelope

    connection.next_event()
    assert snapshot() == (State.GREETED, Session(), None)
    connection.send(OK)
    session = Session("client.example", is_extended=True)
    assert snapshot() == (State.READY, session, None)
    connection.next_event()
    assert snapshot() == (State.READY, session, None)
    connection.send(OK)
    assert snapshot() == (State.MAIL, session, Envelope(SENDER))
    connection.next_event()
    connection.send(OK)
    assert snapshot() == (State.RCPT, session, Envelope(SENDER, recipients=(RECIPIENT,)))
    assert connection.next_event() == Data()
    connection.send(GO)
    assert snapshot() == (State.DATA, session, Envelope(SENDER, recipients=(RECIPIENT,)))


def test_refusals_move_nothing() -> None:
    """A command that was answered 4yz or 5yz has not happened."""
    connection = connect(EHLO + EHLO + MAIL + MAIL + RCPT + RCPT + RCPT + DATA)
    replies = [Reply(550, ""), OK, Reply(451, ""), OK, Reply(550, ""), OK, Reply(452, ""), Reply(451, "")]
    states = [State.GREETED, State.READY, State.READY, State.MAIL, State.MAIL, State.RCPT, State.RCPT, State.RCPT]
    for reply, state in zip(replies, states, strict=True):
        connection.next_event()
        connection.send(reply)
        assert state is connection.state
    assert connection.envelope == Envelope(SENDER, recipients=(RECIPIENT,))


def test_the_octets_behind_data_are_commands_if_data_was_refused() -> None:
    """How the octets behind DATA are read is decided by the reply to DATA."""
    refused = connect(EHLO + MAIL + RCPT + DATA + b"QUIT\r\n", OK, OK, OK, Reply(451, ""))
    assert refused.next_event() == Quit()
    accepted = connect(EHLO + MAIL + RCPT + DATA + b"QUIT\r\n", OK, OK, OK, GO)
    assert accepted.next_event() == MailData(b"QUIT")


def test_a_message() -> None:
    """Pieces need no reply; the envelope stays until the reply to the end has been sent; HELO outlives the message."""
    connection = connect(EHLO + MAIL + RCPT + DATA + b"a\r\n..\r\n.\r\n" + MAIL, OK, OK, OK, GO)
    assert connection.next_event() == MailData(b"a\r\n.\r\n")
    assert connection.replies_due == 0
    assert connection.next_event() == EndOfMailData(6, None)
    assert connection.envelope == Envelope(SENDER, recipients=(RECIPIENT,))
    connection.send(OK)
    assert connection.session.hello == "client.example"
    assert isinstance(connection.next_event(), Mail)


def test_the_envelope_ends_with_the_message() -> None:
    """When the end of the message has been answered, in either way, there is no transaction."""
    for reply in (OK, Reply(451, "")):
        connection = connect(EHLO + MAIL + RCPT + DATA + b".\r\n", OK, OK, OK, GO, reply)
        assert (connection.state, connection.envelope) == (State.READY, None)


@pytest.mark.parametrize("line", [b"RSET\r\n", EHLO, b"HELO client.example\r\n"])
def test_the_transaction_ends(line: bytes) -> None:
    """RSET, EHLO and HELO end the transaction, if they are accepted (RFC 5321 section 4.1.4)."""
    refused = connect(EHLO + MAIL + RCPT + line, OK, OK, OK, Reply(451, ""))
    assert refused.envelope is not None
    accepted = connect(EHLO + MAIL + RCPT + line + RCPT, OK, OK, OK, OK)
    assert (accepted.state, accepted.envelope) == (State.READY, None)
    assert isinstance(accepted.next_event(), Rejected)


@pytest.mark.parametrize("line", [b"BAD\r\n", RCPT, b"EHLO\r\n", b"NO\nOP\r\n", b"x" * 9999 + b"\r\n"])
def test_what_is_refused_comes_with_its_reply(line: bytes) -> None:
    """A fault of the client is an event with the reply it is due, and leaves the session where it was."""
    connection = connect(EHLO + line, OK)
    event = connection.next_event()
    assert isinstance(event, Rejected)
    assert line[:512].removesuffix(b"\r\n") == event.line
    assert connection.send(event.reply).startswith(b"50")
    assert connection.state is State.READY


def test_a_rejected_line_is_kept_to_512_octets() -> None:
    """Of a line that is refused by its parser or by the table, no more is shown either."""
    for rest in (b" SIZE=" + b"9" * 530, b" SIZE=65537" + b" " * 500 + b"BODY=7BIT"):
        connection = connect(EHLO + MAIL.rstrip() + rest + b"\r\n", OK)
        event = connection.next_event()
        assert isinstance(event, Rejected)
        assert len(event.line) == 512


def test_one_recipient_too_many() -> None:
    """The recipient past max_recipients is 452; those before it keep their mail (RFC 5321 section 4.5.3.1.10)."""
    connection = connect(EHLO + MAIL + RCPT * 101 + DATA, *[OK] * 102)
    event = connection.next_event()
    assert isinstance(event, Rejected)
    assert str(event.reply) == "452 4.5.3 Too many recipients"
    connection.send(event.reply)
    assert connection.envelope is not None
    assert len(connection.envelope.recipients) == 100
    assert connection.next_event() == Data()


def test_a_recipient_may_be_redirected() -> None:
    """From the 2yz reply on the mailboxes stand in its place, each with what RCPT named; the last call counts."""
    others = tuple(ForwardPath(Mailbox(name, Domain("example.net"))) for name in ("d", "e"))
    connection = connect(EHLO + MAIL + RCPT * 3, OK, OK, OK)
    assert connection.next_event() == Rcpt(RECIPIENT.forward_path)
    connection.redirect(others[:1])
    connection.redirect(others)
    assert connection.envelope == Envelope(SENDER, recipients=(RECIPIENT,))
    assert connection.send(OK) == b"250 2.0.0 OK\r\n"
    redirected = tuple(Recipient(other, original=RECIPIENT.forward_path) for other in others)
    assert connection.envelope == Envelope(SENDER, recipients=(RECIPIENT, *redirected))
    connection.next_event()
    connection.send(OK)
    assert connection.envelope == Envelope(SENDER, recipients=(RECIPIENT, *redirected, RECIPIENT))


def test_a_refusal_voids_a_redirect() -> None:
    """What was refused goes nowhere, and neither does the next recipient go where it would have gone."""
    connection = connect(EHLO + MAIL + RCPT * 2, OK, OK)
    connection.next_event()
    connection.redirect([ForwardPath(Mailbox("d", Domain("example.net")))])
    connection.send(Reply(550, "no"))
    assert connection.envelope == Envelope(SENDER)
    connection.next_event()
    connection.send(OK)
    assert connection.envelope == Envelope(SENDER, recipients=(RECIPIENT,))


def test_only_an_open_rcpt_is_redirected() -> None:
    """To redirect what is no open RCPT, or to nobody, is our own fault, and changes nothing."""
    other = ForwardPath(Mailbox("d", Domain("example.net")))
    for octets, replies in ((EHLO + MAIL, [OK]), (EHLO + MAIL + RCPT, [OK, OK, OK])):
        connection = connect(octets, *replies)
        connection.next_event()
        with pytest.raises(LocalProtocolError):
            connection.redirect([other])
    connection = connect(EHLO + MAIL + RCPT, OK, OK)
    connection.next_event()
    with pytest.raises(LocalProtocolError):
        connection.redirect([])
    connection.send(OK)
    assert connection.envelope == Envelope(SENDER, recipients=(RECIPIENT,))


def test_max_recipients_counts_commands() -> None:
    """A hundred RCPTs pass, wherever each is redirected; the count begins anew with each MAIL."""
    others = [ForwardPath(Mailbox(name, Domain("example.net"))) for name in "defg"]
    connection = connect(EHLO + (MAIL + RCPT * 100 + b"RSET\r\n") * 2 + MAIL + RCPT * 101, OK)
    refusals = []
    while not isinstance(event := connection.next_event(), Signal):
        if isinstance(event, Rcpt):
            connection.redirect(others)
        if isinstance(event, Rejected):
            refusals.append(event.reply.code)
        connection.send(event.reply if isinstance(event, Rejected) else OK)
    assert refusals == [452]
    assert connection.envelope is not None
    assert len(connection.envelope.recipients) == 400


def test_recipients_may_repeat() -> None:
    """The envelope has the recipients in the order of RCPT, as often as they were accepted."""
    connection = connect(EHLO + MAIL + RCPT + RCPT, OK, OK, OK, OK)
    assert connection.envelope == Envelope(SENDER, MailParameters(), (RECIPIENT, RECIPIENT))
    assert str(RECIPIENT) == "b@example.org"


@pytest.mark.parametrize(
    ("octets", "replies", "reply"),
    [
        (b"", [], OK),
        (b"DATA\r\n", [], GO),
        (b"NOOP\r\n", [], GO),
        (b"NOOP\r\n", [], BYE),
        (b"QUIT\r\n", [], OK),
        (EHLO + MAIL + RCPT + DATA, [OK, OK, OK], OK),
        (EHLO + MAIL + RCPT + DATA + b".\r\n", [OK, OK, OK, GO], GO),
        (EHLO + MAIL + RCPT + DATA + b"text", [OK, OK, OK, GO], Reply(451, "")),
        (b"BAD\r\n", [], OK),
    ],
)
def test_we_may_not_misspeak(octets: bytes, replies: list[Reply], reply: Reply) -> None:
    """A reply that nothing waits for, or that cannot answer the event, raises and changes nothing.

    RFC 5321 section 4.3.2.
    """
    connection = connect(octets, *replies)
    connection.next_event()
    before = (connection.state, connection.replies_due, connection.envelope)
    with pytest.raises(LocalProtocolError, match=str(reply.code)):
        connection.send(reply)
    assert before == (connection.state, connection.replies_due, connection.envelope)


@pytest.mark.parametrize("octets", [b"", b"NOOP\r\n", EHLO + MAIL + RCPT + DATA + b"text"])
def test_421_may_be_said_at_any_time(octets: bytes) -> None:
    """421 ends the session: with an event open, without, and inside a message (RFC 5321 section 3.8)."""
    replies = [OK, OK, OK, GO] if octets.startswith(b"EHLO") else []
    connection = connect(octets, *replies)
    connection.next_event()
    assert connection.send(BUSY).startswith(b"421 ")
    assert (connection.state, connection.envelope, connection.replies_due) == (State.CLOSED, None, 0)


def test_421_before_the_greeting() -> None:
    """A client may be turned away before anything else."""
    connection = Connection(CONFIG)
    connection.send(BUSY)
    assert connection.state is State.CLOSED


def test_nothing_follows_the_end() -> None:
    """Behind QUIT nothing is read, kept or said; every further event is ConnectionClosed."""
    connection = connect(b"QUIT\r\nNOOP\r\n", BYE)
    assert connection.state is State.CLOSED
    connection.receive_data(b"NOOP\r\n")
    assert not connection.pipelined
    assert [ConnectionClosed()] * 2 == [connection.next_event() for _ in range(2)]
    for reply in (OK, BUSY):
        with pytest.raises(LocalProtocolError):
            connection.send(reply)


def test_the_end_of_input() -> None:
    """Commands that came before the end are still answered; then the session is over."""
    connection = connect(b"NOOP\r\nNOO")
    connection.receive_data(b"")
    connection.receive_data(b"P\r\n")
    assert connection.next_event() == Noop()
    connection.send(OK)
    assert connection.state is State.GREETED
    assert [ConnectionClosed()] * 2 == [connection.next_event() for _ in range(2)]
    assert (connection.state, connection.pipelined) == (State.CLOSED, False)


def test_the_end_of_input_in_a_message() -> None:
    """A message without its end is no message: there is no EndOfMailData."""
    connection = connect(EHLO + MAIL + RCPT + DATA + b"text\r\n", OK, OK, OK, GO)
    connection.receive_data(b"")
    assert connection.next_event() == MailData(b"text")
    assert connection.next_event() == ConnectionClosed()
    assert (connection.state, connection.envelope) == (State.CLOSED, None)


@pytest.mark.parametrize(
    ("reply", "after_helo", "after_ehlo"),
    [
        (OK, b"250 OK\r\n", b"250 2.0.0 OK\r\n"),
        (Reply(250, "a\nb"), b"250-a\r\n250 b\r\n", b"250-2.0.0 a\r\n250 2.0.0 b\r\n"),
        (Reply(451, "no"), b"451 no\r\n", b"451 4.0.0 no\r\n"),
        (Reply(550, "no"), b"550 no\r\n", b"550 5.0.0 no\r\n"),
        (BUSY, b"421 busy\r\n", b"421 4.0.0 busy\r\n"),
        (Reply(250, "OK", EnhancedStatus(2, 1, 5)), b"250 2.1.5 OK\r\n", b"250 2.1.5 OK\r\n"),
    ],
)
def test_enhanced_status(reply: Reply, after_helo: bytes, after_ehlo: bytes) -> None:
    """After EHLO each reply has a status, its own or class.0.0; after HELO only its own (RFC 2034 section 4)."""
    for hello, octets in ((b"HELO a.example\r\n", after_helo), (EHLO, after_ehlo)):
        connection = connect(hello + b"NOOP\r\n", OK)
        connection.next_event()
        assert octets == connection.send(reply)


def test_replies_without_status() -> None:
    """The answer to EHLO has no status, even to the second, nor has a 3yz reply (RFC 2034 section 4)."""
    connection = connect(EHLO + EHLO + MAIL + RCPT + DATA)
    octets = []
    for reply in (OK, OK, OK, OK, GO):
        connection.next_event()
        octets.append(connection.send(reply))
    assert [b"250 OK\r\n"] * 2 + [b"250 2.0.0 OK\r\n"] * 2 + [b"354 go\r\n"] == octets


def test_helo_after_ehlo_takes_the_extensions_back() -> None:
    """The last greeting counts."""
    connection = connect(EHLO + b"HELO client.example\r\n" + MAIL.rstrip() + b" SIZE=1\r\n", OK, OK)
    assert connection.session == Session("client.example", is_extended=False)
    event = connection.next_event()
    assert isinstance(event, Rejected)
    assert event.reply.code == 555


def test_ehlo_is_told_what_to_offer() -> None:
    """Hello has the keyword lines of EHLO, and none for HELO (RFC 5321 section 4.1.1.1)."""
    connection = connect(EHLO)
    hello = connection.next_event()
    assert isinstance(hello, Hello)
    assert (hello.domain, hello.is_extended) == ("client.example", True)
    assert {"PIPELINING", "SIZE 65536", "CHUNKING"} < set(hello.offers)
    assert connect(b"HELO client.example\r\n").next_event() == Hello("client.example", is_extended=False, offers=())


def test_thousands_of_pipelined_commands() -> None:
    """A long group takes one step for each command: no recursion, and no copy of what is left."""
    connection = connect(EHLO + MAIL + (b"RSET\r\n" + MAIL) * 4000, OK)
    count = 0
    while connection.next_event() is not Signal.NEED_DATA:
        connection.send(OK)
        count += 1
    assert count == 8001


def test_rcpt_of_the_postmaster() -> None:
    """<Postmaster> is at the receiver's own name (RFC 5321 section 4.5.1)."""
    connection = connect(EHLO + MAIL + b"RCPT TO:<Postmaster>\r\n", OK, OK)
    assert connection.next_event() == Rcpt(ForwardPath(Mailbox("Postmaster", Domain("mx.example.com"))))
