"""The spool's folder: what lies in it, how it is made, where it may not be, and how much room it has.

    queue.sqlite (-wal, -shm)   the database
    lock                        the write lock
    owners/                     one locked file for each open spool
    bodies/                     the octets of large messages

Its one rule: SpoolUnusable, with one clear line, before anything is opened that could not work. A network file system
cannot: its locks and its order of writes are not what SQLite and the owners stand on.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from smtprecv.errors import SpoolFull, SpoolUnusable

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.glusterfs", "fuse.sshfs", "gfs2", "glusterfs", "lustre"}
    | {"ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs"}
)


@final
class Folder:
    """The paths in the spool folder."""

    def __init__(self, path: Path) -> None:
        """Know the folder at ``path``; nothing is touched."""
        self.path = path
        self.database = path / "queue.sqlite"
        self.lock = path / "lock"
        self.owners = path / "owners"
        self.bodies = path / "bodies"

    def make(self, mounts: Path, *, create: bool) -> None:
        """Make the folder where it is not there and ``create`` allows it; SpoolUnusable where it is none.

        ``mounts``: the table of mounted file systems.
        """
        if not create and not self.database.exists():
            msg = f"there is no queue in {self.path}"
            raise SpoolUnusable(msg)
        self.path.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
        kind = _file_system(self.path, mounts)
        if kind in _NETWORK_FILE_SYSTEMS:
            msg = f"{self.path} is on a network file system ({kind}): its locks cannot be trusted with mail"
            raise SpoolUnusable(msg)
        for folder in (self.owners, self.bodies):
            folder.mkdir(_FOLDER_MODE, exist_ok=True)

    def make_database(self) -> None:
        """Make the database's file where it is not there; under the write lock.

        A file that is there is never opened: closing it would drop the locks of SQLite in this process.
        """
        if not self.database.exists():
            os.close(os.open(self.database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))

    def sync(self) -> None:
        """Make the names in the folder durable, and its own."""
        sync(self.path)
        sync(self.path.parent)


@final
class Room:
    """How much room is left beside the reserve, which is kept for outcomes: those must always find some."""

    def __init__(self, path: Path, reserve_size: int, free_size: Callable[[Path], int]) -> None:
        """Look at the file system of ``path``; keep ``reserve_size`` octets of it free."""
        self.was_full = False
        self._path = path
        self._reserve_size = reserve_size
        self._free_size = free_size

    def is_left_for_files(self) -> bool:
        """Say whether a piece of a body file may be written."""
        return self._missing_size() <= 0

    def is_left_for_rows(self, connection: sqlite3.Connection) -> bool:
        """Say whether a message may be accepted: pages that are free inside the database count as room."""
        missing_size = self._missing_size()
        if missing_size > 0:
            missing_size -= _free_pages_size(connection)
        self.was_full = missing_size > 0
        return not self.was_full

    def demand(self, connection: sqlite3.Connection) -> None:
        """Raise SpoolFull if no message may be accepted."""
        if not self.is_left_for_rows(connection):
            msg = "no room for another message"
            raise SpoolFull(msg)

    def _missing_size(self) -> int:
        return self._reserve_size - self._free_size(self._path)


def sync(path: Path) -> None:
    """Make a file's octets, or a folder's names, durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_size(path: Path) -> int:
    """Give how many octets may still be written on the file system of ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


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
