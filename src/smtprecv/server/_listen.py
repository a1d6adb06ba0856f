"""Listening sockets, from addresses as people write them.

What is no TCP address begins with a word and a colon, in the place of a host.
"""

from __future__ import annotations

import os
import re
from typing import Final, TypeAlias

import trio

from smtprecv.errors import ConfigError
from smtprecv.server._inherited import inherit, passed_listeners
from smtprecv.server._unix import UnixListener, open_unix_listener, parse_unix_address

BACKLOG: Final = 1024
"""Connections that may wait to be accepted; too few of them reset clients in a burst."""

Listener: TypeAlias = trio.SocketListener | UnixListener
"""What ``listen`` opens: has ``socket``, ``accept`` and ``aclose``."""

INHERITED: Final = "fd:"
"""What stands before the number of an inherited socket, in the place of a host."""

_UNIX: Final = "unix:"
_SYSTEMD: Final = re.compile(r"systemd(?::(?P<name>[!-9;-~]{1,255}))?")  # sd_listen_fds_with_names(3)
_ADDRESS: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")


def parse_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, an IPv6 address in brackets: ``[::1]:25``; port 0 lets the system choose.

    ConfigError, naming the text, for anything else.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        msg = f"{text!r} is not HOST:PORT, unix:/PATH, fd:N or systemd"
        raise ConfigError(msg)
    return match["six"] or match["host"], int(match["port"])


def host_in(address: str) -> str | None:
    """Give the host that an address of ``listen`` names; None for Unix sockets, and those that others have opened.

    ConfigError for what ``listen`` could not read. Opens nothing.
    """
    if address.startswith(_UNIX):
        parse_unix_address(address.removeprefix(_UNIX))
        return None
    if _SYSTEMD.fullmatch(address):
        return None
    host, _ = parse_address(address)
    return None if address.startswith(INHERITED) else host


async def listen(address: str, *, backlog: int = BACKLOG) -> list[Listener]:
    """Open the listeners for an address: one, or one for each address that its host has.

    ``HOST:PORT``: TCP; an IPv6 address in brackets, port 0 lets the system choose.

    ``unix:/PATH[,mode=MODE][,owner=USER][,group=GROUP]``: a Unix socket, which those may connect to who may write to
    it; by default, with mode 600, this user alone. Its file replaces that of a server that has died, and goes when
    the listener is closed.

    ``fd:N``: the listening stream socket that this process has inherited as descriptor N, from inetd or a service
    manager; N stays open. ``systemd``, ``systemd:NAME``: all sockets that systemd has passed, or those that the
    socket unit calls so (``FileDescriptorName=``); the environment says so once, and is cleared.

    ConfigError for an address that cannot be read, OSError for one that cannot be bound or is in use, and for what was
    not passed or is no such socket.
    """
    if address.startswith(_UNIX):
        return [await open_unix_listener(parse_unix_address(address.removeprefix(_UNIX)), backlog)]
    passed = _SYSTEMD.fullmatch(address)
    if passed is not None:
        return [*passed_listeners(passed["name"])]
    host, port = parse_address(address)
    if address.startswith(INHERITED):
        return [inherit(port)]
    try:
        return [*await trio.open_tcp_listeners(port, host=host, backlog=backlog)]
    except UnicodeError:
        # A name that the resolver can't even be asked about, such as one with an empty label.
        msg = f"{host!r} is not a host name"
        raise ConfigError(msg) from None


def address_of(listener: Listener) -> str:
    """Give the ``HOST:PORT`` that a listener is bound to; of a Unix socket, its path."""
    name: object = listener.socket.getsockname()
    if isinstance(name, str | bytes):
        return os.fsdecode(name)
    host, port, *_ = listener.socket.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
