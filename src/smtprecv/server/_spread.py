"""Replies for many recipients, made those that the protocol asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final

from smtprecv.protocol import Reply, Severity
from smtprecv.server._trouble import is_final

_WEIGHTS: Final[Mapping[Severity, int]] = {Severity.COMPLETION: 0, Severity.PERMANENT: 1, Severity.TRANSIENT: 2}


def worst(replies: Sequence[Reply]) -> Reply:
    """Give the one reply that must do for several: the first 4yz, so that all are tried again, else 5yz, else 2yz."""
    return max(replies, key=lambda reply: _WEIGHTS[reply.severity])


def spread(replies: Sequence[Reply], spans: Sequence[int]) -> Sequence[Reply]:
    """Give one reply for each span of recipients, from one for all of them or one for each recipient.

    Where they differ no 421 is among them: it ends the session, and those behind it would never be heard.
    ValueError for any other number, and for 3yz.
    """
    if len(replies) == len(spans) == 1 and is_final(replies[0]):
        return replies
    if not all(is_final(reply) for reply in replies) or len(replies) not in {1, sum(spans)}:
        msg = f"an intake answered {[str(reply) for reply in replies]} to the end of a message"
        raise ValueError(msg)
    if len(replies) == 1:
        return [*replies] * len(spans)
    told = [worst(replies[end - span : end]) for span, end in zip(spans, accumulate(spans), strict=True)]
    if len(told) == 1:
        return told
    return [replace(reply, code=451) if reply.code == 421 else reply for reply in told]
