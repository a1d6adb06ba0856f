"""Listening Unix sockets: their files, who may connect, and what is in the way.

Its one rule: a path is taken only from nobody. The socket file of a server that has died is replaced, that of a
living one and a file of any other kind are left alone. Servers that start at the same time take turns, by a lock
on the folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import trio

from smtprecv.errors import ConfigError

_ADDRESS: Final = re.compile(
    r"(?P<path>/[^,\0]*)(?:,(?:mode=(?P<mode>0?[0-7]{3})|owner=(?P<owner>[^,\0]+)|group=(?P<group>[^,\0]+)))*"
)
_OPTION: Final = re.compile(r",(mode|owner|group)=")
_LOCK_PAUSE: Final = 0.01
"""Seconds between two tries to lock the folder, which nobody holds for long."""


@final
@dataclass(frozen=True, slots=True)
class UnixAddress:
    """Where a Unix socket is to be, and who may connect: those who may write to it."""

    path: Path
    mode: int = 0o600
    owner: str | None = None
    group: str | None = None


def parse_unix_address(text: str) -> UnixAddress:
    """Read ``/PATH[,mode=MODE][,owner=USER][,group=GROUP]``; ConfigError for anything else."""
    match = _ADDRESS.fullmatch(text)
    options = _OPTION.findall(text)
    if match is None or len(options) > len(set(options)):
        msg = f"{text!r} is not /PATH[,mode=MODE][,owner=USER][,group=GROUP]"
        raise ConfigError(msg)
    mode = match["mode"]
    return UnixAddress(Path(match["path"]), 0o600 if mode is None else int(mode, 8), match["owner"], match["group"])


@final
class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """A listening Unix socket, whose file goes when it is closed."""

    def __init__(self, listener: trio.SocketListener, path: Path) -> None:
        """Take over a listener and the file at ``path`` that it is bound to."""
        self._listener: Final = listener
        self._path: Final = path
        self._file: Final = _identity(path)

    @property
    def socket(self) -> trio.socket.SocketType:
        """The listening socket."""
        return self._listener.socket

    async def accept(self) -> trio.SocketStream:
        """Accept a connection."""
        return await self._listener.accept()

    def close(self) -> None:
        """Close the socket, and remove its file if it is still the one that was made for it."""
        # First the file: while the socket listens nobody takes its path.
        self.remove_file()
        self.socket.close()

    def remove_file(self) -> None:
        """Remove the file of a socket that is open, if it is still the one that was made for it."""
        with suppress(OSError):
            if self.socket.fileno() >= 0 and _identity(self._path) == self._file:
                self._path.unlink()

    async def aclose(self) -> None:
        """Close it; done when cancelled, too."""
        self.close()
        await trio.lowlevel.checkpoint()


async def open_unix_listener(address: UnixAddress, backlog: int) -> UnixListener:
    """Listen at a path; OSError if it cannot be done, EADDRINUSE if somebody else listens there.

    ConfigError for an owner or a group that is not there. Leaves nothing behind where it fails or is cancelled.
    """
    async with _locked(address.path.parent):
        _clear(address.path)
        return _open(address, backlog)


def _open(address: UnixAddress, backlog: int) -> UnixListener:
    unbound = socket.socket(socket.AF_UNIX)
    try:
        unbound.bind(str(address.path))
        try:
            # Nobody can connect before `listen`, whatever the mode has been until then.
            if address.owner is not None:
                shutil.chown(address.path, user=address.owner)
            if address.group is not None:
                shutil.chown(address.path, group=address.group)
            address.path.chmod(address.mode)
            unbound.listen(backlog)
            return UnixListener(trio.SocketListener(trio.socket.from_stdlib_socket(unbound)), address.path)
        except BaseException:
            address.path.unlink()
            raise
    except LookupError as error:
        unbound.close()
        raise ConfigError(str(error)) from None
    except BaseException:
        unbound.close()
        raise


def _clear(path: Path) -> None:
    """Take away the socket file of a dead server; OSError for anything else that is at the path."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "a file that is no socket is in the way")
    except FileNotFoundError:
        return
    if _is_alive(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    path.unlink()


def _is_alive(path: Path) -> bool:
    """Find out whether anybody listens at a path, by connecting; OSError if that cannot be found out."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(0)  # a Unix socket connects at once or not at all
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            # As many are waiting as may: there is somebody whom they wait for.
            return True
        return True


@asynccontextmanager
async def _locked(folder: Path) -> AsyncGenerator[None, None]:
    """Keep out others who want a path in this folder; OSError if there is no such folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await trio.sleep(_LOCK_PAUSE)
            else:
                break
        yield
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino
