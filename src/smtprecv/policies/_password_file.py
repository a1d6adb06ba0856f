"""Users and their passwords in a file of lines, as ``smtprecv passwd`` writes it; SCRAM-SHA-256 keys only.

PLAIN and LOGIN are checked by deriving the keys anew. Its one rule: a user who is not there costs and shows as much
as one who is. Hashing has threads of its own, so few that a flood of logins takes neither all threads nor all of the
machine.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import trio

from smtprecv.errors import ConfigError
from smtprecv.message import Client
from smtprecv.policies._password_lines import read_keys
from smtprecv.protocol import Reply
from smtprecv.sasl import CREDENTIALS_INVALID, ITERATIONS, SALT_SIZE, External, Identity, Password, ScramKeys

_HASHING_THREADS: Final = 2

_log: Final = logging.getLogger("smtprecv.policies")


@final
class PasswordFile:
    """An AuthPolicy and a ScramPolicy over a file of users, which is read again when it has changed.

    Nobody may act as another user, and a certificate alone shows nobody. For SCRAM it answers for whoever is not in it
    too, so of several in an ``All`` it asks no further: let it be the last there. A changed file that cannot be read or
    understood is one line in the log, and the users stay as they were. A file that others may read is a warning.
    To make one blocks while the file is read: OSError if that cannot be done, ConfigError for a line that is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read the file."""
        self._path: Final = Path(path).absolute()
        self._reading: Final = trio.Lock()
        self._hashing: Final = trio.CapacityLimiter(_HASHING_THREADS)
        self._stamp = _stamp(self._path)
        self._users = _read(self._path)
        self._trouble = ""

    async def authenticate(self, client: Client, credentials: Password | External, /) -> Identity | Reply:
        """Give the user if the password is right. Cancellation is heeded until the hashing has begun."""
        match credentials:
            case External():
                return CREDENTIALS_INVALID
            case Password(user, password, authorization):
                keys = await self.scram_keys(client, user)
                fits = await trio.to_thread.run_sync(keys.fits, password, limiter=self._hashing)
                return Identity(user) if fits and authorization in {"", user} else CREDENTIALS_INVALID

    async def scram_keys(self, client: Client, user: str, /) -> ScramKeys:
        """Give the keys of a user; for one who is not there those of nobody, which look like most in the file."""
        async with self._reading:
            await trio.to_thread.run_sync(self._read_if_changed)
        return self._users.keys(user)

    def _read_if_changed(self) -> None:
        try:
            # Looked at before it is read: what changes meanwhile is read once more.
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._users = _read(self._path)
                self._stamp = stamp
            trouble = ""
        except (OSError, ConfigError) as error:
            trouble = str(error)
        if trouble and trouble != self._trouble:
            _log.error("the users stay as they were: %s", trouble)
        self._trouble = trouble


@final
@dataclass(frozen=True, slots=True)
class _Users:
    """What a file says, and what those who are not in it look like."""

    known: Mapping[str, ScramKeys]
    iterations: int
    salt_size: int
    secret: bytes

    @classmethod
    def of(cls, known: Mapping[str, ScramKeys]) -> _Users:
        """Make nobody look like most users: after a restart, and where another server has the same file, too."""
        shapes = Counter((keys.iterations, len(keys.salt)) for keys in known.values())
        (iterations, salt_size), _ = (shapes or Counter([(ITERATIONS, SALT_SIZE)])).most_common(1)[0]
        secret = hashlib.sha256(b"".join(sorted(keys.server_key for keys in known.values()))).digest()
        return cls(known, iterations, salt_size, secret)

    def keys(self, user: str) -> ScramKeys:
        """Give the keys of a user or of nobody; the latter are made in any case, so that it takes as long."""
        nobody = ScramKeys.of_nobody(user, secret=self.secret, iterations=self.iterations, salt_size=self.salt_size)
        return self.known.get(user, nobody)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    """Give what changes with a file."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size


def _read(path: Path) -> _Users:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        users = _Users.of(read_keys(file.read(), str(path)))
    if mode & 0o077:
        _log.warning("%s holds password keys, and others than its owner may read or write it", path)
    return users
