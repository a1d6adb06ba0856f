"""The machine with its extensions: BDAT, STARTTLS, AUTH, LMTP, XCLIENT, and what they do to a session."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from smtprecv.protocol import (
    Auth,
    AuthResponse,
    Bdat,
    Config,
    Connection,
    ConnectionClosed,
    Data,
    Dialect,
    Domain,
    EndOfChunk,
    EndOfMailData,
    EnhancedStatus,
    ForwardPath,
    Hello,
    LocalProtocolError,
    Mail,
    Mailbox,
    MailData,
    Noop,
    Quit,
    Rcpt,
    Rejected,
    Reply,
    Session,
    Signal,
    StartTls,
    State,
    Tls,
    Xclient,
    Xforward,
)

CONFIG = Config("mx.example.com", starttls=True, auth=("PLAIN", "LOGIN"), auth_without_tls=True, xclient=True)
TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
OK = Reply(250, "OK")
GO = Reply(354, "go")
TLS_GO = Reply(220, "go")
CHALLENGE = Reply(334, "")
WELCOME = Reply(235, "welcome")

EHLO = b"EHLO client.example\r\n"
LHLO = b"LHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.com>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"
DATA = b"DATA\r\n"
STARTTLS = b"STARTTLS\r\n"
XCLIENT = b"XCLIENT NAME=spike.example ADDR=192.0.2.1\r\n"


def connect(octets: bytes = b"", *replies: Reply, config: Config = CONFIG) -> Connection:
    """Give a connection that was greeted, got these octets and answered with these replies."""
    connection = Connection(config)
    connection.next_event()
    connection.send(Reply(220, "mx.example.com"))
    if octets:
        connection.receive_data(octets)
    for reply in replies:
        while isinstance(connection.next_event(), Bdat | MailData):
            pass
        connection.send(reply)
    return connection


def standing(connection: Connection) -> tuple[State, int, bool]:
    """Tell the state, the replies that are due, and whether there is a transaction."""
    return connection.state, connection.replies_due, connection.envelope is not None


def refusal(connection: Connection) -> str:
    """Give the reply that the next event, a Rejected, is due, and send it."""
    event = connection.next_event()
    assert isinstance(event, Rejected)
    connection.send(event.reply)
    return f"{event.reply.code} {event.reply.status}"


def test_chunks() -> None:
    """A chunk needs no reply before its end; the last one ends the message and the transaction."""
    connection = connect(EHLO + MAIL + RCPT + b"BDAT 4\r\na\r\n.BDAT 2 LAST\r\n\r\n" + MAIL, OK, OK, OK)
    assert connection.next_event() == Bdat(4, is_last=False)
    assert (connection.state, connection.replies_due) == (State.CHUNK, 0)
    assert connection.next_event() == MailData(b"a\r\n.")
    assert connection.next_event() == EndOfChunk(4, None)
    assert connection.next_event() is Signal.PAUSED
    connection.send(OK)
    assert connection.state is State.CHUNKED
    assert connection.next_event() == Bdat(2, is_last=True)
    assert connection.next_event() == MailData(b"\r\n")
    assert connection.next_event() == EndOfMailData(6, None)
    assert standing(connection) == (State.CHUNK, 1, True)
    connection.send(OK)
    assert standing(connection) == (State.READY, 0, False)
    assert isinstance(connection.next_event(), Mail)


def test_binary_octets() -> None:
    """After BODY=BINARYMIME octets are passed on as they are, and a text transaction behind it is judged as text."""
    binary = MAIL.rstrip() + b" BODY=BINARYMIME\r\n"
    octets = EHLO + binary + RCPT + b"BDAT 2 LAST\r\n\n\0" + MAIL + RCPT + b"BDAT 2 LAST\r\n\n\0"
    connection = connect(octets, OK, OK, OK)
    assert isinstance(connection.next_event(), Bdat)
    assert [connection.next_event() for _ in range(2)] == [MailData(b"\n\0"), EndOfMailData(2, None)]
    for _ in range(3):
        connection.send(OK)
        connection.next_event()
    end = connection.next_event()
    assert isinstance(end, EndOfMailData)
    assert end.defect is not None


@pytest.mark.parametrize(
    ("before", "replies"),
    [
        (b"", []),
        (EHLO, [OK]),
        (EHLO + MAIL, [OK, OK]),
        (EHLO + MAIL + RCPT, [OK, OK, Reply(550, "no")]),
        (EHLO + MAIL + RCPT + b"BDAT 1\r\nx", [OK, OK, OK, Reply(452, "full")]),
    ],
    ids=["greeted", "ready", "mail", "no recipient", "refused chunk"],
)
def test_a_chunk_that_cannot_be_obeyed_is_swallowed(before: bytes, replies: list[Reply]) -> None:
    """Its octets are not taken for commands, and the 503 comes behind them (RFC 3030 section 2)."""
    connection = connect(before, *replies)
    connection.receive_data(b"BDAT 12\r\nQUIT\r\n")
    state = connection.state
    assert connection.next_event() is Signal.NEED_DATA
    assert not connection.pipelined
    connection.receive_data(b"QUIT\r\nNOOP\r\n")
    assert refusal(connection) == "503 5.5.1"
    assert connection.state is state
    assert connection.next_event() == Noop()


def test_an_endless_chunk_is_swallowed_in_no_memory() -> None:
    """Of octets that are swallowed none is kept; the end of input ends them, and so does 421."""
    for end in (False, True):
        connection = connect(EHLO + b"BDAT 99999999999999999999\r\n", OK)
        for _ in range(9):
            connection.receive_data(b"x" * 65536)
            assert connection.next_event() is Signal.NEED_DATA
            assert not connection.pipelined
        if end:
            connection.receive_data(b"")
        else:
            connection.send(Reply(421, "bye"))
        assert connection.next_event() == ConnectionClosed()


def test_a_chunk_without_octets_is_refused_at_once() -> None:
    """BDAT 0 has nothing to swallow."""
    assert refusal(connect(EHLO + b"BDAT 0 LAST\r\n", OK)) == "503 5.5.1"


def test_starttls_begins_anew() -> None:
    """After 220 the session is another one, which knows nothing of what was said in clear (RFC 3207 section 4.2)."""
    octets = EHLO + b"AUTH PLAIN AGEAYg==\r\n" + MAIL + RCPT + b"RSET\r\n"
    connection = connect(octets, OK)
    connection.next_event()
    connection.identify("anna")
    for reply in (WELCOME, OK, OK, OK):
        connection.send(reply)
        connection.next_event()
    connection.receive_data(STARTTLS)
    assert connection.next_event() == StartTls()
    assert connection.send(TLS_GO) == b"220 2.0.0 go\r\n"
    assert connection.state is State.TLS
    secured = connection.secured(TLS)
    assert (secured.state, secured.session, secured.envelope) == (State.GREETED, Session(tls=TLS), None)
    assert secured.session.is_secure
    secured.receive_data(MAIL + EHLO)
    assert refusal(secured) == "503 5.5.1"
    hello = secured.next_event()
    assert isinstance(hello, Hello)
    assert "REQUIRETLS" in hello.offers
    assert "STARTTLS" not in hello.offers


@pytest.mark.parametrize("behind", [b"NOOP\r\n", b"N", b"\r\n", b"\x16\x03\x01"])
def test_nothing_may_stand_behind_starttls(behind: bytes) -> None:
    """Octets that came with STARTTLS are never taken for ones that came inside TLS: there is no 220 then."""
    connection = connect(EHLO + STARTTLS + behind, OK)
    assert refusal(connection) == "503 5.5.1"
    assert connection.state is State.READY
    with pytest.raises(LocalProtocolError, match="READY"):
        connection.secured(TLS)


@pytest.mark.parametrize("is_answered", [False, True])
def test_octets_that_come_later_are_of_no_session(is_answered: bool) -> None:  # noqa: FBT001 - parametrized
    """What comes before the 220 is forgotten, what comes after it belongs to TLS."""
    connection = connect(EHLO + STARTTLS, OK)
    assert connection.next_event() == StartTls()
    if is_answered:
        connection.send(TLS_GO)
    connection.receive_data(EHLO + MAIL)
    if not is_answered:
        connection.send(TLS_GO)
    assert connection.next_event() is Signal.PAUSED
    connection.receive_data(b"")
    secured = connection.secured(TLS)
    assert not secured.pipelined
    assert secured.next_event() is Signal.NEED_DATA


def test_starttls_refused() -> None:
    """A 4yz or 5yz reply leaves the session in clear, and what it knows as it was."""
    connection = connect(EHLO + STARTTLS, OK, Reply(454, "not now"))
    assert (connection.state, connection.session.hello) == (State.READY, "client.example")
    connection.receive_data(MAIL)
    assert isinstance(connection.next_event(), Mail)


@pytest.mark.parametrize("octets", [STARTTLS, b"HELO client.example\r\n" + STARTTLS, EHLO + MAIL + STARTTLS])
def test_starttls_out_of_order(octets: bytes) -> None:
    """STARTTLS comes after EHLO, which announced it, and not in a transaction."""
    connection = connect(octets, *[OK] * (octets.count(b"\r\n") - 1))
    assert refusal(connection) == "503 5.5.1"


def test_no_second_starttls() -> None:
    """Inside TLS there is no STARTTLS, however TLS was begun (RFC 3207 section 4.2, RFC 8314 section 3.3)."""
    implicit = Connection(CONFIG, TLS)
    implicit.next_event()
    implicit.send(Reply(220, ""))
    for connection in (implicit, connect(EHLO + STARTTLS, OK, TLS_GO).secured(TLS)):
        connection.receive_data(EHLO + STARTTLS)
        assert isinstance(connection.next_event(), Hello)
        connection.send(OK)
        assert refusal(connection) == "503 5.5.1"


def authenticate(connection: Connection, identity: str = "anna") -> None:
    """Accept the open AUTH."""
    connection.identify(identity)
    connection.send(WELCOME)


def test_auth_with_an_initial_response() -> None:
    """An accepted client is known by the name it was given, until the end of the session, and says AUTH once."""
    connection = connect(EHLO + b"AUTH PLAIN AGEAYg==\r\n" + EHLO + b"AUTH PLAIN AGEAYg==\r\n", OK)
    assert connection.next_event() == Auth("PLAIN", b"\0a\0b")
    connection.identify("ben")
    authenticate(connection)
    assert (connection.state, connection.session.identity) == (State.READY, "anna")
    connection.next_event()
    connection.send(OK)
    assert connection.session == Session("client.example", is_extended=True, identity="anna")
    assert refusal(connection) == "503 5.5.1"


def test_auth_with_challenges() -> None:
    """334 asks for another response, as often as the mechanism needs."""
    connection = connect(EHLO + b"AUTH LOGIN\r\nYQ==\r\n\r\n", OK, CHALLENGE)
    assert connection.state is State.AUTH
    assert connection.next_event() == AuthResponse(b"a")
    assert connection.send(CHALLENGE) == b"334 \r\n"
    assert connection.next_event() == AuthResponse(b"")
    authenticate(connection)
    assert (connection.state, connection.session.identity) == (State.READY, "anna")


def test_auth_may_be_given_up() -> None:
    """``*`` ends the exchange: the client is nobody, and may try again (RFC 4954 section 4)."""
    connection = connect(EHLO + b"AUTH LOGIN\r\n*\r\nAUTH LOGIN\r\n", OK, CHALLENGE)
    assert connection.next_event() == AuthResponse(None)
    connection.send(Reply(501, "cancelled"))
    assert (connection.state, connection.session.identity) == (State.READY, None)
    assert connection.next_event() == Auth("LOGIN", None)


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"s&cret", "501 5.5.2"),
        (b"c2VjcmV0\x00", "500 5.5.2"),
        (b"A" * 12287, "500 5.5.6"),
        (b"A" * 99999, "500 5.5.6"),
        (b"\x16\x03\x01", "421 4.7.0"),
    ],
)
def test_a_bad_response_ends_the_exchange(line: bytes, reply: str) -> None:
    """No base64, no text, or too long: the next line is a command again, and none of it is kept for the log."""
    connection = connect(EHLO + b"AUTH LOGIN\r\n" + line + b"\r\nNOOP\r\n", OK, CHALLENGE)
    event = connection.next_event()
    assert isinstance(event, Rejected)
    assert (event.line, f"{event.reply.code} {event.reply.status}") == (b"", reply)
    connection.send(event.reply)
    if event.reply.code == 421:
        assert connection.state is State.CLOSED
    else:
        assert connection.state is State.READY
        assert connection.next_event() == Noop()


def test_the_longest_response() -> None:
    """12288 octets are room enough, the CRLF included (RFC 4954 section 4)."""
    octets = b"x" * (3 * 3071)
    response = base64.b64encode(octets).ljust(12286, b" ")
    connection = connect(EHLO + b"AUTH LOGIN\r\n" + response + b"\r\n", OK, CHALLENGE)
    assert connection.next_event() == AuthResponse(octets)
    longest = b"AUTH PLAIN " + base64.b64encode(b"x" * 9204)
    assert len(longest) == 12283
    connection = connect(EHLO + longest + b"  \r\n", OK)
    assert connection.next_event() == Auth("PLAIN", b"x" * 9204)


@pytest.mark.parametrize(
    "line",
    [
        *(b"AUTH PLAIN c2VjcmV0 c2VjcmV0", b"auth NTLM c2VjcmV0", b"AUTH PLAIN c2VjcmV0=", b" AUTH PLAIN c2VjcmV0"),
        *(
            b"AUTH PLAIN c2VjcmV0\x00",
            b"AUTH PLAIN " + b"c2VjcmV0" * 2000,
            b"AUTHPLAIN c2VjcmV0",
            b"AUTH\tPLAIN c2VjcmV0",
        ),
    ],
)
@pytest.mark.parametrize("before", [b"", EHLO])
def test_no_password_is_logged(before: bytes, line: bytes) -> None:
    """Of a refused AUTH nothing is kept behind its verb, wherever and why ever it was refused."""
    event = connect(before + line + b"\r\n", *[OK] * bool(before)).next_event()
    assert isinstance(event, Rejected)
    assert event.line.upper() == b"AUTH"


def test_an_accepted_client_has_an_identity() -> None:
    """A 2yz reply to AUTH needs a name; one that was given before a 334 or a refusal is void."""
    connection = connect(EHLO + b"AUTH LOGIN\r\nYQ==\r\nAUTH LOGIN\r\n", OK)
    connection.next_event()
    with pytest.raises(LocalProtocolError, match="identity"):
        connection.send(WELCOME)
    connection.identify("anna")
    connection.send(CHALLENGE)
    connection.next_event()
    with pytest.raises(LocalProtocolError, match="identity"):
        connection.send(WELCOME)
    connection.identify("anna")
    connection.send(Reply(535, "no"))
    assert connection.session.identity is None
    connection.next_event()
    with pytest.raises(LocalProtocolError, match="identity"):
        connection.send(WELCOME)
    assert connection.replies_due == 1


def test_only_auth_and_xclient_identify() -> None:
    """A name for a client that did not ask for one is our own fault."""
    connection = connect(EHLO, OK)
    with pytest.raises(LocalProtocolError):
        connection.identify("anna")
    connection.receive_data(b"NOOP\r\n")
    connection.next_event()
    with pytest.raises(LocalProtocolError):
        connection.identify("anna")


def priority_of(connection: Connection) -> int:
    """Begin a transaction with a priority and give the one that is granted."""
    connection.receive_data(MAIL.rstrip() + b" MT-PRIORITY=5\r\n")
    event = connection.next_event()
    assert isinstance(event, Mail)
    assert event.parameters.priority == 5
    connection.send(OK)
    assert connection.envelope is not None
    return connection.envelope.parameters.priority


def test_priority_is_for_those_who_may() -> None:
    """A client without AUTH that is not trusted is served at 0 (RFC 6710 section 4.1)."""
    assert priority_of(connect(EHLO, OK)) == 0
    assert priority_of(connect(EHLO, OK, config=replace(CONFIG, trusts_client=True))) == 5
    connection = connect(EHLO + b"AUTH PLAIN AGEAYg==\r\n", OK)
    connection.next_event()
    authenticate(connection)
    assert priority_of(connection) == 5


LMTP = Config("mx.example.com", dialect=Dialect.LMTP)


def test_lmtp_has_a_reply_for_each_recipient() -> None:
    """The end of a message is due one reply for each RCPT that was accepted (RFC 2033 section 4.2)."""
    octets = LHLO + MAIL + RCPT * 3 + DATA + b"a\r\n.\r\n" + MAIL
    connection = connect(octets, OK, OK, OK, Reply(550, "no"), OK, GO, config=LMTP)
    assert connection.session.dialect is Dialect.LMTP
    assert connection.next_event() == MailData(b"a\r\n")
    assert connection.next_event() == EndOfMailData(3, None)
    assert (connection.replies_due, connection.reply_spans) == (2, (1, 1))
    assert connection.send(OK) == b"250 2.0.0 OK\r\n"
    assert connection.next_event() is Signal.PAUSED
    assert standing(connection) == (State.DATA, 1, True)
    with pytest.raises(LocalProtocolError):
        connection.send(GO)
    connection.send(Reply(452, "full"))
    assert standing(connection) == (State.READY, 0, False)
    assert connection.reply_spans == ()
    assert isinstance(connection.next_event(), Mail)


def test_lmtp_refuses_a_message_as_often() -> None:
    """A defect is told to each recipient too, behind DATA as behind the last BDAT, and once for any other chunk."""
    start = LHLO + MAIL + RCPT * 3
    for rest, replies, due in (
        (DATA + b"\n\r\n.\r\n", [GO], 3),
        (b"BDAT 1 LAST\r\n\n", [], 3),
        (b"BDAT 1\r\n\n", [], 1),
        (b"BDAT 1\r\nxBDAT 0 LAST\r\n", [OK], 3),
    ):
        connection = connect(start + rest, *[OK] * 5, *replies, config=LMTP)
        event = connection.next_event()
        while isinstance(event, Bdat | MailData):
            event = connection.next_event()
        assert isinstance(event, EndOfMailData | EndOfChunk)
        assert due == connection.replies_due
        for _ in range(due):
            connection.send(event.defect or OK)
        assert connection.state is State.READY


def test_421_ends_the_replies() -> None:
    """In LMTP 421 may stand in the place of any reply, and no other follows it."""
    connection = connect(LHLO + MAIL + RCPT * 2 + DATA + b".\r\n", *[OK] * 4, GO, config=LMTP)
    connection.next_event()
    connection.send(OK)
    connection.send(Reply(421, "bye"))
    assert (connection.state, connection.replies_due) == (State.CLOSED, 0)


@pytest.mark.parametrize(("config", "hello", "spans"), [(CONFIG, EHLO, (4,)), (LMTP, LHLO, (1, 2, 1))])
def test_a_reply_speaks_for_all_that_a_recipient_was_redirected_to(
    config: Config, hello: bytes, spans: tuple[int, ...]
) -> None:
    """Reply and RCPT correspond one to one in LMTP, wherever policy sent the mail; in SMTP one reply is for all."""
    connection = connect(hello + MAIL + RCPT * 3 + DATA + b".\r\n", OK, OK, config=config)
    others = [ForwardPath(Mailbox(name, Domain("example.net"))) for name in "cd"]
    for paths in ([], others, []):
        assert isinstance(connection.next_event(), Rcpt)
        if paths:
            connection.redirect(paths)
        connection.send(OK)
    assert spans == connection.reply_spans
    assert connection.next_event() == Data()
    connection.send(GO)
    connection.next_event()
    assert len(spans) == connection.replies_due
    assert connection.envelope is not None
    assert sum(spans) == len(connection.envelope.recipients)


def test_xclient_begins_anew() -> None:
    """After 220 the client is to greet again, and is who it says (XCLIENT of Postfix).

    TLS stays around it, but the certificate is that of the client before: nobody may use it for EXTERNAL.
    """
    connection = connect(EHLO + STARTTLS, OK, TLS_GO).secured(replace(TLS, client_name="proxy.example"))
    connection.receive_data(EHLO + b"AUTH PLAIN AGEAYg==\r\n" + XCLIENT + XCLIENT + EHLO + MAIL)
    connection.next_event()
    connection.send(OK)
    connection.next_event()
    authenticate(connection, "proxy")
    assert connection.next_event() == Xclient((("NAME", "spike.example"), ("ADDR", "192.0.2.1")))
    connection.assume(Session(identity="anna"))
    assert connection.send(Reply(220, "mx.example.com ESMTP")) == b"220 mx.example.com ESMTP\r\n"
    assert (connection.state, connection.session) == (State.GREETED, Session(identity="anna", tls=TLS))
    assert isinstance(connection.next_event(), Xclient)
    connection.send(Reply(220, "mx.example.com ESMTP"))
    assert connection.session == Session(tls=TLS)
    assert isinstance(connection.next_event(), Hello)


def test_xclient_refused() -> None:
    """Whoever may not be the client that it says may be nobody: a client behind it is not taken for the one trusted."""
    connection = connect(EHLO + XCLIENT + EHLO + b"QUIT\r\n", OK)
    connection.next_event()
    connection.assume(Session(identity="anna"))
    connection.send(Reply(550, "no", EnhancedStatus(5, 7, 0)))
    assert (connection.state, connection.session) == (State.REFUSED, Session("client.example", is_extended=True))
    assert refusal(connection) == "503 5.5.1"
    assert connection.next_event() == Quit()


def test_xclient_leaves_nothing_of_the_proxy_to_the_client() -> None:
    """Neither what the proxy's certificate shows (RFC 4422 appendix A), nor its trust: STARTTLS gives none back."""
    config = replace(CONFIG, trusts_client=True, auth=("EXTERNAL", "PLAIN"))
    connection = connect(EHLO + XCLIENT + EHLO + STARTTLS, OK, TLS_GO, OK, TLS_GO, config=config)
    connection = connection.secured(TLS)
    connection.receive_data(EHLO + b"MAIL FROM:<> MT-PRIORITY=3\r\n")
    for _ in range(2):
        connection.next_event()
        connection.send(OK)
    assert connection.envelope is not None
    assert connection.envelope.parameters.priority == 0

    connection = Connection(config, replace(TLS, client_name="proxy.example"))
    connection.receive_data(EHLO + XCLIENT + EHLO)
    for reply in (TLS_GO, OK, TLS_GO):
        connection.next_event()
        connection.send(reply)
    hello = connection.next_event()
    assert isinstance(hello, Hello)
    assert "AUTH PLAIN" in hello.offers
    assert connection.session.tls == TLS


