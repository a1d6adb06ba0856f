"""What a user implements to get mail: one method.

``DeliveryCheck`` is for those who need it, beside ``Delivery`` and found by ``isinstance``.
None of it is inheritance: a class that has only ``deliver`` is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from smtprecv.message import Message, QueueId
from smtprecv.protocol import Envelope, Recipient, Reply
from smtprecv.spool import Entry


@final
@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver a message to the recipients that still wait for it.

    ``entry``: the message's envelope and history. ``message``: its octets.
    """

    entry: Entry
    message: Message

    @property
    def queue_id(self) -> QueueId:
        """The message's name; with a recipient's address it names one delivery, in every attempt the same."""
        return self.entry.queue_id

    @property
    def envelope(self) -> Envelope:
        """The envelope as it was accepted, with all recipients."""
        return self.entry.envelope

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """The pending recipients, in the envelope's order: one reply is due for each."""
        return tuple(standing.recipient for standing in self.entry.pending)


@runtime_checkable
class Delivery(Protocol):
    """Takes messages out of the queue."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Try once to hand the message on to ``attempt.recipients``.

        One reply for each, in order: 2yz, it is yours now; 4yz, try that one again later; 5yz,
        never, and its sender is told. An exception counts as 451 for each: its text is kept for
        showqueue and the log, and never reaches the network. Cancellation may come at any
        await: the attempt is then repeated, so deliver what you can twice.
        """
        ...


@runtime_checkable
class DeliveryCheck(Protocol):
    """For a delivery that can tell what it has done already."""

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        """Say whether this recipient has the message already, so that it is not offered again.

        Asked for each pending recipient before every attempt but the very first of a message: that one
        can't repeat an attempt which a crash cut short.
        An exception counts as 451 for every pending recipient.
        """
        ...
