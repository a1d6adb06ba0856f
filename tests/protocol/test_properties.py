"""What holds for any input: the reads do not matter, nothing raises, memory is bounded, and a naive model agrees."""

from __future__ import annotations

import tracemalloc

import pytest
from fuzz.fuzz_connection import CHOICES, CONFIG, OPENING, answer, cut, drive
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from smtprecv.protocol import (
    Connection,
    ConnectionClosed,
    EndOfMailData,
    Event,
    MailData,
    Rejected,
    Reply,
    Signal,
    State,
)

COMMANDS = (
    *OPENING,
    b"HELO a.example\r\n",
    b"MAIL FROM:<a@example.com> SIZE=65537\r\n",
    b'RCPT TO:<"a b"@[IPv6:2001:db8::1]>\r\n',
    "RCPT TO:<ü@example.org>\r\n".encode(),
    b"RSET\r\n",
    b"NOOP\r\n",
    b"VRFY a\r\n",
    b"QUIT\r\n",
    b"\r\n",
    b"BAD\r\n",
    b"x" * 600,
)
TEXT = (b".", b"\r\n", b"\r", b"\n", b"\r\n.\r\n", b"..", b"text", b"Received: x\r\n" * 4, b"\x00", b"\xff")

streams = st.lists(st.sampled_from(COMMANDS + TEXT) | st.binary(max_size=8)).map(b"".join)
choices = st.lists(st.sampled_from(CHOICES), max_size=8)
openings = st.integers(0, len(OPENING)).map(lambda count: b"".join(OPENING[:count]))


@given(openings, streams, choices, st.lists(st.integers(1, 40), min_size=1))
def test_the_reads_do_not_matter(opening: bytes, stream: bytes, replies: list[int], sizes: list[int]) -> None:
    """Any cutting of the input gives the same events and the same octets."""
    octets = opening + stream
    pieces: list[bytes] = []
    for size in sizes:
        pieces.append(octets[:size])
        octets = octets[size:]
    pieces = [piece for piece in (*pieces, octets) if piece]
    whole = drive([opening + stream] if opening + stream else [], replies)
    assert whole == drive(pieces, replies)
    assert whole == drive(cut(opening + stream, 1), replies)


@given(st.lists(st.binary(min_size=1, max_size=2000)), openings, choices)
def test_garbage_never_raises(pieces: list[bytes], opening: bytes, replies: list[int]) -> None:
    """Whatever comes in, the session goes on to its end."""
    *_, last = drive([opening, *pieces] if opening else pieces, replies)
    assert last == ConnectionClosed()


ENDLESS = {
    "line": (1, b"x" * 65536),
    "line of CR": (1, b"\r" * 65536),
    "refused commands": (1, b"BAD\r\n" * 300),
    "header": (4, b"Received: x\r\n" * 5041),
    "body": (4, b"\r\n" + b"x" * 76 + b"\r\n" * 840),
    "line of a body": (4, b"x" * 65536),
    "dots": (4, b"." * 65536),
    "bare LF": (4, b"\n" * 65536),
}


@pytest.mark.slow
@pytest.mark.parametrize(("count", "piece"), ENDLESS.values(), ids=ENDLESS)
def test_memory_is_bounded(count: int, piece: bytes) -> None:
    """However long a line, a header or a message goes on, no more than a few reads are in memory."""
    connection = Connection(CONFIG)
    connection.receive_data(b"".join(OPENING[:count]))

    def exhaust() -> None:
        while not isinstance(event := connection.next_event(), Signal):
            if not isinstance(event, MailData):
                connection.send(answer(event, 0))

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
    assert kept < 8192


class Naive(RuleBasedStateMachine):
    """A session beside the simplest model of one: a few variables, and RFC 5321 section 4.1.4 in words."""

    def __init__(self) -> None:
        """Greet the client."""
        super().__init__()
        self.connection = Connection(CONFIG)
        self.connection.next_event()
        self.connection.send(Reply(220, ""))
        self.has_helo = False
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.is_closed = False

    def say(self, line: str, code: int, *, is_legal: bool) -> bool:
        """Say a line and answer it with ``code``; tell if it was legal and accepted."""
        if self.is_closed:
            return False
        self.connection.receive_data(line.encode() + b"\r\n")
        event = self.connection.next_event()
        assert not isinstance(event, Signal | MailData)
        assert is_legal == (not isinstance(event, Rejected))
        reply = event.reply if isinstance(event, Rejected) else Reply(code, "")
        assert is_legal or reply.code == 503
        self.connection.send(reply)
        return is_legal and code < 400

    def forget(self) -> None:
        """End the transaction."""
        self.sender = None
        self.recipients = []

    @rule(verb=st.sampled_from(["HELO", "EHLO"]), code=st.sampled_from([250, 550]))
    def hello(self, verb: str, code: int) -> None:
        """Greet, which is legal at any time and ends the transaction."""
        if self.say(f"{verb} a.example", code, is_legal=True):
            self.has_helo = True
            self.forget()

    @rule(sender=st.sampled_from(["", "a@example.com"]), code=st.sampled_from([250, 250, 451]))
    def mail(self, sender: str, code: int) -> None:
        """Begin a transaction, which is legal after HELO when there is none."""
        if self.say(f"MAIL FROM:<{sender}>", code, is_legal=self.has_helo and self.sender is None):
            self.sender = sender

    @rule(recipient=st.sampled_from(["b@example.org", "c@example.org"]), code=st.sampled_from([250, 250, 550]))
    def rcpt(self, recipient: str, code: int) -> None:
        """Name a recipient, which is legal in a transaction."""
        if self.say(f"RCPT TO:<{recipient}>", code, is_legal=self.sender is not None):
            self.recipients.append(recipient)

    @rule(
        text=st.sampled_from(["", "a\r\n", "..\r\n"]),
        go_ahead=st.sampled_from([354, 451]),
        code=st.sampled_from([250, 451]),
    )
    def data(self, text: str, go_ahead: int, code: int) -> None:
        """Send a message, which is legal when there is a recipient, and ends the transaction in either way."""
        if not self.say("DATA", go_ahead, is_legal=bool(self.recipients)):
            return
        self.connection.receive_data(f"{text}.\r\n".encode())
        event: Event | Signal = self.connection.next_event()
        while isinstance(event, MailData):
            event = self.connection.next_event()
        assert isinstance(event, EndOfMailData)
        self.connection.send(Reply(code, ""))
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
