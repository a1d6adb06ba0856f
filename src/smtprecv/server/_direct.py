"""An intake without a queue: a message is delivered before it is answered for, as LMTP has it (RFC 2033).

Its one rule: nothing is promised. What the delivery answers is what the client hears, and who could not be served is
for the client to try again. So it suits LMTP, where each recipient has its reply.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final, final

from smtprecv.delivery import Attempt, Delivery
from smtprecv.message import Client, Commit, DeliveryAnswer, Later, Message, Now, Redirect, utc_now
from smtprecv.protocol import EnhancedStatus, Envelope, ForwardPath, Recipient, Reply
from smtprecv.server._spread import worst
from smtprecv.server._trouble import local_error
from smtprecv.spool import Entry, PassingBody, RunInThread, Scratch, Standing

_MAX_ROUNDS: Final = 10
"""Attempts for one message: one, and one more for each redirect of a redirect."""
_SERVED: Final = Reply(250, "redirected to who has it already", EnhancedStatus(2, 1, 5))
_ENDLESS: Final = Reply(451, "redirected without end", EnhancedStatus(4, 4, 6))


@final
class DirectIntake:
    """An Intake that hands each message to a delivery, and gives its replies.

    The attempt has as its entry what the queue would have: a queue id, the client, the envelope. A
    note is forgotten with the message, and nobody asks ``is_delivered``. ``folder``: where the octets of large
    messages are meanwhile, by default the system's for temporary files. ``now`` dates the messages;
    ``run_in_thread`` runs what blocks.
    """

    def __init__(
        self,
        delivery: Delivery,
        *,
        folder: Path | None = None,
        now: Now = utc_now,
        run_in_thread: RunInThread | None = None,
    ) -> None:
        """Deliver by ``delivery``."""
        self._delivery = delivery
        self._scratch = Scratch(folder or Path(tempfile.gettempdir()), run_in_thread)
        self._now = now

    async def begin(self, client: Client) -> _DirectIncoming:
        """Make room in memory."""
        received = self._now()
        return _DirectIncoming(self._delivery, self._scratch.begin(received), received)


@final
@dataclass(frozen=True, slots=True)
class _DirectIncoming:
    delivery: Delivery
    body: PassingBody
    received: dt.datetime

    async def write(self, octets: bytes) -> None:
        await self.body.write(octets)

    async def message(self) -> Message:
        return await self.body.message()

    async def commit(self, client: Client, envelope: Envelope) -> Sequence[Reply]:
        message = await self.body.message()
        entry = Entry(self.body.queue_id, self.received, client, envelope, message.size, (), due=None)
        try:
            return await _Errand(self.delivery, entry, message).serve(envelope.recipients, _MAX_ROUNDS)
        finally:
            await self.body.discard()

    async def abort(self) -> None:
        await self.body.discard()


@final
@dataclass(frozen=True, slots=True)
class _Errand:
    """One message on its way to all its recipients."""

    delivery: Delivery
    entry: Entry
    message: Message
    served: set[ForwardPath] = field(default_factory=set[ForwardPath])

    async def serve(self, recipients: Sequence[Recipient], rounds: int) -> Sequence[Reply]:
        """Give one reply for each recipient, after following what the delivery redirects."""
        if not rounds:
            return [_ENDLESS] * len(recipients)
        outcomes = await self._attempt(recipients)
        pairs = list(zip(recipients, outcomes, strict=True))
        self.served.update(each.forward_path for each, outcome in pairs if isinstance(outcome, Reply) and outcome.is_ok)
        groups = [self._in_place_of(each, outcome) for each, outcome in pairs]
        following = [each for group in groups for each in group]
        replies = iter(await self.serve(following, rounds - 1) if following else ())
        return [
            outcome if isinstance(outcome, Reply) else worst([*islice(replies, len(group))] or [_SERVED])
            for outcome, group in zip(outcomes, groups, strict=True)
        ]

    async def _attempt(self, recipients: Sequence[Recipient]) -> Sequence[Reply | Redirect]:
        entry = replace(
            self.entry,
            envelope=replace(self.entry.envelope, recipients=tuple(recipients)),
            standings=tuple(map(Standing, recipients)),
        )
        try:
            outcomes = await self.delivery.deliver(Attempt(entry, self.message))
            entry.after(outcomes, entry.received)  # ValueError for what are no outcomes of this attempt
        # A delivery is the user's code: what it raises takes nothing back from those who were served before.
        except Exception as error:
            return [local_error(entry.client, error)] * len(recipients)
        return [self._without_spool(outcome) for outcome in outcomes]

    def _without_spool(self, outcome: DeliveryAnswer) -> Reply | Redirect:
        """Refuse for now what needs the transactions of a spool, and forget what needs its times: there is none."""
        if isinstance(outcome, Commit):
            return local_error(self.entry.client, RuntimeError("a Commit needs a queue, and there is none"))
        return outcome.reply if isinstance(outcome, Later) else outcome

    def _in_place_of(self, recipient: Recipient, outcome: Reply | Redirect) -> Sequence[Recipient]:
        """Give those who stand for a recipient now, but for any that were served before."""
        if isinstance(outcome, Reply):
            return ()
        original = recipient.original or recipient.forward_path
        paths = [path for path in dict.fromkeys(outcome.forward_paths) if path not in self.served]
        return [replace(recipient, forward_path=path, original=original) for path in paths]
