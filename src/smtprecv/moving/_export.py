"""From a queue into a pair of files.

Its one rule: a message leaves the queue only when its pair is durable, and only if it is still as the pair has it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Final, final

import trio

from smtprecv.errors import SpoolError
from smtprecv.message import Message, QueueId
from smtprecv.moving._files import NewFile, make_folder
from smtprecv.spool import Document, Entry, Spool, document_text

_run: Final = trio.to_thread.run_sync


@final
class Departure(Enum):
    """What came of an export."""

    EXPORTED = "exported"
    """The pair is whole and durable."""
    BUSY = "busy"
    """It was to be removed, but somebody is delivering it, or has just tried to: it has no pair. Try again later."""
    MISSING = "missing"
    """It is not in the queue, or cannot be read."""
    OCCUPIED = "occupied"
    """A file of one of these names is there and has other octets, which were left alone."""
    UNREADABLE = "unreadable"
    """Its octets cannot be read."""


@final
@dataclass(frozen=True, slots=True)
class Exported:
    """What came of the export of the message of this name, and why where more is to be said."""

    queue_id: QueueId
    outcome: Departure
    reason: str | None = None


async def export_message(
    spool: Spool, queue_id: QueueId, folder: str | os.PathLike[str], *, remove: bool = False
) -> Exported:
    """Write a message into ``folder``, which is made where it is not there, as ``ID.eml`` and ``ID.json``.

    Both are durable when this returns EXPORTED; otherwise neither is there, unless it was before. A pair that is there
    already is as good as a new one, if it is just the same; two exports of one message are the same octets as long as
    nothing happens to it. ``remove``: it is taken out of the queue behind that; who dies in between, or gets a
    SpoolError then, has it in both. Without it, what was exported is a copy: if both are delivered, everybody gets
    two.

    OSError: the files could not be written. Cancellation leaves no part of a pair; one that comes while the message is
    removed leaves the pair.
    """
    path = Path(folder)
    entry = next(iter(await spool.find([queue_id])), None)
    if entry is None:
        return Exported(queue_id, Departure.MISSING)
    await _run(make_folder, path)
    export = _Export(spool, entry, path)
    try:
        outcome = await export.run(remove=remove)
    finally:
        with trio.CancelScope(shield=True):
            await _run(export.end)
    return outcome


@final
class _Export:
    """One message on its way into its pair."""

    def __init__(self, spool: Spool, entry: Entry, folder: Path) -> None:
        self._spool = spool
        self._entry = entry
        self._octets = NewFile(folder / f"{entry.queue_id}.eml")
        self._document = NewFile(folder / f"{entry.queue_id}.json")
        self._is_kept = False

    async def run(self, *, remove: bool) -> Exported:
        try:
            message = await self._spool.message_of(self._entry.queue_id)
            if message is None:
                return await self._left_alone()
            digest = await self._copy(message)
        except SpoolError as error:
            return await self._left_alone(Departure.UNREADABLE, str(error))
        try:
            await _run(self._octets.place)
            await _run(self._document.write, document_text(Document(self._entry, digest)).encode())
            await _run(self._document.place)
        except FileExistsError as error:
            name: object = error.filename2
            return await self._left_alone(Departure.OCCUPIED, f"{name} is there, and is not the same")
        # From here on the pair may be all that there is: a removal that failed may yet become durable.
        self._is_kept = True
        if remove and not await self._is_removed():
            self._is_kept = False
            return await self._left_alone()
        return Exported(self._entry.queue_id, Departure.EXPORTED)

    def end(self) -> None:
        """Leave a whole pair, or nothing; in the thread."""
        for file in (self._document, self._octets):
            if self._is_kept:
                file.close()
            else:
                file.withdraw()

    async def _copy(self, message: Message) -> str:
        digest = sha256()
        async with message.chunks() as pieces:
            async for piece in pieces:
                digest.update(piece)
                await _run(self._octets.write, piece)
        return digest.hexdigest()

    async def _is_removed(self) -> bool:
        """Remove the message if nobody has it, and if nothing has happened to it since."""
        changes = await self._spool.change([self._entry.queue_id], lambda now: None if now == self._entry else now)
        return [after for _, after in changes] == [None]

    async def _left_alone(self, outcome: Departure = Departure.BUSY, reason: str | None = None) -> Exported:
        """Tell what has gone meanwhile from what could not be exported."""
        queue_id = self._entry.queue_id
        is_there = await self._spool.find([queue_id])
        return Exported(queue_id, outcome, reason) if is_there else Exported(queue_id, Departure.MISSING)
