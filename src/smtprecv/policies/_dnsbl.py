"""DNS lists of bad clients (RFC 5782): a policy over connections that asks some of them.

Its one rule: only a list that says so in its own words, which are addresses in 127.0.0.0/8, refuses anybody. A list
that is dead, gone, sold, overloaded or talking nonsense refuses nobody, and costs a client the timeout at most.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final, TypeAlias, final

import trio

from smtprecv.errors import ConfigError
from smtprecv.message import Client
from smtprecv.protocol import Domain, EnhancedStatus, Reply, parse_host

if TYPE_CHECKING:
    from smtprecv.resolver import Resolver

_ACCEPTED: Final = Reply(250, "ok")

_MAX_ADDRESSES: Final = 10_000
"""Addresses that are remembered, which take 4 MiB at most."""
_MAX_TTL: Final = 300
"""Seconds for which an answer is believed at most: who was taken off a list should not wait for long."""
_MAX_ZONE_SIZE: Final = 253 - 64
"""Octets of a zone's name: before it stand the 32 digits of an IPv6 address, each with its dot."""

_LISTED: Final = (IPv4Address("127.0.0.2"), IPv4Address("127.255.254.255"))
"""The answers that may mean that a client is listed. In 127.255.255.0/24 operators of lists report errors, such as
too many questions; 127.0.0.1 is what resolvers say that hide names; an address elsewhere is a domain for sale."""

_Codes: TypeAlias = tuple[tuple[IPv4Address, IPv4Address], ...]


@final
class Dnsbl:
    """A ConnectPolicy that refuses the clients that a DNS list has with 554 5.7.1. Needs the extra ``smtprecv[dns]``.

    ``lists``: each a zone (``bl.example.org``), or a zone and those of its answers that count, single ones or
    ranges (``bl.example.org=127.0.0.2-11,127.0.1.4``); by default all do from 127.0.0.2 to 127.255.254.255, and
    none ever does that lies outside. All are asked at once, and the first that has the client is named in the reply.
    ``nameservers``: their addresses, by default those of this machine's resolv.conf. ``timeout``: seconds for
    everything together, after which the client passes.

    Only global addresses are asked about: no private ones, no loopback, nobody at a Unix socket. Answers are remembered
    for as long as they hold, five minutes at most. ConfigError for settings that cannot be used, and
    where dnspython is not installed. Never raises.
    """

    def __init__(
        self, *lists: str, nameservers: Sequence[str] | None = None, port: int = 53, timeout: float = 5.0
    ) -> None:
        """Read the settings, and resolv.conf."""
        if not lists:
            msg = "Dnsbl needs a list to ask"
            raise ConfigError(msg)
        if not timeout > 0:
            msg = "the timeout of a DNS list must be more than 0 seconds"
            raise ConfigError(msg)
        self._lists: Final = [_parse(text) for text in lists]
        self._resolver: Final = _resolver(nameservers, port)
        self._timeout: Final = timeout
        self._known: Final[OrderedDict[IPv4Address | IPv6Address, _Verdict]] = OrderedDict()

    async def connect(self, client: Client) -> Reply:
        """Answer a connection by what the lists say of its address."""
        address = client.address
        if address is None or not address.is_global:
            return _ACCEPTED
        verdict = self._known.get(address)
        if verdict is None or verdict.ends <= trio.current_time():
            verdict = await self._ask(address)
            self._remember(address, verdict)
        if verdict.zone is None:
            return _ACCEPTED
        return Reply(554, f"your address {address} is listed by {verdict.zone}", EnhancedStatus(5, 7, 1))

    async def _ask(self, address: IPv4Address | IPv6Address) -> _Verdict:
        """Ask all lists until one has the address, or all have answered, or the time is over."""
        # RFC 5782 sections 2.1 and 2.4: the name is that of the reverse lookup, under the list's own zone.
        digits = address.reverse_pointer.removesuffix("in-addr.arpa").removesuffix("ip6.arpa")
        hits: list[_Verdict] = []
        ttls: list[int] = []

        async def ask(one: _List) -> None:
            answer = await self._resolver.records(f"{digits}{one.zone}.", "A")
            ttls.append(0 if answer is None else min(answer.ttl, _MAX_TTL))
            if answer is not None and any(one.counts(IPv4Address(record)) for record in answer.records):
                hits.append(_Verdict(one.zone, trio.current_time() + ttls[-1]))
                scope.cancel()

        with trio.move_on_after(self._timeout) as scope:
            async with trio.open_nursery() as nursery:
                for one in self._lists:
                    nursery.start_soon(ask, one)
        if hits:
            return hits[0]
        # A list that could not tell is asked again the next time.
        return _Verdict(None, trio.current_time() + (min(ttls) if len(ttls) == len(self._lists) else 0))

    def _remember(self, address: IPv4Address | IPv6Address, verdict: _Verdict) -> None:
        self._known.pop(address, None)
        if verdict.ends <= trio.current_time():
            return
        self._known[address] = verdict
        if len(self._known) > _MAX_ADDRESSES:
            self._known.popitem(last=False)


@final
@dataclass(frozen=True, slots=True)
class _Verdict:
    """The zone that has an address, None for none, and Trio's time until which that is believed."""

    zone: str | None
    ends: float


@final
@dataclass(frozen=True, slots=True)
class _List:
    """A zone, and the ranges of its answers that count."""

    zone: str
    codes: _Codes

    def counts(self, answer: IPv4Address) -> bool:
        return any(first <= answer <= last for first, last in self.codes)


def _parse(text: str) -> _List:
    """Read ``ZONE`` or ``ZONE=CODES``."""
    name, is_limited, codes = text.partition("=")
    try:
        return _List(_zone(name), tuple(map(_range, codes.split(","))) if is_limited else (_LISTED,))
    except ValueError as error:
        msg = f"{text!r} is not a DNS list: {error}"
        raise ConfigError(msg) from None


def _zone(name: str) -> str:
    """Read the name of a zone that fits under every address."""
    host = parse_host(name)
    if not isinstance(host, Domain) or len(host.name) > _MAX_ZONE_SIZE:
        msg = "the zone is no domain, or too long"
        raise ValueError(msg)
    return host.name


def _range(text: str) -> tuple[IPv4Address, IPv4Address]:
    """Read ``127.0.0.2``, or ``127.0.0.2-11``, whose end is the last number only."""
    start, is_range, end = text.partition("-")
    try:
        first = IPv4Address(start)
        last = IPv4Address(f"{start.rpartition('.')[0]}.{end}") if is_range else first
    except AddressValueError:
        msg = f"{text!r} is no answer, nor a range of them"
        raise ValueError(msg) from None
    if not _LISTED[0] <= first <= last <= _LISTED[1]:
        msg = f"answers that count lie from {_LISTED[0]} to {_LISTED[1]}, unlike {text!r}"
        raise ValueError(msg)
    return first, last


def _resolver(nameservers: Sequence[str] | None, port: int) -> Resolver:
    try:
        from smtprecv.resolver import Resolver  # noqa: PLC0415  # optional, and slow to import for those who don't ask
    except ModuleNotFoundError:
        msg = "Dnsbl needs dnspython: install smtprecv[dns]"
        raise ConfigError(msg) from None
    return Resolver(nameservers, port)
