"""Accepting connections: as many as wait, at each turn of the event loop.

Its one rule: no client ends it, and no want of resources; while there are no descriptors left it pauses.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import trio

from smtprecv.server._transport import SocketTransport

_log: Final = logging.getLogger("smtprecv.server.accept")

_AT_ONCE: Final = 4
"""Connections that are accepted before others have their turn."""
_PAUSE: Final = 0.1
"""Seconds to wait for what there is too little of."""
_NOT_LISTENING: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})


async def accept_all(
    listening: trio.socket.SocketType, handle: Callable[[SocketTransport], Awaitable[object]], nursery: trio.Nursery
) -> NoReturn:
    """Start ``handle`` in ``nursery`` for each connection to a listening socket; it closes what it is given.

    OSError for a socket that does not listen.
    """
    # Another descriptor for the same socket, as the standard library has it: Trio's accepts one in a turn.
    with socket.socket(listening.family, listening.type, listening.proto, os.dup(listening.fileno())) as own:
        own.settimeout(0)
        try:
            while True:
                await trio.lowlevel.wait_readable(own)
                pause = _accept_waiting(own, handle, nursery)
                if pause:
                    await trio.sleep(pause)
        finally:
            trio.lowlevel.notify_closing(own)


def _accept_waiting(
    own: socket.socket, handle: Callable[[SocketTransport], Awaitable[object]], nursery: trio.Nursery
) -> float:
    """Accept what waits, some at most; give the seconds to pause before there can be more."""
    for _ in range(_AT_ONCE):
        try:
            connected, _ = own.accept()
        except (BlockingIOError, ConnectionAbortedError):
            break
        except OSError as error:
            if error.errno in _NOT_LISTENING:
                raise
            _log.error("accepting connections pauses: %s", os.strerror(error.errno or 0))
            return _PAUSE
        connected.settimeout(0)
        nursery.start_soon(handle, SocketTransport(connected))
    return 0.0
