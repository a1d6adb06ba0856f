"""Who may come in, and how many files that takes."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
import trio.testing

from smtprecv.errors import ConfigError
from smtprecv.server import Limits, Rate
from smtprecv.server._limits import Doorkeeper

ONE, OTHER = ip_address("192.0.2.1"), ip_address("2001:db8::1")


@dataclass
class Time:
    """A clock that the test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


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

    assert not door._clients._open
    assert not door._networks._open


def test_a_network_cannot_take_all_places() -> None:
    """A network of 24 bits, of IPv6 48, may take a few times what one client may, and no more."""
    door = Doorkeeper(Limits(max_connections_per_client=2, network_factor=2))
    for network, neighbor in [("192.0.2.{}", "192.0.3.1"), ("2001:db8:0:{}::1", "2001:db8:1::1")]:
        addresses = [ip_address(network.format(number)) for number in range(5)]
        assert [door.enter(address) for address in addresses[:4]] == [None] * 4

        refusal = door.enter(addresses[4])

        assert refusal is not None
        assert refusal.code == 421
        assert door.enter(ip_address(neighbor)) is None
        door.leave(addresses[0])
        assert door.enter(addresses[4]) is None


def test_who_comes_too_often_is_sent_away() -> None:
    """Past the rate of connections a client is told 421, until its time has come; who never stays long counts too."""
    time = Time()
    door = Doorkeeper(Limits(connection_rate=Rate(3, 60)), time)
    for _ in range(3):
        assert door.enter(ONE) is None
        door.leave(ONE)

    refusal = door.enter(ONE)

    assert refusal is not None
    assert (refusal.code, refusal.status) == (421, (4, 7, 0))
    assert [door.enter(OTHER), door.enter(None)] == [None, None]
    time.now += 20
    assert door.enter(ONE) is None
    assert door.enter(ONE) is not None


def test_who_errs_too_often_does_not_come_in() -> None:
    """Errors are counted over all sessions of a client; past their rate it is told 421 before the banner."""
    time = Time()
    door = Doorkeeper(Limits(error_rate=Rate(10, 60)), time)
    for _ in range(9):
        door.erred(ONE)
    assert door.enter(ONE) is None

    for _ in range(1000):
        door.erred(ONE)
    refusal = door.enter(ONE)

    assert refusal is not None
    assert (refusal.code, refusal.status) == (421, (4, 7, 0))
    assert door.enter(OTHER) is None
    time.now += 6
    assert door.enter(ONE) is None  # what it did past the limit is not added to its debt


def test_who_sends_too_much_waits() -> None:
    """Past the rate of transactions MAIL is told 451, which counts nothing, and everybody else's passes."""
    time = Time()
    door = Doorkeeper(Limits(transaction_rate=Rate(2, 60)), time)
    assert [door.transaction(ONE), door.transaction(ONE)] == [None, None]

    refusal = door.transaction(ONE)

    assert refusal is not None
    assert (refusal.code, refusal.status) == (451, (4, 7, 1))
    assert [door.transaction(OTHER), door.enter(ONE)] == [None, None]
    time.now += 30
    assert door.transaction(ONE) is None


def test_a_network_is_held_to_the_rates_too() -> None:
    """What one client may, its network may a few times: many addresses do not help."""
    door = Doorkeeper(
        Limits(connection_rate=Rate(1, 60), transaction_rate=Rate(1, 60), error_rate=Rate(1, 60), network_factor=3),
        Time(),
    )
    addresses = [ip_address(f"192.0.2.{number}") for number in range(4)]
    assert [door.enter(address) is None for address in addresses] == [True, True, True, False]
    assert [door.transaction(address) is None for address in addresses] == [True, True, True, False]

    neighbors = [ip_address(f"198.51.100.{number}") for number in range(4)]
    for address in neighbors[:3]:
        door.erred(address)
    assert door.enter(neighbors[3]) is not None


def test_a_refused_client_takes_nothing() -> None:
    """Neither its own network's share nor the total grows by a client that was sent away."""
    door = Doorkeeper(Limits(max_connections=3, max_connections_per_client=1, connection_rate=Rate(2, 60)), Time())
    assert door.enter(ONE) is None
    assert all(door.enter(ONE) is not None for _ in range(100))

    door.leave(ONE)

    assert door.enter(ONE) is None
    assert [door.enter(ip_address("192.0.2.2")), door.enter(OTHER)] == [None, None]


def test_a_peer_without_an_address_is_held_to_the_total_only() -> None:
    """At a Unix socket nobody can be told from anybody else, so no rate is counted there."""
    rate = Rate(1, 60)
    door = Doorkeeper(
        Limits(max_connections=3, max_connections_per_client=1, connection_rate=rate, error_rate=rate), Time()
    )
    door.erred(None)
    assert [door.enter(None) is None for _ in range(4)] == [True, True, True, False]
    assert [door.transaction(None) for _ in range(4)] == [None] * 4
    door.leave(None)
    assert door.enter(None) is None


def test_without_a_rate_nothing_is_counted_by_time() -> None:
    """By default a client may come, err and send as often as it likes, and the clock is not even asked."""

    def no_clock() -> float:
        raise AssertionError

    door = Doorkeeper(Limits(), no_clock)
    for _ in range(1000):
        assert door.enter(ONE) is None
        door.erred(ONE)
        assert door.transaction(ONE) is None
        door.leave(ONE)


async def test_the_clock_is_trios(autojump_clock: trio.testing.MockClock) -> None:
    """Where no clock is given, time passes as for everything else in the program."""
    door = Doorkeeper(Limits(transaction_rate=Rate(1, 3600)))
    assert door.transaction(ONE) is None
    assert door.transaction(ONE) is not None
    await trio.sleep(3600)
    assert door.transaction(ONE) is None


def test_errors_past_a_number_wait() -> None:
    """A few bad recipients cost a client nothing; a dictionary of them costs it a second each."""
    limits = Limits(tarpit_after=3, tarpit_delay=1.5)
    assert [limits.tarpit(errors) for errors in range(1, 6)] == [0, 0, 0, 1.5, 1.5]


@pytest.mark.parametrize(
    "limits",
    [
        partial(Limits, max_connections=0),
        partial(Limits, max_connections_per_client=0),
        partial(Limits, network_factor=0),
        partial(Limits, max_errors=4),
        partial(Limits, max_idle_commands=0),
        partial(Limits, max_auth_failures=2),
        partial(Limits, auth_failure_delay=-1.0),
        partial(Limits, tarpit_after=-1),
        partial(Limits, tarpit_delay=-0.1),
        partial(Limits, min_data_rate=0),
        partial(Limits, greet_delay=-1.0),
        partial(Limits, greet_delay=math.nan),
        partial(Limits, idle_timeout=0.0),
        partial(Limits, idle_timeout=math.nan),
        partial(Limits, session_timeout=0.0),
        partial(Limits, handshake_timeout=0.0),
    ],
)
def test_limits_that_serve_nobody_are_refused(limits: partial[Limits]) -> None:
    """A session has room for 5 errors and 3 failed logins at least, and every limit lets somebody in."""
    [name] = limits.keywords
    with pytest.raises(ConfigError, match=name):
        limits()


def test_every_limit_is_in_the_manual() -> None:
    """The table in docs/operating.md has the fields of Limits, each once."""
    page = Path(__file__).parents[2] / "docs" / "operating.md"
    [table] = re.findall(r"^\| name \| what it limits \|.*?\n\n", page.read_text(), re.DOTALL | re.MULTILINE)
    names = [name for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"\w+", row)]
    assert sorted(field.name for field in fields(Limits)) == sorted(names)


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
