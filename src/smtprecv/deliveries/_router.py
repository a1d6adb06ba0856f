"""Several deliveries as one: each recipient goes to the first route that is meant for him.

Its one rule: what one route does, or fails to do, counts for its own recipients alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, final

import trio

from smtprecv.deliveries._trouble import BROKEN_OFF
from smtprecv.delivery import Attempt, Delivery, DeliveryCheck, DeliveryDestination, DeliveryReports
from smtprecv.errors import ConfigError
from smtprecv.message import DeliveryAnswer
from smtprecv.note import JsonNote, Notebook
from smtprecv.protocol import EnhancedStatus, Mailbox, Recipient, Reply, parse_forward_path, parse_host
from smtprecv.spool import Entry, Note, Standing

_log: Final = logging.getLogger("smtprecv.queue")

_NO_ROUTE: Final = Reply(451, "no route leads there", EnhancedStatus(4, 4, 4))
_LOCAL_ERROR: Final = Reply(451, "local error in delivery", EnhancedStatus(4, 3, 0))

Chooser: TypeAlias = Callable[[Entry, Recipient], bool]
"""Says whether a route is meant for this recipient of this message; it must say the same in every attempt."""


@final
@dataclass(frozen=True, slots=True)
class _Notes:
    """The notes of the routes, by their place: version and text of each."""

    notes: Mapping[str, Sequence[object]]


_CODEC: Final = JsonNote(_Notes)


@final
class Route:
    """A delivery, and the recipients that it is meant for: those of any of ``to``; without any, all of them.

    ``to``: a domain (``example.com``), all domains below one (``.example.com``), an address
    (``bob@example.com``), or a function. Case does not matter. ConfigError for what is none of these.
    """

    def __init__(self, delivery: Delivery, *to: str | Chooser) -> None:
        """Take the settings."""
        self.delivery: Final = delivery
        self._choosers: Final = [_chooser(each) if isinstance(each, str) else each for each in to]

    def is_for(self, entry: Entry, recipient: Recipient) -> bool:
        """Say whether this recipient is meant."""
        return not self._choosers or any(chooser(entry, recipient) for chooser in self._choosers)


@final
class Router:
    """A Delivery that hands each recipient to the first route that is for him; the routes deliver at the same time.

    Each delivery sees an attempt of its own, with its recipients for the pending ones and a note for itself: it is
    kept by the route's place, so keep the order of routes while notes are in use. An exception, or replies that are not
    as many as the recipients, counts as 451 for the route's own recipients, and is logged; if there is no
    other route in the attempt it is raised. Who has no route waits: 451 4.4.4. Cancellation reaches all of them; if a
    route had answered before, its answers stay, and the recipients of the others are put off.
    """

    def __init__(self, *routes: Route) -> None:
        """Take the routes, the first one first; ConfigError for none."""
        if not routes:
            msg = "a router needs a route"
            raise ConfigError(msg)
        self._routes: Final = routes

    async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
        """Deliver by all routes that are needed."""
        parties = self._parties(attempt.entry)
        notes = attempt.load(_CODEC) or _Notes({})
        parts = [_Part(attempt, self._routes[place], place, group, notes) for place, group in parties.items()]
        try:
            if len(parts) == 1:
                await parts[0].deliver()
            else:
                async with trio.open_nursery() as nursery:
                    for part in parts:
                        nursery.start_soon(part.deliver_alone)
                if not any(part.has_answered for part in parts):
                    await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            _save(attempt, notes, parts)
        found = {index: outcome for part in parts for index, outcome in part.outcomes.items()}
        return [found.get(index, _NO_ROUTE) for index in range(len(attempt.recipients))]

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        """Ask the delivery of the route, if it can tell."""
        delivery = self._delivery(entry, recipient)
        return isinstance(delivery, DeliveryCheck) and await delivery.is_delivered(entry, recipient)

    def reports_success(self, entry: Entry, recipient: Recipient) -> bool:
        """Ask the delivery of the route, if it can tell."""
        delivery = self._delivery(entry, recipient)
        return isinstance(delivery, DeliveryReports) and delivery.reports_success(entry, recipient)

    def destination(self, entry: Entry, recipient: Recipient) -> str | None:
        """Ask the delivery of the route, if it can tell."""
        delivery = self._delivery(entry, recipient)
        return delivery.destination(entry, recipient) if isinstance(delivery, DeliveryDestination) else None

    def _delivery(self, entry: Entry, recipient: Recipient) -> object:
        """Give the delivery of the recipient's route; None if he has none."""
        return next((route.delivery for route in self._routes if route.is_for(entry, recipient)), None)

    def _parties(self, entry: Entry) -> Mapping[int, Mapping[int, Standing]]:
        """Give the pending recipients of each route that has any, by their place among all pending ones."""
        parties: dict[int, dict[int, Standing]] = {}
        for index, standing in enumerate(entry.pending):
            for place, route in enumerate(self._routes):
                if route.is_for(entry, standing.recipient):
                    parties.setdefault(place, {})[index] = standing
                    break
        return parties


