"""A DNS server of the tests' own, on loopback: over UDP and TCP it says what it is told to say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio

Zone: TypeAlias = Mapping[tuple[str, str], Sequence[str]]
"""Records by name and type, as text."""

Respond: TypeAlias = Callable[[bytes], Awaitable[Sequence[bytes]]]
"""Gives the datagrams, or the pieces of a stream, that answer a query."""


@dataclass
class Nameserver:
    """Where the server is, and what it was asked, over what."""

    port: int
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def note(self, query: bytes, over: str) -> None:
        """Remember a question."""
        [question] = dns.message.from_wire(query).question
        self.asked.append((question.name.to_text(), dns.rdatatype.to_text(question.rdtype), over))


def from_zone(zone: Zone, *, over_tcp: bool = False) -> Respond:
    """Answer from a zone, NXDOMAIN for what is not there; over UDP only that it is too long, if so asked."""

    async def respond(query: bytes) -> Sequence[bytes]:
        await trio.lowlevel.checkpoint()
        message = dns.message.from_wire(query)
        response = dns.message.make_response(message)
        [question] = message.question
        records = zone.get((question.name.to_text(), dns.rdatatype.to_text(question.rdtype)), ())
        if over_tcp:
            response.flags |= dns.flags.TC
        elif records:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype, *records))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return [response.to_wire()]

    return respond


async def silence(query: bytes) -> Sequence[bytes]:
    """Say nothing."""
    return await trio.sleep_forever()


async def _bound(address: str, port: int) -> tuple[trio.socket.SocketType, trio.SocketListener]:
    """Bind one port for UDP and TCP; what is free for the one may be taken for the other, and then it is another."""
    while True:
        datagrams = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        await datagrams.bind((address, port))
        try:
            [listener] = await trio.open_tcp_listeners(datagrams.getsockname()[1], host=address)
        except OSError:
            datagrams.close()
            if port:
                raise
        else:
            return datagrams, listener


@asynccontextmanager
async def nameserver(
    udp: Respond, tcp: Respond = silence, *, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Nameserver]:
    """Answer beside the block."""
    datagrams, listener = await _bound(address, port)
    server = Nameserver(datagrams.getsockname()[1])

    async def answer(query: bytes, address: tuple[str, int]) -> None:
        for datagram in await udp(query):
            await datagrams.sendto(datagram, address)

    async def receive(nursery: trio.Nursery) -> None:
        while True:
            query, address = await datagrams.recvfrom(4096)
            server.note(query, "udp")
            nursery.start_soon(answer, query, address)

    async def accept(stream: trio.SocketStream) -> None:
        query = bytes(await stream.receive_some(4096))[2:]
        server.note(query, "tcp")
        with suppress(trio.BrokenResourceError):  # whoever asked has had enough
            for piece in await tcp(query):
                await stream.send_all(piece)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, nursery)
        nursery.start_soon(trio.serve_listeners, accept, [listener])
        yield server
        nursery.cancel_scope.cancel()
    datagrams.close()
