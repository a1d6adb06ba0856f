"""An intake without a queue: a message is delivered before it is answered for (RFC 2033 section 1).

Its one rule: nothing is promised. What the delivery answers is what the client hears, and who could not be served is
for the client to try again. So it suits LMTP, where each recipient has its reply.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

from smtprecv.delivery import Attempt, Delivery
from smtprecv.message import Client, Message, Now, Redirect, utc_now
from smtprecv.protocol import EnhancedStatus, Envelope, Recipient, Reply
from smtprecv.server._spread import worst
from smtprecv.spool import Entry, PassingBody, RunInThread, Scratch, Standing

_MAX_REDIRECTS: Final = 10
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
            return await self._deliver(entry, envelope.recipients, message, _MAX_REDIRECTS)
        finally:
            await self.body.discard()

    async def _deliver(
        self, entry: Entry, recipients: Sequence[Recipient], message: Message, redirects: int
    ) -> Sequence[Reply]:
        """Give one reply for each recipient, after following what the delivery redirects."""
        entry = replace(
            entry,
            envelope=replace(entry.envelope, recipients=tuple(recipients)),
            standings=tuple(map(Standing, recipients)),
        )
        outcomes = await self.delivery.deliver(Attempt(entry, message))
        if len(outcomes) != len(recipients):
            msg = f"{len(outcomes)} replies for {len(recipients)} recipients"
            raise ValueError(msg)
        replies: list[Reply] = []
        for recipient, outcome in zip(recipients, outcomes, strict=True):
            if isinstance(outcome, Reply):
                replies.append(outcome)
            elif not redirects:
                replies.append(_ENDLESS)
            else:
                instead = _in_place_of(recipient, outcome)
                replies.append(worst(await self._deliver(entry, instead, message, redirects - 1)))
        return replies

    async def abort(self) -> None:
        await self.body.discard()


def _in_place_of(recipient: Recipient, redirect: Redirect) -> Sequence[Recipient]:
    original = recipient.original or recipient.forward_path
    return [replace(recipient, forward_path=path, original=original) for path in redirect.forward_paths]
