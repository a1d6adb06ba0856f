"""Command lines are cut at CRLF and nowhere else, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from smtprecv.protocol import Rejected
from smtprecv.protocol._buffer import LineReader
from smtprecv.protocol._refusal import BAD_OCTETS, LINE_TOO_LONG, NOT_SMTP

MAX = 600

Line = bytes | Rejected


def read(pieces: Iterable[bytes]) -> list[Line]:
    """Read all lines of a stream that comes in these pieces."""
    buffer = bytearray()
    reader = LineReader(buffer, MAX)
    lines: list[Line] = []
    for piece in pieces:
        buffer += piece
        while (line := reader.next_line()) is not None:
            lines.append(line)
        assert len(buffer) < MAX
    return lines


STREAMS: dict[bytes, list[Line]] = {
    b"": [],
    b"QUIT": [],
    b"QUIT\r": [],
    b"\r\n": [b""],
    b"NOOP\r\nQUIT\r\nRS": [b"NOOP", b"QUIT"],
    b"NOOP\nQUIT\r\n": [Rejected(b"NOOP\nQUIT", BAD_OCTETS)],
    b"NOOP\rQUIT\r\n": [Rejected(b"NOOP\rQUIT", BAD_OCTETS)],
    b"\n\r\n": [Rejected(b"\n", BAD_OCTETS)],
    b"\r\r\nQUIT\r\n": [Rejected(b"\r", BAD_OCTETS), b"QUIT"],
    b"NO\x00OP\r\n": [Rejected(b"NO\x00OP", BAD_OCTETS)],
    b"NOOP\t1\r\n": [Rejected(b"NOOP\t1", BAD_OCTETS)],
    b"NOOP\x7f\r\n": [Rejected(b"NOOP\x7f", BAD_OCTETS)],
    b"NOOP \xff\x80\r\n": [b"NOOP \xff\x80"],
    b"x" * (MAX - 2) + b"\r\n": [b"x" * (MAX - 2)],
    b"x" * (MAX - 1) + b"\r\nQUIT\r\n": [Rejected(b"x" * 512, LINE_TOO_LONG), b"QUIT"],
    b"x" * (MAX - 2) + b"\r\r\nQUIT\r\n": [Rejected(b"x" * 512, LINE_TOO_LONG), b"QUIT"],
    b"x" + b"\x00" * 2000 + b"\r\nQUIT\r\n": [Rejected(b"x" + b"\x00" * 511, LINE_TOO_LONG), b"QUIT"],
    b"\x16QUIT\r\n": [Rejected(b"", NOT_SMTP), b"QUIT"],
    b"NOOP\r\n\x00QUIT\r\n": [b"NOOP", Rejected(b"", NOT_SMTP), b"QUIT"],
    b"x" * 550 + b"\n\r\n": [Rejected(b"x" * 512, BAD_OCTETS)],
}


@pytest.mark.parametrize(("stream", "lines"), STREAMS.items())
def test_lines(stream: bytes, lines: list[Line]) -> None:
    """A stream has the same lines whole, by octet, and cut in two anywhere; what is too long or no text is refused."""
    assert lines == read(stream[n : n + 1] for n in range(len(stream)))
    for cut in range(len(stream) + 1):
        assert lines == read([stream[:cut], stream[cut:]])


def test_the_excess_of_an_endless_line_is_dropped() -> None:
    """A line without end takes no more room than a line (RFC 5321 section 4.5.3.1.9: 500 for one that is too long)."""
    pieces = [b"x" * 65536] * 100
    buffer = bytearray()
    reader = LineReader(buffer, MAX)
    for piece in pieces:
        buffer += piece
        assert reader.next_line() is None
        assert len(buffer) <= 1
    buffer += b"\r\nQUIT\r\n"
    assert [Rejected(b"x" * 512, LINE_TOO_LONG), b"QUIT", None] == [reader.next_line() for _ in range(3)]


FOREIGN = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "SSL 2": b"\x80\x2e\x01",
    "RDP": b"\x03\x00\x00\x13",
    "SOCKS 4": b"\x04\x01\x00\x50",
    "SOCKS 5": b"\x05\x01\x00",
    "PostgreSQL": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    "UTF-8": "\N{LATIN CAPITAL LETTER U WITH DIAERESIS}BER".encode(),
    "DEL": b"\x7f",
}


@pytest.mark.parametrize("octets", FOREIGN.values(), ids=FOREIGN)
def test_another_protocol_is_seen_by_its_first_octet(octets: bytes) -> None:
    """Who begins with what begins no text is not waited for: no CRLF may ever come."""
    assert LineReader(bytearray(octets[:1]), MAX).next_line() == Rejected(b"", NOT_SMTP)
    assert NOT_SMTP.code == 421


def test_white_space_begins_no_other_protocol() -> None:
    """A tab, a CR or a LF at the start of a line is a fault in a command, and waits for its CRLF."""
    for octet in (b"\t", b"\r", b"\n"):
        assert LineReader(bytearray(octet), MAX).next_line() is None
