"""ESMTP parameters by themselves: the table decides what is known, and values keep their case."""

from __future__ import annotations

import pytest

from smtprecv.protocol import Reply
from smtprecv.protocol._parameters import Parameter, parse_parameters
from smtprecv.protocol._refusal import BAD_PARAMETER, REPEATED_PARAMETER, UNKNOWN_PARAMETER, Refusal

Seen = tuple[tuple[str, str], ...]

NOTHING: Seen = ()


def record(keyword: str) -> Parameter[Seen]:
    """Make a parameter that records its value."""
    return lambda so_far, value: (*so_far, (keyword, value))


KNOWN = {keyword: record(keyword) for keyword in ("ENVID", "X-1", "8X")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("   ", ()),
        (" ENVID=Case+2BKept", (("ENVID", "Case+2BKept"),)),
        (" envid=a  x-1 8X=<b@example.com> ", (("ENVID", "a"), ("X-1", ""), ("8X", "<b@example.com>"))),
    ],
)
def test_parameters_are_read(text: str, expected: Seen) -> None:
    """Keywords have no case, values keep theirs, and the order is the client's."""
    assert expected == parse_parameters(text, KNOWN, NOTHING)


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (" ENVID=", BAD_PARAMETER),
        (" =a", BAD_PARAMETER),
        (" ENVID=a=b", BAD_PARAMETER),
        (" -X=a", BAD_PARAMETER),
        (" EN_VID=a", BAD_PARAMETER),
        (" ENVID=a envid=b", REPEATED_PARAMETER),
        (" ENVID=a OTHER", UNKNOWN_PARAMETER),
    ],
)
def test_parameters_are_refused(text: str, reply: Reply) -> None:
    """What is malformed or given twice is 501, what is not known is 555 (RFC 5321 section 4.1.1.11)."""
    with pytest.raises(Refusal) as refused:
        parse_parameters(text, KNOWN, NOTHING)
    assert reply is refused.value.reply
