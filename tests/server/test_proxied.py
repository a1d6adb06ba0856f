"""Behind a proxy that speaks the PROXY protocol: who counts as the client, and what a header may not do."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from tests.server.certificates import client_context, server_context
from tests.server.harness import CONFIG, Memory, Peer
from tests.server.test_tls import Trace

from smtprecv.message import Client
from smtprecv.protocol import Reply
from smtprecv.server import DirectIntake, Intake, Limits, Networks, Role, Server, listen

HEADER = b"PROXY TCP4 198.51.100.7 203.0.113.25 40000 25\r\n"
HEADER_V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"
    + ip_address("198.51.100.7").packed
    + ip_address("203.0.113.25").packed
    + b"\x9c\x40\x00\x19"
)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"
UNIX = Networks.of("unix")


class Who:
    """A policy that notes who connects."""

    def __init__(self) -> None:
        self.clients: list[Client] = []

    async def connect(self, client: Client) -> Reply:
        self.clients.append(client)
        return Reply(220, "come in")


def proxied(
    who: Who | None = None, intake: Intake | None = None, limits: Limits | None = None, *, is_secure: bool = False
) -> Server:
    """Give a server that trusts a proxy at its Unix socket."""
    tls = server_context() if is_secure else None
    return Server(intake or Memory(), config=CONFIG, policy=who, limits=limits, proxy_from=UNIX, tls=tls)


@asynccontextmanager
async def talking(server: Server, role: Role | None = None) -> AsyncIterator[Peer]:
    """Hold a session beside the block; at its end the client is gone."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.talk, ours, role)
        yield Peer(theirs)
        await theirs.aclose()


@pytest.mark.parametrize("header", [HEADER, HEADER_V2])
@pytest.mark.parametrize("is_split", [False, True])
async def test_the_real_client_counts(header: bytes, is_split: bool) -> None:  # noqa: FBT001
    """Policies and trace know the client for whom the proxy speaks, however its header is cut into segments."""
    who, trace = Who(), Trace()
    async with talking(proxied(who, DirectIntake(trace))) as peer:
        for octet in [header[at : at + 1] for at in range(len(header))] if is_split else [header]:
            await peer.stream.send_all(octet)
            await trio.testing.wait_all_tasks_blocked()
        assert (await peer.reply()).startswith("220 ")
        await peer.open_transaction()
        await peer.ask("DATA")
        await peer.ask("hello", ".")

    [client] = who.clients
    assert (str(client.address), client.port) == ("198.51.100.7", 40000)
    assert (str(client.local_address), client.local_port) == ("203.0.113.25", 25)
    [fields] = trace.fields
    assert "from client.example ([198.51.100.7]) by" in fields


async def test_a_proxy_that_speaks_for_itself_is_itself() -> None:
    """LOCAL, a check of its health: the connection's own ends count."""
    who = Who()
    async with talking(proxied(who)) as peer:
        await peer.stream.send_all(LOCAL)
        assert (await peer.reply()).startswith("220 ")

    assert [client.address for client in who.clients] == [None]


async def test_a_header_of_who_is_not_trusted_is_no_header(caplog: pytest.LogCaptureFixture) -> None:
    """Anybody may write one: from others it is a command that is not known, and they are who they are."""
    who = Who()
    server = Server(Memory(), config=CONFIG, policy=who, proxy_from=Networks.of("192.0.2.0/24"))
    async with talking(server) as peer:
        assert (await peer.reply()).startswith("220 ")
        await peer.stream.send_all(HEADER)
        assert (await peer.reply())[0] in "45"

    assert [client.address for client in who.clients] == [None]


@pytest.mark.parametrize("opening", [b"EHLO client.example\r\n", b"PROXY TCP4 evil\r\n", b"\x16\x03\x01"])
async def test_a_proxy_without_a_header_is_hung_up_on(opening: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is trusted must say for whom it speaks: no greeting, one printable line in the log."""
    caplog.set_level(logging.INFO)
    who = Who()
    async with talking(proxied(who)) as peer:
        await peer.stream.send_all(opening)
        if len(opening) < 10:
            await peer.stream.aclose()
        else:
            assert await peer.hear() == ""

    assert who.clients == []
    [record] = caplog.records
    assert " does not say for whom it speaks: " in record.getMessage()
    assert record.getMessage().isprintable()


async def test_a_header_has_its_time(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A connection whose header does not come is closed when the time of a handshake is over."""
    caplog.set_level(logging.INFO)
    began = trio.current_time()
    async with talking(proxied(limits=Limits(handshake_timeout=7))) as peer:
        await peer.stream.send_all(HEADER[:10])
        assert await peer.hear() == ""
        assert trio.current_time() - began == pytest.approx(7)

    [record] = caplog.records
    assert record.getMessage().endswith("does not say for whom it speaks: 'no PROXY header in time'")


async def test_the_header_comes_before_tls() -> None:
    """The handshake begins right behind the header, which is in clear itself."""
    who = Who()
    async with talking(proxied(who, is_secure=True), Role(implicit_tls=True)) as peer:
        await peer.stream.send_all(HEADER)
        await peer.start_tls(client_context())
        assert (await peer.reply()).startswith("220 ")
        assert (await peer.ask("QUIT")).startswith("221 ")

    assert [str(client.address) for client in who.clients] == ["198.51.100.7"]


async def test_what_stands_behind_the_header_is_the_clients() -> None:
    """Not one octet of it is lost."""
    async with talking(proxied()) as peer:
        await peer.stream.send_all(HEADER + b"EHLO client.example\r\nQUIT\r\n")
        assert [(await peer.reply())[:3] for _ in range(3)] == ["220", "250", "221"]


async def test_limits_hold_the_real_client() -> None:
    """One client behind a proxy takes its own places, and not those of others."""
    server = proxied(limits=Limits(max_connections_per_client=1))
    other = HEADER.replace(b"198.51.100.7", b"198.51.100.8")
    async with talking(server) as one, talking(server) as again, talking(server) as another:
        replies = []
        for peer, header in ((one, HEADER), (again, HEADER), (another, other)):
            await peer.stream.send_all(header)
            replies.append((await peer.reply())[:3])
        assert replies == ["220", "421", "220"]


async def test_a_cancelled_header_closes_its_stream() -> None:
    """Whoever cancels `talk` is left no open connection, not even one that has not begun."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxied().talk, ours)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert await theirs.receive_some() == b""


async def test_a_proxy_on_a_network_is_trusted_by_its_address() -> None:
    """Over a real socket: who connects from a trusted network must send a header."""
    who = Who()
    server = Server(Memory(), config=CONFIG, policy=who, proxy_from=Networks.of("127.0.0.0/8"))
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(server.serve, await listen("127.0.0.1:0"))
        async with await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]) as stream:
            await stream.send_all(HEADER_V2)
            assert (await Peer(stream).reply()).startswith("220 ")
        nursery.cancel_scope.cancel()

    assert [str(client.address) for client in who.clients] == ["198.51.100.7"]
