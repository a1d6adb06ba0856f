"""What holds for any input: the reads do not matter, nothing raises, memory is bounded, and a naive model agrees."""

from __future__ import annotations

import tracemalloc

import pytest
from fuzz.fuzz_connection import (
    ACCEPT,
    CHOICES,
    CONFIGS,
    HELLO,
    IN_LMTP,
    IN_TLS,
    OPENINGS,
    TLS,
    UNGREETED,
    answer,
    cut,
    drive,
    opened,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from smtprecv.protocol import (
    Auth,
    AuthResponse,
    Bdat,
    Connection,
    ConnectionClosed,
    Dialect,
    EndOfChunk,
    EndOfMailData,
    Event,
    MailData,
    Rejected,
    Reply,
    Signal,
    State,
)

COMMANDS = (
    *HELLO.values(),
    *OPENINGS,
    b"HELO a.example\r\n",
    b"MAIL FROM:<a@example.com> SIZE=65537\r\n",
    b"MAIL FROM:<> RET=HDRS ENVID=a+2B BY=9;NT MT-PRIORITY=-9 REQUIRETLS AUTH=<>\r\n",
    b'RCPT TO:<"a b"@[IPv6:2001:db8::1]>\r\n',
    b"RCPT TO:<c@example.org> NOTIFY=NEVER ORCPT=rfc822;c@example.org\r\n",
    "RCPT TO:<\u00fc@example.org>\r\n".encode(),
    b"STARTTLS\r\n",
    b"STARTTLS\r\n\0",
    b"AUTH PLAIN =\r\n",
    b"*\r\n",
    b"AGEAYg==\r\n",
    b"BDAT 3\r\n",
    b"BDAT 5 LAST\r\n",
    b"XCLIENT NAME=[UNAVAILABLE] LOGIN=a\r\n",
    b"XFORWARD NAME=a\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"VRFY a\r\n",
    b"QUIT\r\n",
    b"GET / HTTP/1.1\r\n",
    b"\r\n",
    b"BAD\r\n",
    b"x" * 600,
)
TEXT = (b".", b"\r\n", b"\r", b"\n", b"\r\n.\r\n", b"..", b"text", b"Received: x\r\n" * 4, b"\x00", b"\xff")

streams = st.lists(st.sampled_from(COMMANDS + TEXT) | st.binary(max_size=8)).map(b"".join)
choices = st.lists(st.sampled_from(CHOICES), max_size=8)
starts = st.builds(
    lambda index, *flags: index + sum(flags),
    st.integers(0, len(OPENINGS) - 1),
    *(st.sampled_from([0, flag]) for flag in (UNGREETED, IN_LMTP, IN_TLS)),
)


@given(starts, streams, choices, st.integers(1, 40))
def test_the_reads_do_not_matter(start: int, stream: bytes, replies: list[int], size: int) -> None:
    """Any cutting of the input gives the same events and the same octets, from every state."""
    whole = drive(opened(start), cut(stream, len(stream) + 1), replies)
    assert whole == drive(opened(start), cut(stream, size), replies)
    assert whole == drive(opened(start), cut(stream, 1), replies)


@given(st.lists(st.binary(min_size=1, max_size=2000)), starts, choices)
def test_garbage_never_raises(pieces: list[bytes], start: int, replies: list[int]) -> None:
    """Whatever comes in, the session goes on to its end."""
    *_, last = drive(opened(start), pieces, replies)
    assert last == ConnectionClosed() or isinstance(last, bytes)


ENDLESS = {
    "line": (1, b"x" * 65536),
    "line of CR": (1, b"\r" * 65536),
    "refused commands": (1, b"BAD\r\n" * 300),
    "foreign octets": (1, b"\x00" * 300),
    "header": (4, b"Received: x\r\n" * 5041),
    "body": (4, b"\r\n" + b"x" * 76 + b"\r\n" * 840),
    "line of a body": (4, b"x" * 65536),
    "dots": (4, b"." * 65536),
    "bare LF": (4, b"\n" * 65536),
    "response": (5, b"A" * 65536),
    "refused responses": (5, b"?\r\nAUTH PLAIN\r\n" * 300),
    "chunks": (7, (b"BDAT 1024\r\n" + b"x" * 1024) * 63),
    "chunks of CR": (7, b"BDAT 1\r\n\r" * 700),
    "swallowed chunk": (1, b"BDAT 65516\r\n" + b"x" * 65516),
    "parameters": (1, b"MAIL FROM:<> " + b"X" * 12200 + b"\r\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("start", "piece"), ENDLESS.values(), ids=ENDLESS)
def test_memory_is_bounded(start: int, piece: bytes) -> None:
    """However long a line, a header or a message goes on, no more than a few reads are in memory."""
    connection = opened(start)

    def exhaust() -> None:
        while not isinstance(event := connection.next_event(), Signal):
            if not isinstance(event, MailData | Bdat):
                reply = answer(event, ACCEPT)
                # Not 421: the session is to go on, however the client talks.
                connection.send(Reply(500, "") if reply.code == 421 else reply)

    exhaust()
    tracemalloc.start()
    try:
        for _ in range(32):
            connection.receive_data(piece)
            exhaust()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 65536
    # The interpreter itself keeps up to 2000 small tuples for later, about 96 KiB.
    assert kept < 2 * 65536


MAX_TRANSACTIONS = CONFIGS[Dialect.SMTP].max_transactions


class Naive(RuleBasedStateMachine):
    """A session beside the simplest model of one: a few variables, and RFC 5321 section 4.1.4 in words."""

    def __init__(self) -> None:
        """Greet the client."""
        super().__init__()
        self.connection = Connection(CONFIGS[Dialect.SMTP])
        self.connection.next_event()
        self.connection.send(Reply(220, ""))
        self.has_helo = False
        self.is_extended = False
        self.is_secure = False
        self.identity: str | None = None
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.chunks = 0
        self.transactions = 0
        self.is_closed = False

    def say(self, line: str, code: int, *, is_legal: bool, refusal: int = 503) -> bool:
        """Say a line and answer it with ``code``; tell if it was legal and accepted."""
        if self.is_closed:
            return False
        self.connection.receive_data(line.encode() + b"\r\n")
        event = self.connection.next_event()
        assert not isinstance(event, Signal | MailData)
        assert is_legal == (not isinstance(event, Rejected))
        reply = event.reply if isinstance(event, Rejected) else Reply(code, "")
        assert is_legal or reply.code == refusal
        if isinstance(event, Auth) and code < 300:
            self.connection.identify("anna")
        self.connection.send(reply)
        return is_legal and code < 400

    def forget(self) -> None:
        """End the transaction."""
        self.sender = None
        self.recipients = []
        self.chunks = 0

    @rule(verb=st.sampled_from(["HELO", "EHLO"]), code=st.sampled_from([250, 550]))
    def hello(self, verb: str, code: int) -> None:
        """Greet, which is legal at any time and ends the transaction."""
        if self.say(f"{verb} a.example", code, is_legal=True):
            self.has_helo = True
            self.is_extended = verb == "EHLO"
            self.forget()

    @rule(sender=st.sampled_from(["", "a@example.com"]), code=st.sampled_from([250, 250, 451]))
    def mail(self, sender: str, code: int) -> None:
        """Begin a transaction, which is legal after HELO when there is none."""
        is_in_order = self.has_helo and self.sender is None
        is_limited = self.transactions == MAX_TRANSACTIONS
        refusal = 452 if is_in_order and is_limited else 503
        if self.say(f"MAIL FROM:<{sender}>", code, is_legal=is_in_order and not is_limited, refusal=refusal):
            self.sender = sender
            self.transactions += 1

    @rule(recipient=st.sampled_from(["b@example.org", "c@example.org"]), code=st.sampled_from([250, 250, 550]))
    def rcpt(self, recipient: str, code: int) -> None:
        """Name a recipient, which is legal in a transaction."""
        is_legal = self.sender is not None and not self.chunks
        if self.say(f"RCPT TO:<{recipient}>", code, is_legal=is_legal):
            self.recipients.append(recipient)

    @rule(
        text=st.sampled_from(["", "a\r\n", "..\r\n"]),
        go_ahead=st.sampled_from([354, 451]),
        code=st.sampled_from([250, 451]),
    )
    def data(self, text: str, go_ahead: int, code: int) -> None:
        """Send a message, which is legal when there is a recipient, and ends the transaction in either way."""
        if not self.say("DATA", go_ahead, is_legal=bool(self.recipients) and not self.chunks):
            return
        self.connection.receive_data(f"{text}.\r\n".encode())
        event: Event | Signal = self.connection.next_event()
        while isinstance(event, MailData):
            event = self.connection.next_event()
        assert isinstance(event, EndOfMailData)
        self.connection.send(Reply(code, ""))
        self.forget()

    @rule(text=st.sampled_from(["", "a\r\n", "QUIT\r\n"]), is_last=st.booleans(), code=st.sampled_from([250, 250, 451]))
    def bdat(self, text: str, code: int, *, is_last: bool) -> None:
        """Send a chunk, which is legal when there is a recipient, and is never taken for a command."""
        if self.is_closed:
            return
        self.connection.receive_data(f"BDAT {len(text)}{' LAST' * is_last}\r\n{text}".encode())
        event = self.connection.next_event()
        assert isinstance(event, Bdat if self.recipients else Rejected)
        while isinstance(event, Bdat | MailData):
            event = self.connection.next_event()
        assert isinstance(event, EndOfMailData | EndOfChunk | Rejected)
        self.connection.send(event.reply if isinstance(event, Rejected) else Reply(code, ""))
        if self.recipients and code < 400 and not is_last:
            self.chunks += 1
        elif self.recipients:
            self.forget()

    @rule(code=st.sampled_from([220, 454]))
    def starttls(self, code: int) -> None:
        """Begin TLS, which is legal once, after EHLO and outside of a transaction, and makes all else forgotten."""
        is_legal = self.is_extended and not self.is_secure and self.sender is None
        if self.say("STARTTLS", code, is_legal=is_legal):
            self.connection = self.connection.secured(TLS)
            self.begin()
            self.is_secure = True

    @rule(go_ahead=st.sampled_from([235, 334, 535]), response=st.sampled_from(["*", "YQ==", "?"]))
    def auth(self, go_ahead: int, response: str) -> None:
        """Say who the client is, which is legal once, after EHLO and outside of a transaction."""
        is_legal = self.is_extended and self.identity is None and self.sender is None
        if not self.say("AUTH PLAIN", go_ahead, is_legal=is_legal):
            return
        if go_ahead == 334:
            self.connection.receive_data(f"{response}\r\n".encode())
            event = self.connection.next_event()
            assert isinstance(event, Rejected if response == "?" else AuthResponse)
            if response == "YQ==":
                self.connection.identify("anna")
            self.connection.send(Reply(235 if response == "YQ==" else 501, ""))
        if go_ahead == 235 or response == "YQ==":
            self.identity = "anna"

    @rule(code=st.sampled_from([220, 550]))
    def xclient(self, code: int) -> None:
        """Be another client, which is legal at any time but in a transaction; whoever may not be can only leave."""
        is_legal = self.sender is None
        if self.say("XCLIENT NAME=spike.example", code, is_legal=is_legal):
            self.begin()
        elif is_legal:
            self.say("EHLO a.example", 250, is_legal=False)
            self.quit(221)

    def begin(self) -> None:
        """Begin a session anew."""
        self.has_helo = self.is_extended = False
        self.identity = None
        self.transactions = 0
        self.forget()

    @rule(code=st.sampled_from([250, 451]))
    def rset(self, code: int) -> None:
        """End the transaction, which is legal at any time."""
        if self.say("RSET", code, is_legal=True):
            self.forget()

    @rule(line=st.sampled_from(["NOOP", "HELP", "VRFY a", "EXPN a"]), code=st.sampled_from([250, 451]))
    def chat(self, line: str, code: int) -> None:
        """Say what changes nothing and is legal at any time."""
        self.say(line, code, is_legal=True)

    @rule(code=st.sampled_from([221, 421]))
    def quit(self, code: int) -> None:
        """Leave."""
        self.say("QUIT", code, is_legal=True)
        self.is_closed = True
        self.forget()

    @invariant()
    def agrees(self) -> None:
        """The session knows what the model knows."""
        envelope = self.connection.envelope
        assert self.is_closed == (self.connection.state is State.CLOSED)
        assert self.sender == (None if envelope is None else str(envelope.reverse_path))
        assert self.recipients == ([] if envelope is None else [str(recipient) for recipient in envelope.recipients])
        assert self.is_closed or self.has_helo == (self.connection.session.hello is not None)


TestNaive = pytest.mark.slow(Naive.TestCase)
