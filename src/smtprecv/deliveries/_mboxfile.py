"""An mbox file, and one message on its way to its end.

Everything here blocks and belongs into a thread. Its one rule: whenever we unlock the file, or have opened it again, a
message stands at its end whole, or not at all. So a message is first written to a draft beside the mailbox. Under the
lock the draft notes how long the mailbox is, and becomes ``.NAME.append``: a journal, from which the next one to open
the mailbox can tell what a killed process or a power cut has left. OSError comes through as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

from smtprecv.deliveries._dotlock import dot_lock, lock_file
from smtprecv.durable import sync

SPARE_SIZE: Final = 64
"""Octets by which the names of locks, drafts and journals are longer than the mailbox's."""

_BLOCK_SIZE: Final = 256 * 1024
_HEAD: Final = b"%020d\n"
_HEAD_SIZE: Final = 21
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@final
class MboxDraft:
    """A message that is appended to ``mailbox``, whole or not at all. ``name``: the copy's own."""

    def __init__(self, mailbox: Path, name: str) -> None:
        """Take the names; touch no file."""
        self._mailbox = mailbox
        self.path: Final = mailbox.with_name(f".{mailbox.name}.{name}")
        self._fd: int | None = None

    @property
    def is_open(self) -> bool:
        """True from the first write until ``discard``."""
        return self._fd is not None

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write more of the draft; the first call makes the file, over what a killed process may have left of it."""
        if self._fd is None:
            self.path.unlink(missing_ok=True)
            self._fd = os.open(self.path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            _write_all(self._fd, _HEAD % 0)
        _write_all(self._fd, b"".join(pieces))

    def append(self) -> None:
        """Append the draft to the mailbox, both on disk; MailboxLocked if somebody has it, and nothing has happened."""
        if self._fd is None:
            self.write(())
        assert self._fd is not None
        with opened(self._mailbox, os.O_CREAT) as mailbox:
            _end_last_line(mailbox)
            size = os.fstat(mailbox).st_size
            os.pwrite(self._fd, _HEAD % size, 0)
            os.fsync(self._fd)
            journal = _journal(self._mailbox)
            self.path.rename(journal)
            sync(journal.parent)
            try:
                for block in _blocks(self._fd, _HEAD_SIZE):
                    _write_all(mailbox, block)
                os.fsync(mailbox)
            except OSError:
                # If even this fails the journal stays, and whoever opens the mailbox next does it.
                os.ftruncate(mailbox, size)
                os.fsync(mailbox)
                journal.unlink()
                raise
            journal.unlink()

    def discard(self) -> None:
        """Close and remove the draft, if there is one; never raises OSError."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            with contextlib.suppress(OSError):
                self.path.unlink()


def holds(mailbox: Path, octets: bytes) -> bool:
    """Say whether these octets stand in the mailbox at the beginning of a line; then they are on disk."""
    wanted, held = b"\n" + octets, b"\n"
    try:
        with opened(mailbox, 0) as fd:
            for block in _blocks(fd, 0):
                held += block
                if wanted in held:
                    os.fsync(fd)
                    return True
                held = held[-len(wanted) :]
    except FileNotFoundError:
        pass
    return False


@contextmanager
def opened(mailbox: Path, flags: int) -> Generator[int, None, None]:
    """Open and lock a mailbox, without what a killed process has left at its end; MailboxLocked if somebody has it.

    It is a regular file under one name, and no symbolic link: OSError for anything else.
    """
    with dot_lock(mailbox):
        # Closing a mailbox ends all fcntl locks that the process has on it, so it is opened under the first lock only.
        fd = os.open(mailbox, _FLAGS | os.O_APPEND | flags, 0o600)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise OSError(errno.EINVAL, "the mailbox is not a regular file with one name")
            lock_file(fd)
            _recover(mailbox, fd)
            yield fd
        finally:
            os.close(fd)


def _recover(mailbox: Path, fd: int) -> None:
    """Cut off what the journal says to be torn, and end the journal."""
    journal = _journal(mailbox)
    try:
        journal_fd = os.open(journal, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(journal_fd)
        # In a folder where others may make files too, only what we wrote ourselves says where a mailbox ends.
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
            raise OSError(errno.EPERM, f"{journal.name} is somebody else's")
        head = os.pread(journal_fd, _HEAD_SIZE, 0)
        if len(head) == _HEAD_SIZE and head[:-1].isdigit():
            torn = os.fstat(fd).st_size - int(head)
            if 0 < torn < status.st_size - _HEAD_SIZE and _is_begun(journal_fd, fd, int(head)):
                os.ftruncate(fd, int(head))
        os.fsync(fd)
        journal.unlink()
    finally:
        os.close(journal_fd)


def _is_begun(journal_fd: int, fd: int, start: int) -> bool:
    """Say whether the end of the mailbox is the beginning of the draft, and nobody has written behind it.

    A power cut may leave zeros where octets were not yet on disk.
    """
    expected = _blocks(journal_fd, _HEAD_SIZE)
    for block in _blocks(fd, start):
        wanted = next(expected)[: len(block)]
        if not wanted.startswith(block.rstrip(b"\0")):
            return False
    return True


def _end_last_line(fd: int) -> None:
    """End the line at the end of the mailbox, if another program left it open."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        _write_all(fd, b"\n\n")


def _journal(mailbox: Path) -> Path:
    return mailbox.with_name(f".{mailbox.name}.append")


def _blocks(fd: int, start: int) -> Iterator[bytes]:
    while block := os.pread(fd, _BLOCK_SIZE, start):
        yield block
        start += len(block)


def _write_all(fd: int, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(fd, rest) :]
