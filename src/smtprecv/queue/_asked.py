"""What a delivery was asked and has answered, and what follows from that.

Pure values. Its one rule: the answers can be put together anew when one of them turns out to be none.
"""

from __future__ import annotations

import datetime as dt
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from smtprecv.message import Commit, DeliveryAnswer, Later, Redirect
from smtprecv.protocol import ForwardPath, Recipient, Reply
from smtprecv.spool import Entry, Note, Status, Tried


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """One attempt that has ended.

    ``answers``: by the places in ``entry`` of those who were asked for. ``missed``: destinations that had no room.
    ``remotes``: who else had the last word on a recipient. ``note``: what the delivery remembers now. ``started`` and
    ``ended``: by the wall clock; ``took``: by the one that nobody sets. ``error``: the text of what was raised.
    ``made``: the entry that follows, where it is known already.
    """

    entry: Entry
    answers: Mapping[int, DeliveryAnswer]
    remotes: Mapping[ForwardPath, str]
    note: Note | None
    started: dt.datetime
    ended: dt.datetime
    took: dt.timedelta
    error: str | None = None
    missed: Collection[str] = ()
    made: Entry | None = None

    @property
    def commits(self) -> Sequence[Commit]:
        """What is to be done in the transaction that records the answers."""
        return [answer for answer in self.answers.values() if isinstance(answer, Commit)]

    @property
    def after(self) -> Entry:
        """The entry after the attempt; ValueError for what are no answers."""
        after = self.made
        if after is None:
            answers = [self.answers.get(place) for place in pending(self.entry)]
            after = self.entry.after(answers, self.ended, self.error)
        return after if self.note == after.note else replace(after, note=self.note)

    @property
    def tried(self) -> Tried:
        """The attempt as the journal has it."""
        replies = ((str(self._recipient(place)), _told(answer)) for place, answer in self.answers.items())
        return Tried.of(self.started, self.took, replies, self.error)

    def without(self, failed: Collection[Commit], reply: Reply, error: Exception) -> Asked:
        """Give the attempt with ``reply`` for an answer in the place of those that could not be done."""
        lost = {place for place, answer in self.answers.items() if isinstance(answer, Commit) and answer in failed}
        answers = {**self.answers, **dict.fromkeys(lost, reply)}
        ours = {self._recipient(place).forward_path for place in lost}
        remotes = {path: remote for path, remote in self.remotes.items() if path not in ours}
        return replace(self, answers=answers, remotes=remotes, error=told(error), made=None)

    def _recipient(self, place: int) -> Recipient:
        return self.entry.standings[place].recipient


def pending(entry: Entry) -> list[int]:
    """Give the places of the pending recipients among all standings."""
    return [place for place, standing in enumerate(entry.standings) if standing.status is Status.PENDING]


def told(error: Exception) -> str:
    """Say in a line or two what was raised."""
    return "".join(traceback.format_exception_only(error)).strip()


def _told(answer: DeliveryAnswer) -> str:
    match answer:
        case Reply():
            return str(answer)
        case Later(reply=reply) | Commit(reply=reply):
            return str(reply)
        case Redirect(forward_paths=paths):
            return f"redirected to {', '.join(map(str, paths))}"
