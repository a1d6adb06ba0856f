"""Files on their way into a Maildir, and the folders around them.

What blocks here belongs into a thread. Its one rule: what a function has finished is on disk, names included, when it
returns. OSError comes through as it is.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, final

from smtprecv.durable import sync


@final
class MailFile:
    """A file under ``tmp`` that becomes one under ``new``, whole or not at all."""

    def __init__(self, folder: str, name: str) -> None:
        """Take the names; touch no file."""
        self.new: Final = os.path.join(folder, "new")
        self.held_size = 0
        self._held: list[bytes] = []
        self._tmp = os.path.join(folder, "tmp", name)
        self._name = name
        self._descriptor: int | None = None
        self._is_begun = False

    @property
    def is_begun(self) -> bool:
        """True from the first write until the file is shown or discarded: something is left to discard."""
        return self._is_begun

    def hold(self, octets: bytes) -> None:
        """Keep the next octets in memory until the next write. It does not block."""
        self._held.append(octets)
        self.held_size += len(octets)

    def write(self) -> None:
        """Append what is held, if the file is not sealed; the first call makes it, over what a killed process left."""
        if self._is_begun and self._descriptor is None:
            return
        if self._descriptor is None:
            self._descriptor = _open_private(self._tmp)
            self._is_begun = True
        rest = memoryview(b"".join(self._held))
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._held.clear()
        self.held_size = 0

    def start_writeback(self) -> None:
        """Let the disk begin with what was written, where the system can be asked to; it is no more than a hint."""
        if sys.platform == "linux" and self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def finish(self) -> None:
        """Append what is held, and seal."""
        self.write()
        self.seal()

    def seal(self) -> None:
        """Put the octets that were written on disk, once; there are no more."""
        descriptor = self._descriptor
        if descriptor is not None:
            os.fsync(descriptor)
            self._descriptor = None
            os.close(descriptor)

    def show(self) -> None:
        """Give the sealed file its name under ``new``, which is on disk when ``new`` is synced."""
        os.rename(self._tmp, os.path.join(self.new, self._name))
        self._is_begun = False

    def discard(self) -> None:
        """Leave nothing under ``tmp``, as far as the disk lets us; never raises OSError."""
        if not self._is_begun:
            return
        self._is_begun = False
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(self._tmp)


_STEPS: Final[Sequence[Callable[[MailFile], None]]] = (
    MailFile.write,
    MailFile.start_writeback,
    MailFile.seal,
    MailFile.show,
)
_STEPS_OF_ONE: Final = [step for step in _STEPS if step is not MailFile.start_writeback]


def place_together(files: Sequence[MailFile]) -> Sequence[OSError | None]:
    """Place files; give for each the error that kept it away and discarded it, or None when its name is on disk."""
    failures: dict[MailFile, OSError] = {}
    # Step by step for all: the disk writes one file while another is synced.
    for step in _STEPS if len(files) > 1 else _STEPS_OF_ONE:
        for file in files:
            if file not in failures:
                try:
                    step(file)
                except OSError as error:
                    failures[file] = error
    shown: dict[str, list[MailFile]] = {}
    for file in files:
        if file in failures:
            file.discard()
        else:
            shown.setdefault(file.new, []).append(file)
    for new, inside in shown.items():
        try:
            sync(new)
        except OSError as error:
            failures.update(dict.fromkeys(inside, error))
    return [failures.get(file) for file in files]


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


def _open_private(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode=0o600)