@final
@dataclass(slots=True)
class _Part:
    """What one route has to do in one attempt, and what became of it."""

    attempt: Attempt
    route: Route
    place: int
    group: Mapping[int, Standing]
    before: _Notes
    outcomes: Mapping[int, DeliveryAnswer] = field(default_factory=dict[int, DeliveryAnswer])
    notebook: Notebook = field(default_factory=Notebook)
    has_answered: bool = True

    async def deliver(self) -> None:
        self.notebook = Notebook(self._note(), self.attempt.queue_id)
        entry = replace(self.attempt.entry, standings=tuple(self.group.values()), note=self.notebook.note)
        attempt = Attempt(entry, self.attempt.message, self.notebook)
        outcomes = await self.route.delivery.deliver(attempt)
        # What the queue would refuse must be refused here, or it would count for the other routes too.
        entry.after(outcomes, entry.received)
        self.outcomes = dict(zip(self.group, outcomes, strict=True))
        self.attempt.remotes.update(attempt.remotes)

    async def deliver_alone(self) -> None:
        try:
            await self._deliver_in_time()
        # A delivery is the user's code: whatever it raises must not count for the recipients of other routes.
        except Exception:
            _log.exception("%s: the delivery of a route raised", self.attempt.queue_id)
            self.outcomes = dict.fromkeys(self.group, _LOCAL_ERROR)

    async def _deliver_in_time(self) -> None:
        """Deliver, or be cancelled and say so: what others have answered must not be lost with this one."""
        try:
            await self.deliver()
        except* trio.Cancelled:
            self.outcomes = dict.fromkeys(self.group, BROKEN_OFF)
            self.has_answered = False

    def _note(self) -> Note | None:
        match self.before.notes.get(str(self.place)):
            case [int(version), str(text)]:
                return Note(version, text)
            case _:
                return None


def _save(attempt: Attempt, before: _Notes, parts: Sequence[_Part]) -> None:
    """Keep the notes of all routes as one, if there is any."""
    saved = {str(part.place): [note.version, note.text] for part in parts if (note := part.notebook.note) is not None}
    if saved:
        attempt.save(_CODEC, _Notes({**before.notes, **saved}))


def _chooser(text: str) -> Chooser:
    """Read a domain, a domain with a dot before it, or an address."""
    try:
        if "@" in text:
            mailbox = parse_forward_path(text).mailbox
            return lambda _, recipient: _folded(recipient.forward_path.mailbox) == _folded(mailbox)
        domain = str(parse_host(text.removeprefix("."))).lower()
    except ValueError as error:
        msg = f"route {text!r} is no domain, .domain or address: {error}"
        raise ConfigError(msg) from None
    if text.startswith("."):
        return lambda _, recipient: _domain(recipient).endswith(f".{domain}")
    return lambda _, recipient: _domain(recipient) == domain


def _folded(mailbox: Mailbox) -> tuple[str, str]:
    return mailbox.local_part.lower(), str(mailbox.domain).lower()


def _domain(recipient: Recipient) -> str:
    return str(recipient.forward_path.mailbox.domain).lower()
