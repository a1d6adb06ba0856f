"""The write lock: one flock in the spool folder, for every process that has the spool open.

Its one rule: nobody touches the database, an owner file or another owner's litter without it.
SQLite up to 3.51.2 can corrupt a WAL database when one connection writes while another checkpoints;
with this lock no two connections ever do anything at the same time. It is tried for, never waited
for in the kernel: a process that was stopped while it held the lock must not freeze the others' threads.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, final

import trio

from smtprecv.errors import SpoolError
from smtprecv.spool._failure import as_spool_error
from smtprecv.spool._folder import new_file

_SHORTEST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.01
"""Seconds between two tries: a tenth of the time waited so far, within these bounds. A group takes one or two ms."""
_NO_FD: Final = -1


@final
class WriteLock:
    """The lock file, open: one task of this process has it at a time, and one process."""

    def __init__(self, path: Path, patience: float) -> None:
        """Open the lock file, made if need be; OSError if it cannot be. ``patience``: seconds to try for it."""
        self._path = path
        self._patience = patience
        self._turn = trio.Lock()  # flock does not keep two tasks with one open file apart
        self._fd = _opened(path)

    def close(self) -> None:
        """Close the lock file: it cannot be taken again."""
        os.close(self._fd)
        self._fd = _NO_FD  # the number may soon be another file's

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None, None]:
        """Hold the lock for the block; SpoolError if it was not to be had in time.

        Waiting can be cancelled; where there is nothing to wait for, it is no checkpoint.
        """
        try:
            self._turn.acquire_nowait()  # where nobody has it, waiting would take a turn of the event loop
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            await self._take()
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._turn.release()

    async def _take(self) -> None:
        began = trio.current_time()
        while not self._is_taken():
            waited = trio.current_time() - began
            if waited >= self._patience:
                msg = f"the spool was locked by another process for {self._patience:g} s"
                raise SpoolError(msg)
            await trio.sleep(min(max(waited / 10, _SHORTEST_PAUSE), _LONGEST_PAUSE))

    def _is_taken(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_in_place():
                return True
            # Somebody removed the file: who has opened the spool since then locks another one.
            removed, self._fd = self._fd, _opened(self._path)
            os.close(removed)
            return self._is_taken()
        except BlockingIOError:
            return False
        except (OSError, ValueError) as error:
            raise as_spool_error(error) from error

    def _is_in_place(self) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        return False


def _opened(path: Path) -> int:
    with suppress(FileExistsError):
        return new_file(path, os.O_RDWR)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)
