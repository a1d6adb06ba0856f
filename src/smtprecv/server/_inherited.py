"""Listening sockets that somebody else has opened: inherited by number, or passed by a service manager.

Its one rule: what was inherited goes no further. No child of this process gets the descriptors, nor the variables that
tell of them.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple, final

import trio

_FIRST: Final = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
_MAX_SOCKETS: Final = 4096
_UNNAMED: Final = "unknown"


@final
class Passed(NamedTuple):
    """A socket that the service manager has passed."""

    name: str
    number: int


def inherit(number: int) -> trio.SocketListener:
    """Give the listening stream socket that was inherited as descriptor ``number``, which stays open.

    OSError for a descriptor that is no such socket.
    """
    duplicate = os.dup(number)
    try:
        inherited = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise
    try:
        return trio.SocketListener(trio.socket.from_stdlib_socket(inherited))
    except ValueError:
        inherited.close()
        raise OSError(errno.EINVAL, "not a listening socket") from None


def passed_listeners(name: str | None) -> list[trio.SocketListener]:
    """Give the listening sockets that the service manager has passed: all, or those of this name.

    OSError if there is none, and for one that is no listening stream socket.
    """
    passed = [one for one in passed_sockets() if name in {None, one.name}]
    if not passed:
        which = "" if name is None else f" named {name}"
        raise OSError(errno.ENOENT, f"the service manager has passed no socket{which}")
    listeners: list[trio.SocketListener] = []
    try:
        for _, number in passed:
            fcntl.fcntl(number, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            listeners.append(inherit(number))
    except OSError:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


@functools.cache
def passed_sockets() -> Sequence[Passed]:
    """Say which sockets were passed to this process, by sd_listen_fds(3); the environment tells it only once.

    LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES are taken out of the environment. What they say of another process,
    and what is malformed, counts as nothing.
    """
    pid, count, names = (os.environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()) or int(count) > _MAX_SOCKETS:
        return ()
    named = names.split(":") if names else []
    named += [_UNNAMED] * (int(count) - len(named))
    return tuple(Passed(name, _FIRST + place) for place, name in enumerate(named[: int(count)]))
