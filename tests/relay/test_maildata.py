"""A message on the wire: what the next hop reads is what we had, and no octet of it is a command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.protocol import Config, EndOfMailData, MailData
from smtprecv.protocol._maildata import DotReader
from smtprecv.relay import BareLineEnd, DotStuffer, bdat

TABLE = [
    (b"", b".\r\n"),
    (b"a\r\n", b"a\r\n.\r\n"),
    # RFC 5321 section 4.1.1.4: a last line without its end is given one.
    (b"a", b"a\r\n.\r\n"),
    (b".\r\n", b"..\r\n.\r\n"),
    (b".", b"..\r\n.\r\n"),
    (b"..a\r\n.b\r\n.\r\n", b"...a\r\n..b\r\n..\r\n.\r\n"),
    (b"a\r\n\r\n.\r\n", b"a\r\n\r\n..\r\n.\r\n"),
    (b"a.b\r\n", b"a.b\r\n.\r\n"),
    (b"\0\xff\r\n", b"\0\xff\r\n.\r\n"),
]


def stuffed(*pieces: bytes) -> bytes:
    """Give what goes over the wire for a message in these pieces."""
    stuffer = DotStuffer()
    return b"".join(map(stuffer.convert, pieces)) + stuffer.end()


def received(octets: bytes) -> bytes:
    """Give what our own reader makes of mail data."""
    reader, passed = DotReader(bytearray(octets), Config("localhost")), b""
    while isinstance(event := reader.next_event(), MailData):
        passed += event.octets
    assert isinstance(event, EndOfMailData)
    assert event.defect is None
    return passed


@pytest.mark.parametrize(("message", "octets"), TABLE)
def test_stuffed(message: bytes, octets: bytes) -> None:
    """A dot at the start of a line is doubled, and the end stands on a line of its own (RFC 5321 section 4.5.2)."""
    assert stuffed(message) == octets
    for cut in range(len(message) + 1):
        assert stuffed(message[:cut], message[cut:]) == octets


@pytest.mark.parametrize("message", [b"a\nb\r\n", b"a\rb\r\n", b"a\r", b"a\r\r\n", b"\n", b"a\r\n.\n", b"\r\n\r.\r\n"])
def test_bare(message: bytes) -> None:
    """A bare CR or LF is not sent, wherever the message is cut (RFC 5321 section 2.3.8)."""
    for cut in range(len(message) + 1):
        with pytest.raises(BareLineEnd):
            stuffed(message[:cut], message[cut:])


@given(st.lists(st.sampled_from([b"\r\n", b".", b"a", b"\r\n.", b"\r\n.\r\n", b" "])))
def test_round_trip(pieces: list[bytes]) -> None:
    """The receiver has what was sent, and knows where it ends; a line end is added where the last line lacks it."""
    message = b"".join(pieces)
    assert received(stuffed(*pieces)) == message + b"\r\n" * (message[-2:] not in {b"", b"\r\n"})


def test_chunks() -> None:
    """A chunk is its size and its octets, and the last one says so (RFC 3030 section 2)."""
    assert bdat(b"a\r\n", is_last=False) == b"BDAT 3\r\na\r\n"
    assert bdat(b"", is_last=True) == b"BDAT 0 LAST\r\n"
