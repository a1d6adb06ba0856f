"""DNS lists: whom they refuse, and that nothing else that a list may say or do refuses anybody."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio
import trio.testing
from tests.server.nameserver import Nameserver, Respond, Zone, from_zone, nameserver, silence

from smtprecv.errors import ConfigError
from smtprecv.message import Client, SessionId
from smtprecv.policies import Dnsbl
from smtprecv.policies import _dnsbl as dnsbl
from smtprecv.protocol import Reply

FOUR, SIX = ip_address("1.2.3.4"), ip_address("2600::1")
FOUR_NAME = "4.3.2.1.bl.example."
SIX_NAME = "1." + "0." * 28 + "0.6.2.bl.example."

LISTED: Zone = {(FOUR_NAME, "A"): ["127.0.0.2"]}


def from_address(address: IPv4Address | IPv6Address | None) -> Client:
    """Give a client with this address."""
    return Client(SessionId("s"), address, None if address is None else 40000)


def asking(server: Nameserver, *lists: str, timeout: float = 5.0) -> Dnsbl:
    """Give the policy that asks this server."""
    return Dnsbl(*lists, nameservers=["127.0.0.1"], port=server.port, timeout=timeout)


async def answer(udp: Respond, *lists: str, address: IPv4Address | IPv6Address = FOUR) -> Reply:
    """Give the answer to a client, where the DNS says this."""
    async with nameserver(udp) as server:
        with trio.fail_after(5):
            return await asking(server, *lists or ["bl.example"], timeout=0.2).connect(from_address(address))


@pytest.mark.parametrize(("address", "name"), [(FOUR, FOUR_NAME), (SIX, SIX_NAME)])
async def test_who_is_listed_is_refused(address: IPv4Address | IPv6Address, name: str) -> None:
    """The name is the address backward, by numbers or by hexadecimal digits; the reply says which list.

    RFC 5782 sections 2.1 and 2.4.
    """
    async with nameserver(from_zone({(name, "A"): ["127.0.0.2"]})) as server:
        reply = await asking(server, "BL.Example").connect(from_address(address))
    assert f"554 5.7.1 your address {address} is listed by bl.example" == str(reply)
    assert [(name, "A", "udp")] == server.asked


async def test_who_is_not_listed_passes() -> None:
    """No such name is a yes."""
    assert (await answer(from_zone({}))).is_ok


@pytest.mark.parametrize(
    "records",
    [
        ["192.0.2.1"],
        ["0.0.0.0"],
        ["127.0.0.0"],
        ["127.0.0.1"],
        ["127.255.255.0"],
        ["127.255.255.252"],
        ["127.255.255.254", "127.255.255.255"],
        ["128.0.0.2", "126.255.255.255"],
    ],
)
async def test_other_answers_list_nobody(records: list[str]) -> None:
    """An error code, a hidden name, the address of a domain for sale: such a list would refuse all mail otherwise."""
    assert (await answer(from_zone({(FOUR_NAME, "A"): records}))).is_ok


@pytest.mark.parametrize(
    ("codes", "record", "is_listed"),
    [
        ("127.0.0.2-11", "127.0.0.2", True),
        ("127.0.0.2-11", "127.0.0.11", True),
        ("127.0.0.2-11", "127.0.0.12", False),
        ("127.0.0.4", "127.0.0.4", True),
        ("127.0.0.4", "127.0.0.5", False),
        ("127.0.0.4,127.0.1.2-3", "127.0.1.3", True),
        ("127.0.0.4,127.0.1.2-3", "127.0.0.2", False),
    ],
)
async def test_answers_that_count_may_be_chosen(codes: str, record: str, *, is_listed: bool) -> None:
    """One zone may say many things, of which some are no reason to refuse."""
    reply = await answer(from_zone({(FOUR_NAME, "A"): [record]}), f"bl.example={codes}")
    assert is_listed is not reply.is_ok


async def test_one_of_several_records_is_enough() -> None:
    """A list may give several reasons, in any order."""
    assert (await answer(from_zone({(FOUR_NAME, "A"): ["127.0.0.9", "127.0.0.3"]}), "bl.example=127.0.0.3")).code == 554


async def test_lists_are_asked_at_once(mock_clock: trio.testing.MockClock) -> None:
    """The first list that has the client ends it: no other one is waited for, however slow."""
    zone: Zone = {("4.3.2.1.third.example.", "A"): ["127.0.0.2"]}

    async def some_never_answer(query: bytes) -> Sequence[bytes]:
        name = dns.message.from_wire(query).question[0].name.to_text()
        return await (from_zone(zone) if "third" in name else silence)(query)

    async with nameserver(some_never_answer) as server:
        reply = await asking(server, "first.example", "second.example", "third.example").connect(from_address(FOUR))
    assert "554 5.7.1 your address 1.2.3.4 is listed by third.example" == str(reply)


async def test_a_dead_list_costs_the_timeout_at_most(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody is refused because nobody answers, and nobody waits for longer than was set."""
    async with nameserver(silence) as server:
        policy = asking(server, "first.example", "second.example", timeout=3)
        for _ in range(2):
            before = trio.current_time()
            assert (await policy.connect(from_address(FOUR))).is_ok
            assert 3 == trio.current_time() - before


