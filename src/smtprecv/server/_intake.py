"""Where accepted mail goes: the Protocol between a dialogue and the store, and the one for a spool."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

from smtprecv.message import Client, Message, Now, utc_now
from smtprecv.protocol import EnhancedStatus, Envelope, Reply
from smtprecv.spool import Draft, Spool


class Incoming(Protocol):
    """One message on its way in. It ends with ``commit`` or ``abort``."""

    async def write(self, octets: bytes) -> None:
        """Take the next octets. SpoolError: this message can't be taken, and will be aborted."""
        ...

    async def message(self) -> Message:
        """Give the whole message, for a policy to read until ``commit`` or ``abort``; asked for only if one does.

        SpoolError: this message can't be taken, and will be aborted.
        """
        ...

    async def commit(self, client: Client, envelope: Envelope) -> Sequence[Reply]:
        """Take responsibility for the message, and give the replies to its end of data.

        One reply speaks for all; otherwise one for each recipient of the envelope, in its order: LMTP passes them on,
        SMTP, where one must do for all, gives the first 4yz, else the first 5yz, else a 2yz.

        A 2yz reply is a promise: the message is durable. SpoolError: it was not taken.
        Called under a shield; it may take minutes, no longer.
        """
        ...

    async def abort(self) -> None:
        """Forget the message. Never raises; its work is shielded; does nothing after ``commit``.

        What the client was told 5yz for is not delivered (RFC 5321 section 4.2.5).
        """
        ...


class Intake(Protocol):
    """Takes messages over from a server."""

    async def begin(self, client: Client) -> Incoming:
        """Make room for a message. SpoolError, SpoolFull among them: none can be taken now; DATA is answered 4yz."""
        ...


@final
class SpoolIntake:
    """An Intake that puts messages into a spool, where a runner finds them."""

    def __init__(self, spool: Spool, now: Now = utc_now) -> None:
        """Take messages into ``spool``; ``now`` dates them."""
        self._spool = spool
        self._now = now

    async def begin(self, client: Client) -> Incoming:
        """Make room in the spool."""
        del client
        received = self._now()
        return _SpoolIncoming(await self._spool.begin(received), received)


@final
@dataclass(frozen=True, slots=True)
class _SpoolIncoming:
    draft: Draft
    received: dt.datetime

    async def write(self, octets: bytes) -> None:
        await self.draft.write(octets)

    async def message(self) -> Message:
        return await self.draft.message()

    async def commit(self, client: Client, envelope: Envelope) -> Sequence[Reply]:
        entry = await self.draft.commit(client, envelope, self.received)
        return [Reply(250, f"queued as {entry.queue_id}", EnhancedStatus(2, 0, 0))]

    async def abort(self) -> None:
        await self.draft.abort()