@pytest.mark.parametrize(
    "line",
    [
        b"BDAT",
        b"BDAT 999999999999999999999",
        b"bdat -1 LAST",
        b"BDAT 12 LAST 2",
        b"BDAT 12\tLAST",
        b"BDAT 12 LAST" + b" " * 600 + b"x",
        b"BDAT 12 " + b"x" * 20_000,
    ],
)
def test_a_chunk_of_unknown_size_ends_the_session(line: bytes) -> None:
    """What follows might be its octets: not one of them is taken for a command (RFC 3030 section 2)."""
    connection = connect(EHLO + MAIL + RCPT + line + b"\r\n" + MAIL, OK, OK, OK)
    assert refusal(connection) == "421 4.5.4"
    assert connection.next_event() == ConnectionClosed()


def test_xforward_tells_and_changes_nothing() -> None:
    """XFORWARD is for the record."""
    connection = connect(EHLO + b"XFORWARD NAME=spike.example IDENT=[UNAVAILABLE]\r\n", OK)
    assert connection.next_event() == Xforward((("NAME", "spike.example"), ("IDENT", None)))
    connection.send(OK)
    assert (connection.state, connection.session) == (State.READY, Session("client.example", is_extended=True))


@pytest.mark.parametrize("line", [XCLIENT, b"XFORWARD NAME=spike.example\r\n"])
def test_a_stranger_says_nothing_of_others(line: bytes) -> None:
    """Where the client is not trusted, the verbs are not known; in a transaction they are out of order."""
    assert refusal(connect(EHLO + line, OK, config=replace(CONFIG, xclient=False))) == "500 5.5.2"
    assert refusal(connect(EHLO + MAIL + line, OK, OK)) == "503 5.5.1"


