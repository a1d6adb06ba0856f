"""The name of a client's address, as the DNS has it in both directions.

Anybody may name an address anything; only the owner of a name can make it lead back to
the address. So a name counts if it does (forward-confirmed), and is a domain. dnspython reads
the messages; without it no name is known.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, final

import trio

from smtprecv.errors import ConfigError
from smtprecv.message import Client

if TYPE_CHECKING:
    from smtprecv.server._dns import Dns

_log: Final = logging.getLogger("smtprecv.server")


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
        self._dns: Final = _dns(nameservers, port)

    async def look_up(self, client: Client) -> str | None:
        """Ask for the names of the client's address, and give the first one that leads back to it."""
        if self._dns is None or client.address is None:
            return None
        with trio.move_on_after(self._timeout):
            return await self._dns.confirmed_name(client.address)
        return None


def _dns(nameservers: Sequence[str] | None, port: int) -> Dns | None:
    try:
        from smtprecv.server._dns import Dns  # noqa: PLC0415  # optional, and slow to import for those who don't ask
    except ModuleNotFoundError:
        _log.warning("dnspython is not installed, so clients have no host name: install smtprecv[dns]")
        return None
    return Dns(nameservers, port)
