"""Room for messages that are never in a queue: they are delivered before they are answered for.

Its one rule: nothing outlives the block or call that it was for.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final, final

from smtprecv.message import Message, QueueId
from smtprecv.spool._body import ArrivingBody, BodyFolder, StoredMessage
from smtprecv.spool._queue_id import QueueIds, random_owner_id
from smtprecv.spool._thread import RunInThread, Threads

_THREADS: Final = 4
_MEMORY_SIZE: Final = 1024 * 1024
"""Octets of one message that stay in memory."""


@final
class Scratch:
    """A folder for the octets of messages while they pass."""

    def __init__(self, path: Path, run_in_thread: RunInThread | None = None) -> None:
        """Use ``path``, which must be there; its files have names of their own."""
        owner_id = random_owner_id()
        self._folder = BodyFolder(path, owner_id, run_in_thread or Threads(_THREADS), lambda: True)
        self._queue_ids = QueueIds(owner_id)

    def begin(self, received: dt.datetime) -> PassingBody:
        """Make room for a message that begins to arrive at ``received``."""
        return PassingBody(self._folder, self._queue_ids.next(received))


@final
class PassingBody:
    """A message that arrives, is read, and is gone."""

    def __init__(self, folder: BodyFolder, queue_id: QueueId) -> None:
        """Begin with no octets."""
        self.queue_id: Final = queue_id
        self._folder = folder
        self._body = ArrivingBody(folder, queue_id, _MEMORY_SIZE)

    async def write(self, octets: bytes) -> None:
        """Take the next octets; SpoolFull or SpoolError if they cannot be."""
        await self._body.write(octets)

    async def message(self) -> Message:
        """Give the whole message, to be read until ``discard``."""
        return StoredMessage(self._folder, self.queue_id, await self._body.finish(), self._body.size)

    async def discard(self) -> None:
        """Forget the octets. Never raises SpoolError; its work is shielded."""
        await self._body.discard()
