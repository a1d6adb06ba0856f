"""Who is at the other end: what can be found out about a client before the banner.

A lookup answers with one word on a client, or none. Its one rule: it costs the client itself
a bounded delay, and nobody else anything, whatever is at the other end of its questions. What it
finds is what others say: good for logs, trace fields and greetings, never a proof.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

import trio

from smtprecv.errors import cancellation_in
from smtprecv.message import Client
from smtprecv.protocol import Session


@runtime_checkable
class ClientLookup(Protocol):
    """Finds out one thing about a client."""

    async def look_up(self, client: Client) -> str | None:
        """Give what was found, or None; of the client, only the addresses and ports are known yet.

        Before the answer the client gets no banner: give up in time, by yourself. What
        raises is answered like a policy's hook that raises.
        """
        ...


@final
@dataclass(frozen=True, slots=True)
class Lookups:
    """The lookups of a server: one for ``client.host``, one for ``client.ident``."""

    host: ClientLookup | None = None
    ident: ClientLookup | None = None

    async def complete(self, client: Client) -> Client:
        """Give the client with what both find, which they look for at the same time."""
        if self.host is None and self.ident is None:
            return client
        found: list[str | None] = [None, None]

        async def look_up(place: int, lookup: ClientLookup) -> None:
            name = await lookup.look_up(client)
            if name is not None:
                str.isprintable(name)  # TypeError for what is no text, before a message depends on it
            found[place] = name

        try:
            async with trio.open_nursery() as nursery:
                for place, lookup in enumerate((self.host, self.ident)):
                    if lookup is not None:
                        nursery.start_soon(look_up, place, lookup)
        except BaseExceptionGroup as group:
            raise cancellation_in(group) from None
        host, ident = found
        return replace(client, host=host, ident=ident)


def in_session(client: Client, session: Session) -> Client:
    """Give a client with what the protocol knows of it now."""
    # By hand: `dataclasses.replace` takes five times as long, and this happens twice in each connection.
    return Client(
        client.session_id,
        client.address,
        client.port,
        session,
        client.host,
        client.ident,
        client.local_address,
        client.local_port,
    )
