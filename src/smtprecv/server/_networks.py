"""Internet addresses and networks, as configuration and peers write them.

Its one rule: an address has one form. What an IPv6 socket or a proxy calls ``::ffff:192.0.2.1`` is 192.0.2.1
wherever it comes from, so that a list of networks, a limit and a log mean the same client.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias, final

from smtprecv.errors import ConfigError


@final
class UnixPeer(Enum):
    """The peers that have no address: those of Unix sockets."""

    UNIX = "unix"


Network: TypeAlias = IPv4Network | IPv6Network | UnixPeer
"""Where peers are: in a network, or behind a Unix socket."""

# Neither a zone (fe80::1%eth0), which may hold any text, nor a netmask in the place of a size.
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]+")
_NETWORK: Final = re.compile(rf"{_ADDRESS.pattern}(?:/[0-9]{{1,3}})?")
_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Give the IPv4 address that a mapped address stands for (RFC 4291); any other as it is."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_ip_address(text: str) -> IPv4Address | IPv6Address:
    """Read an address without a zone, a mapped one as IPv4; ValueError for anything else."""
    if not _ADDRESS.fullmatch(text):
        msg = f"{text!r} is not an IP address"
        raise ValueError(msg)
    return unmapped(ip_address(text))


def parse_network(text: str) -> Network:
    """Read ``10.0.0.0/8``, ``2001:db8::/32``, a single address, or ``unix``: the peers of Unix sockets.

    ConfigError, naming the text, for anything else: for one with bits behind its size, and for
    an IPv6 network of mapped addresses, which would match nobody.
    """
    if text == UnixPeer.UNIX.value:
        return UnixPeer.UNIX
    if not _NETWORK.fullmatch(text):
        msg = f"{text!r} is not a network"
        raise ConfigError(msg)
    try:
        network = ip_network(text)
    except ValueError as error:
        msg = f"{text!r} is not a network: {error}"
        raise ConfigError(msg) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        msg = f"{text!r} is a network of IPv4 addresses: write them as such"
        raise ConfigError(msg)
    return network


@final
@dataclass(frozen=True, slots=True)
class Networks:
    """Some networks: ``address in networks``. None, the address of a Unix socket's peer, is in ``unix``."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, *texts: str) -> Networks:
        """Give the networks that are written ``10.0.0.0/8``, ``2001:db8::/32``, ``192.0.2.1`` or ``unix``.

        ConfigError for anything else.
        """
        return cls(tuple(map(parse_network, texts)))

    def __contains__(self, address: IPv4Address | IPv6Address | None) -> bool:
        """Say whether a peer with this address is in one of them; a mapped address counts as IPv4."""
        if not self.networks:
            return False
        if address is None:
            return UnixPeer.UNIX in self.networks
        known = unmapped(address)
        return any(not isinstance(network, UnixPeer) and known in network for network in self.networks)
