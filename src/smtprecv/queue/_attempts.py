"""One attempt: a delivery is asked, and its answers become the entry that is recorded.

Its one rule: whatever the user's delivery and retry policy do, there is an entry to record, and nobody is given up
for a fault of theirs.
"""

from __future__ import annotations

import datetime as dt
import logging
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

import trio

from smtprecv.delivery import Attempt, Delivery, DeliveryCheck, DeliveryDestination
from smtprecv.errors import cancellation_in
from smtprecv.message import DeliveryAnswer, Later, Now, Redirect
from smtprecv.note import Notebook
from smtprecv.protocol import ForwardPath, Reply
from smtprecv.queue._bounces import Reporter, Result
from smtprecv.queue._circuit import is_unwell
from smtprecv.queue._destinations import Destinations, RunSlot
from smtprecv.queue._schedule import EXPIRED, Schedule
from smtprecv.spool import Claim, Entry, Status, Tried

_log: Final = logging.getLogger("smtprecv.queue")

_NO_TIME: Final = dt.timedelta()


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of asking a delivery: the entry, what the journal keeps of it, None if it was not asked to deliver.

    ``answers``: by the places of those who were asked for; none if it raised.
    """

    entry: Entry
    tried: Tried | None = None
    answers: Mapping[int, DeliveryAnswer] = field(default_factory=dict[int, DeliveryAnswer])


@final
@dataclass(frozen=True, slots=True)
class Attempts:
    """Makes the attempts of one run. ``local_error``: what counts for each recipient when the delivery raised."""

    reporter: Reporter
    schedule: Schedule
    destinations: Destinations
    now: Now
    local_error: Reply

    async def result(self, claim: Claim, slot: RunSlot) -> Result:
        """Deliver once to whoever has his turn, and give what became of the message; cancellation reaches the delivery.

        Who has no turn stands as before. Where nobody has, the message is put off.
        """
        entry = claim.entry
        parties, unlimited = _parties(self.reporter.delivery_of(entry), entry)
        patience = self.schedule.patience(entry)
        remotes: dict[ForwardPath, str] = {}
        async with self.destinations.visits(parties, slot, patience=patience, is_busy=bool(unlimited)) as visits:
            places = frozenset(unlimited).union(*(parties[name] for name in visits))
            outcome = await self._outcome(claim, places, remotes) if places else Outcome(entry)
            for name, visit in visits.items():
                answers = [outcome.answers[place] for place in parties[name] if place in outcome.answers]
                visit.is_well = not is_unwell(answers) if answers else None
        after = self._scheduled(entry, outcome, [name for name in parties if name not in visits])
        # That time is over is our word, whoever had the last one before.
        ours = {standing.recipient.forward_path for standing in after.standings if standing.last is EXPIRED}
        named = {path: remote for path, remote in remotes.items() if path not in ours}
        return replace(self.reporter.result(entry, after, self.now(), named), tried=outcome.tried)

    def _scheduled(self, before: Entry, outcome: Outcome, missed: Collection[str]) -> Entry:
        """Give the entry with the time at which it is due; the retry policy has its say wherever somebody was tried."""
        entry = outcome.entry
        untouched = {id(standing) for standing in before.standings}
        if missed and all(id(standing) in untouched for standing in entry.pending):
            turn = dt.timedelta(seconds=self.destinations.next_turn(missed, entry.queue_id))
            return self.schedule.put_off(entry, turn)
        later = (answer.after for answer in outcome.answers.values() if isinstance(answer, Later))
        return self.schedule.after_attempt(entry, max(later, default=_NO_TIME))

    async def _outcome(self, claim: Claim, places: Collection[int], remotes: dict[ForwardPath, str]) -> Outcome:
        """Ask the delivery for the recipients at these places, and give the entry as it stands after its answers.

        ``remotes``: takes who else answered.
        """
        started, clock = self.now(), trio.current_time()
        entry = claim.entry
        delivery = self.reporter.delivery_of(entry)
        notebook = Notebook(entry.note, entry.queue_id)
        try:
            if isinstance(delivery, DeliveryCheck) and not claim.is_first:
                entry = await _confirmed(delivery, entry, places)
            entry = self.schedule.in_time(entry)
            pending = [place for place in _pending(entry) if place in places]
            if not pending:
                return Outcome(entry)
            part = _part(entry, places)
            answers = await delivery.deliver(Attempt(part, claim.message, notebook, remotes))
            answered = dict(zip(pending, _checked(answers, len(pending)), strict=True))
            after = entry.after([answered.get(place) for place in _pending(entry)], self.now())
            return Outcome(replace(after, note=notebook.note), _tried(part, answers, started, clock), answered)
        # A delivery is the user's code: whatever it raises is a reason to try again, not to lose mail.
        except Exception as error:
            _log.exception("%s: the delivery raised", entry.queue_id)
            remotes.clear()
            part = _part(entry, places)
            trouble = [self.local_error if place in places else None for place in _pending(entry)]
            told = "".join(traceback.format_exception_only(error)).strip()
            after = replace(entry.after(trouble, self.now(), error=told), note=notebook.note)
            return Outcome(after, _tried(part, [self.local_error] * len(part.pending), started, clock, told))
        except BaseExceptionGroup as group:
            _log.exception("%s: the delivery raised while it was cancelled", entry.queue_id)
            raise cancellation_in(group) from None


def _parties(delivery: Delivery, entry: Entry) -> tuple[Mapping[str, Sequence[int]], Sequence[int]]:
    """Give the places of the pending recipients of each destination, and of those that no limit applies to."""
    if not isinstance(delivery, DeliveryDestination):
        return {}, _pending(entry)
    parties: dict[str, list[int]] = {}
    unlimited: list[int] = []
    for place in _pending(entry):
        try:
            name = delivery.destination(entry, entry.standings[place].recipient)
            party = unlimited if name is None else parties.setdefault(name, [])
        # A delivery is the user's code: mail whose destination it cannot tell goes out all the same.
        except Exception:
            _log.exception("%s: the delivery raised when it was asked for a destination", entry.queue_id)
            party = unlimited
        party.append(place)
    return parties, unlimited


def _pending(entry: Entry) -> list[int]:
    """Give the places of the pending recipients among all standings."""
    return [place for place, standing in enumerate(entry.standings) if standing.status is Status.PENDING]


def _part(entry: Entry, places: Collection[int]) -> Entry:
    """Give the entry as an attempt sees it, without those who are pending and have no turn."""
    pending = _pending(entry)
    if all(place in places for place in pending):
        return entry
    standings = [
        each for place, each in enumerate(entry.standings) if place in places or each.status is not Status.PENDING
    ]
    return replace(entry, standings=tuple(standings))


async def _confirmed(delivery: DeliveryCheck, entry: Entry, places: Collection[int]) -> Entry:
    """Ask for each recipient at these places whether he is served."""
    return entry.confirmed(
        [
            place in places and await delivery.is_delivered(entry, entry.standings[place].recipient)
            for place in _pending(entry)
        ]
    )


def _checked(answers: Sequence[DeliveryAnswer], count: int) -> Sequence[DeliveryAnswer]:
    if len(answers) != count:
        msg = f"{len(answers)} replies for {count} pending recipients"
        raise ValueError(msg)
    return answers


def _tried(
    entry: Entry, answers: Sequence[DeliveryAnswer], started: dt.datetime, clock: float, error: str | None = None
) -> Tried:
    """Give an attempt that has just ended for the journal; ``clock``: what Trio's showed at its beginning."""
    took = dt.timedelta(seconds=trio.current_time() - clock)
    names = [str(standing.recipient) for standing in entry.pending]
    return Tried.of(started, took, zip(names, map(_told, answers), strict=True), error)


def _told(answer: DeliveryAnswer) -> str:
    match answer:
        case Reply():
            return str(answer)
        case Later(reply):
            return str(reply)
        case Redirect(forward_paths=paths):
            return f"redirected to {', '.join(map(str, paths))}"
