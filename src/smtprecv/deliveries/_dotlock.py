"""The lock beside a mailbox that local programs expect: ``NAME.lock``, with the owner's process id in it.

Everything here blocks for no longer than the file system takes. Its one rule: nobody waits here. A lock that
somebody holds is ``MailboxLocked`` at once, and one whose process is dead is broken.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

_ours: Final[set[int]] = set()
"""The inodes of the locks that this process has, or is about to take."""


@final
class MailboxLocked(Exception):
    """Somebody else has the mailbox."""


@contextmanager
def dot_lock(mailbox: Path) -> Generator[None, None, None]:
    """Hold the lock for the block; MailboxLocked if somebody has it, OSError if it cannot be made."""
    lock = mailbox.with_name(f"{mailbox.name}.lock")
    # A lock that is linked into its place has its process id in it from the first moment on.
    mine = mailbox.with_name(f".{mailbox.name}.{os.getpid()}.{threading.get_ident()}")
    mine.unlink(missing_ok=True)
    fd = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    inode = os.fstat(fd).st_ino
    _ours.add(inode)
    try:
        try:
            os.write(fd, b"%d\n" % os.getpid())
        finally:
            os.close(fd)
        try:
            _take(lock, mine)
        finally:
            mine.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        _ours.discard(inode)


def lock_file(fd: int) -> None:
    """Lock an open mailbox by flock and by fcntl, until it is closed; MailboxLocked if somebody has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise MailboxLocked from None


def _take(lock: Path, mine: Path) -> None:
    try:
        os.link(mine, lock)
    except FileExistsError:
        _break_stale(lock)
        try:
            os.link(mine, lock)
        except FileExistsError:
            raise MailboxLocked from None


def _break_stale(lock: Path) -> None:
    """Remove the lock of a process that is dead."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # Two that find the same lock stale must not break each other's new one.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        inode = os.fstat(fd).st_ino
        if _is_dead(os.read(fd, 32), inode) and lock.stat().st_ino == inode:
            lock.unlink()
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        os.close(fd)


def _is_dead(octets: bytes, inode: int) -> bool:
    """Say whether these octets name a process that does not live; 0, or nothing, names none."""
    with contextlib.suppress(ValueError, OverflowError, PermissionError):
        pid = int(octets)
        if pid == os.getpid():
            # In a container a process has the id of the one that died before it.
            return inode not in _ours
        if pid > 0:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
    return False
