"""The name of a client's address: right in both directions, or none."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ipaddress import ip_address

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import trio
from tests.server.nameserver import Respond, Zone, from_zone, nameserver, silence

from smtprecv.errors import ConfigError
from smtprecv.message import Client, SessionId
from smtprecv.server import ReverseDns

FOUR = Client(SessionId("s"), ip_address("127.0.0.1"), 40000)
SIX = Client(SessionId("s"), ip_address("::1"), 40000)

PTR_4 = ("1.0.0.127.in-addr.arpa.", "PTR")
PTR_6 = ("1." + "0." * 31 + "ip6.arpa.", "PTR")


async def found(zone: Zone, client: Client = FOUR) -> str | None:
    """Give what is found in a zone."""
    async with nameserver(from_zone(zone)) as server:
        return await ReverseDns(nameservers=["127.0.0.1"], port=server.port).look_up(client)


@pytest.mark.parametrize(
    ("client", "zone"),
    [
        (FOUR, {PTR_4: ["Mail.Example."], ("Mail.Example.", "A"): ["192.0.2.1", "127.0.0.1"]}),
        (SIX, {PTR_6: ["mail.example."], ("mail.example.", "AAAA"): ["::1"]}),
    ],
)
async def test_a_name_that_leads_back_counts(client: Client, zone: Zone) -> None:
    """The name of an address whose own addresses have it among them, in lower case without the last dot."""
    assert await found(zone, client) == "mail.example"


@pytest.mark.parametrize(
    "zone",
    [
        {},
        {PTR_4: ["mail.example."]},
        {PTR_4: ["mail.example."], ("mail.example.", "A"): ["192.0.2.1"]},
        {PTR_4: ["mail.example."], ("mail.example.", "AAAA"): ["::1"]},
        {PTR_4: ["bad_name.example."], ("bad_name.example.", "A"): ["127.0.0.1"]},
        {PTR_4: ["a\\010b.example."], ("a\\010b.example.", "A"): ["127.0.0.1"]},
        {PTR_4: ["[192\\.0\\.2\\.1]."], ("[192\\.0\\.2\\.1].", "A"): ["127.0.0.1"]},
        {PTR_4: ["."], (".", "A"): ["127.0.0.1"]},
    ],
    ids=["no name", "no address", "another address", "another family", "no domain", "controls", "literal", "root"],
)
async def test_any_other_name_does_not(zone: Zone) -> None:
    """A name that is not confirmed, or is no domain, is none: anybody may call his address anything."""
    assert await found(zone) is None


async def test_a_few_names_are_tried() -> None:
    """Of several names the first that is confirmed counts, and no more than 5 are tried."""
    names = [f"{letter}.example." for letter in "abcdefgh"]
    async with nameserver(from_zone({PTR_4: names})) as server:
        assert await ReverseDns(nameservers=["127.0.0.1"], port=server.port).look_up(FOUR) is None
    assert [kind for _, kind, _ in server.asked] == ["PTR", "A", "A", "A", "A", "A"]
    assert await found({PTR_4: names[:5], ("c.example.", "A"): ["127.0.0.1"]}) == "c.example"


async def test_an_alias_is_followed() -> None:
    """A network smaller than 256 addresses has its names behind an alias (RFC 2317 section 4)."""

    async def respond(query: bytes) -> Sequence[bytes]:
        [response] = await from_zone(zone)(query)
        message = dns.message.from_wire(response)
        if message.question[0].rdtype == dns.rdatatype.PTR:
            message.set_rcode(dns.rcode.NOERROR)
            message.answer = [
                dns.rrset.from_text(PTR_4[0], 60, "IN", "CNAME", "1.0-15.0.0.127.in-addr.arpa."),
                dns.rrset.from_text("1.0-15.0.0.127.in-addr.arpa.", 60, "IN", "PTR", "mail.example."),
            ]
        return [message.to_wire()]

    zone: Zone = {("mail.example.", "A"): ["127.0.0.1"]}
    async with nameserver(respond) as server:
        assert await ReverseDns(nameservers=["127.0.0.1"], port=server.port).look_up(FOUR) == "mail.example"


async def test_the_next_server_is_asked() -> None:
    """A server that cannot tell, or that nobody hears, leaves it to the next one."""
    zone: Zone = {PTR_4: ["mail.example."], ("mail.example.", "A"): ["127.0.0.1"]}

    async def failure(query: bytes) -> Sequence[bytes]:
        response = dns.message.make_response(dns.message.from_wire(query))
        response.set_rcode(dns.rcode.SERVFAIL)
        return [response.to_wire()]

    async with nameserver(failure) as first, nameserver(from_zone(zone), address="127.0.0.2", port=first.port):
        servers = ["127.0.0.3", "127.0.0.1", "127.0.0.2"]
        assert await ReverseDns(nameservers=servers, port=first.port).look_up(FOUR) == "mail.example"


async def test_an_answer_of_many_records_is_not_read() -> None:
    """More than 32 records are no answer: to read 64 KiB of long names would stop the server for seconds.

    RFC 1035 section 4.1.1.
    """
    zone: Zone = {PTR_4: [f"h{number}.example." for number in range(32)]}
    async with nameserver(from_zone(zone)) as server:
        with trio.fail_after(5):
            assert await ReverseDns(nameservers=["127.0.0.1"], port=server.port, timeout=0.1).look_up(FOUR) is None
    assert [kind for _, kind, _ in server.asked] == ["PTR"]


async def test_a_long_answer_comes_over_tcp() -> None:
    """An answer that does not fit into a datagram is asked for again over TCP."""
    zone: Zone = {PTR_4: ["mail.example."], ("mail.example.", "A"): ["127.0.0.1"]}

    async def framed(query: bytes) -> Sequence[bytes]:
        [response] = await from_zone(zone)(query)
        return [len(response).to_bytes(2, "big") + response]

    async with nameserver(from_zone(zone, over_tcp=True), framed) as server:
        assert await ReverseDns(nameservers=["127.0.0.1"], port=server.port).look_up(FOUR) == "mail.example"
    assert [over for _, _, over in server.asked] == ["udp", "tcp", "udp", "tcp"]


async def garbage(query: bytes) -> Sequence[bytes]:
    """Give what is no DNS message, some of it with the query's own id."""
    return [b"", b"\xff" * 500, query[:2] + b"\xff" * 500, query[:12], query[:2] + b"\x81\x80" + query[4:12]] * 10


