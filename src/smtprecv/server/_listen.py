"""Listening sockets, from addresses as people write them."""

from __future__ import annotations

import errno
import os
import re
import socket
from typing import Final

import trio

from smtprecv.errors import ConfigError

BACKLOG: Final = 1024
"""Connections that may wait to be accepted; too few of them reset clients in a burst."""

INHERITED: Final = "fd:"
"""What stands before the number of an inherited socket, in the place of a host."""

_ADDRESS: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")


def parse_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, an IPv6 address in brackets: ``[::1]:25``; port 0 lets the system choose.

    ConfigError, naming the text, for anything else.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        msg = f"{text!r} is not HOST:PORT"
        raise ConfigError(msg)
    return match["six"] or match["host"], int(match["port"])


async def listen(address: str, *, backlog: int = BACKLOG) -> list[trio.SocketListener]:
    """Open the listeners for ``HOST:PORT``, one for each address that the host has, or ``fd:N``.

    ``fd:N``: the listening stream socket that this process has inherited as descriptor N, from inetd or a service
    manager; N stays open. ConfigError for an address that cannot be read, OSError for one that cannot be
    bound, and for a descriptor that is no such socket.
    """
    if address.startswith(INHERITED):
        return [_inherit(address)]
    host, port = parse_address(address)
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    except UnicodeError:
        # A name that the resolver can't even be asked about, such as one with an empty label.
        msg = f"{host!r} is not a host name"
        raise ConfigError(msg) from None


def _inherit(address: str) -> trio.SocketListener:
    _, number = parse_address(address)
    descriptor = os.dup(number)
    try:
        inherited = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise
    try:
        return trio.SocketListener(trio.socket.from_stdlib_socket(inherited))
    except ValueError:
        inherited.close()
        raise OSError(errno.EINVAL, "not a listening socket") from None


def address_of(listener: trio.SocketListener) -> str:
    """Give the ``HOST:PORT`` that a listener is bound to; of a Unix socket, its path."""
    name: object = listener.socket.getsockname()
    if isinstance(name, str | bytes):
        return os.fsdecode(name)
    host, port, *_ = listener.socket.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
