"""Owners: who has a claim, and whether it still lives.

An owner is one open spool. It holds an flock on a file of its own for as long as it lives, so the kernel
tells of its death, however it dies, and no clock is asked. Its one rule: birth, probe, takeover and removal
of owner files happen under the write lock, so that nobody is taken for dead between making the file and locking it.
The name of the file is durable before its owner leaves anything, and is removed when nothing is left for sure: who
opens the spool after a power cut looks for the litter of owners whose files are there.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, final

from smtprecv.durable import sync
from smtprecv.spool._bell import bell_path
from smtprecv.spool._failure import reason
from smtprecv.spool._folder import new_file
from smtprecv.spool._queue_id import is_body_file, is_owner_id, random_owner_id

_log: Final = logging.getLogger("smtprecv.spool")


@final
class Owner:
    """This open spool as an owner."""

    def __init__(self, folder: Path) -> None:
        """Be born in ``folder``: make and lock a file of a random name. OSError if that cannot be."""
        self.id = random_owner_id()
        self._path = folder / self.id
        self._fd = new_file(self._path, os.O_RDWR)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sync(folder)

    def leave(self, bodies: Path) -> None:
        """Remove the file: this owner has no claims, and no litter in ``bodies``, which a sync makes sure of."""
        try:
            sync(bodies)
        except OSError as error:
            _log.warning("%s is left behind: %s", self._path, reason(error))
        else:
            _remove(self._path)

    def close(self) -> None:
        """Let go of the lock: to all others this owner is dead now."""
        os.close(self._fd)


def is_alive(folder: Path, owner_id: object) -> bool:
    """Say whether an owner lives: whether its file is there and locked. What could not be an owner does not."""
    if not is_owner_id(owner_id):
        return False
    try:
        fd = os.open(folder / owner_id, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        _log.warning("an owner that cannot be probed is taken for alive: %s", reason(error))
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def dead_owners(folder: Path) -> list[str]:
    """Give the owners that have died and whose files are still there."""
    return [name for name in _names(folder) if is_owner_id(name) and not is_alive(folder, name)]


def bury(folder: Path, owner_ids: Sequence[str]) -> None:
    """Remove the files of dead owners."""
    for owner_id in owner_ids:
        _remove(bell_path(folder, owner_id))
        _remove(folder / owner_id)


def body_files(folder: Path) -> list[str]:
    """Give the names of all body files; whatever else lies there is not the spool's to touch."""
    return [name for name in _names(folder) if is_body_file(name)]


def sweep(bodies: Path, owners: Path, names: Sequence[str], is_named: Callable[[str], bool]) -> None:
    """Remove those of these body files whose owners are dead, apart from those that a row names."""
    alive: dict[str, bool] = {}
    for name in names:
        owner_id = name.partition(".")[0]
        if owner_id not in alive:
            alive[owner_id] = is_alive(owners, owner_id)
        if not alive[owner_id] and not is_named(name):
            _remove(bodies / name)


def _remove(path: Path) -> None:
    """Remove a file; one that cannot be removed keeps nobody from the others."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("left behind: %s", reason(error))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
