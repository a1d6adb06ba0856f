"""What one client, one network and all of them together may take: limits, most of them on by default.

Such limits are a server's own (RFC 5321 section 7.8). ``Limits`` is the setting; ``Doorkeeper`` counts who is in, and
holds clients and networks to the rates. What is counted by open connections is forgotten with them; what is counted
by time has a bounded memory.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias, final

import trio

from smtprecv.errors import ConfigError
from smtprecv.protocol import EnhancedStatus, Reply
from smtprecv.server._rates import Meter, Rate

_FILES_PER_CONNECTION: Final = 2
"""A socket, and the file of a large message."""
_FILES_BESIDE: Final = 200
"""Listeners, the spool, deliveries, and connections that are being refused."""

_FULL: Final = Reply(421, "too many connections, try again later", EnhancedStatus(4, 3, 2))
_CROWDED: Final = Reply(421, "too many connections from your address", EnhancedStatus(4, 7, 0))
_TOO_OFTEN: Final = Reply(421, "too many connections from your address, try again later", EnhancedStatus(4, 7, 0))
_TOO_WRONG: Final = Reply(421, "too many errors from your address, try again later", EnhancedStatus(4, 7, 0))
_TOO_MUCH: Final = Reply(451, "too many messages from your address, try again later", EnhancedStatus(4, 7, 1))

Address: TypeAlias = IPv4Address | IPv6Address


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server. Times are seconds; ConfigError for values that would serve nobody.

    Connections. ``max_connections``: open at one time; ``max_connections_per_client``: from one client, which is an
    IPv4 address, or an IPv6 network of 64 bits. ``network_factor``: a network, which is 24 bits of an
    IPv4 address or 48 of an IPv6 address, may take this many times what one client may, of connections
    and of every rate.

    Rates, of one client; None is no limit. ``connection_rate``: connections, more get 421. ``error_rate``: 5yz replies
    in all its sessions; past it new connections get 421. ``transaction_rate``: accepted MAIL commands, more get 451.

    Errors. ``max_errors``: 5yz replies in one session, after which it ends with 421; at least 5. ``tarpit_delay``:
    the time that each 5yz reply waits after the first ``tarpit_after`` ones. ``max_idle_commands``: RSET,
    NOOP, HELP, VRFY, EXPN, HELO and EHLO since the last accepted message; each one more counts as an error.
    ``max_auth_failures``: in one session, which then ends; at least 3. ``auth_failure_delay``: the time that the reply
    to each of them waits.

    Time. ``idle_timeout``: for one request of a client, from the moment that the server waits for it (RFC 5321
    section 4.5.3.2.7: at least 5 minutes), and ``1 / min_data_rate`` more for each octet. ``session_timeout``: for
    a whole session. ``handshake_timeout``: for TLS to begin. ``greet_delay``: how long the server listens for
    a client that talks before the banner. A session may last a hundredth of ``idle_timeout`` longer than these say.
    """

    max_connections: int = 1000
    max_connections_per_client: int = 100
    max_errors: int = 20
    max_idle_commands: int = 100
    idle_timeout: float = 300.0
    session_timeout: float = 3600.0
    network_factor: int = 4
    connection_rate: Rate | None = None
    error_rate: Rate | None = None
    transaction_rate: Rate | None = None
    tarpit_after: int = 10
    tarpit_delay: float = 1.0
    max_auth_failures: int = 5
    auth_failure_delay: float = 1.0
    min_data_rate: int = 500
    handshake_timeout: float = 60.0
    greet_delay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse limits that would serve nobody."""
        at_least: dict[str, tuple[float, float]] = {
            "max_connections": (self.max_connections, 1),
            "max_connections_per_client": (self.max_connections_per_client, 1),
            "max_errors": (self.max_errors, 5),
            "max_idle_commands": (self.max_idle_commands, 1),
            "network_factor": (self.network_factor, 1),
            "tarpit_after": (self.tarpit_after, 0),
            "tarpit_delay": (self.tarpit_delay, 0),
            "max_auth_failures": (self.max_auth_failures, 3),
            "auth_failure_delay": (self.auth_failure_delay, 0),
            "min_data_rate": (self.min_data_rate, 1),
            "greet_delay": (self.greet_delay, 0),
        }
        for name, (value, least) in at_least.items():
            if not value >= least:
                msg = f"{name} must be at least {least}"
                raise ConfigError(msg)
        durations = {
            "idle_timeout": self.idle_timeout,
            "session_timeout": self.session_timeout,
            "handshake_timeout": self.handshake_timeout,
        }
        for name, seconds in durations.items():
            if not seconds > 0:
                msg = f"{name} must be more than 0 seconds"
                raise ConfigError(msg)

    def tarpit(self, errors: int) -> float:
        """Give the seconds that the 5yz reply of this number in its session, the first is 1, waits."""
        return self.tarpit_delay if errors > self.tarpit_after else 0.0


@final
class Doorkeeper:
    """Counts the open connections, and says who may come in and who may send.

    A peer without an address, at a Unix socket, counts in ``max_connections`` and is held to nothing
    else. Loopback is an address as any other: a proxy there stands for all its clients.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = trio.current_time) -> None:
        """Begin with nobody in; ``clock`` gives the time in seconds, and is asked only where there is a rate."""
        self._max_connections: Final = limits.max_connections
        self._open = 0
        self._clients: Final = _Shares(limits, 1, clock)
        self._networks: Final = _Shares(limits, limits.network_factor, clock)
        self._has_transaction_rate: Final = limits.transaction_rate is not None

    def enter(self, address: Address | None) -> Reply | None:
        """Count a connection in and give None, or give the 421 that it is due and count nothing."""
        if self._open >= self._max_connections:
            return _FULL
        if address is not None:
            client, network = _keys(address)
            refusal = self._clients.refusal(client) or self._networks.refusal(network)
            if refusal is not None:
                return refusal
            self._clients.enter(client)
            self._networks.enter(network)
        self._open += 1
        return None

    def leave(self, address: Address | None) -> None:
        """Count a connection out that had come in."""
        self._open -= 1
        if address is not None:
            client, network = _keys(address)
            self._clients.leave(client)
            self._networks.leave(network)

    def erred(self, address: Address | None) -> None:
        """Count a 5yz reply. It ends no session; past ``error_rate`` nobody else comes in from there."""
        if address is not None:
            client, network = _keys(address)
            self._clients.erred(client)
            self._networks.erred(network)

    def transaction(self, address: Address | None) -> Reply | None:
        """Count a MAIL command that is to be accepted and give None, or give its 451 and count nothing."""
        if address is None or not self._has_transaction_rate:
            return None
        client, network = _keys(address)
        if not (self._clients.may_send(client) and self._networks.may_send(network)):
            return _TOO_MUCH
        self._clients.sent(client)
        self._networks.sent(network)
        return None


