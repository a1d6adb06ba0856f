"""What a user implements to get mail: one method.

``DeliveryCheck``, ``DeliveryDestination``, ``DeliveryReports`` and ``DeliveryRun`` are for those who need them, beside
``Delivery`` and found by ``isinstance``. None of it is inheritance: a class that has only ``deliver`` is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, final, runtime_checkable

from smtprecv.message import Client, DeliveryAnswer, Message, QueueId
from smtprecv.note import Notebook, NoteCodec
from smtprecv.protocol import Envelope, ForwardPath, Recipient
from smtprecv.spool import Entry

_N = TypeVar("_N")


@final
@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver a message to the recipients that still wait for it.

    ``entry``: the message's envelope and history. ``message``: its octets. ``notebook``: what the delivery
    remembers with the message; use ``load`` and ``save``. ``remotes``: who else answered; use ``answered_by``.
    """

    entry: Entry
    message: Message
    notebook: Notebook = field(default_factory=Notebook)
    remotes: dict[ForwardPath, str] = field(default_factory=dict[ForwardPath, str])

    @property
    def queue_id(self) -> QueueId:
        """The message's name, in every attempt the same."""
        return self.entry.queue_id

    @property
    def client(self) -> Client:
        """Who brought the message."""
        return self.entry.client

    @property
    def envelope(self) -> Envelope:
        """The envelope with all recipients and every ESMTP parameter; those redirected know their ``original``."""
        return self.entry.envelope

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """The pending recipients, in the envelope's order: one reply is due for each."""
        return tuple(standing.recipient for standing in self.entry.pending)

    def key(self, *recipients: Recipient) -> str:
        """Give the idempotency key of the delivery to these recipients, as ``Entry.key`` does.

        It is the same in every attempt, so that who gets it twice can tell: ``Webhook`` sends it, for one.
        """
        return self.entry.key(*recipients)

    def load(self, codec: NoteCodec[_N]) -> _N | None:
        """Give what an earlier attempt saved; None if that is nothing, or nothing that ``codec`` can read."""
        return self.notebook.load(codec)

    def save(self, codec: NoteCodec[_N], note: _N) -> None:
        """Remember a note with the message, in the place of the one before.

        It is stored in the transaction that records this attempt's outcome, an exception included; a
        cancelled attempt has no outcome, and its note is gone. Raises what ``codec.encode`` raises.
        """
        self.notebook.save(codec, note)

    def answered_by(self, recipient: Recipient, remote: str) -> None:
        """Say that the reply for ``recipient`` is one that another mail system gave, whose host name is ``remote``.

        A report names it (RFC 3464 section 2.3.5), unless the sender may not know where the message went. It is
        forgotten with the attempt, and where the delivery raises. TypeError for a name that is no text.
        """
        # Found out here, and not by the report, without which the outcome could not be recorded.
        str.isprintable(remote)
        self.remotes[recipient.forward_path] = remote


@runtime_checkable
class Delivery(Protocol):
    """Takes messages out of the queue."""

    async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
        """Try once to hand the message on to ``attempt.recipients``.

        One reply for each, in order: 2yz, it is yours now; 4yz, try that one again later; 5yz,
        never, and its sender is told. Later is a 4yz that says for how long it is of no use to try again.
        A Redirect puts other recipients in its place, which are tried in an attempt of their own, the first few times
        at once. A Commit is a reply with something that is done in the transaction that records it. An exception
        counts as 451 for each:
        its text is kept for showqueue and the log, and never reaches the network. Cancellation may
        come at any await: the attempt is then repeated, so deliver what you can twice.
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


@runtime_checkable
class DeliveryDestination(Protocol):
    """For a delivery that hands mail on to places which may be slow, busy or away, each on its own."""

    def destination(self, entry: Entry, recipient: Recipient) -> str | None:
        """Name the place that this recipient's mail is handed to, such as ``host:port``; None: no limit applies.

        Asked before every attempt, of each pending recipient; the same name is the same place, whoever gives it.
        ``DestinationLimits`` hold for each: recipients whose destination has no room, or is not well, are not among
        those of the attempt, and wait. A 421, and a 4yz with a status 4.4.z, say that the destination itself is not
        well. An exception counts as None.
        """
        ...


@runtime_checkable
class DeliveryReports(Protocol):
    """For a delivery that hands mail to a mail system which tells the sender of its success itself."""

    def reports_success(self, entry: Entry, recipient: Recipient) -> bool:
        """Say whether a 2yz for this recipient is reported by who has the message now, so that the queue does not.

        Asked for recipients whose sender wants to hear of success; a reply with status 2.1.9 is reported in any case,
        as relayed (RFC 3461 section 5.2.2). An exception is logged, and counts as no.
        """
        ...


@runtime_checkable
class DeliveryRun(Protocol):
    """For a delivery that keeps something from one attempt to the next, such as connections."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Give the block in which whoever runs a queue holds all attempts.

        It is entered once for each run, perhaps several at a time. Attempts outside of it must work too.
        """
        ...


def running(delivery: Delivery) -> AbstractAsyncContextManager[None]:
    """Give the block in which a run of the queue holds the attempts of this delivery."""
    return delivery.running() if isinstance(delivery, DeliveryRun) else nullcontext()
