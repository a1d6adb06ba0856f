"""Replies: their lines, and what they refuse to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.protocol import EnhancedStatus, Reply, Severity


@pytest.mark.parametrize(
    ("reply", "octets"),
    [
        (Reply(250, "OK"), b"250 OK\r\n"),
        (Reply(250, ""), b"250 \r\n"),
        (Reply(250, "OK", EnhancedStatus(2, 0, 0)), b"250 2.0.0 OK\r\n"),
        (Reply(250, "one\ntwo"), b"250-one\r\n250 two\r\n"),
        (Reply(550, "a\nb", EnhancedStatus(5, 1, 1)), b"550-5.1.1 a\r\n550 5.1.1 b\r\n"),
        (Reply(550, "a\r\x00b\x7f"), b"550 a??b?\r\n"),
        (Reply(550, "grüße"), b"550 gr??e\r\n"),
    ],
)
def test_the_lines_of_a_reply(reply: Reply, octets: bytes) -> None:
    """Each line has the code, a hyphen on all but the last, the status, and no octet that is not printable ASCII.

    RFC 5321 section 4.2.1.
    """
    assert octets == bytes(reply)


@given(st.integers(200, 599), st.text(max_size=1500), st.booleans())
def test_any_text_makes_safe_lines(code: int, text: str, has_status: bool) -> None:  # noqa: FBT001 - Hypothesis gives it
    """Whatever the text, the lines are printable ASCII of at most 512 octets (RFC 5321 section 4.5.3.1.5)."""
    *lines, empty = bytes(Reply(code, text, EnhancedStatus(code // 100, 0, 0) if has_status else None)).split(b"\r\n")
    assert empty == b""
    assert all(len(line) <= 510 and line.decode("ascii").isprintable() for line in lines)
    assert [b"-"] * (len(lines) - 1) + [b" "] == [line[3:4] for line in lines]


@pytest.mark.parametrize(("code", "status"), [(199, None), (600, None), (250, EnhancedStatus(5, 0, 0))])
def test_what_is_no_reply(code: int, status: EnhancedStatus | None) -> None:
    """A code outside 200-599, or a status of another class, cannot be sent (RFC 2034 section 4)."""
    with pytest.raises(ValueError, match=str(code)):
        Reply(code, "text", status)


def test_a_reply_for_people() -> None:
    """A reply on one line is safe for logs."""
    assert str(Reply(550, "a\nb", EnhancedStatus(5, 1, 1))) == "550 5.1.1 a?b"
    assert str(Reply(354, "go")) == "354 go"
    assert (Severity.TRANSIENT, False) == (Reply(451, "").severity, Reply(451, "").is_ok)
    assert Reply(250, "").is_ok


def test_an_enhanced_status_is_read_as_it_is_written() -> None:
    """An enhanced status is three numbers with dots (RFC 3463 section 2)."""
    assert EnhancedStatus.parse("5.1.10") == EnhancedStatus(5, 1, 10)
    for text in ("", "5.1", "5.1.x", "5.1.1.1"):
        with pytest.raises(ValueError, match=r"values|literal|unpack"):
            EnhancedStatus.parse(text)
