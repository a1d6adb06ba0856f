"""The octets of messages: as they arrive, and as they are read again.

Small ones stay in memory and go into the row; past a threshold they stream to a file in ``bodies/``.
Its one rule: a row never names a file that is not whole, so a file and its folder are synced before the row's
transaction. The file carries its owner's id in its name, so that litter can be told from a living owner's work.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, TypeAlias, TypeVar, final

import trio

from smtprecv.durable import sync
from smtprecv.errors import CorruptEntry, SpoolError, SpoolFull
from smtprecv.message import QueueId
from smtprecv.spool._failure import as_spool_error
from smtprecv.spool._folder import new_file
from smtprecv.spool._thread import RunInThread

T = TypeVar("T")

_log: Final = logging.getLogger("smtprecv.spool")

PIECE_SIZE: Final = 256 * 1024
"""Octets written to or read from a file in one hop to a thread."""
_MOST_PIECES: Final = 1024
"""How many octet strings one system call writes (IOV_MAX)."""


@final
@dataclass(frozen=True, slots=True)
class BodyFile:
    """A body that is a whole file in ``bodies/``, of this name."""

    name: str


StoredBody: TypeAlias = bytes | BodyFile
"""A body that may be named by a row: octets for the row itself, or a file."""


@final
class BodyFolder:
    """The folder of body files, as one owner uses it.

    ``has_room`` says whether another piece may be written beside the reserve. ``has_litter`` is true
    when a file could not be removed.
    """

    def __init__(self, path: Path, owner_id: str, run_in_thread: RunInThread, has_room: Callable[[], bool]) -> None:
        """Use the folder at ``path``."""
        self.path: Path = path
        self.has_litter: bool = False
        self._owner_id = owner_id
        self._run_in_thread = run_in_thread
        self._has_room = has_room
        self._link_numbers = count()

    def file_name(self, queue_id: QueueId) -> str:
        """Give the name of the body file of a message that this owner accepts."""
        return f"{self._owner_id}.{queue_id}"

    def link_path(self, queue_id: QueueId) -> Path:
        """Give a path for one more file with a message's octets, which is litter if it stays."""
        return self.path / f"{self.file_name(queue_id)}.{next(self._link_numbers)}"

    def append(self, name: str, pieces: Sequence[bytes], *, is_new: bool) -> None:
        """Write octets at the end of a file; in the thread. SpoolFull if there is no room beside the reserve."""
        if not self._has_room():
            msg = "no room for another message"
            raise SpoolFull(msg)
        path, flags = self.path / name, os.O_WRONLY | os.O_APPEND
        fd = new_file(path, flags) if is_new else os.open(path, flags | os.O_CLOEXEC)
        try:
            _write_all(fd, pieces)
        finally:
            os.close(fd)

    def append_last(self, name: str, pieces: Sequence[bytes], *, is_new: bool) -> None:
        """Write octets as ``append`` does, and make the file read-only and durable, and its name too; in the thread."""
        self.append(name, pieces, is_new=is_new)
        path = self.path / name
        path.chmod(0o400)
        sync(path)
        sync(self.path)

    def link(self, name: str, queue_id: QueueId) -> str:
        """Give a sealed file, durably, the name of another message's too; in the thread.

        FileExistsError if that is another file's. It may be the file's already.
        """
        source, path = self.path / name, self.path / self.file_name(queue_id)
        if not (path.exists() and path.samefile(source)):
            os.link(source, path)
        sync(self.path)
        return path.name

    def remove(self, name: str) -> None:
        """Remove a file, if it is there; in the thread. One that cannot be is litter, for whoever opens next."""
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError:
            self.has_litter = True
            raise

    async def discard(self, name: str) -> None:
        """Remove a file, if it is there, shielded; that it cannot be removed is logged only."""
        with trio.CancelScope(shield=True):
            try:
                await self.run(partial(self.remove, name))
            except SpoolError as error:
                self.has_litter = True
                _log.warning("%s is left behind: %s", name, error)

    async def run(self, work: Callable[[], T]) -> T:
        """Run work on files in a thread; SpoolFull or SpoolError if it fails."""
        try:
            return await self._run_in_thread(work)
        except OSError as error:
            raise as_spool_error(error) from error


