"""Listening sockets, from addresses as people write them."""

from __future__ import annotations

import re
from typing import Final

import trio

from smtprecv.errors import ConfigError

BACKLOG: Final = 1024
"""Connections that may wait to be accepted; too few of them reset clients in a burst."""

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
    """Open the listeners for ``HOST:PORT``, one for each address that the host has.

    ConfigError for an address that cannot be read, OSError for one that cannot be bound.
    """
    host, port = parse_address(address)
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    except UnicodeError:
        # A name that the resolver can't even be asked about, such as one with an empty label.
        msg = f"{host!r} is not a host name"
        raise ConfigError(msg) from None


def address_of(listener: trio.SocketListener) -> str:
    """Give the ``HOST:PORT`` that a TCP listener is bound to."""
    host, port, *_ = listener.socket.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
