"""``smtprecv passwd``: a user's line in a password file.

Its one rule: the file under its name is at every moment the old one or the new one, whole, and of two commands at the
same time neither undoes the other: who writes holds a lock on the file that he replaces.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from smtprecv.cli._arguments import Options
from smtprecv.cli._terminal import say
from smtprecv.durable import sync
from smtprecv.errors import ConfigError
from smtprecv.policies import read_keys, with_keys, without_user
from smtprecv.sasl import MAX_SIZE, SALT_SIZE, ScramKeys, saslprep

_NAME: Final = "smtprecv passwd"
_FILE_MODE: Final = 0o600


async def passwd(options: Options) -> int:
    """Set a user's password, or delete the user: status 1 if he is not there.

    ConfigError for a password that cannot be used, and for a file that is none. It blocks; nothing else runs.
    """
    # What a symbolic link points to is replaced, not the link.
    path = options.file.resolve()
    return _delete(path, options.user) if options.delete else _set(path, options.user)


def _set(path: Path, user: str) -> int:
    keys = ScramKeys.derive(_read_password(), salt=secrets.token_bytes(SALT_SIZE))
    with _locked(path, os.O_CREAT) as descriptor:
        _replace(path, descriptor, with_keys(_content(descriptor), user, keys))
    return 0


def _delete(path: Path, user: str) -> int:
    with _locked(path) as descriptor:
        before = _content(descriptor)
        after = without_user(before, user)
        if after == before:
            say(_NAME, f"{user} is not in {path}")
            return 1
        _replace(path, descriptor, after)
    return 0


def _read_password() -> str:
    """Read a password from the terminal, twice, or the first line of standard input."""
    try:
        password = _ask() if sys.stdin is not None and sys.stdin.isatty() else _first_line()
        is_empty = not saslprep(password, is_stored=True)
    except EOFError:
        sys.stderr.write("\n")  # behind the prompt
        msg = "no password was given"
        raise ConfigError(msg) from None
    except UnicodeDecodeError:
        msg = "the password is not text in this encoding"
        raise ConfigError(msg) from None
    except ValueError as error:
        msg = f"the password: {error}"
        raise ConfigError(msg) from None
    if is_empty or len(password.encode()) > MAX_SIZE:
        msg = f"a password has 1 to {MAX_SIZE} octets"
        raise ConfigError(msg)
    return password


def _ask() -> str:
    password = getpass.getpass("Password: ")
    if getpass.getpass("Password again: ") != password:
        msg = "the passwords are not the same"
        raise ConfigError(msg)
    return password


def _first_line() -> str:
    if sys.stdin is None:
        return ""
    return sys.stdin.buffer.readline().decode().removesuffix("\n").removesuffix("\r")


@contextmanager
def _locked(path: Path, flags: int = 0) -> Generator[int, None, None]:
    """Open the file and hold its lock for the block; begin anew if it was replaced while we waited for that."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, _FILE_MODE)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                msg = f"{path} is not a regular file"
                raise ConfigError(msg)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_in_place(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_in_place(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read()


def _replace(path: Path, descriptor: int, octets: bytes) -> None:
    """Put a new file in the place of the open one, with its owner and mode; ConfigError if it could not be read."""
    read_keys(octets, str(path))
    before = os.fstat(descriptor)
    fresh, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fresh, "wb") as file:
            if (before.st_uid, before.st_gid) != (os.fstat(fresh).st_uid, os.fstat(fresh).st_gid):
                os.chown(name, before.st_uid, before.st_gid)
            os.fchmod(fresh, stat.S_IMODE(before.st_mode))
            file.write(octets)
            file.flush()
            os.fsync(fresh)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    sync(path.parent)
