"""The name of a client's address, as the DNS has it in both directions.

Anybody may name an address anything; only the owner of a name can make it lead back to
the address. So a name counts if it does (forward-confirmed), and is a domain. dnspython reads
the messages; without it no name is known.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import TYPE_CHECKING, Final, final

import trio

from smtprecv.errors import ConfigError
from smtprecv.message import Client
from smtprecv.protocol import Domain, parse_host

if TYPE_CHECKING:
    from smtprecv.resolver import Resolver

_log: Final = logging.getLogger("smtprecv.server")

_MAX_NAMES: Final = 5
"""Names of one address that are tried; hosts with many have none to be known by."""
_ADDRESS_TYPES: Final = {4: "A", 6: "AAAA"}


@final
class ReverseDns:
    """A ClientLookup for ``client.host``: forward-confirmed reverse DNS. It needs the extra ``smtprecv[dns]``.

    ``nameservers``: their addresses, by default those of this machine's resolv.conf. ``timeout``: seconds for
    everything together. At most 5 names of an address are tried. None for an address without a confirmed name, for
    servers that do not answer or answer nonsense, and always where dnspython is not
    installed, which is logged once. Never raises.
    """

    def __init__(self, *, nameservers: Sequence[str] | None = None, port: int = 53, timeout: float = 5.0) -> None:
        """Read the settings, and resolv.conf; ConfigError for those that cannot be used."""
        if timeout <= 0:
            msg = "the timeout of a reverse lookup must be more than 0 seconds"
            raise ConfigError(msg)
        self._timeout: Final = timeout
        self._resolver: Final = _resolver(nameservers, port)

    async def look_up(self, client: Client) -> str | None:
        """Ask for the names of the client's address, and give the first one that leads back to it."""
        if self._resolver is None or client.address is None:
            return None
        with trio.move_on_after(self._timeout):
            return await _confirmed_name(self._resolver, client.address)
        return None


async def _confirmed_name(resolver: Resolver, address: IPv4Address | IPv6Address) -> str | None:
    """Give the first name of the address that leads back to it, as lower-case A-labels."""
    names = await resolver.records(address.reverse_pointer, "PTR")
    for name in islice(names.records if names else (), _MAX_NAMES):
        domain = _domain(name)
        if domain is None:
            continue
        addresses = await resolver.records(name, _ADDRESS_TYPES[address.version])
        if addresses is not None and address in map(ip_address, addresses.records):
            return domain
    return None


def _domain(name: str) -> str | None:
    try:
        host = parse_host(name.removesuffix("."))
    except ValueError:
        return None
    return host.name if isinstance(host, Domain) else None


def _resolver(nameservers: Sequence[str] | None, port: int) -> Resolver | None:
    try:
        from smtprecv.resolver import Resolver  # noqa: PLC0415  # optional, and slow to import for those who don't ask
    except ModuleNotFoundError:
        _log.warning("dnspython is not installed, so clients have no host name: install smtprecv[dns]")
        return None
    return Resolver(nameservers, port)
