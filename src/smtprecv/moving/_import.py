"""From a pair of files into a queue.

Its one rule: nothing in a file is trusted. What is taken in is what an export could have written, with octets that have
the size and the digest that it names; everything else is refused, with the reason, and nothing of it is left.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, final

import trio

from smtprecv.message import QueueId
from smtprecv.moving._files import PIECE_SIZE, open_file, read_whole, remove, size_of
from smtprecv.spool import Document, Draft, Spool, read_document

_run: Final = trio.to_thread.run_sync
_SUFFIX: Final = ".json"
_MAX_DOCUMENT_SIZE: Final = 64 * 1024 * 1024
"""Octets; some hundred thousand recipients have room in it."""


@final
class Arrival(Enum):
    """What came of an import."""

    IMPORTED = "imported"
    """It is in the queue, durably."""
    PRESENT = "present"
    """The queue has a message of this id already, which stays as it is; the pair stays too."""
    REFUSED = "refused"
    """It is no pair, or one that is not whole: nothing was taken."""


@final
@dataclass(frozen=True, slots=True)
class Imported:
    """What came of the import of the pair of ``path``. ``queue_id`` is None where it could not be read.

    ``reason``: why it was refused; or, of what was imported, why its files could not be removed.
    """

    path: Path
    outcome: Arrival
    queue_id: QueueId | None = None
    reason: str | None = None


async def pairs_in(path: str | os.PathLike[str]) -> Sequence[Path]:
    """Give the ``.json`` files in a folder, in order of name, hidden ones left out; a path that is no folder is itself.

    OSError: the folder cannot be read.
    """
    return await _run(_pairs_in, Path(path))


async def import_message(
    spool: Spool, path: str | os.PathLike[str], *, hold: bool = False, remove: bool = False, dry_run: bool = False
) -> Imported:
    """Take the message of a pair into the queue, under its own id; ``path`` is the ``.json`` of the two.

    It is durable when this returns IMPORTED. It is due when it was, and held if it was, or if ``hold`` asks for that; a
    running queue is told. ``remove``: the files are removed behind that. ``dry_run`` changes nothing, and
    tells what would have come of it; the octets are read all the same.

    SpoolError: it could not be taken, and nothing of it was, as for ``Draft.commit``. Cancellation takes all or
    nothing.
    """
    pair = _Pair(Path(path))
    try:
        document = await _run(pair.read)
        if hold:
            document = replace(document, entry=replace(document.entry, is_held=True))
    except (OSError, ValueError) as error:
        return Imported(pair.path, Arrival.REFUSED, reason=_reason(error))
    queue_id = document.entry.queue_id
    try:
        is_taken = not await spool.find([queue_id]) and await _take(None if dry_run else spool, pair, document)
    except (OSError, ValueError) as error:
        return Imported(pair.path, Arrival.REFUSED, queue_id, _reason(error))
    if not is_taken:
        return Imported(pair.path, Arrival.PRESENT, queue_id)
    reason = await _run(pair.remove) if remove and not dry_run else None
    return Imported(pair.path, Arrival.IMPORTED, queue_id, reason)


@final
class _Pair:
    """The two files. Everything blocks and belongs into a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.octets = path.parent / f"{path.stem}.eml"

    def read(self) -> Document:
        """Read the one; ValueError or OSError if it cannot be."""
        return read_document(read_whole(self.path, _MAX_DOCUMENT_SIZE))

    def open(self, size: int) -> BinaryIO:
        """Open the other; ValueError or OSError if it cannot be, or is not of this size."""
        file = open_file(self.octets)
        if size_of(file) != size:
            file.close()
            msg = f"{self.octets.name} has not {size} octets"
            raise ValueError(msg)
        return file

    def remove(self) -> str | None:
        """Remove both, first the one that makes them a pair; say why if that cannot be."""
        try:
            remove(self.path, self.octets)
        except OSError as error:
            return f"its files were not removed: {_reason(error)}"
        return None


async def _take(spool: Spool | None, pair: _Pair, document: Document) -> bool:
    """Read the octets, and take them in if there is a spool; False if that has the message by now."""
    entry = document.entry
    with await _run(pair.open, entry.size) as file:
        if spool is None:
            await _copy(file, None, document)
            return True
        draft = await spool.begin(entry.received)
        try:
            await _copy(file, draft, document)
            return await draft.restore(entry)
        finally:
            await draft.abort()


async def _copy(file: BinaryIO, draft: Draft | None, document: Document) -> None:
    """Write the octets into the draft; ValueError if they are not those of the document."""
    digest = sha256()
    async with aclosing(_pieces(file, document.entry.size)) as pieces:
        async for piece in pieces:
            digest.update(piece)
            if draft is not None:
                await draft.write(piece)
    if digest.hexdigest() != document.sha256:
        msg = "the .eml has other octets than were exported: its SHA-256 is another"
        raise ValueError(msg)


async def _pieces(file: BinaryIO, size: int) -> AsyncGenerator[bytes, None]:
    """Give the octets, as many as there were when the file was opened, should it grow meanwhile."""
    while size and (piece := await _run(partial(file.read, min(size, PIECE_SIZE)))):
        size -= len(piece)
        yield piece


def _pairs_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.iterdir() if each.suffix == _SUFFIX and not each.name.startswith("."))


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