@final
class _Shares:
    """What each of many takes: each client, or each network, which may take ``factor`` times as much."""

    def __init__(self, limits: Limits, factor: int, clock: Callable[[], float]) -> None:
        def meter(rate: Rate | None) -> Meter | None:
            return None if rate is None else Meter(Rate(rate.count * factor, rate.seconds), clock)

        self._max_open: Final = limits.max_connections_per_client * factor
        self._open: Final[dict[int, int]] = {}
        self._connections: Final = meter(limits.connection_rate)
        self._errors: Final = meter(limits.error_rate)
        self._transactions: Final = meter(limits.transaction_rate)

    def refusal(self, key: int) -> Reply | None:
        if self._open.get(key, 0) >= self._max_open:
            return _CROWDED
        if self._errors is not None and not self._errors.admits(key):
            return _TOO_WRONG
        if self._connections is not None and not self._connections.admits(key):
            return _TOO_OFTEN
        return None

    def enter(self, key: int) -> None:
        self._open[key] = self._open.get(key, 0) + 1
        if self._connections is not None:
            self._connections.count(key)

    def leave(self, key: int) -> None:
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]

    def erred(self, key: int) -> None:
        if self._errors is not None:
            self._errors.count(key)

    def may_send(self, key: int) -> bool:
        return self._transactions is None or self._transactions.admits(key)

    def sent(self, key: int) -> None:
        if self._transactions is not None:
            self._transactions.count(key)


def _keys(address: Address) -> tuple[int, int]:
    """Give what names the client and its network. Those of IPv6 are negative, and so never taken for IPv4."""
    if isinstance(address, IPv4Address):
        client = int(address)
        return client, client >> 8
    # One host has all addresses of its network of 64 bits.
    client = ~(int(address) >> 64)
    return client, client >> 16


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
