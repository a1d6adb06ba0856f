"""The PROXY protocol: what a header says, what is none, and that nothing behind it is touched."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.server._networks import unmapped
from smtprecv.server._proxy import Proxied, ProxyError, octets_missing, parse_header, read_header

FOUR = Proxied(IPv4Address("192.0.2.7"), 56324, IPv4Address("192.0.2.25"), 25)
SIX = Proxied(IPv6Address("2001:db8::7"), 56324, IPv6Address("2001:db8::25"), 25)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TCP4, UDP4, TCP6, UDP6, UNIX, UNIX_DATAGRAM = 0x11, 0x12, 0x21, 0x22, 0x31, 0x32
LOCAL, PROXY = 0x20, 0x21
CRC32C, NOOP = 3, 4


def line(ends: Proxied) -> bytes:
    """Write a version 1 header."""
    addresses = f"{ends.address} {ends.local_address} {ends.port} {ends.local_port}"
    return f"PROXY TCP{ends.address.version} {addresses}\r\n".encode()


def block(payload: bytes = b"", *, command: int = PROXY, family: int = TCP4, size: int | None = None) -> bytes:
    """Write a version 2 header, with the size of its payload or a wrong one."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(payload) if size is None else size) + payload


def addresses(ends: Proxied) -> bytes:
    """Write the addresses of a version 2 header."""
    return ends.address.packed + ends.local_address.packed + struct.pack("!HH", ends.port, ends.local_port)


def tlv(kind: int, value: bytes) -> bytes:
    """Write what may follow the addresses."""
    return struct.pack("!BH", kind, len(value)) + value


def crc32c(octets: bytes) -> int:
    """Divide by the polynomial of RFC 4960 appendix B, bit by bit."""
    register = 0xFFFFFFFF
    for octet in octets:
        register ^= octet
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 * (register & 1))
    return register ^ 0xFFFFFFFF


def summed(before: bytes, behind: bytes = b"") -> bytes:
    """Write a version 2 header for FOUR with a checksum between these TLVs."""
    header = block(addresses(FOUR) + before + tlv(CRC32C, bytes(4)) + behind)
    place = len(header) - len(behind) - 4
    return header[:place] + struct.pack("!I", crc32c(header)) + header[place + 4 :]


class Cut(trio.abc.ReceiveStream):
    """A stream that gives its octets in pieces of any size, never more than it is asked for."""

    def __init__(self, octets: bytes, seed: int = 0) -> None:
        self.octets = octets
        self._sizes = random.Random(seed)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert max_bytes is not None
        assert max_bytes > 0
        await trio.lowlevel.checkpoint()
        size = self._sizes.randint(1, max_bytes)
        octets, self.octets = self.octets[:size], self.octets[size:]
        return octets

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def read(octets: bytes, seed: int = 0) -> tuple[Proxied | None, bytes]:
    """Read a header from a stream; give what it says, and what is left in the stream."""
    stream = Cut(octets, seed)
    return trio.run(read_header, stream), stream.octets