async def failure(query: bytes) -> Sequence[bytes]:
    """Say that the server has a problem."""
    response = dns.message.make_response(dns.message.from_wire(query))
    response.set_rcode(dns.rcode.SERVFAIL)
    return [response.to_wire()]


async def garbage(query: bytes) -> Sequence[bytes]:
    """Give what is no DNS message, some of it with the query's own id."""
    return [b"", b"\xff" * 500, query[:2] + b"\xff" * 500, query[:12], query[:2] + b"\x81\x80" + query[4:12]] * 10


async def another_name(query: bytes) -> Sequence[bytes]:
    """Answer the question with a record of another name."""
    response = dns.message.make_response(dns.message.from_wire(query))
    response.answer.append(dns.rrset.from_text("5.3.2.1.bl.example.", 60, "IN", "A", "127.0.0.2"))
    return [response.to_wire()]


async def another_type(query: bytes) -> Sequence[bytes]:
    """Answer with texts."""
    response = dns.message.make_response(dns.message.from_wire(query))
    response.answer.append(dns.rrset.from_text(FOUR_NAME, 60, "IN", "TXT", '"127.0.0.2"'))
    return [response.to_wire()]


async def listed_and_missing(query: bytes) -> Sequence[bytes]:
    """Give a record, and say that the name does not exist."""
    [octets] = await from_zone(LISTED)(query)
    response = dns.message.from_wire(octets)
    response.set_rcode(dns.rcode.NXDOMAIN)
    return [response.to_wire()]


async def circle(query: bytes) -> Sequence[bytes]:
    """Give aliases that lead nowhere."""
    response = dns.message.make_response(dns.message.from_wire(query))
    response.answer.append(dns.rrset.from_text(FOUR_NAME, 60, "IN", "CNAME", "a.example."))
    response.answer.append(dns.rrset.from_text("a.example.", 60, "IN", "CNAME", FOUR_NAME))
    return [response.to_wire()]


MANY = from_zone({(FOUR_NAME, "A"): [f"127.0.1.{number}" for number in range(60)]})


@pytest.mark.slow
@pytest.mark.parametrize("udp", [failure, garbage, another_name, another_type, listed_and_missing, circle, MANY])
async def test_nonsense_lists_nobody(udp: Respond) -> None:
    """What is wrong with an answer is no reason to refuse, and no exception."""
    assert (await answer(udp)).is_ok


@pytest.mark.parametrize(
    "address",
    ["127.0.0.2", "::1", "10.0.0.1", "192.168.0.1", "169.254.0.1", "100.64.0.1", "fd00::1", "fe80::1", None],
)
async def test_only_global_addresses_are_asked_about(address: str | None) -> None:
    """Nobody outside knows whose a private address is, so nobody outside hears of it."""
    async with nameserver(from_zone({})) as server:
        client = from_address(None if address is None else ip_address(address))
        assert (await asking(server, "bl.example").connect(client)).is_ok
    assert [] == server.asked


async def test_answers_are_remembered(mock_clock: trio.testing.MockClock) -> None:
    """Yes and no hold for their time: a client that comes back at once is not asked about again."""
    async with nameserver(from_zone(LISTED)) as server:
        policy = asking(server, "bl.example")
        clients = [from_address(ip_address(address)) for address in ("1.2.3.4", "1.2.3.5", "1.2.3.4", "1.2.3.5")]
        assert [554, 250, 554, 250] == [(await policy.connect(client)).code for client in clients]
        assert 2 == len(server.asked)

        mock_clock.jump(61)
        assert 554 == (await policy.connect(clients[0])).code
        assert 3 == len(server.asked)


