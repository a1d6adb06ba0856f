"""One file on its way into a Maildir, and the folders around it.

Everything here blocks and belongs into a thread. Its one rule: what a function has finished is on
disk, names included, when it returns. OSError comes through as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, final

from smtprecv.durable import sync


@final
class MailFile:
    """A file under ``tmp`` that becomes one under ``new``, whole or not at all."""

    def __init__(self, folder: Path, name: str) -> None:
        """Take the names; touch no file."""
        self._tmp = folder / "tmp" / name
        self._new = folder / "new" / name
        self._file: BinaryIO | None = None

    @property
    def is_open(self) -> bool:
        """True from the first write until the file is placed: something is left to discard."""
        return self._file is not None

    def write(self, pieces: Iterable[bytes]) -> BinaryIO:
        """Append; the first call makes the file, over what a killed process may have left of it."""
        if self._file is None:
            self._file = os.fdopen(_open_private(self._tmp), "wb")
        self._file.writelines(pieces)
        return self._file

    def place(self, pieces: Iterable[bytes]) -> None:
        """Append the last pieces, and show the file under ``new``."""
        file = self.write(pieces)
        file.flush()
        os.fsync(file.fileno())
        file.close()
        self._tmp.rename(self._new)
        self._file = None
        sync(self._new.parent)

    def discard(self) -> None:
        """Leave nothing under ``tmp``, as far as the disk lets us; never raises OSError."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        with contextlib.suppress(OSError):
            self._tmp.unlink()
        self._file = None


def prepare(folder: Path, prefix: Path) -> None:
    """Make the Maildir ``folder`` where it is missing, and put all names below ``prefix`` on disk.

    The names of folders that exist are fsynced too: who made them may have been killed before that.
    """
    make_folders([*reversed(folder.parents), folder, folder / "tmp", folder / "cur", folder / "new"], prefix)


def make_folders(paths: Iterable[Path], prefix: Path) -> None:
    """Make those folders, outer ones first, that are missing, and put all names below ``prefix`` on disk."""
    changed: dict[Path, None] = {}
    for path in paths:
        is_missing = not path.is_dir()
        if is_missing:
            path.mkdir(mode=0o700, exist_ok=True)
        if is_missing or prefix in path.parents:
            changed[path.parent] = None
    for path in changed:
        sync(path)


def is_placed(folder: Path, name: str, prefix: str) -> bool:
    """Say whether ``new`` or ``cur`` has a file whose name begins with ``prefix``; most often it is ``new/name``.

    When the answer is yes, the file's name is on disk.
    """
    # First new, then cur: a mail reader moves files that way, and none may be missed.
    for part in (folder / "new", folder / "cur"):
        with contextlib.suppress(FileNotFoundError):
            if (part / name).exists() or _has_prefix(part, prefix):
                sync(part)
                return True
    return False


def _has_prefix(folder: Path, prefix: str) -> bool:
    with os.scandir(folder) as names:
        return any(entry.name.startswith(prefix) for entry in names)


def _open_private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode=0o600)
