"""Bells: how one process tells the others that the queue has changed.

A bell is a named pipe beside its owner's file, made when its owner first waits. Whoever has changed the queue writes
an octet into every one, behind the COMMIT; who waits is woken by the kernel, and an idle queue costs nothing.
Its one rule: a bell is a convenience. That one cannot be made or rung is never a failure of the queue,
which is looked at now and then anyway.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import trio

from smtprecv.spool._failure import reason
from smtprecv.spool._folder import give_to_owner
from smtprecv.spool._queue_id import is_owner_id

_log: Final = logging.getLogger("smtprecv.spool")

_SUFFIX: Final = ".bell"
_MODE: Final = 0o600
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_MANY: Final = 65536
"""More octets than a pipe holds, as a rule: what is left wakes once more."""


@final
class Bell:
    """The bell of one owner."""

    def __init__(self, path: Path) -> None:
        """Make nothing yet: few who open a queue wait for it to change."""
        self._path = path
        self._fd: int | None = None
        self._is_wanted = True

    async def listen(self, rung: Callable[[], None]) -> None:
        """Call ``rung`` each time the bell is rung; return where there can be no bell."""
        if self._fd is None and self._is_wanted:
            self._make()
        while self._fd is not None:
            await trio.lowlevel.wait_readable(self._fd)
            with suppress(BlockingIOError):
                os.read(self._fd, _MANY)
            rung()

    def close(self) -> None:
        """Take the bell away; nobody may be listening any more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            with suppress(OSError):
                self._path.unlink()

    def _make(self) -> None:
        self._is_wanted = False
        try:
            os.mkfifo(self._path, _MODE)
            # Opened for writing as well, so that it never ends when a ringer goes.
            self._fd = os.open(self._path, os.O_RDWR | _FLAGS)
            give_to_owner(self._fd, self._path.parent)
        except OSError as error:
            _log.warning(
                "changes by other processes are noticed late: no bell in %s: %s", self._path.parent, reason(error)
            )


def bell_path(owners: Path, owner_id: str) -> Path:
    """Give where the bell of an owner is."""
    return owners / f"{owner_id}{_SUFFIX}"


def ring_all(owners: Path) -> None:
    """Ring every bell. One that is full is heard already, and one that nobody has open any more is nobody's."""
    for path in owners.glob(f"*{_SUFFIX}"):
        if not is_owner_id(path.stem):
            continue
        with suppress(OSError):
            fd = os.open(path, os.O_WRONLY | _FLAGS)
            try:
                os.write(fd, b"\a")
            finally:
                os.close(fd)