@pytest.mark.parametrize(("ttl", "minimum"), [(3600, 30), (30, 3600)])
async def test_a_no_holds_for_as_long_as_its_zone_says(
    ttl: int, minimum: int, mock_clock: trio.testing.MockClock
) -> None:
    """That a name does not exist is believed for the least of the SOA's own time and its minimum.

    RFC 2308 section 5.
    """

    async def no_such_name(query: bytes) -> Sequence[bytes]:
        [octets] = await from_zone({})(query)
        response = dns.message.from_wire(octets)
        soa = f"ns.bl.example. postmaster.bl.example. 1 3600 600 86400 {minimum}"
        response.authority.append(dns.rrset.from_text("bl.example.", ttl, "IN", "SOA", soa))
        return [response.to_wire()]

    asked: list[int] = []
    async with nameserver(no_such_name) as server:
        policy = asking(server, "bl.example")
        for seconds in (0, 29, 2):
            mock_clock.jump(seconds)
            assert (await policy.connect(from_address(FOUR))).is_ok
            asked.append(len(server.asked))
    assert [1, 1, 2] == asked


async def test_answers_are_remembered_for_five_minutes_at_most(mock_clock: trio.testing.MockClock) -> None:
    """A list that says "for a week" is asked again all the same: who was taken off it should not wait for long."""

    async def for_a_week(query: bytes) -> Sequence[bytes]:
        response = dns.message.make_response(dns.message.from_wire(query))
        response.answer.append(dns.rrset.from_text(FOUR_NAME, 604_800, "IN", "A", "127.0.0.2"))
        return [response.to_wire()]

    async with nameserver(for_a_week) as server:
        policy = asking(server, "bl.example")
        for seconds in (0, 299, 2):
            mock_clock.jump(seconds)
            assert 554 == (await policy.connect(from_address(FOUR))).code
    assert 2 == len(server.asked)


async def test_what_a_list_could_not_tell_is_not_remembered() -> None:
    """After a failure of one list all are asked again, for a client that passes may still be listed."""

    async def one_fails(query: bytes) -> Sequence[bytes]:
        name = dns.message.from_wire(query).question[0].name.to_text()
        return await (failure if "second" in name and fails else from_zone(zone))(query)

    fails = True
    zone: Zone = {("4.3.2.1.second.example.", "A"): ["127.0.0.2"]}
    async with nameserver(one_fails) as server:
        policy = asking(server, "first.example", "second.example", timeout=0.2)
        assert (await policy.connect(from_address(FOUR))).is_ok
        fails = False
        assert 554 == (await policy.connect(from_address(FOUR))).code


@pytest.mark.slow
async def test_memory_is_bounded() -> None:
    """However many addresses come, what is remembered takes 4 MiB at most, and the latest is in it."""
    policy = Dnsbl("bl.example", nameservers=["127.0.0.1"])
    first, last = int(SIX), int(SIX) + 3 * dnsbl._MAX_ADDRESSES
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(first, last + 1):
            verdict = dnsbl._Verdict("bl.example", trio.current_time() + 300)
            policy._remember(IPv6Address(number), verdict)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 4 * 1024 * 1024
    assert 554 == (await policy.connect(from_address(IPv6Address(last)))).code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bl..example",
        "bl.example.",
        "-bl.example",
        "bl example",
        "[192.0.2.1]",
        "bl.example\r\n",
        ".".join(["a" * 62] * 4),
        "bl.example=",
        "bl.example=2",
        "bl.example=127.0.0.2-",
        "bl.example=127.0.0.11-2",
        "bl.example=127.0.0.2-256",
        "bl.example=127.0.0.2,",
        "bl.example=127.0.0.1",
        "bl.example=127.255.255.254",
        "bl.example=192.0.2.1",
    ],
)
def test_a_malformed_list_is_refused(text: str) -> None:
    """A name that cannot be asked, or an answer that can never count, is found out before there is a client."""
    with pytest.raises(ConfigError):
        Dnsbl("other.example", text, nameservers=["127.0.0.1"])


async def test_the_longest_zone_can_be_asked() -> None:
    """What was accepted as a zone fits under every address."""
    zone = f"{'.'.join(['a' * 46] * 4)}bb"
    async with nameserver(from_zone({})) as server:
        assert (await asking(server, zone).connect(from_address(SIX))).is_ok
    assert 1 == len(server.asked)
    with pytest.raises(ConfigError):
        Dnsbl(f"{zone}b", nameservers=["127.0.0.1"])


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_settings_that_cannot_be_used(timeout: float) -> None:
    """There is a list, a timeout of more than nothing, and a server that is an address."""
    with pytest.raises(ConfigError, match="timeout"):
        Dnsbl("bl.example", timeout=timeout)
    with pytest.raises(ConfigError, match="name servers"):
        Dnsbl("bl.example", nameservers=["ns.example"])
    with pytest.raises(ConfigError, match="list"):
        Dnsbl()


def test_without_dnspython(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that cannot be asked must not look like one that has nobody: that is said at once, with the remedy."""
    monkeypatch.setitem(sys.modules, "smtprecv.resolver", None)
    with pytest.raises(ConfigError, match=r"install smtprecv\[dns\]"):
        Dnsbl("bl.example")
