"""What one client, and all of them together, may take: limits that are on by default (RFC 5321 section 7.8).

``Limits`` is the setting; ``Doorkeeper`` counts who is in. Memory follows the open connections,
never the number of addresses ever seen.
"""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, final

from smtprecv.errors import ConfigError
from smtprecv.protocol import EnhancedStatus, Reply

_FILES_PER_CONNECTION: Final = 2
"""A socket, and the file of a large message."""
_FILES_BESIDE: Final = 200
"""Listeners, the spool, deliveries, and connections that are being refused."""

_FULL: Final = Reply(421, "too many connections, try again later", EnhancedStatus(4, 3, 2))
_CROWDED: Final = Reply(421, "too many connections from your address", EnhancedStatus(4, 7, 0))


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server.

    ``max_connections``: open at one time; ``max_connections_per_client``: from one IPv4
    address or IPv6 network of 64 bits.
    ``max_errors``: 5yz replies in one session, after which it ends with 421; at least 5.
    ``max_idle_commands``: RSET, NOOP, HELP, VRFY, EXPN, HELO and EHLO since the last accepted message; each
    one more counts as an error.
    ``idle_timeout``: seconds that the server waits for a client (RFC 5321 section 4.5.3.2.7: at
    least 5 minutes). ``session_timeout``: seconds that a whole session may last.
    ConfigError for values that would serve nobody.
    """

    max_connections: int = 1000
    max_connections_per_client: int = 100
    max_errors: int = 20
    max_idle_commands: int = 100
    idle_timeout: float = 300.0
    session_timeout: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse limits that would serve nobody."""
        if min(self.max_connections, self.max_connections_per_client, self.max_idle_commands) < 1:
            msg = "max_connections, max_connections_per_client and max_idle_commands must be at least 1"
            raise ConfigError(msg)
        if self.max_errors < 5:
            msg = "max_errors must be at least 5"
            raise ConfigError(msg)
        if min(self.idle_timeout, self.session_timeout) <= 0:
            msg = "idle_timeout and session_timeout must be more than 0 seconds"
            raise ConfigError(msg)


@final
class Doorkeeper:
    """Counts the open connections, and says who may come in."""

    def __init__(self, limits: Limits) -> None:
        """Begin with nobody in."""
        self._limits = limits
        self._open = 0
        self._by_address: Counter[int] = Counter()

    def enter(self, address: IPv4Address | IPv6Address | None) -> Reply | None:
        """Count a connection in and give None, or give the 421 that it is due and count nothing."""
        if self._open >= self._limits.max_connections:
            return _FULL
        if address is not None:
            key = _key(address)
            if self._by_address[key] >= self._limits.max_connections_per_client:
                return _CROWDED
            self._by_address[key] += 1
        self._open += 1
        return None

    def leave(self, address: IPv4Address | IPv6Address | None) -> None:
        """Count a connection out that had come in."""
        self._open -= 1
        if address is not None:
            key = _key(address)
            self._by_address[key] -= 1
            if not self._by_address[key]:
                del self._by_address[key]


def _key(address: IPv4Address | IPv6Address) -> int:
    """Give what is one client: an IPv4 address, or an IPv6 network of 64 bits, of which one host has all addresses."""
    return int(address) if isinstance(address, IPv4Address) else -(int(address) >> 64) - 1


def raise_file_limit(connections: int) -> int:
    """Raise this process's soft RLIMIT_NOFILE so that it fits ``connections``, as far as the hard limit lets.

    Gives the number of connections that fit now. It changes the whole process, so
    the command calls it and the library does not.
    """
    wanted = connections * _FILES_PER_CONNECTION + _FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    fits = connections if soft == resource.RLIM_INFINITY else (soft - _FILES_BESIDE) // _FILES_PER_CONNECTION
    return max(1, min(connections, fits))
