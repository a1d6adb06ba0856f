"""The name that a receiver has if it is not given one."""

from __future__ import annotations

import socket

from smtprecv.protocol import parse_host


def own_hostname() -> str:
    """Give the name of this machine, or ``localhost`` if that is no domain (``my_machine``)."""
    name = socket.gethostname()
    try:
        return str(parse_host(name))
    except ValueError:
        return "localhost"
