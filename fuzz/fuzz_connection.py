"""Fuzz the protocol core: any octets, in any reads, with any replies, from any state, with every extension on.

The oracle: `next_event` never raises; between reads no more than a line is in memory; the octets that go out are
those of the replies that were put in, and of no other; and the same octets, fed one by one, give the same events
and the same replies. `python fuzz/fuzz_connection.py fuzz/corpus/connection` runs it with atheris;
tests/test_fuzz_corpus.py replays the corpus without.

An input is four parts: one octet chooses the state to start in, the dialect and whether there is TLS, one the size of
the reads, one says how many octets follow that choose the replies; the rest is what the client sends. Behind STARTTLS
a NUL, which is not sent, lets the client wait for the reply; any other octet comes in one read with it, as an
attacker's would.
"""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from collections.abc import Iterable, Iterator

from smtprecv.protocol import (
    Auth,
    AuthResponse,
    Config,
    Connected,
    Connection,
    ConnectionClosed,
    Data,
    Dialect,
    EndOfChunk,
    EndOfMailData,
    EnhancedStatus,
    Event,
    Hello,
    Mail,
    MailData,
    Quit,
    Rejected,
    Reply,
    Session,
    Signal,
    StartTls,
    State,
    Tls,
    Xclient,
)
from smtprecv.protocol._commands import MAX_LINE_SIZE


def _config(dialect: Dialect) -> Config:
    config = Config(
        "mx.example.com",
        max_hops=3,
        max_transactions=9,
        dialect=dialect,
        starttls=True,
        auth=("PLAIN", "EXTERNAL"),
        auth_without_tls=True,
        xclient=True,
    )
    # Lower than a Config may have it, so that a small input can be too big.
    object.__setattr__(config, "max_message_size", 1024)
    return config


CONFIGS = {dialect: _config(dialect) for dialect in Dialect}
TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "client.example")

HELLO = {Dialect.SMTP: b"EHLO client.example\r\n", Dialect.LMTP: b"LHLO client.example\r\n"}
MAIL = b"MAIL FROM:<a@example.com>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"
OPENINGS = (
    b"",
    b"",
    MAIL,
    MAIL + RCPT,
    MAIL + RCPT + b"DATA\r\n",
    b"AUTH PLAIN\r\n",
    MAIL + RCPT + b"BDAT 9\r\na\r",
    MAIL + RCPT + b"BDAT 2\r\na\r",
    MAIL + RCPT * 2 + b"BDAT 12 LAST\r\n",
    b"BDAT 9\r\na\r",
    MAIL.rstrip() + b" BODY=BINARYMIME\r\n" + RCPT,
)
"""What the client has said before, behind its greeting but for the first: the last four bits choose it."""
UNGREETED, IN_LMTP, IN_TLS = 0x20, 0x40, 0x80

ACCEPT = 0
CHALLENGE = 334
CHOICES = (ACCEPT, ACCEPT, ACCEPT, 451, 550, CHALLENGE, ACCEPT, 421)
"""What an octet of the reply part chooses."""

_STARTTLS = re.compile(rb"STARTTLS[ \t]*\r\n", re.IGNORECASE)
_WAIT = re.compile(rb"(?<=STARTTLS\r\n)\0", re.IGNORECASE)

Transcript = list[Event | bytes]


def answer(event: Event, choice: int) -> Reply:
    """Answer an event so that it is accepted, or with the code of ``choice``."""
    match event:
        case Rejected(_, reply) | EndOfMailData(_, Reply() as reply) | EndOfChunk(_, Reply() as reply):
            return reply
        case AuthResponse(None):
            return Reply(501, "")
        case Auth() | AuthResponse() if choice == CHALLENGE:
            return Reply(334, "")
        case _ if choice not in {ACCEPT, CHALLENGE}:
            return Reply(choice, "")
        case Connected() | StartTls() | Xclient():
            return Reply(220, "mx.example.com")
        case Auth(_, None):
            return Reply(334, "")
        case Auth() | AuthResponse():
            return Reply(235, "")
        case Data():
            return Reply(354, "")
        case Quit():
            return Reply(221, "")
        case _:
            return Reply(250, "")


