"""One attempt as the journal of a message keeps it: when, what was answered, how long it took.

Pure values. Its one rule: an attempt takes little room, however many recipients it had and whatever they were answered.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Self, final

JOURNAL_LENGTH: Final = 100
"""Attempts of one message that a journal keeps: the latest ones."""

_ANSWERS: Final = 10
"""Different replies that an attempt keeps."""
_NAMES: Final = 10
"""Recipients whose names it keeps with each of them."""
_TEXT_SIZE: Final = 500
"""Characters of a reply, or of an error."""


@final
@dataclass(frozen=True, slots=True)
class Answered:
    """What some recipients of an attempt were answered alike.

    ``reply``: code, status and text on one line, or where they were redirected to. ``recipients``: the first ten of
    them. ``count``: how many they were.
    """

    reply: str
    recipients: tuple[str, ...]
    count: int


@final
@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt to deliver a message.

    ``started``: when, in UTC. ``took``: how long until the last reply was there. ``recipients``: how many were tried.
    ``answers``: what they were answered, by reply, in the envelope's order; ten different replies are kept.
    ``error``: the text of the exception that the delivery raised, None if it answered; as in an ``Entry`` it is for
    operators only. Texts are cut at 500 characters.
    """

    started: dt.datetime
    took: dt.timedelta
    recipients: int
    answers: tuple[Answered, ...]
    error: str | None = None

    @classmethod
    def of(
        cls, started: dt.datetime, took: dt.timedelta, replies: Iterable[tuple[str, str]], error: str | None = None
    ) -> Self:
        """Keep of an attempt what there is room for; ``replies``: each recipient with its own, in order."""
        alike: dict[str, list[str]] = {}
        for recipient, reply in replies:
            alike.setdefault(reply[:_TEXT_SIZE], []).append(recipient)
        answers = (Answered(reply, tuple(names[:_NAMES]), len(names)) for reply, names in alike.items())
        count = sum(map(len, alike.values()))
        told = None if error is None else error[:_TEXT_SIZE]
        return cls(started.astimezone(dt.UTC), took, count, tuple(islice(answers, _ANSWERS)), told)
