"""A server that ends after so many messages: intakes around others that count together.

Its one rule: exactly so many are accepted. One that comes when the last place is taken, or held by a commit
under way, is refused for now, as its client may well try again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from smtprecv.errors import ConfigError, SpoolError
from smtprecv.message import Client, Message
from smtprecv.protocol import Envelope, Reply
from smtprecv.server._intake import Incoming, Intake


@final
class Quota:
    """Takes ``places`` messages, of all intakes together, and then calls ``on_full`` with the client of the last."""

    def __init__(self, places: int, on_full: Callable[[Client], None]) -> None:
        """Begin with all places free; ConfigError if there are none."""
        if places < 1:
            msg = "max_messages must be at least 1"
            raise ConfigError(msg)
        self._free = places
        self._left = places
        self._on_full = on_full

    def around(self, intake: Intake) -> Intake:
        """Give the intake that takes messages for this one while there are places."""
        return _Counting(intake, self)

    def take(self) -> None:
        """Take a place, for as long as the commit goes; SpoolError if there is none."""
        if not self._free:
            msg = "max_messages are accepted"
            raise SpoolError(msg)
        self._free -= 1

    def settle(self, client: Client, *, is_accepted: bool) -> None:
        """Keep the place, or give it back."""
        if not is_accepted:
            self._free += 1
            return
        self._left -= 1
        if not self._left:
            self._on_full(client)


@final
class _Counting:
    def __init__(self, intake: Intake, quota: Quota) -> None:
        self._intake = intake
        self._quota = quota

    async def begin(self, client: Client) -> Incoming:
        # Without a place yet: who never ends its message takes none.
        return _Counted(await self._intake.begin(client), self._quota)


@final
class _Counted:
    def __init__(self, incoming: Incoming, quota: Quota) -> None:
        self._incoming = incoming
        self._quota = quota

    async def write(self, octets: bytes) -> None:
        await self._incoming.write(octets)

    async def message(self) -> Message:
        return await self._incoming.message()

    async def commit(self, client: Client, envelope: Envelope) -> Sequence[Reply]:
        self._quota.take()
        is_accepted = False
        try:
            replies = await self._incoming.commit(client, envelope)
            is_accepted = any(reply.is_ok for reply in replies)
        finally:
            self._quota.settle(client, is_accepted=is_accepted)
        return replies

    async def abort(self) -> None:
        await self._incoming.abort()
