"""What is found out about a client before the banner, and that it delays nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from tests.server.harness import CONFIG, Memory, Peer
from tests.server.nameserver import from_zone, nameserver, silence
from tests.server.test_ident import forever, service
from tests.server.test_server import Who, serving

from smtprecv.message import Client, SessionId
from smtprecv.protocol import Session
from smtprecv.server import Ident, ReverseDns, Server
from smtprecv.server._peer import in_session

ZONE = {("1.0.0.127.in-addr.arpa.", "PTR"): ["mail.example."], ("mail.example.", "A"): ["127.0.0.1"]}


@dataclass
class Gate:
    """A lookup that waits, for the first client alone."""

    open: trio.Event = field(default_factory=trio.Event)
    asked: int = 0

    async def look_up(self, client: Client) -> str | None:
        self.asked += 1
        if self.asked == 1:
            await self.open.wait()
        return f"client-{self.asked}.example"


class Broken:
    """A lookup with a bug."""

    async def look_up(self, client: Client) -> str | None:
        await trio.lowlevel.checkpoint()
        raise KeyError(client.port)


async def test_host_and_ident_are_filled() -> None:
    """Policies, from the first hook on, and the intake see what DNS and ident service say."""
    who, memory = Who(), Memory()

    async def answer(stream: trio.SocketStream) -> None:
        query = held.asked[-1][1].removesuffix(b"\r\n")
        await stream.send_all(query + b" : USERID : UNIX : anna\r\n")

    async with nameserver(from_zone(ZONE)) as dns, service(answer) as held:
        host_lookup = ReverseDns(nameservers=["127.0.0.1"], port=dns.port)
        server = Server(memory, config=CONFIG, policy=who, host_lookup=host_lookup, ident_lookup=Ident(port=held.port))
        async with serving(server) as served:
            await send(await served.connect())
            [client] = who.clients
            assert (client.host, client.ident) == ("mail.example", "anna")
            assert (client.local_address, client.local_port) == (ip_address("127.0.0.1"), served.port)
    assert [(client.host, client.ident) for client, _, _ in memory.taken] == [("mail.example", "anna")]


async def test_by_default_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was given no lookups makes none, though there would be something to find."""

    async def found(_lookup: object, _client: Client) -> str:
        await trio.lowlevel.checkpoint()
        return "found.example"

    monkeypatch.setattr(ReverseDns, "look_up", found)
    monkeypatch.setattr(Ident, "look_up", found)
    who = Who()
    async with serving(Server(Memory(), config=CONFIG, policy=who)) as served:
        await send(await served.connect())
    assert {(client.host, client.ident) for client in who.clients} == {(None, None)}


async def send(peer: Peer) -> None:
    """Send a message that is accepted."""
    assert (await peer.reply()).startswith("220")
    await peer.open_transaction()
    assert (await peer.ask("DATA")).startswith("354")
    assert (await peer.ask("hello", ".")).startswith("250")


async def test_silent_services_cost_a_bounded_delay() -> None:
    """With nobody answering mail is accepted all the same, and both wait at the same time."""
    memory = Memory()
    async with nameserver(silence) as dns, service(forever) as held:
        host_lookup = ReverseDns(nameservers=["127.0.0.1"], port=dns.port, timeout=0.1)
        ident_lookup = Ident(port=held.port, timeout=0.1)
        server = Server(memory, config=CONFIG, host_lookup=host_lookup, ident_lookup=ident_lookup)
        async with serving(server) as served:
            with trio.fail_after(5):
                await send(await served.connect())
        assert (len(dns.asked), len(held.asked)) == (1, 1)
    assert [(client.host, client.ident) for client, _, _ in memory.taken] == [(None, None)]


async def test_a_lookup_delays_nobody_else() -> None:
    """While one client's name is looked for, another is served."""
    gate, who = Gate(), Who()
    async with serving(Server(Memory(), config=CONFIG, policy=who, host_lookup=gate)) as served:
        slow = await served.connect()
        while not gate.asked:
            await trio.testing.wait_all_tasks_blocked()
        await send(await served.connect())
        gate.open.set()
        assert (await slow.reply()).startswith("220")
    assert [client.host for client in who.clients] == ["client-2.example", "client-2.example"]


async def test_a_lookup_that_raises_is_our_fault() -> None:
    """The client is told 451 with a reference, like after a hook that raises, and the server goes on."""
    async with serving(Server(Memory(), config=CONFIG, ident_lookup=Broken())) as served:
        for _ in range(2):
            assert (await (await served.connect()).reply()).startswith("451 4.3.0 local error, try again later (ref")


@pytest.mark.parametrize("lookups", [1, 2])
async def test_a_drain_and_a_cancellation_reach_a_lookup(lookups: int, caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled server does not wait for a lookup, and says 421 without a traceback."""
    gates: Sequence[Gate] = [Gate() for _ in range(lookups)]
    ours, theirs = trio.testing.memory_stream_pair()
    server = Server(Memory(), config=CONFIG, host_lookup=gates[0], ident_lookup=gates[-1] if lookups > 1 else None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.talk, ours)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (await Peer(theirs).reply()).startswith("421")
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_client_keeps_all_else_in_its_session() -> None:
    """Whatever more is known of a client one day, none of it is lost when it says EHLO."""
    address = ip_address("192.0.2.1")
    client = Client(SessionId("s1"), address, 4711, Session(), "mail.example", "jones", ip_address("192.0.2.2"), 25)
    assert all(getattr(client, known.name) != known.default for known in fields(client) if known.name != "session")
    session = Session("mail.example", is_extended=True)
    assert in_session(client, session) == replace(client, session=session)
