"""The spool's folder: what lies in it, how it is made, where it may not be, and how much room it has.

    queue.sqlite (-wal, -shm)   the database, or a link to one of the program's own
    home.*                      the folder's name in a database of the program's own
    lock                        the write lock
    owners/                     one locked file for each open spool
    bodies/                     the octets of large messages

Its one rule: SpoolUnusable, with one clear line, before anything is opened that could not work. A network file system
cannot: its locks and its order of writes are not what SQLite and the owners stand on.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Final, final

from smtprecv.durable import sync
from smtprecv.errors import SpoolFull, SpoolUnusable

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_RESERVE_FILES: Final = 64
"""Files that body files leave to others: to owners, to the database's log, to deliveries."""
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.glusterfs", "fuse.sshfs", "gfs2", "glusterfs", "lustre"}
    | {"ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs"}
)


@final
class Folder:
    """The paths in the spool folder."""

    def __init__(self, path: Path, database: Path | None = None) -> None:
        """Know the folder at ``path``, wherever the process may go later; nothing is touched.

        ``database``: the program's own that has the tables, or is to have them.
        """
        self.path = path = path.absolute()
        self._link = path / "queue.sqlite"
        self.is_guest = self._link.is_symlink() or (database or self._link).absolute() != self._link
        self.database = (database or self._link).resolve() if self.is_guest else self._link
        self.lock = path / "lock"
        self.owners = path / "owners"
        self.bodies = path / "bodies"

    def make(self, mounts: Path, *, create: bool) -> None:
        """Make the folder where it is not there and ``create`` allows it; SpoolUnusable where it is none.

        ``mounts``: the table of mounted file systems.
        """
        if not create and not self.database.exists():
            msg = "there is none"
            raise SpoolUnusable(msg)
        _make_path(self.path)
        for folder in (self.path, self.database.parent):
            kind = _file_system(folder, mounts)
            if kind in _NETWORK_FILE_SYSTEMS:
                msg = f"it is on a network file system ({kind}), whose locks cannot be trusted with mail"
                raise SpoolUnusable(msg)
        for folder in (self.owners, self.bodies):
            with suppress(FileExistsError):
                folder.mkdir(_FOLDER_MODE)
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                give_to_owner(fd, self.path)
                os.close(fd)

    def make_database(self) -> None:
        """Make the database's file where it is not there; under the write lock.

        A file that is there is never opened: closing it would drop the locks of SQLite in this process.
        """
        if self.is_guest:
            self._settle_in()
        if not self.database.exists():
            os.close(new_file(self.database, os.O_RDWR))

    def _settle_in(self) -> None:
        """Link to the program's database, so that whoever opens the folder finds it; SpoolUnusable for a second one."""
        if not os.path.lexists(self._link):
            self._link.symlink_to(self.database)
        if self._link.resolve() != self.database:
            msg = f"its messages are in {self._link.resolve()}, and not in {self.database}"
            raise SpoolUnusable(msg)

    @property
    def token(self) -> str:
        """The folder's name in a database of the program's own; made where there is none, under the write lock."""
        for home in self.path.glob("home.*"):
            return home.suffix
        token = f".{secrets.token_hex(10)}"
        os.close(new_file(self.path / f"home{token}", os.O_RDWR))
        return token

    def sync(self) -> None:
        """Make the names in the folder durable, and its own."""
        sync(self.path)
        _sync_above(self.path)
        if self.is_guest:
            sync(self.database.parent)


@final
class Room:
    """How much room is left beside the reserve, which is kept for outcomes: those must always find some."""

    def __init__(
        self, folder: Folder, reserve_size: int, free_size: Callable[[Path], int], free_files: Callable[[Path], int]
    ) -> None:
        """Look at the file systems of ``folder``; keep ``reserve_size`` octets of each free, and some files."""
        self.was_full = False
        self._path = folder.path
        self._database = folder.database.parent
        self._reserve_size = reserve_size
        self._free_size = free_size
        self._free_files = free_files

    def is_left_for_files(self) -> bool:
        """Say whether a piece of a body file may be written."""
        return self._missing_size(self._path) <= 0 and self._free_files(self._path) >= _RESERVE_FILES

    def is_left_for_rows(self, connection: sqlite3.Connection) -> bool:
        """Say whether a message may be accepted: pages that are free inside the database count as room."""
        missing_size = self._missing_size(self._database)
        if missing_size > 0:
            missing_size -= _free_pages_size(connection)
        self.was_full = missing_size > 0
        return not self.was_full

    def demand(self, connection: sqlite3.Connection) -> None:
        """Raise SpoolFull if no message may be accepted."""
        if not self.is_left_for_rows(connection):
            msg = "no room for another message"
            raise SpoolFull(msg)

    def _missing_size(self, path: Path) -> int:
        return self._reserve_size - self._free_size(path)


def new_file(path: Path, flags: int, mode: int = _FILE_MODE) -> int:
    """Make a file and give its descriptor; OSError if it is there or cannot be made.

    Made by root, it becomes the folder's owner's: what a command run by root leaves behind must not lock out the
    user whose queue it is.
    """
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    give_to_owner(fd, path.parent)
    return fd


def free_size(path: Path) -> int:
    """Give how many octets may still be written on the file system of ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def free_files(path: Path) -> int:
    """Give how many files may still be made on the file system of ``path``; many, where it has no such bound."""
    status = os.statvfs(path)
    return status.f_favail if status.f_files else sys.maxsize


def give_to_owner(fd: int, folder: Path) -> None:
    """Let a file that was just made be the folder's owner's: by descriptor, its name may be another file's by now."""
    if os.geteuid() == 0:
        status = folder.stat()
        with suppress(PermissionError):
            os.fchown(fd, status.st_uid, status.st_gid)


def _sync_above(path: Path) -> None:
    """Make the name of a folder durable, unless the one above is closed to us: then it was made by another user."""
    with suppress(PermissionError):
        sync(path.parent)


def _make_path(path: Path) -> None:
    """Make a folder and those above it; the name of each is durable before the next is made."""
    missing = list(takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
    for folder in reversed(missing):
        folder.mkdir(_FOLDER_MODE if folder == path else 0o777, exist_ok=True)
        _sync_above(folder)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def _free_pages_size(connection: sqlite3.Connection) -> int:
    query = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
    size: object = connection.execute(query).fetchone()[0]
    return size if isinstance(size, int) else 0


def _file_system(path: Path, mounts: Path) -> str | None:
    """Give the type of the file system that ``path`` is on, None where the table does not tell."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        place, _, kind = line.partition(" - ")
        if place.split()[2:3] == [wanted]:
            return kind.split()[0]
    return None
