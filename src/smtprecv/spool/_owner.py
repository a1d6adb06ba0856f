"""Owners: who has a claim, and whether it still lives.

An owner is one open spool. It holds an flock on a file of its own for as long as it lives, so the kernel
tells of its death, however it dies, and no clock is asked. Its one rule: birth, probe, takeover and removal
of owner files happen under the write lock, so that nobody is taken for dead between making the file and locking it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import final

from smtprecv.spool._queue_id import random_owner_id


@final
class Owner:
    """This open spool as an owner."""

    def __init__(self, folder: Path) -> None:
        """Be born in ``folder``: make and lock a file of a random name. OSError if that cannot be."""
        self.id = random_owner_id()
        self._path = folder / self.id
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def leave(self) -> None:
        """Remove the file: this owner has no claims and no litter."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the lock: to all others this owner is dead now."""
        os.close(self._fd)


def is_alive(folder: Path, owner_id: str) -> bool:
    """Say whether an owner lives: whether its file is there and locked."""
    try:
        fd = os.open(folder / owner_id, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def dead_owners(folder: Path) -> list[str]:
    """Give the owners that have died and whose files are still there."""
    return [owner_id for owner_id in _names(folder) if not is_alive(folder, owner_id)]


def bury(folder: Path, owner_id: str) -> None:
    """Remove the file of a dead owner."""
    (folder / owner_id).unlink(missing_ok=True)


def sweep(bodies: Path, owners: Path, is_named: Callable[[str], bool]) -> None:
    """Remove the body files of owners that are dead, apart from those that a row names."""
    alive: dict[str, bool] = {}
    for name in _names(bodies):
        owner_id = name.partition(".")[0]
        if owner_id not in alive:
            alive[owner_id] = is_alive(owners, owner_id)
        if not alive[owner_id] and not is_named(name):
            (bodies / name).unlink(missing_ok=True)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
