"""A message that is arriving: from its first octets to the transaction that accepts it.

Its one rule: nothing is left of a message that was not accepted, however it ended.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import trio

from smtprecv.errors import SpoolFull
from smtprecv.message import Client, Commit, Message, QueueId
from smtprecv.protocol import Envelope
from smtprecv.spool._body import ArrivingBody, BodyFile, StoredBody
from smtprecv.spool._entry import Entry, Standing
from smtprecv.spool._tried import Tried


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message, the attempt that it came of, and what is done in the transaction that records it."""

    entry: Entry
    tried: Tried | None
    commits: Sequence[Commit] = ()


class Acceptance(Protocol):
    """What a draft needs of its spool."""

    async def accept(self, entry: Entry, body: StoredBody, outcome: Outcome | None = None) -> bool:
        """Make a message durable, with the outcome that it reports; False if that could not be recorded any more."""
        ...

    async def restore(self, entry: Entry, body: StoredBody) -> bool:
        """Make a message durable that has been in a spool before; False if there is one of its name."""
        ...

    def message(self, queue_id: QueueId, body: StoredBody, size: int) -> Message:
        """Give a body as a message."""
        ...

    def keep_for_now(self, body: BodyFile) -> None:
        """Remove a body file when a later COMMIT has succeeded, unless a row names it then."""
        ...


@final
class ArrivingDraft:
    """Room for one message that is arriving; a ``Draft``."""

    def __init__(
        self, spool: Acceptance, queue_id: QueueId, body: ArrivingBody, commits: Sequence[Commit] = ()
    ) -> None:
        """Fill ``body``, for ``spool`` to accept; ``commits``: what is done with the outcome that it reports."""
        self._spool = spool
        self._queue_id = queue_id
        self._body = body
        self._commits = commits
        self._is_over = False
        self._is_accepted = False

    @property
    def queue_id(self) -> QueueId:
        """The name that the message will have."""
        return self._queue_id

    async def write(self, octets: bytes) -> None:
        """Take the next octets."""
        await self._body.write(octets)

    async def message(self) -> Message:
        """Give the whole message, to be read until it is accepted or forgotten."""
        return self._spool.message(self._queue_id, await self._body.finish(), self._body.size)

    async def commit(self, client: Client, envelope: Envelope, received: dt.datetime) -> Entry:
        """Accept the message: it is durable when this returns (RFC 5321 section 6.1)."""
        return await self._commit(client, envelope, received, None)

    async def commit_report(
        self,
        outcome: Entry,
        client: Client,
        envelope: Envelope,
        received: dt.datetime,
        tried: Tried | None = None,
    ) -> Entry | None:
        """Accept the message as a report of ``outcome``, and record that."""
        entry = await self._commit(client, envelope, received, Outcome(outcome, tried, self._commits))
        return entry if self._is_accepted else None

    async def restore(self, entry: Entry) -> bool:
        """Accept the message as one that was in a spool before."""
        try:
            body = await self._body.finish()
            if entry.is_done or entry.size != self._body.size or entry.queue_id == self._queue_id:
                msg = f"{entry.queue_id} is done, not of {self._body.size} octets, or new"
                raise ValueError(msg)
            return await self._spool.restore(entry, body)
        finally:
            await self.abort()  # a file that was accepted has another name by now

    async def abort(self) -> None:
        """Forget the octets, unless they were accepted."""
        if self._is_over:
            return
        self._is_over = True
        await self._body.discard()

    async def _commit(
        self, client: Client, envelope: Envelope, received: dt.datetime, outcome: Outcome | None
    ) -> Entry:
        try:
            body = await self._body.finish()
            standings = tuple(Standing(recipient) for recipient in envelope.recipients)
            report_of = None if outcome is None else outcome.entry.queue_id
            size = self._body.size
            entry = Entry(
                self._queue_id, received, client, envelope, size, standings, due=received, report_of=report_of
            )
            await self._accept(entry, body, outcome)
        finally:
            await self.abort()
        return entry

    async def _accept(self, entry: Entry, body: StoredBody, outcome: Outcome | None) -> None:
        try:
            self._is_accepted = await self._spool.accept(entry, body, outcome)
        except (SpoolFull, trio.Cancelled):
            raise
        except BaseException:
            # The row may be there, or may yet appear, as after a COMMIT that failed when its frames were written.
            if isinstance(body, BodyFile):
                self._spool.keep_for_now(body)
                self._is_over = True
            raise
        self._is_over = self._is_accepted