def test_the_transactions_of_a_session_are_counted() -> None:
    """MAIL commands that were accepted count, from XCLIENT on anew (RFC 9422 section 4)."""
    limited = replace(CONFIG, max_transactions=2)
    transaction = MAIL + b"RSET\r\n"
    connection = connect(EHLO + transaction * 3, OK, Reply(451, ""), OK, OK, OK, OK, OK, config=limited)
    connection.receive_data(MAIL + EHLO + MAIL + XCLIENT + EHLO + MAIL)
    assert refusal(connection) == "452 4.5.3"
    connection.next_event()
    connection.send(OK)
    assert refusal(connection) == "452 4.5.3"
    for reply in (Reply(220, ""), OK):
        connection.next_event()
        connection.send(reply)
    assert isinstance(connection.next_event(), Mail)


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_another_protocol_is_hung_up_on(line: bytes) -> None:
    """Its first line is the last that is read."""
    connection = connect(line + MAIL)
    assert refusal(connection) == "421 4.7.0"
    assert (connection.state, connection.pipelined) == (State.CLOSED, False)
    assert connection.next_event() == ConnectionClosed()


def test_what_is_demanded() -> None:
    """Until there is TLS, or an identity, what is asked for is 530; a chunk is swallowed all the same."""
    strict = replace(CONFIG, requires_tls=True, requires_auth=True)
    connection = connect(EHLO + MAIL + b"BDAT 6\r\nNOOP\r\nAUTH PLAIN AGEAYg==\r\n" + STARTTLS, OK, config=strict)
    assert [refusal(connection) for _ in range(3)] == ["530 5.7.0", "503 5.5.1", "530 5.7.0"]
    assert connection.next_event() == StartTls()
    connection.send(TLS_GO)
    secured = connection.secured(TLS)
    secured.receive_data(EHLO + MAIL + b"AUTH PLAIN AGEAYg==\r\n" + MAIL)
    secured.next_event()
    secured.send(OK)
    assert refusal(secured) == "530 5.7.0"
    secured.next_event()
    authenticate(secured)
    assert isinstance(secured.next_event(), Mail)
