"""What a spool promises: the Protocol that every store implements, free of any one store's ways.

The theory. A message lives in the spool from the commit of its Draft until the outcome that
leaves no recipient to be served. Every step is one transaction, durable when the call returns:
acceptance, claim, outcome, removal. A message is claimed by one owner at a time, and the claim
lasts as long as the owner lives; when it dies, however it dies, the claim is void at once.
A spool has no clock: every time is an argument. `smtprecv.testing.check_spool` holds an
implementation to all of this.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, final

from smtprecv.message import Client, Message, QueueId
from smtprecv.protocol import Envelope
from smtprecv.spool._entry import Entry
from smtprecv.spool._tried import Tried


@final
@dataclass(frozen=True, slots=True)
class Claim:
    """A message that is ours to deliver until ``Spool.record`` gives it back.

    ``is_first``: nobody has had a claim on it before, so nobody can have tried it.
    """

    entry: Entry
    message: Message
    is_first: bool = False


Change: TypeAlias = Callable[[Entry], Entry | None]
"""What is to become of an entry; None: it is removed."""


class Draft(Protocol):
    """Room for one message that is arriving. End it with ``commit`` or ``abort``, exactly once."""

    @property
    def queue_id(self) -> QueueId:
        """The name that the message will have."""
        ...

    async def write(self, octets: bytes) -> None:
        """Take the next octets. Memory stays bounded: past a threshold they go to a file.

        SpoolFull or SpoolError if they cannot be taken; the draft can then only be aborted.
        """
        ...

    async def message(self) -> Message:
        """Give the message as it will be accepted, to be read until ``commit`` or ``abort``; no ``write`` may follow.

        SpoolFull or SpoolError if it is not whole; the draft can then only be aborted.
        """
        ...

    async def commit(self, client: Client, envelope: Envelope, received: dt.datetime) -> Entry:
        """Accept the message: when this returns it is durable, due at once, and may be answered 250.

        SpoolFull or SpoolError: it is not accepted, and nothing is left of it. Cancellation before
        the transaction begins aborts; a transaction under way is waited for.
        """
        ...

    async def commit_report(
        self,
        outcome: Entry,
        client: Client,
        envelope: Envelope,
        received: dt.datetime,
        tried: Tried | None = None,
    ) -> Entry | None:
        """Accept the message as a report of ``outcome``, in the very transaction that records that, as ``record`` does.

        Both are durable, or neither is done: SpoolFull or SpoolError, and nothing is left of the draft. None, and
        neither is done, if the message of ``outcome`` is not claimed here. Like every outcome it may use the reserve.
        """
        ...

    async def restore(self, entry: Entry) -> bool:
        """Accept the message as one that was in a spool before, just as ``entry`` has it, its queue id included.

        When this returns True it is durable, claimed by nobody, due when it was, held if it was, and whoever waits
        for mail is told, as of a ``change``; whoever claims it hears that it may have been claimed before. False, and
        nothing is done, if the spool has a message of that id already. What is raised is as for ``commit``; ValueError
        too, if the entry is done, of another size, or has this draft's own id. The draft is over in any case.
        """
        ...

    async def abort(self) -> None:
        """Forget the octets. Never raises SpoolError. Does nothing after ``commit``. Its work is shielded."""
        ...


class FreshMail(Protocol):
    """Messages that this process has just accepted, claimed at birth for whoever holds this."""

    async def receive(self) -> Claim:
        """Wait for the next fresh message: the oldest of the highest priority. Cancellation loses none."""
        ...


class Recorder(Protocol):
    """The part of a spool that stores what became of a message."""

    async def begin(self, received: dt.datetime, *, is_reserved: bool = False) -> Draft:
        """Make room for a message that begins to arrive at ``received``. SpoolFull if there is no room.

        ``is_reserved``: for a report, which has room where no other message has; it stays in memory, so keep it small.
        """
        ...

    async def record(self, entry: Entry, tried: Tried | None = None) -> None:
        """Store what became of a claimed message and end the claim; a message that is done is removed.

        ``tried`` is the attempt that it came of: it is added to the journal of the message.

        SpoolError: nothing changed, the claim stands; record again. The same entry may be
        recorded unchanged, which only ends the claim. A message that is not claimed here stays as it is.
        """
        ...


class Spool(Recorder, Protocol):
    """A durable store of messages. Every call raises SpoolError when it could not be done; nothing is half done."""

    def fresh(self, room: int) -> AbstractAsyncContextManager[FreshMail]:
        """While the block lasts, claim at birth what this process accepts, up to ``room`` not yet taken.

        Past ``room``, messages are born unclaimed and due at once. At the end of the block the ones
        not received are given back. One block at a time: RuntimeError for a second.
        """
        ...

    async def claim(self, now: dt.datetime, limit: int) -> Sequence[Claim]:
        """Claim at most ``limit`` messages due at ``now`` that nobody has claimed and nobody holds.

        The highest priority comes first (RFC 6710), and of one priority the longest due: what is due and of
        a low priority waits for as long as there is enough of a higher one.
        """
        ...

    async def claim_ids(self, queue_ids: Sequence[QueueId]) -> Sequence[Claim]:
        """Claim these messages, due or not, held or not, as far as they are there and nobody has claimed them.

        Recipients that had failed are pending again: this is the retry by hand.
        """
        ...

    async def next_due(self) -> dt.datetime | None:
        """Give the earliest time at which an unclaimed message is due that is not held; None if there is none."""
        ...

    async def wait_for_mail(self) -> None:
        """Return when a message was born unclaimed in this process, or any was changed, since the last return.

        A message that is accepted is due at once. Fresh ones do not count, and arrivals by other processes may not
        be noticed: look at ``next_due`` now and then too. A ``change`` is noticed whichever process made it, within
        a second of its return, by who waits at that time.
        """
        ...

    async def recover(self) -> int:
        """Void the claims of owners that have died and sweep their litter; give the number of claims."""
        ...

    async def entries(self, after: QueueId | None = None, limit: int = 100) -> Sequence[Entry]:
        """Give the next at most ``limit`` entries behind ``after`` (from the first if None), by queue id."""
        ...

    async def find(self, queue_ids: Sequence[QueueId]) -> Sequence[Entry]:
        """Give the entries of these messages, by queue id, as far as they are there."""
        ...

    async def journal(self, queue_id: QueueId) -> Sequence[Tried]:
        """Give what was recorded of the attempts to deliver a message, the oldest first; nothing if it is not there.

        It has a bound: the latest 100 attempts are kept, and they go with the message.
        """
        ...

    async def count(self) -> int:
        """Give the number of messages, claimed or not; roughly: it may count what cannot be read."""
        ...

    async def verify(self) -> Sequence[str]:
        """Look at all of the store, and give a sentence for each fault; nothing is changed.

        It may take long, and hold others up meanwhile.
        """
        ...

    async def message_of(self, queue_id: QueueId) -> Message | None:
        """Give the octets of a message, claimed or not; None if it is not there.

        It is not kept for the reader: SpoolError, then or while it is read, if it has gone or is not whole.
        """
        ...

    async def change(self, queue_ids: Sequence[QueueId], change: Change) -> Sequence[tuple[Entry, Entry | None]]:
        """Put ``change(entry)`` in the place of each of these messages, in one transaction; None removes it.

        A message that is claimed stays as it is: give those that were not, as they were and as they are. An entry
        that is done is removed as well. ``change`` may keep an entry as it is by giving the very same, gets no
        other than these, may be called twice, in another thread, and must not block.
        """
        ...


async def all_entries(spool: Spool) -> AsyncIterator[Entry]:
    """Give every entry by queue id, read in short pages; what changes meanwhile may or may not be seen."""
    page = await spool.entries()
    while page:
        for entry in page:
            yield entry
        page = await spool.entries(after=page[-1].queue_id)
