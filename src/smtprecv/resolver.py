"""Questions to the DNS, with dnspython's messages: the one module that imports it.

Its one rule: an answer is a stranger's text, and whatever is wrong with it is no answer, never an exception. The
sockets are our own, because size matters here: who owns a zone may put 64 KiB of names there, and
to read those takes dnspython 10 seconds, in which the server stands still. So what is long, or counts more than a
few records, is not read at all. Whoever needs it imports it when it is asked for: dnspython is optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, final

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import trio

from smtprecv.errors import ConfigError

_PAYLOAD_SIZE: Final = 1232  # what passes every path unfragmented
_MAX_ANSWER_SIZE: Final = 4096
_MAX_RECORDS: Final = 32
"""Records of a message, its question among them: the worst that can be written with so many takes 0.1 s to read."""
_PATIENCE: Final = 2.0
"""Seconds before the next server is asked."""
_ROUNDS: Final = 2


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What the DNS has of one type under a name, as text, perhaps nothing; it holds for ``ttl`` seconds."""

    records: tuple[str, ...]
    ttl: int


_NOTHING: Final = Answer((), 0)


@final
class Resolver:
    """The servers to ask."""

    def __init__(self, nameservers: Sequence[str] | None, port: int) -> None:
        """Take the settings; ConfigError for a server that is no address, or a resolv.conf that has none."""
        try:
            if nameservers is None:
                nameservers = [str(server) for server in dns.resolver.Resolver().nameservers]
            self._servers: Final = [str(ip_address(server)) for server in nameservers]
        except (dns.exception.DNSException, OSError, ValueError) as error:
            msg = f"name servers: {error}"
            raise ConfigError(msg) from None
        self._port: Final = port

    async def records(self, name: str, kind: str) -> Answer | None:
        """Give what the first server that knows says to one question; None if none of them does.

        It takes seconds for servers that don't answer, and can be cancelled at any time. The name is one of the DNS, of
        at most 253 octets: dnspython raises for any other.
        """
        query = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD_SIZE)
        for server in self._servers * _ROUNDS:
            with trio.move_on_after(_PATIENCE), suppress(OSError, trio.BrokenResourceError):
                response = await self._ask(server, query)
                if response is not None and response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return _answer(response)
        return None

    async def _ask(self, server: str, query: dns.message.QueryMessage) -> dns.message.Message | None:
        """Ask over UDP, and over TCP what does not fit; None for an answer that can't be read."""
        response = await self._over_udp(server, query)
        if response.flags & dns.flags.TC:
            return _read(await self._over_tcp(server, query.to_wire()), query)
        return response

    async def _over_udp(self, server: str, query: dns.message.QueryMessage) -> dns.message.Message:
        """Give the first datagram that is an answer; what else comes is passed over."""
        family = trio.socket.AF_INET6 if ":" in server else trio.socket.AF_INET
        with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as socket:
            await socket.connect((server, self._port))
            await socket.send(query.to_wire())
            while True:
                response = _read(await socket.recv(_MAX_ANSWER_SIZE), query)
                if response is not None:
                    return response

    async def _over_tcp(self, server: str, octets: bytes) -> bytes:
        """Give the answer to a question; empty if it is too long, or does not come whole."""
        async with await trio.open_tcp_stream(server, self._port) as stream:
            await stream.send_all(len(octets).to_bytes(2, "big") + octets)
            size = int.from_bytes(await _receive_exactly(stream, 2), "big")
            return await _receive_exactly(stream, size) if size <= _MAX_ANSWER_SIZE else b""


async def _receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """Give so many octets; empty if the stream ends before."""
    received = b""
    while len(received) < size:
        octets = await stream.receive_some(size - len(received))
        if not octets:
            return b""
        received += octets
    return received


def _read(octets: bytes, query: dns.message.QueryMessage) -> dns.message.Message | None:
    """Read a message; None for what is none, has too many records, or answers another question."""
    # RFC 1035 section 4.1.1: the header ends with the counts of the four sections.
    if sum(int.from_bytes(octets[place : place + 2], "big") for place in range(4, 12, 2)) > _MAX_RECORDS:
        return None
    try:
        message = dns.message.from_wire(octets)
    except (dns.exception.DNSException, ValueError):
        return None
    return message if query.is_response(message) else None


def _answer(response: dns.message.Message) -> Answer:
    """Give the records at the end of the chain of aliases (RFC 2317 section 4); for none, RFC 2308 section 5's TTL."""
    if not isinstance(response, dns.message.QueryMessage):
        return _NOTHING
    try:
        chain = response.resolve_chaining()
    except dns.exception.DNSException:
        return _NOTHING
    records = () if chain.answer is None else tuple(record.to_text() for record in chain.answer.processing_order())
    return Answer(records, chain.minimum_ttl)
