"""One attempt: a delivery is asked, and its answers become the entry that is recorded.

Its one rule: whatever the user's delivery and retry policy do, there is an entry to record, and nobody is given up
for a fault of theirs.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

import trio

from smtprecv.delivery import Attempt, Delivery, DeliveryCheck, DeliveryDestination
from smtprecv.errors import cancellation_in
from smtprecv.message import Commit, DeliveryAnswer, Later, Now
from smtprecv.note import Notebook
from smtprecv.protocol import ForwardPath, Reply
from smtprecv.queue._asked import Asked, pending, told
from smtprecv.queue._bounces import Reporter, Result
from smtprecv.queue._circuit import is_unwell
from smtprecv.queue._destinations import Destinations, RunSlot
from smtprecv.queue._schedule import EXPIRED, Schedule
from smtprecv.spool import Claim, Entry, Status

_log: Final = logging.getLogger("smtprecv.queue")

_NO_TIME: Final = dt.timedelta()


@final
@dataclass(frozen=True, slots=True)
class Attempts:
    """Makes the attempts of one run. ``local_error``: what counts for each recipient when the delivery raised."""

    reporter: Reporter
    schedule: Schedule
    destinations: Destinations
    now: Now
    local_error: Reply
    known: dict[int, DeliveryDestination | None] = field(
        default_factory=dict[int, DeliveryDestination | None], init=False
    )
    """By its id, each delivery that names destinations, and None for one that names none."""

    async def result(self, claim: Claim, slot: RunSlot) -> Result:
        """Deliver once to whoever has his turn, and give what became of the message; cancellation reaches the delivery.

        Who has no turn stands as before. Where nobody has, the message is put off.
        """
        entry = claim.entry
        parties, unlimited = self._parties(entry)
        if not parties:
            return self._result(claim, await self._asked(claim, unlimited), ())
        patience = self.schedule.patience(entry)
        async with self.destinations.visits(parties, slot, patience=patience, is_busy=bool(unlimited)) as visits:
            places = frozenset(unlimited).union(*(parties[name] for name in visits))
            asked = await self._asked(claim, places) if places else entry
            answered: Mapping[int, DeliveryAnswer] = {}
            if isinstance(asked, Asked) and asked.error is None:
                answered = asked.answers
            for name, visit in visits.items():
                answers = [answered[place] for place in parties[name] if place in answered]
                visit.is_well = not is_unwell(answers) if answers else None
        return self._result(claim, asked, [name for name in parties if name not in visits])

    def without(self, claim: Claim, asked: Asked, failures: Mapping[Commit, Exception]) -> Result:
        """Give what became of the message if these answers count as if the delivery had raised."""
        queue_id = claim.entry.queue_id
        for error in failures.values():
            _log.error("%s: what was to be done with the outcome raised", queue_id, exc_info=error)
        return self._settled(claim, asked.without(failures, self.local_error, next(iter(failures.values()))))

    def _result(self, claim: Claim, asked: Asked | Entry, missed: Sequence[str]) -> Result:
        if isinstance(asked, Asked):
            return self._settled(claim, replace(asked, missed=missed) if missed else asked)
        return self.reporter.result(claim.entry, self._scheduled(claim.entry, asked, (), missed), self.now(), {})

    def _settled(self, claim: Claim, asked: Asked) -> Result:
        entry = self._scheduled(claim.entry, asked.after, asked.answers.values(), asked.missed)
        # That time is over is our word, whoever had the last one before.
        ours = {standing.recipient.forward_path for standing in entry.standings if standing.last is EXPIRED}
        named = {path: remote for path, remote in asked.remotes.items() if path not in ours}
        return self.reporter.result(claim.entry, entry, self.now(), named, asked)

    def _scheduled(
        self, before: Entry, entry: Entry, answers: Collection[DeliveryAnswer], missed: Collection[str]
    ) -> Entry:
        """Give the entry with the time at which it is due; the retry policy has its say wherever somebody was tried."""
        if not entry.pending:
            return entry
        untouched = {id(standing) for standing in before.standings}
        if missed and all(id(standing) in untouched for standing in entry.pending):
            age = (self.now() - entry.received).total_seconds()
            turn = dt.timedelta(seconds=self.destinations.next_turn(missed, entry.queue_id, age))
            return self.schedule.put_off(entry, turn)
        later = (answer.after for answer in answers if isinstance(answer, Later))
        # Who was put there before, and has only no turn, must not have the others tried again before their time.
        is_redirected = any(each.last is None and id(each) not in untouched for each in entry.pending)
        return self.schedule.after_attempt(entry, max(later, default=_NO_TIME), is_redirected=is_redirected)

    async def _asked(self, claim: Claim, places: Collection[int]) -> Asked | Entry:
        """Ask the delivery for the recipients at these places; give the entry alone if none of them is pending."""
        started, clock = self.now(), trio.current_time()
        entry = claim.entry
        delivery = self.reporter.delivery_of(entry)
        notebook = Notebook(entry.note, entry.queue_id)
        remotes: dict[ForwardPath, str] = {}
        error_text, made = None, None
        try:
            if not claim.is_first and isinstance(delivery, DeliveryCheck):
                entry = await _confirmed(delivery, entry, places)
            entry = self.schedule.in_time(entry)
            part = _part(entry, places)
            if not part.pending:
                return entry
            # Counted once and for all: what is given may be of another length when it is gone through again.
            answers = tuple(await delivery.deliver(Attempt(part, claim.message, notebook, remotes)))
            ended = self.now()
            after = _outcome(part, answers, ended)
            made = after if part is entry else None
        # A delivery is the user's code: whatever it raises is a reason to try again, not to lose mail.
        except Exception as error:
            _log.exception("%s: the delivery raised", entry.queue_id)
            remotes.clear()
            ended = self.now()
            answers, error_text = (self.local_error,) * len(_part(entry, places).pending), told(error)
        except BaseExceptionGroup as group:
            _log.exception("%s: the delivery raised while it was cancelled", entry.queue_id)
            raise cancellation_in(group) from None
        asked = (place for place in pending(entry) if place in places)
        by_place = dict(zip(asked, answers, strict=True))
        took = dt.timedelta(seconds=trio.current_time() - clock)
        return Asked(entry, by_place, remotes, notebook.note, started, ended, took, error_text, made=made)

    def _parties(self, entry: Entry) -> tuple[Mapping[str, Sequence[int]], Sequence[int]]:
        """Give the places of the pending recipients of each destination, and of those that no limit applies to."""
        delivery = self._naming(self.reporter.delivery_of(entry))
        if delivery is None:
            return {}, pending(entry)
        parties: dict[str, list[int]] = {}
        unlimited: list[int] = []
        for place in pending(entry):
            try:
                name = _name(delivery.destination(entry, entry.standings[place].recipient))
                party = unlimited if name is None else parties.setdefault(name, [])
            # A delivery is the user's code: mail whose destination it cannot tell goes out all the same.
            except Exception:
                _log.exception("%s: the delivery raised when it was asked for a destination", entry.queue_id)
                party = unlimited
            party.append(place)
        return parties, unlimited

    def _naming(self, delivery: Delivery) -> DeliveryDestination | None:
        """Give the delivery if it names destinations: that is found out once, because it takes long."""
        if id(delivery) not in self.known:
            self.known[id(delivery)] = delivery if isinstance(delivery, DeliveryDestination) else None
        return self.known[id(delivery)]


def _name(name: object) -> str | None:
    """Give what the user's delivery gave for a destination; TypeError for what names none."""
    if name is None or isinstance(name, str):
        return name
    msg = f"a destination is a str or None, not a {type(name).__name__}"
    raise TypeError(msg)


def _part(entry: Entry, places: Collection[int]) -> Entry:
    """Give the entry as an attempt sees it, without those who are pending and have no turn."""
    if all(place in places for place in pending(entry)):
        return entry
    standings = [
        each for place, each in enumerate(entry.standings) if place in places or each.status is not Status.PENDING
    ]
    return replace(entry, standings=tuple(standings))


def _outcome(entry: Entry, answers: Sequence[DeliveryAnswer | None], ended: dt.datetime) -> Entry:
    """Give the entry after these answers of the user's; ValueError for what are none."""
    if None in answers:
        msg = "None is no answer for a recipient"
        raise ValueError(msg)
    return entry.after(answers, ended)


async def _confirmed(delivery: DeliveryCheck, entry: Entry, places: Collection[int]) -> Entry:
    """Ask for each recipient at these places whether he is served."""
    return entry.confirmed(
        [
            place in places and await delivery.is_delivered(entry, entry.standings[place].recipient)
            for place in pending(entry)
        ]
    )