@pytest.mark.parametrize(
    ("header", "proxied"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.25 56324 25\r\n", FOUR),
        (b"PROXY TCP6 2001:db8::7 2001:DB8:0:0:0:0:0:25 56324 25\r\n", SIX),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.25 56324 25\r\n", FOUR),
        (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", Proxied(IPv4Address(0), 0, IPv4Address(2**32 - 1), 65535)),
        (b"PROXY TCP6 :: :: 0 0\r\n", Proxied(IPv6Address(0), 0, IPv6Address(0), 0)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN " + b"\xff" * 91 + b"\r\n", None),
        (b"PROXY UNKNOWN \r\r\n", None),
        (block(addresses(FOUR)), FOUR),
        (block(addresses(SIX), family=TCP6), SIX),
        (
            block(bytes(10) + b"\xff\xff\xc0\0\2\7" + bytes(20), family=TCP6),
            Proxied(FOUR.address, 0, IPv6Address(0), 0),
        ),
    ],
)
def test_headers(header: bytes, proxied: Proxied | None) -> None:
    """Both versions say who connected to whom; a mapped address is the IPv4 address, UNKNOWN is nobody."""
    assert read(header + b"EHLO client.example\r\n") == (proxied, b"EHLO client.example\r\n")


@pytest.mark.parametrize(
    "header",
    [
        block(command=LOCAL, family=0),
        block(addresses(FOUR), command=LOCAL),
        block(b"what is this", command=LOCAL, family=0xFF),
        block(family=0),
        block(bytes(500), family=0),
        block(bytes(12), family=0x10),
        block(b"", family=0x01),
        block(addresses(FOUR), family=UDP4),
        block(addresses(SIX), family=UDP6),
        block(b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0"), family=UNIX),
        block(bytes(216), family=UNIX_DATAGRAM),
    ],
)
def test_nobody_is_spoken_for(header: bytes) -> None:
    """The connection's own addresses count for LOCAL, whatever else stands there, and for all that is not TCP."""
    assert read(header + b"rest") == (None, b"rest")


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example\r\n",
        b"QUIT\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"proxy TCP4 192.0.2.7 192.0.2.25 56324 25\r\n",
        b"PROXY",
        b"PROXY\r\n",
        b"PROXY\tTCP4",
        b"PROXY  TCP4 192.0.2.7 192.0.2.25 56324 25\r\n",
        b"PROXY TCP5 192.0.2.7 192.0.2.25 56324 25\r\n",
        b"PROXY tcp4 192.0.2.7 192.0.2.25 56324 25\r\n",
        b"PROXY UDP4 192.0.2.7 192.0.2.25 56324 25\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNKNOWN\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 56324\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 56324 25 \r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 56324 25 1\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 56324 25\n\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 56324 25\rQ\r\n",
        b"PROXY TCP4 192.0.2.7  192.0.2.25 56324 25\r\n",
        b"PROXY TCP4 192.0.2.07 192.0.2.25 56324 25\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.25 56324 25\r\n",
        b"PROXY TCP4 192.0.2 192.0.2.25 56324 25\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::25 56324 25\r\n",
        b"PROXY TCP6 192.0.2.7 192.0.2.25 56324 25\r\n",
        b"PROXY TCP6 2001:db8::7 192.0.2.25 56324 25\r\n",
        b"PROXY TCP6 2001:db8::7%lo ::1 56324 25\r\n",
        b"PROXY TCP6 :::7 ::1 56324 25\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 056324 25\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 00 25\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 65536 25\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 25 99999\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 -1 25\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 +1 25\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.25 \xb2 25\r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY TCP6 " + b"0" * 97 + b"\r\n",
        SIGNATURE[:-1],
        SIGNATURE[:-1] + b"\r!\x11\0\0",
        block(addresses(FOUR), command=0x11),
        block(addresses(FOUR), command=0x31),
        block(addresses(FOUR), command=0x22),
        block(addresses(FOUR), family=0x41),
        block(addresses(FOUR), family=0x13),
        block(),
        block(addresses(FOUR)[:-1]),
        block(addresses(FOUR), family=TCP6),
        block(bytes(215), family=UNIX),
        block(bytes(11), family=UDP4),
        block(addresses(FOUR), size=13),
        block(addresses(FOUR) + b"\4"),
        block(addresses(FOUR) + b"\4\0"),
        block(addresses(FOUR) + b"\4\0\1"),
        block(addresses(FOUR) + b"\4\xff\xffx"),
    ],
)
def test_no_headers(octets: bytes) -> None:
    """What is not exactly a header is none, and neither is one that the connection ends in."""
    with pytest.raises(ProxyError) as caught:
        read(octets)
    assert str(caught.value).isprintable()


def test_a_stranger_is_found_out_at_once() -> None:
    """Octets that begin no header are refused as they come, and not waited for until there are enough."""
    for octets in (b"E", b"\r\r", b"PROXX", b"PROXY\t", SIGNATURE[:-1] + b"\r"):
        with pytest.raises(ProxyError):
            octets_missing(bytearray(octets))
    with pytest.raises(ProxyError):
        octets_missing(bytearray(SIGNATURE + b"\x11\x11\xff\xff"))


def test_a_line_without_an_end_is_refused_before_its_limit_is_passed() -> None:
    """107 octets are looked at, as the specification says, and not one more."""
    stream = Cut(b"PROXY UNKNOWN " + b"x" * 1000)
    with pytest.raises(ProxyError, match="too long"):
        trio.run(read_header, stream)
    assert len(stream.octets) >= 1014 - 107


def test_the_largest_header_is_skipped() -> None:
    """65,535 octets behind the fixed part are taken and left behind, whether one TLV, thousands, or no such thing."""
    rest = 65535 - 12
    for payload, family in (
        (addresses(FOUR) + tlv(NOOP, bytes(rest - 3)), TCP4),
        (addresses(FOUR) + tlv(NOOP, b"") * (rest // 3), TCP4),
        (bytes(65535), 0),
    ):
        assert read(block(payload, family=family) + b"rest") == (FOUR if family else None, b"rest")


def test_the_checksum_is_the_one_of_the_specification() -> None:
    """The well-known value of CRC32c: what the tests compare with is right."""
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("before", [b"", tlv(NOOP, b"xyz")])
@pytest.mark.parametrize("behind", [b"", tlv(5, b"id")])
def test_a_checksum_is_verified(before: bytes, behind: bytes) -> None:
    """A header with the right checksum is taken, and the same with any bit flipped is not."""
    header = summed(before, behind)
    assert read(header) == (FOUR, b"")
    for bit in range(16 * 8, len(header) * 8):
        spoiled = int.from_bytes(header) ^ 1 << (len(header) * 8 - 1 - bit)
        outcome = None
        try:
            outcome = parse_header(spoiled.to_bytes(len(header)))
        except ProxyError:
            continue
        # The one flip that is not seen is that which makes the checksum something else.
        assert outcome is not None
        assert bit // 8 == header.index(tlv(CRC32C, b"")[:1] + b"\0\4")


def test_a_second_checksum_is_refused() -> None:
    """One can be right at most; to verify thousands would hold up everybody."""
    for first in (tlv(CRC32C, bytes(4)), tlv(CRC32C, b"") * 21_000):
        with pytest.raises(ProxyError, match="checksum"):
            parse_header(block(addresses(FOUR) + first + tlv(CRC32C, bytes(4))))


@pytest.mark.parametrize("size", [0, 3, 5])
def test_a_checksum_has_four_octets(size: int) -> None:
    """One of another size is malformed."""
    with pytest.raises(ProxyError, match="malformed checksum"):
        parse_header(block(addresses(FOUR) + tlv(CRC32C, bytes(size))))


async def test_a_connection_that_breaks_is_no_header() -> None:
    """A reset is the same outcome as an end: there is one error to log."""
    ours, theirs = trio.testing.memory_stream_pair()
    assert isinstance(ours, trio.StapledStream)
    await theirs.send_all(b"PROXY TCP4 ")

    async def broken() -> None:
        raise trio.BrokenResourceError

    ours.receive_stream.receive_some_hook = broken
    with pytest.raises(ProxyError, match="broke"):
        await read_header(ours)


async def test_a_silent_proxy_can_be_left(autojump_clock: trio.testing.MockClock) -> None:
    """How long to wait is the caller's: the wait can be cancelled."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"PROXY ")
    with trio.move_on_after(5) as scope:
        await read_header(ours)
    assert scope.cancelled_caught


PORTS = st.integers(0, 65535)
ENDS = st.builds(Proxied, st.ip_addresses(v=4), PORTS, st.ip_addresses(v=4), PORTS) | st.builds(
    Proxied, st.ip_addresses(v=6), PORTS, st.ip_addresses(v=6), PORTS
)
TLVS = st.lists(st.builds(tlv, st.integers(0, 255).filter(lambda kind: kind != CRC32C), st.binary(max_size=300)))


@pytest.mark.slow
@given(ENDS, TLVS, st.binary(), st.integers(0, 1000))
def test_what_is_written_is_read(ends: Proxied, tlvs: list[bytes], rest: bytes, seed: int) -> None:
    """Any addresses come through both versions, in any cuts, with any TLVs, and what follows stays in the stream."""
    expected = Proxied(unmapped(ends.address), ends.port, unmapped(ends.local_address), ends.local_port)
    family = TCP4 if ends.address.version == 4 else TCP6

    assert read(line(ends) + rest, seed) == (expected, rest)
    assert read(block(addresses(ends) + b"".join(tlvs), family=family) + rest, seed) == (expected, rest)


UNKNOWN = st.binary(max_size=91).filter(lambda octets: b"\r\n" not in octets + b"\r")
HEADERS = (
    st.builds(line, ENDS)
    | st.just(b"PROXY UNKNOWN\r\n")
    | st.builds(lambda octets: b"PROXY UNKNOWN " + octets + b"\r\n", UNKNOWN)
    | st.builds(lambda ends, tlvs: block(addresses(ends) + b"".join(tlvs)), ENDS, TLVS)
)


@given(HEADERS, st.binary(min_size=1), st.integers(0, 1000))
def test_what_follows_stays_in_the_stream(header: bytes, rest: bytes, seed: int) -> None:
    """No header, however it comes, makes the reader take an octet of what the client says."""
    try:
        assert read(header + rest, seed)[1] == rest
    except ProxyError:
        assert header.startswith(SIGNATURE)


@st.composite
def spoiled_headers(draw: st.DrawFn) -> bytes:
    """Draw a header with some octets replaced, inserted or taken away."""
    header = bytearray(draw(HEADERS))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(header)))
        header[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(header)


@given(spoiled_headers() | st.binary(max_size=200), st.integers(0, 1000), st.integers(0, 1000))
def test_cuts_do_not_matter(octets: bytes, one: int, other: int) -> None:
    """Any octets are a header with the same meaning and the same rest, or none, however they come."""

    def outcome(seed: int) -> tuple[Proxied | None, bytes] | None:
        try:
            return read(octets, seed)
        except ProxyError:
            return None

    assert outcome(one) == outcome(other)
