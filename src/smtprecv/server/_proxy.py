"""The PROXY protocol, versions 1 and 2: whom a proxy says that it speaks for.

After HAProxy's specification, proxy-protocol.txt, whose sections are cited here as PROXY 2.1 and so on. Its one rule: a
header is taken whole and exact or not at all, and not one octet behind it is read, so that what the
client sent, TLS or SMTP, is still in the stream. A header is at most 65,551 octets, and nothing else is kept.
Whether a peer may send one is not known here, nor how long to wait for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final, final

import trio

from smtprecv.protocol import SmtprecvError
from smtprecv.server._networks import unmapped

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_LINE_START: Final = b"PROXY "
_SHORTEST: Final = len(b"PROXY UNKNOWN\r\n")
_MAX_LINE_SIZE: Final = 107  # PROXY 2.1, the worst case
_SPACES: Final = 5
"""Spaces in a line that has addresses."""
_FIXED_SIZE: Final = 16
"""Octets of the part of a version 2 header that says how long the rest is."""

_PORT: Final = "(?:0|[1-9][0-9]{0,4})"
_LINE: Final = re.compile(
    r"PROXY (?:UNKNOWN(?: .*)?|TCP(?P<version>[46]) (?P<source>[0-9A-Fa-f.:]+) (?P<destination>[0-9A-Fa-f.:]+)"
    rf" (?P<source_port>{_PORT}) (?P<destination_port>{_PORT}))\r\n",
    re.DOTALL,
)
_FAMILIES: Final[Mapping[str, type[IPv4Address | IPv6Address]]] = {"4": IPv4Address, "6": IPv6Address}

_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_UNSPEC: Final = 0
_MAX_TRANSPORT: Final = 2
_STREAM: Final = 1
_BLOCK_SIZES: Final = (0, 12, 36, 216)
"""Octets of the addresses of each family: unspecified, IPv4, IPv6, Unix."""
_BLOCKS: Final[Mapping[int, Struct]] = {1: Struct("!4s4sHH"), 2: Struct("!16s16sHH")}
"""The layout of those that are taken: source and destination, source port and destination port."""

_TLV_SIZE: Final = 3
"""Octets of the type and the length of a TLV."""
_CRC32C: Final = 0x03
_CRC32C_SIZE: Final = 4


@final
class ProxyError(SmtprecvError):
    """A peer that has to send a PROXY header did not, or sent one that is malformed. Close without a word."""


@final
@dataclass(frozen=True, slots=True)
class Proxied:
    """The ends of the connection that a proxy speaks for, with the names that they have in ``Client``."""

    address: IPv4Address | IPv6Address
    port: int
    local_address: IPv4Address | IPv6Address
    local_port: int


async def read_header(stream: trio.abc.ReceiveStream) -> Proxied | None:
    """Read the PROXY header that a stream begins with, and not one octet more.

    None if the addresses of the connection itself count: the proxy speaks for itself (LOCAL), or does not know for
    whom, or for a client without an Internet address. ProxyError for anything but a header, and for a connection
    that ends or breaks within it. May be cancelled at any time; the stream is of no use then.
    """
    header = bytearray()
    while missing := octets_missing(header):
        try:
            octets = await stream.receive_some(missing)
        except trio.BrokenResourceError as error:
            msg = "the connection broke in the PROXY header"
            raise ProxyError(msg) from error
        if not octets:
            msg = "the connection ended in the PROXY header"
            raise ProxyError(msg)
        header += octets
    return parse_header(bytes(header))


def octets_missing(header: bytearray) -> int:
    """Say how many octets must come yet at least before a header is whole; 0 for a whole one.

    ProxyError as soon as it cannot become one.
    """
    start = bytes(header[:_FIXED_SIZE])
    if start.startswith(_SIGNATURE):
        return _missing_in_block(start, len(header))
    if start.startswith(_LINE_START):
        return _missing_in_line(bytes(header))
    if _SIGNATURE.startswith(start) or _LINE_START.startswith(start):
        return _SHORTEST - len(start)
    msg = f"no PROXY header, but {start!r}"
    raise ProxyError(msg)


def parse_header(header: bytes) -> Proxied | None:
    """Read a header that is whole, with nothing behind it; for the outcomes see ``read_header``."""
    return _parse_block(header) if header.startswith(_SIGNATURE) else _parse_line(header)


def _missing_in_line(line: bytes) -> int:
    if b"\r\n" in line:
        return 0
    # The end of the line, and a space and an octet for each field that has not begun.
    missing = 1 if line.endswith(b"\r") else 2
    if line.startswith(b"PROXY TCP"):
        missing += 2 * max(0, _SPACES - line.count(b" "))
    missing = max(missing, _SHORTEST - len(line))
    if len(line) + missing > _MAX_LINE_SIZE:
        msg = "the PROXY line is too long"
        raise ProxyError(msg)
    return missing


def _parse_line(line: bytes) -> Proxied | None:
    match = _LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        msg = f"malformed PROXY line {line!r}"
        raise ProxyError(msg)
    if match["version"] is None:
        return None
    family = _FAMILIES[match["version"]]
    source_port, destination_port = int(match["source_port"]), int(match["destination_port"])
    try:
        source, destination = family(match["source"]), family(match["destination"])
    except ValueError:
        msg = f"malformed address in the PROXY line {line!r}"
        raise ProxyError(msg) from None
    if max(source_port, destination_port) > 65535:
        msg = f"no port in the PROXY line {line!r}"
        raise ProxyError(msg)
    return Proxied(unmapped(source), source_port, unmapped(destination), destination_port)


def _missing_in_block(start: bytes, size: int) -> int:
    if size < _FIXED_SIZE:
        return _FIXED_SIZE - size
    # PROXY 2.2: anything else is to be dropped. Looked at before the length, which may mean something else there.
    if start[12] not in {_LOCAL, _PROXY}:
        msg = f"unknown version or command {start[12]:#04x} in the PROXY header"
        raise ProxyError(msg)
    return max(0, _FIXED_SIZE + int.from_bytes(start[14:]) - size)


def _parse_block(header: bytes) -> Proxied | None:
    # PROXY 2.2: the family of LOCAL is ignored, as is all that follows.
    if header[12] == _LOCAL:
        return None
    family, transport = divmod(header[13], 16)
    if family >= len(_BLOCK_SIZES) or transport > _MAX_TRANSPORT:
        msg = f"unknown family or transport {header[13]:#04x} in the PROXY header"
        raise ProxyError(msg)
    if _UNSPEC in {family, transport}:
        return None
    end = _FIXED_SIZE + _BLOCK_SIZES[family]
    if len(header) < end:
        msg = "the PROXY header is too short for its addresses"
        raise ProxyError(msg)
    _check_tlvs(header, end)
    # PROXY 2.2: valid combinations that are not supported are taken as UNSPEC: datagrams, Unix sockets.
    if transport != _STREAM or family not in _BLOCKS:
        return None
    block: tuple[bytes, bytes, int, int] = _BLOCKS[family].unpack_from(header, _FIXED_SIZE)
    source, destination, source_port, destination_port = block
    return Proxied(_address(source), source_port, _address(destination), destination_port)


def _address(octets: bytes) -> IPv4Address | IPv6Address:
    return IPv4Address(octets) if len(octets) == 4 else unmapped(IPv6Address(octets))


def _check_tlvs(header: bytes, start: int) -> None:
    """Step over what follows the addresses; ProxyError if it is malformed, or a checksum in it is wrong."""
    checksum_at = 0
    while start < len(header):
        value = start + _TLV_SIZE
        end = value + int.from_bytes(header[start + 1 : value])
        if end > len(header):
            msg = "a TLV of the PROXY header is not whole"
            raise ProxyError(msg)
        if header[start] == _CRC32C:
            # One at most: to sum up 64 KiB thousands of times would hold up everybody.
            if checksum_at or end - value != _CRC32C_SIZE:
                msg = "malformed checksum in the PROXY header"
                raise ProxyError(msg)
            checksum_at = value
        start = end
    checksum, behind = header[checksum_at : checksum_at + _CRC32C_SIZE], header[checksum_at + _CRC32C_SIZE :]
    if checksum_at and checksum != _crc32c(header[:checksum_at] + bytes(_CRC32C_SIZE) + behind):
        msg = "wrong checksum in the PROXY header"
        raise ProxyError(msg)


def _crc32c(octets: bytes) -> bytes:
    """Give the CRC32c of a header whose checksum is zeros (PROXY 2.2.3), in the network's order of octets."""
    register = 0xFFFFFFFF
    for octet in octets:
        register = register >> 8 ^ _CRC32C_TABLE[(register ^ octet) & 0xFF]
    return (register ^ 0xFFFFFFFF).to_bytes(_CRC32C_SIZE)


def _remainder(octet: int) -> int:
    for _ in range(8):
        octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
    return octet


_CRC32C_TABLE: Final = tuple(map(_remainder, range(256)))