def told(connection: Connection, event: Event, reply: Reply) -> bytes:
    """Send a reply, and see that nothing else goes out."""
    has_status = reply.status is not None or not connection.session.is_extended or isinstance(event, Hello | Xclient)
    if not has_status and reply.code // 100 != 3:
        expected = bytes(Reply(reply.code, reply.text, EnhancedStatus(reply.code // 100, 0, 0)))
    else:
        expected = bytes(reply)
    if reply.is_ok and isinstance(event, Auth | AuthResponse):
        connection.identify("anna")
    octets = connection.send(reply)
    assert octets == expected
    return octets


def exhaust(connection: Connection, chosen: Iterator[int], transcript: Transcript) -> Connection:
    """Take all events that there are, and answer them; give the connection with which the session goes on."""
    while True:
        event = connection.next_event()
        if isinstance(event, Signal):
            assert event is Signal.NEED_DATA
            assert len(connection._buffer) <= MAX_LINE_SIZE
            return connection
        transcript.append(event)
        if isinstance(event, ConnectionClosed):
            return connection
        while connection.replies_due:
            transcript.append(told(connection, event, answer(event, next(chosen))))
        if connection.state is State.TLS:
            dialect = connection.session.dialect
            connection = connection.secured(TLS)
            assert (connection.session, connection.envelope) == (Session(tls=TLS, dialect=dialect), None)


def opened(start: int) -> Connection:
    """Give a connection with which the client has said this before, and was accepted."""
    dialect = Dialect.LMTP if start & IN_LMTP else Dialect.SMTP
    hello = HELLO[dialect]
    index = (start & 0x0F) % len(OPENINGS)
    if start & UNGREETED:
        return Connection(CONFIGS[dialect], TLS if start & IN_TLS else None)
    connection = exhaust(Connection(CONFIGS[dialect]), itertools.repeat(ACCEPT), [])
    for octets in (hello + b"STARTTLS\r\n" if start & IN_TLS else b"", hello if index else b"", OPENINGS[index]):
        if octets:
            connection.receive_data(octets)
            choice = CHALLENGE if octets.startswith(b"AUTH") else ACCEPT
            connection = exhaust(connection, itertools.repeat(choice), [])
    return connection


def drive(connection: Connection, reads: Iterable[bytes], choices: Iterable[int] = ()) -> Transcript:
    """Go on with these reads to the end of the session; give its events and its octets, the pieces put together."""
    chosen = itertools.chain(choices, itertools.repeat(ACCEPT))
    transcript: Transcript = []
    for octets in (*reads, b""):
        connection.receive_data(octets)
        connection = exhaust(connection, chosen, transcript)
        if connection.state is State.CLOSED:
            break
    return list(_merged(transcript))


def _merged(transcript: Transcript) -> Iterator[Event | bytes]:
    """Put the pieces of each message together.

    How much comes of a message that has a defect, or has no end, depends on the reads; and the start of
    this one may have come before.
    """
    message = b""
    is_whole = False
    for event in transcript:
        match event:
            case MailData(octets):
                message += octets
                continue
            case EndOfMailData(size, None):
                assert not is_whole or size == len(message)
                yield MailData(message)
                message = b""
            case Mail() | EndOfMailData():
                message, is_whole = b"", True
            case _:
                pass
        yield event


def cut(octets: bytes, size: int) -> list[bytes]:
    """Cut what the client sends into reads: where it waits, and every so many octets, but never behind STARTTLS."""
    reads: list[bytes] = []
    for flight in _WAIT.split(octets):
        together = {match.end() for match in _STARTTLS.finditer(flight)}
        ends = [end for end in range(size, len(flight), size) if end not in together]
        reads += [flight[start:end] for start, end in itertools.pairwise([0, *ends, len(flight)])]
    return [read for read in reads if read]


def check(data: bytes) -> None:
    """Hold one input to the oracle."""
    start, size, count, *_ = (*data[:3], 0, 0, 0)
    choices = [CHOICES[octet % len(CHOICES)] for octet in data[3 : 3 + count]]
    octets = data[3 + count :]
    assert drive(opened(start), cut(octets, size + 1), choices) == drive(opened(start), cut(octets, 1), choices)


def main() -> None:
    """Run under atheris, with libFuzzer's arguments."""
    import atheris  # noqa: PLC0415 - the tests replay the corpus where atheris is not installed

    # What is imported above is not instrumented: import it again, so that it is.
    for name in [name for name in sys.modules if name.startswith("smtprecv.")]:
        del sys.modules[name]
    with atheris.instrument_imports(include=["smtprecv"]):
        target = importlib.import_module("fuzz_connection")
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
