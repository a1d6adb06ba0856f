"""The journal of a message in ``smtprecv queue show``: its attempts as a table for people, and as JSON for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final

from smtprecv.cli._showqueue import Json, iso_time, local_time
from smtprecv.cli._terminal import cells, pad, printable
from smtprecv.spool import Answered, Tried

_WIDEST: Final = 40
"""Columns of recipients up to which replies are aligned behind them."""


def journal_lines(journal: Sequence[Tried]) -> Iterator[str]:
    """Give a line for each reply of each attempt: when, how long it took, who, and what was answered."""
    if not journal:
        return
    yield "journal:"
    width = max((min(cells(_who(each)), _WIDEST) for tried in journal for each in tried.answers), default=0)
    for tried in journal:
        head = f"  {local_time(tried.started)}  {_seconds(tried.took):>10}"
        texts = [f"{pad(_who(each), width)}  {printable(each.reply)}" for each in tried.answers]
        left = tried.recipients - sum(each.count for each in tried.answers)
        if left:
            texts.append(f"{left} more were answered in other ways")
        if tried.error is not None:
            texts.append(printable(tried.error))
        for text in texts:
            yield f"{head}  {text}".rstrip()
            head = " " * len(head)


def json_journal(journal: Sequence[Tried]) -> Sequence[Json]:
    """Give the attempts; times are ISO 8601 with an offset, durations seconds."""
    return [
        {
            "started": iso_time(tried.started),
            "took": tried.took / dt.timedelta(seconds=1),
            "recipients": tried.recipients,
            "answers": [
                {"reply": each.reply, "recipients": each.recipients, "count": each.count} for each in tried.answers
            ],
            "error": tried.error,
        }
        for tried in journal
    ]


def _who(answered: Answered) -> str:
    names, left = ", ".join(map(printable, answered.recipients)), answered.count - len(answered.recipients)
    return f"{names} and {left} more" if left else names


def _seconds(took: dt.timedelta) -> str:
    return f"{took / dt.timedelta(seconds=1):.3f} s"
