"""Replies from the wire: whatever comes, memory is bounded and nothing is taken for what it is not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.protocol import EnhancedStatus, Reply
from smtprecv.relay import ReplyReader
from smtprecv.relay._replyreader import MAX_LINE_SIZE, MAX_LINES, MAX_REPLY_SIZE


def read(*pieces: bytes) -> tuple[list[Reply], bool]:
    """Give the replies in what is received piece by piece, and whether the reading came to a bad end."""
    reader = ReplyReader()
    replies: list[Reply] = []
    for piece in pieces:
        reader.receive(piece)
        while (reply := reader.next_reply()) is not None:
            replies.append(reply)
    return replies, reader.is_broken


GOOD = [
    (b"250 ok\r\n", Reply(250, "ok")),
    (b"250\r\n", Reply(250, "")),
    (b"250 \r\n", Reply(250, "")),
    (b"250 ok\n", Reply(250, "ok")),
    (b"250-one\r\n250 two\r\n", Reply(250, "one\ntwo")),
    (b"250-one\r\n250\r\n", Reply(250, "one\n")),
    (b"550 5.1.1 nobody\r\n", Reply(550, "nobody", EnhancedStatus(5, 1, 1))),
    (b"550 5.1.1\r\n", Reply(550, "", EnhancedStatus(5, 1, 1))),
    (b"550-5.1.1 no\r\n550 5.1.1 body\r\n", Reply(550, "no\nbody", EnhancedStatus(5, 1, 1))),
    (b"550-5.1.1 no\r\n550 body\r\n", Reply(550, "no\nbody", EnhancedStatus(5, 1, 1))),
    # RFC 2034 section 4: a status of another class is none.
    (b"250 5.1.1 ok\r\n", Reply(250, "5.1.1 ok")),
    (b"250 2.1.1234 ok\r\n", Reply(250, "2.1.1234 ok")),
    (b"250 2.1.1ok\r\n", Reply(250, "2.1.1ok")),
    (b"250 \x00\x1b[2J\r\n", Reply(250, "??[2J")),
    (b"250 a\rb\r\n", Reply(250, "a?b")),
    ("250 Grüße\r\n".encode(), Reply(250, "Grüße")),
    (b"250 \xff\r\n", Reply(250, "\ufffd")),
    (b"599 x\r\n", Reply(599, "x")),
]


@pytest.mark.parametrize(("octets", "reply"), GOOD)
def test_read(octets: bytes, reply: Reply) -> None:
    """A reply is read with its code, its status and its text, whichever way its lines end and at every cut."""
    assert read(octets) == ([reply], False)
    for cut in range(1, len(octets)):
        assert read(octets[:cut], octets[cut:]) == ([reply], False)


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"ok\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"250:ok\r\n",
        b"150 soon\r\n",
        b"600 x\r\n",
        b" 250 ok\r\n",
        b"\x16\x03\x01\x00\r\n",
        b"\0250 ok\r\n",
        # RFC 5321 section 4.2.1: the code is the same on every line.
        b"250-one\r\n550 two\r\n",
        b"2" * (MAX_LINE_SIZE + 1),
        b"250 " + b"x" * MAX_LINE_SIZE + b"\r\n",
        b"250-x\r\n" * (MAX_LINES + 1),
        (b"250-" + b"x" * 10_000 + b"\r\n") * (MAX_REPLY_SIZE // 10_000 + 1),
    ],
    ids=lambda octets: repr(octets[:12]),
)
def test_no_reply(octets: bytes) -> None:
    """What is no reply, or has no end, ends the reading: nothing behind it is taken for one."""
    assert read(b"220 hello\r\n", octets, b"250 ok\r\n") == ([Reply(220, "hello")], True)


def test_unread() -> None:
    """Octets that no reply was taken from are known of, half a line and half a reply included."""
    reader = ReplyReader()
    for octets in (b"2", b"50-a\r\n"):
        reader.receive(octets)
        assert (reader.next_reply(), reader.has_unread) == (None, True)
    reader.receive(b"250 b\r\n")
    assert (reader.next_reply(), reader.has_unread) == (Reply(250, "a\nb"), False)


@given(st.lists(st.sampled_from(GOOD)), st.lists(st.integers(0, 400)))
def test_any_cut(replies: list[tuple[bytes, Reply]], cuts: list[int]) -> None:
    """However replies are cut into pieces, they are the same, in the same order."""
    octets = b"".join(octets for octets, _ in replies)
    places = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
    pieces = [octets[start:end] for start, end in itertools.pairwise(places)]
    assert read(*pieces) == ([reply for _, reply in replies], False)


@given(st.lists(st.binary(max_size=200) | st.sampled_from([octets for octets, _ in GOOD])))
def test_garbage(pieces: list[bytes]) -> None:
    """Nothing raises, and whole or in pieces it is the same."""
    assert read(*pieces) == read(b"".join(pieces))


@given(st.integers(1, 5000), st.sampled_from([b"2", b"\0", b"250-", b"x\n", b"250-x\r\n"]))
def test_bounded(times: int, octets: bytes) -> None:
    """What has no end is not kept: memory is bounded by the largest reply and one read."""
    reader = ReplyReader()
    for _ in range(times):
        reader.receive(octets * 100)
        reader.next_reply()
    assert len(reader._buffer) <= MAX_LINE_SIZE + 100 * len(octets)
    assert sum(map(len, reader._lines)) <= MAX_REPLY_SIZE
