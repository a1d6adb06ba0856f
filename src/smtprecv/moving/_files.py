"""The files of a pair: written whole or not at all, and read without trust.

Everything here blocks and belongs into a thread. Its one rule: no file is put in the place of another, and none is
followed to somewhere else. OSError comes through as it is.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, final

from smtprecv.durable import sync

PIECE_SIZE: Final = 256 * 1024
"""Octets read from a file in one hop to a thread."""


@final
class NewFile:
    """A file that gets its name when it is whole and on disk."""

    def __init__(self, path: Path) -> None:
        """Take the name; touch nothing."""
        self.path: Path = path
        self._unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        self._file: BinaryIO | None = None
        self._is_placed = False

    def write(self, octets: bytes) -> BinaryIO:
        """Append; the first call makes the file."""
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._unfinished, flags, 0o600), "wb", buffering=0)
        rest = memoryview(octets)
        while rest:
            rest = rest[self._file.write(rest) :]
        return self._file

    def place(self) -> None:
        """Give the file its name, durably. It may be there with the same octets; FileExistsError if it has others."""
        os.fsync(self.write(b"").fileno())
        try:
            os.link(self._unfinished, self.path)
            self._is_placed = True
        except FileExistsError:
            if not _is_same(self._unfinished, self.path):
                raise
            sync(self.path)
        self.close()
        sync(self.path.parent)

    def close(self) -> None:
        """Leave nothing but what was placed."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._unfinished.unlink(missing_ok=True)

    def withdraw(self) -> None:
        """Leave nothing, but what was there before."""
        self.close()
        if self._is_placed:
            self.path.unlink(missing_ok=True)
            sync(self.path.parent)


def make_folder(path: Path) -> None:
    """Make a private folder where there is none, and make its name durable."""
    with suppress(FileExistsError):
        path.mkdir(0o700)
    sync(path.absolute().parent)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading; OSError for everything else, a symbolic link too."""
    if path.is_symlink():  # O_NOFOLLOW would say the same in words that nobody understands
        msg = f"{path}: it is a symbolic link"
        raise OSError(msg)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        msg = f"{path}: it is not a file"
        raise OSError(msg)
    return os.fdopen(descriptor, "rb", buffering=0)


def read_whole(path: Path, limit: int) -> bytes:
    """Read a file; ValueError for one with more than ``limit`` octets."""
    with open_file(path) as file:
        if size_of(file) > limit:
            msg = f"it has more than {limit} octets"
            raise ValueError(msg)
        return b"".join(iter(lambda: file.read(PIECE_SIZE), b""))


def size_of(file: BinaryIO) -> int:
    """Give how many octets a file has."""
    return os.fstat(file.fileno()).st_size


def remove(*paths: Path) -> None:
    """Remove files of one folder, one after the other, durably."""
    for path in paths:
        path.unlink()
    sync(paths[0].parent)


def _is_same(one: Path, other: Path) -> bool:
    with suppress(OSError), open_file(one) as first, open_file(other) as second:
        while (piece := first.read(PIECE_SIZE)) == second.read(PIECE_SIZE):
            if not piece:
                return True
    return False
