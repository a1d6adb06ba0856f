"""Fuzz the protocol core: any octets, in any reads, with any replies, from any state.

The oracle: `next_event` never raises; between reads no more than a line is in memory; and the same octets, fed one
by one, give the same events and the same replies. `python fuzz/fuzz_connection.py fuzz/corpus/connection` runs it
with atheris; tests/test_fuzz_corpus.py replays the corpus without.

An input is four parts: one octet chooses the state to start in, one the size of the reads, one says how many
octets follow that choose the replies; the rest is what the client sends.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterable

from smtprecv.protocol import (
    Config,
    Connected,
    Connection,
    ConnectionClosed,
    Data,
    EndOfMailData,
    Event,
    MailData,
    Quit,
    Rejected,
    Reply,
    Signal,
)
from smtprecv.protocol._commands import MAX_LINE_SIZE

CONFIG = Config("mx.example.com", max_hops=3)
# Lower than a Config may have it, so that a small input can be too big.
object.__setattr__(CONFIG, "max_message_size", 1024)

OPENING = (
    b"EHLO client.example\r\n",
    b"MAIL FROM:<a@example.com>\r\n",
    b"RCPT TO:<b@example.org>\r\n",
    b"DATA\r\n",
)
"""What the client has said before: the first octet of an input chooses how much of it."""

ACCEPT = 0
CHOICES = (ACCEPT, ACCEPT, ACCEPT, 451, 550, ACCEPT, ACCEPT, 421)
"""What an octet of the reply part chooses."""

Transcript = list[Event | bytes]


def answer(event: Event, choice: int) -> Reply:
    """Answer an event so that it is accepted, or with the code of ``choice``."""
    match event:
        case Rejected(_, reply) | EndOfMailData(_, Reply() as reply):
            return reply
        case _ if choice:
            return Reply(choice, "")
        case Connected():
            return Reply(220, "mx.example.com")
        case Data():
            return Reply(354, "")
        case Quit():
            return Reply(221, "")
        case _:
            return Reply(250, "")


def drive(pieces: Iterable[bytes], choices: Iterable[int] = ()) -> Transcript:
    """Run a session over these reads; give its events and its octets, the pieces of each message put together."""
    connection = Connection(CONFIG)
    chosen = itertools.chain(choices, itertools.repeat(ACCEPT))
    waiting = iter(pieces)
    transcript: Transcript = []
    message = b""
    while True:
        event = connection.next_event()
        if event is Signal.NEED_DATA:
            assert len(connection._buffer) <= MAX_LINE_SIZE
            connection.receive_data(next(waiting, b""))
            continue
        assert not isinstance(event, Signal)
        if isinstance(event, MailData):
            message += event.octets
            continue
        if isinstance(event, EndOfMailData) and event.defect is None:
            assert event.size == len(message)
            transcript.append(MailData(message))
        # How much comes of a message that has a defect, or has no end, depends on the reads.
        message = b""
        transcript.append(event)
        if isinstance(event, ConnectionClosed):
            return transcript
        transcript.append(connection.send(answer(event, next(chosen))))


def cut(octets: bytes, size: int) -> list[bytes]:
    """Cut a stream into reads."""
    return [octets[start : start + size] for start in range(0, len(octets), size)]


def check(data: bytes) -> None:
    """Hold one input to the oracle."""
    start, size, count, *_ = (*data[:3], 0, 0, 0)
    accepted = b"".join(OPENING[: start % (len(OPENING) + 1)])
    choices = [CHOICES[octet % len(CHOICES)] for octet in data[3 : 3 + count]]
    # The greeting and the opening are accepted.
    replies = [ACCEPT] * (1 + accepted.count(b"\r\n")) + choices
    octets = accepted + data[3 + count :]
    assert drive(cut(octets, size + 1), replies) == drive(cut(octets, 1), replies)


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