async def megabytes(query: bytes) -> Sequence[bytes]:
    """Give megabytes in a stream whose first octets announce 64 KiB."""
    return [b"\xff" * 1_000_000] * 5


async def drip(query: bytes) -> Sequence[bytes]:
    """Announce much, and give little."""
    return [b"\xff\xff", query, b"x", b"x"]


async def hang_up(query: bytes) -> Sequence[bytes]:
    """Close at once."""
    return []


TRUNCATED = from_zone({}, over_tcp=True)


@pytest.mark.parametrize(
    ("udp", "tcp"),
    [
        (silence, silence),
        (garbage, silence),
        (TRUNCATED, silence),
        (TRUNCATED, garbage),
        (TRUNCATED, megabytes),
        (TRUNCATED, drip),
        (TRUNCATED, hang_up),
    ],
)
async def test_a_hostile_server_costs_a_bounded_delay(udp: Respond, tcp: Respond) -> None:
    """Silence, garbage, megabytes, a slow drip: no name, after the timeout at the latest, and no exception."""
    async with nameserver(udp, tcp) as server:
        with trio.fail_after(5):
            assert await ReverseDns(nameservers=["127.0.0.1"], port=server.port, timeout=0.1).look_up(FOUR) is None
    assert server.asked


async def test_without_dnspython(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where dnspython is not installed no name is known, which is said once, with the remedy."""
    monkeypatch.setitem(sys.modules, "smtprecv.resolver", None)
    lookup = ReverseDns()

    assert [await lookup.look_up(FOUR) for _ in range(2)] == [None, None]
    assert [record.getMessage() for record in caplog.records] == [
        "dnspython is not installed, so clients have no host name: install smtprecv[dns]"
    ]


async def test_a_client_without_an_address_has_no_name() -> None:
    """There is nothing to ask about a Unix socket."""
    assert await ReverseDns(nameservers=["127.0.0.1"]).look_up(Client(SessionId("s"), None, None)) is None


@pytest.mark.parametrize(("nameservers", "timeout"), [(["ns.example"], 5.0), (["127.0.0.1"], 0.0)])
def test_settings_that_cannot_be_used(nameservers: list[str], timeout: float) -> None:
    """A name server is an address, and a timeout more than nothing."""
    with pytest.raises(ConfigError):
        ReverseDns(nameservers=nameservers, timeout=timeout)


def test_by_default_the_machines_own_resolver() -> None:
    """Without name servers those of resolv.conf are asked; none is asked before there is a client."""
    lookup = ReverseDns()
    assert lookup._resolver is not None
    assert lookup._resolver._servers
