"""Questions to the DNS, with dnspython's messages: the one module that imports it.

Its one rule: an answer is a stranger's text, and whatever is wrong with it is no answer, never an exception. The
sockets are our own, because size matters here: who owns a reverse zone may put 64 KiB of names there, and
to read those takes dnspython 10 seconds, in which the server stands still. So what is long, or counts more than a
few records, is not read at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import Final, final

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.reversename
import trio

from smtprecv.errors import ConfigError
from smtprecv.protocol import Domain, parse_host

_MAX_NAMES: Final = 5
"""Names of one address that are tried; hosts with many have none to be known by."""
_PAYLOAD_SIZE: Final = 1232  # what passes every path unfragmented
_MAX_ANSWER_SIZE: Final = 4096
_MAX_RECORDS: Final = 32
"""Records of a message, its question among them: the worst that can be written with so many takes 0.1 s to read."""
_PATIENCE: Final = 2.0
"""Seconds before the next server is asked."""
_ROUNDS: Final = 2
_ADDRESS_TYPES: Final = {4: "A", 6: "AAAA"}


@final
class Dns:
    """The servers to ask."""

    def __init__(self, nameservers: Sequence[str] | None, port: int) -> None:
        """Take the settings; ConfigError for a server that is no address, or a resolv.conf that has none."""
        try:
            if nameservers is None:
                nameservers = [str(server) for server in dns.resolver.Resolver().nameservers]
            self._servers: Final = [str(ip_address(server)) for server in nameservers]
        except (dns.exception.DNSException, OSError, ValueError) as error:
            msg = f"reverse DNS: {error}"
            raise ConfigError(msg) from None
        self._port: Final = port

    async def confirmed_name(self, address: IPv4Address | IPv6Address) -> str | None:
        """Give the first name of the address that leads back to it, as lower-case A-labels."""
        names = await self._records(dns.reversename.from_address(str(address)).to_text(), "PTR")
        kind = _ADDRESS_TYPES[address.version]
        for name in islice(names, _MAX_NAMES):
            domain = _domain(name)
            if domain is not None and address in map(ip_address, await self._records(name, kind)):
                return domain
        return None

    async def _records(self, name: str, kind: str) -> list[str]:
        """Give what the first server that knows says to one question; none if all don't, or there is nothing."""
        query = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD_SIZE)
        for server in self._servers * _ROUNDS:
            with trio.move_on_after(_PATIENCE), suppress(OSError, trio.BrokenResourceError):
                response = await self._ask(server, query)
                if response is not None and response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return _answer(response)
        return []

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


def _answer(response: dns.message.Message) -> list[str]:
    """Give the records at the end of the chain of aliases (RFC 2317 section 4) as text."""
    if not isinstance(response, dns.message.QueryMessage):
        return []
    try:
        records = response.resolve_chaining().answer
    except dns.exception.DNSException:
        return []
    return [] if records is None else [record.to_text() for record in records.processing_order()]


def _domain(name: str) -> str | None:
    try:
        host = parse_host(name.removesuffix("."))
    except ValueError:
        return None
    return host.name if isinstance(host, Domain) else None
