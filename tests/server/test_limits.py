"""Who may come in, and how many files that takes."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address

import pytest

from smtprecv.errors import ConfigError
from smtprecv.server import Limits
from smtprecv.server._limits import Doorkeeper

ONE, OTHER = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def test_the_server_is_full_at_its_limit() -> None:
    """The connection after the last is told 421, and may come in once another has left (RFC 5321 section 7.8)."""
    door = Doorkeeper(Limits(max_connections=2))
    assert [door.enter(ONE), door.enter(OTHER)] == [None, None]

    refusal = door.enter(None)
    door.leave(ONE)

    assert refusal is not None
    assert refusal.code == 421
    assert door.enter(None) is None


def test_one_address_cannot_take_all_places() -> None:
    """Design, promise 5: an address over its limit is told 421, and nobody else is delayed."""
    door = Doorkeeper(Limits(max_connections_per_client=2))
    assert [door.enter(ONE), door.enter(ONE)] == [None, None]

    refusal = door.enter(ONE)

    assert refusal is not None
    assert refusal.code == 421
    assert door.enter(OTHER) is None
    door.leave(ONE)
    assert door.enter(ONE) is None


def test_a_network_of_ipv6_is_one_client() -> None:
    """One host has all addresses of its 64-bit network, and may not use them to take all places."""
    door = Doorkeeper(Limits(max_connections_per_client=1))
    assert door.enter(ip_address("2001:db8::1")) is None

    assert door.enter(ip_address("2001:db8::2:3")) is not None
    assert door.enter(ip_address("2001:db8:0:1::1")) is None
    assert door.enter(ip_address("0.0.0.1")) is None


def test_who_has_left_is_forgotten() -> None:
    """Memory follows the open connections, not the addresses ever seen."""
    door = Doorkeeper(Limits())
    for number in range(1000):
        address = ip_address(number)
        assert door.enter(address) is None
        door.leave(address)

    assert not door._by_address


@pytest.mark.parametrize(
    "limits",
    [
        {"max_connections": 0},
        {"max_connections_per_client": 0},
        {"max_errors": 4},
        {"max_idle_commands": 0},
        {"idle_timeout": 0.0},
    ],
)
def test_limits_that_serve_nobody_are_refused(limits: dict[str, int]) -> None:
    """A session has room for 5 errors at least, and every limit lets somebody in."""
    with pytest.raises(ConfigError):
        Limits(**limits)


def _in_a_process_with(soft: int, hard: int, connections: int) -> tuple[int, int]:
    """Give the soft limit and the number that fits, after raising in a process with these limits."""
    program = f"""
import resource
from smtprecv.server import raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
fits = raise_file_limit({connections})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], fits)
"""
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    soft_after, fits = map(int, output.split())
    return soft_after, fits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("soft", "hard", "connections", "expected"),
    [
        (256, 4000, 1000, (2200, 1000)),  # raised as far as it is needed
        (256, 1200, 1000, (1200, 500)),  # as far as it may be, and said so
        (4000, 4000, 1000, (4000, 1000)),  # enough already: left alone
        (100, 100, 1000, (100, 1)),  # hopeless, but never zero
    ],
)
def test_the_soft_file_limit_is_raised_to_fit(
    soft: int, hard: int, connections: int, expected: tuple[int, int]
) -> None:
    """Two files for each connection and some beside, never past the hard limit."""
    assert _in_a_process_with(soft, hard, connections) == expected
