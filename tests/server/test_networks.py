"""Which networks an address is in, and how they are written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.errors import ConfigError
from smtprecv.server import Network, Networks, parse_network
from smtprecv.server._networks import UnixPeer, parse_ip_address, unmapped


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", IPv4Network("10.0.0.0/8")),
        ("0.0.0.0/0", IPv4Network("0.0.0.0/0")),
        ("192.0.2.1", IPv4Network("192.0.2.1/32")),
        ("2001:DB8::/32", IPv6Network("2001:db8::/32")),
        ("::/0", IPv6Network("::/0")),
        ("::1", IPv6Network("::1/128")),
        ("unix", UnixPeer.UNIX),
    ],
)
def test_networks_are_read(text: str, network: Network) -> None:
    """A network with its size, a single address, or the peers of Unix sockets."""
    assert parse_network(text) == network


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a network"),
        ("localhost", "is not a network"),
        ("10.0.0.1/8", "has host bits set"),
        ("2001:db8::1/32", "has host bits set"),
        ("10.0.0.0/33", "is not a network"),
        ("::/129", "is not a network"),
        ("10.0.0.0/", "is not a network"),
        ("10.0.0.0/255.0.0.0", "is not a network"),
        ("10.0.0.0/-1", "is not a network"),
        ("10.0.0.0/8/8", "is not a network"),
        ("10.0.0.0/٨", "is not a network"),
        ("010.0.0.1", "is not a network"),
        ("10.0.0", "is not a network"),
        ("1234", "is not a network"),
        ("fe80::1%eth0", "is not a network"),
        ("[::1]", "is not a network"),
        (" ::1", "is not a network"),
        ("::1\n", "is not a network"),
        ("UNIX", "is not a network"),
        ("::ffff:10.0.0.0/104", "write them as such"),
        ("::ffff:10.0.0.1", "write them as such"),
    ],
)
def test_anything_else_is_refused_by_name(text: str, reason: str) -> None:
    """The error names the text and says what is wrong: no names, no netmasks, no zones, no bits behind the size."""
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_network(text)
    assert repr(text) in str(caught.value)


def test_an_address_is_in_networks() -> None:
    """Any network may hold it; one of the other version never does, however large."""
    networks = Networks.of("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")

    assert IPv4Address("10.255.0.1") in networks
    assert IPv4Address("192.0.2.1") in networks
    assert IPv6Address("2001:db8:1::1") in networks
    assert IPv4Address("11.0.0.0") not in networks
    assert IPv6Address("2001:db9::") not in networks
    assert IPv4Address("192.0.2.1") not in Networks.of("::/0")


def test_a_mapped_address_is_the_ipv4_address_that_it_stands_for() -> None:
    """Dual-stack sockets write IPv4 clients as IPv6; they are in the IPv4 networks, and in no IPv6 network."""
    mapped = IPv6Address("::ffff:192.0.2.1")

    assert mapped in Networks.of("192.0.2.0/24")
    assert mapped not in Networks.of("::/0")
    assert unmapped(mapped) == IPv4Address("192.0.2.1")


def test_the_peer_of_a_unix_socket_is_in_unix_alone() -> None:
    """It has no address, so the largest networks do not hold it."""
    assert None in Networks.of("unix")
    assert None not in Networks.of("0.0.0.0/0", "::/0")
    assert IPv4Address("192.0.2.1") not in Networks.of("unix")


def test_no_networks_hold_nobody() -> None:
    """Without networks nobody is trusted."""
    assert None not in Networks()
    assert IPv6Address("::1") not in Networks()


@pytest.mark.parametrize("text", ["", "192.0.2.1/32", "fe80::1%eth0", "1.2.3", "1.2.3.04", "::1 ", "12345", "a"])
def test_no_address(text: str) -> None:
    """An address has no zone, no size and no leading zeros."""
    with pytest.raises(ValueError, match=r".+"):
        parse_ip_address(text)


PLAIN = st.ip_addresses().filter(lambda address: unmapped(address) == address)


@given(PLAIN, PLAIN, st.integers(0, 128))
def test_membership_is_a_comparison_of_bits(
    address: IPv4Address | IPv6Address, start: IPv4Address | IPv6Address, size: int
) -> None:
    """An address is in a network of its version if the first bits are the same."""
    bits = min(size, start.max_prefixlen)
    shift = start.max_prefixlen - bits
    first = type(start)(int(start) >> shift << shift)
    is_in = address.version == start.version and int(address) >> shift == int(start) >> shift

    assert (address in Networks.of(f"{first}/{bits}")) == is_in