@final
class ArrivingBody:
    """The body of a message that is arriving; at most ``memory_size`` octets, or one piece, stay in memory."""

    def __init__(self, folder: BodyFolder, queue_id: QueueId, memory_size: int) -> None:
        """Begin with nothing, in memory."""
        self.size = 0
        self._folder = folder
        self._name = folder.file_name(queue_id)
        self._pieces: list[bytes] = []
        self._pieces_size = 0
        self._limit = memory_size
        self._has_file = False
        self._finished: StoredBody | None = None
        self._failure: SpoolError | None = None

    async def write(self, octets: bytes) -> None:
        """Take the next octets; SpoolFull or SpoolError if they cannot be, and from then on."""
        if self._failure is not None:
            raise as_spool_error(self._failure)
        self._pieces.append(octets)
        self._pieces_size += len(octets)
        self.size += len(octets)
        if self._pieces_size > self._limit:
            await self._flush()

    async def finish(self) -> StoredBody:
        """Give the body, a file synced to disk, at each call; SpoolFull or SpoolError if it is not whole."""
        if self._failure is not None:
            raise as_spool_error(self._failure)
        if self._finished is None:
            self._finished = await self._seal() if self._has_file else b"".join(self._pieces)
        return self._finished

    async def discard(self) -> None:
        """Remove the file, if there is one. Its work is shielded; it never raises SpoolError."""
        self._pieces.clear()
        if self._has_file:
            await self._folder.discard(self._name)

    async def _seal(self) -> BodyFile:
        await self._flush(is_last=True)
        return BodyFile(self._name)

    async def _flush(self, *, is_last: bool = False) -> None:
        append = self._folder.append_last if is_last else self._folder.append
        is_new, self._has_file = not self._has_file, True
        await self._run(partial(append, self._name, self._pieces, is_new=is_new))
        self._limit = PIECE_SIZE - 1
        self._pieces.clear()
        self._pieces_size = 0

    async def _run(self, work: Callable[[], None]) -> None:
        self._failure = SpoolError("the message was not written to its end")  # unless it is, now
        try:
            await self._folder.run(work)
        except SpoolError as error:
            self._failure = error
            raise
        self._failure = None


@final
class StoredMessage:
    """A message whose octets are in memory or in a body file; a ``Message``."""

    def __init__(self, folder: BodyFolder, queue_id: QueueId, body: StoredBody, size: int) -> None:
        """Read ``body``, which was ``size`` octets when it was accepted."""
        self._folder = folder
        self._queue_id = queue_id
        self._body = body
        self._size = size

    @property
    def size(self) -> int:
        """How many octets."""
        return self._size

    @asynccontextmanager
    async def chunks(self) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Give the octets in pieces of at most 256 KiB."""
        async with aclosing(self._pieces()) as pieces:
            yield pieces

    @asynccontextmanager
    async def as_file(self) -> AsyncGenerator[Path, None]:
        """Give a read-only file that holds the octets, gone at the end of the block: a link, or a copy of a row."""
        path = self._folder.link_path(self._queue_id)
        try:
            await self._folder.run(partial(self._make_file, path))
            yield path
        finally:
            await self._folder.discard(path.name)

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        for start in range(0, self._size, PIECE_SIZE):
            yield await self._piece(start)

    async def _piece(self, start: int) -> bytes:
        if not isinstance(self._body, BodyFile):
            await trio.lowlevel.checkpoint()
            return self._body[start : start + PIECE_SIZE]
        wanted = min(PIECE_SIZE, self._size - start)
        piece = await self._folder.run(partial(_read_at, self._folder.path / self._body.name, start, wanted))
        if len(piece) != wanted:
            msg = f"{self._body.name} has lost octets"
            raise CorruptEntry(msg)
        return piece

    def _make_file(self, path: Path) -> None:
        if isinstance(self._body, BodyFile):
            os.link(self._folder.path / self._body.name, path)
            return
        fd = new_file(path, os.O_WRONLY, 0o400)
        try:
            _write_all(fd, [self._body])
        finally:
            os.close(fd)

    async def bytes(self) -> bytes:
        """Give all octets at once."""
        if not isinstance(self._body, BodyFile):
            await trio.lowlevel.checkpoint()
            return self._body
        async with self.chunks() as pieces:
            return b"".join([piece async for piece in pieces])


def _write_all(fd: int, pieces: Sequence[bytes]) -> None:
    if not 0 < len(pieces) <= _MOST_PIECES:
        pieces = [b"".join(pieces)]
    written = os.writev(fd, pieces)  # as they came: to put a large body together first would copy all of it
    if written < sum(map(len, pieces)):
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def _read_at(path: Path, start: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return file.read(size)
