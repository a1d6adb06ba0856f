"""Standard input and output as the two directions of one session, as inetd gives them.

Its one rule: nothing but the session may speak on them, so /dev/null takes their place.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

import trio


def standard_stream() -> trio.abc.Stream:
    """Take standard input and output over as one stream: a socket, pipes or files.

    OSError for a socket that is no client's connection: a listening one, or one of datagrams.
    Where standard error is that same socket, as some inetds have it, it goes: a log line is nothing for a client.
    """
    is_socket = stat.S_ISSOCK(os.fstat(0).st_mode) and os.path.sameopenfile(0, 1)
    if is_socket:
        _refuse_no_connection()
    receiving, sending = os.dup(0), os.dup(1)
    silenced = (0, 1, 2) if is_socket and os.path.sameopenfile(0, 2) else (0, 1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in silenced:
        os.dup2(null, descriptor)
    os.close(null)
    if is_socket:
        os.close(sending)
        return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=receiving)))
    return trio.StapledStream(trio.lowlevel.FdStream(sending), trio.lowlevel.FdStream(receiving))


def _refuse_no_connection() -> None:
    """Say what is wrong, where an inetd that is set up wrongly would start us again and again."""
    with socket.socket(fileno=os.dup(0)) as given:
        is_stream = given.type == socket.SOCK_STREAM
        if not is_stream or given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(
                errno.EINVAL, "standard input is not a client's connection; --listen fd:0 is for listening sockets"
            )
