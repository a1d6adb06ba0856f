"""Many connections over real sockets: limits, drain, cancellation, and a want of file descriptors."""

from __future__ import annotations

import logging
import resource
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from tests.server.harness import CONFIG, Memory, Peer

from smtprecv.message import Client
from smtprecv.protocol import Envelope, Rcpt, Reply
from smtprecv.server import Limits, Server, listen


class Who:
    """A policy that notes who connects."""

    def __init__(self) -> None:
        self.clients: list[Client] = []

    async def connect(self, client: Client) -> Reply:
        self.clients.append(client)
        return Reply(220, "come in")


@dataclass
class Served:
    """A server on a free port, and the clients that the test has connected."""

    nursery: trio.Nursery
    host: str
    port: int
    streams: list[trio.SocketStream] = field(default_factory=list)

    async def connect(self) -> Peer:
        """Connect, and leave the greeting unread."""
        self.streams.append(await trio.open_tcp_stream(self.host, self.port))
        return Peer(self.streams[-1])


@asynccontextmanager
async def serving(server: Server, host: str = "127.0.0.1") -> AsyncIterator[Served]:
    """Serve beside the block; at its end the clients go, and the server is cancelled if it has not ended."""
    async with trio.open_nursery() as nursery:
        listeners = await listen(f"[{host}]:0" if ":" in host else f"{host}:0")
        [listener] = await nursery.start(server.serve, listeners)
        served = Served(nursery, host, listener.socket.getsockname()[1])
        yield served
        for stream in served.streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_policy_sees_who_connects(host: str) -> None:
    """Address and port are the peer's own, and each connection has a name of its own."""
    who = Who()
    async with serving(Server(Memory(), config=CONFIG, policy=who), host) as served:
        peers = [await served.connect() for _ in range(2)]
        assert [await peer.reply() for peer in peers] == ["220 mx.example ESMTP"] * 2
        ports = {stream.socket.getsockname()[1] for stream in served.streams}

    assert {client.address for client in who.clients} == {ip_address(host)}
    assert {client.port for client in who.clients} == ports
    assert len({client.session_id for client in who.clients}) == 2


async def test_an_ipv4_client_of_an_ipv6_listener_has_its_ipv4_address() -> None:
    """A mapped address is the client's IPv4 address: limits and policies see one address, not two."""
    who = Who()
    dual = trio.socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    dual.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    await dual.bind(("::ffff:127.0.0.1", 0))
    dual.listen()
    listener = trio.SocketListener(dual)
    async with trio.open_nursery() as nursery:
        await nursery.start(Server(Memory(), config=CONFIG, policy=who).serve, [listener])
        async with await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]) as stream:
            await Peer(stream).reply()
        nursery.cancel_scope.cancel()

    assert [client.address for client in who.clients] == [ip_address("127.0.0.1")]


async def test_by_default_the_server_has_the_name_of_its_machine() -> None:
    """The shortest program needs no configuration."""
    async with serving(Server(Memory())) as served:
        peer = await served.connect()

        assert await peer.reply() == f"220 {socket.gethostname()} ESMTP"


async def test_a_machine_whose_name_is_no_domain_is_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The greeting has a domain that is one, whatever the machine is called."""
    monkeypatch.setattr(socket, "gethostname", lambda: "my_machine")
    async with serving(Server(Memory())) as served:
        peer = await served.connect()

        assert await peer.reply() == "220 localhost ESMTP"


async def test_a_connection_over_the_limit_is_told_421_and_others_go_on() -> None:
    """A limit is a 421, never a crash, and a place that is left is free at once."""
    async with serving(Server(Memory(), config=CONFIG, limits=Limits(max_connections_per_client=2))) as served:
        first, second, third = [await served.connect() for _ in range(3)]
        replies = [await peer.reply() for peer in (first, second, third)]
        assert [reply[:3] for reply in replies] == ["220", "220", "421"]
        assert await third.hear() == ""

        assert (await first.ask("QUIT")).startswith("221")
        assert await first.hear() == ""
        assert (await (await served.connect()).reply()).startswith("220")
        assert (await second.ask("NOOP")).startswith("250")


async def test_a_refused_client_that_is_gone_harms_nobody() -> None:
    """A client that resets before its 421 is forgotten."""
    limits = Limits(max_connections=1)
    async with serving(Server(Memory(), config=CONFIG, limits=limits)) as served:
        first = await served.connect()
        await first.reply()
        for _ in range(20):
            reset(served.port)

        assert (await first.ask("NOOP")).startswith("250")


async def test_a_421_that_nobody_takes_is_forgotten() -> None:
    """A client over the limit that has reset when its 421 is due harms nobody."""
    ours, theirs = trio.testing.memory_stream_pair()
    server = Server(Memory(), config=CONFIG, limits=Limits(max_connections=1))
    async with trio.open_nursery() as nursery:
        first, peer = trio.testing.memory_stream_pair()
        nursery.start_soon(server.talk, first)
        await Peer(peer).reply()
        await theirs.aclose()

        await server.talk(ours)

        await peer.aclose()


def reset(port: int) -> None:
    """Connect and reset at once."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_clients_that_reset_at_once_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A flood of resets leaves the server as it was, without a traceback."""
    async with serving(Server(Memory(), config=CONFIG)) as served:
        for _ in range(50):
            reset(served.port)
        peer = await served.connect()

        assert (await peer.reply()).startswith("220")

    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_client_gone_before_it_was_looked_at_is_forgotten() -> None:
    """When the peer's address cannot be had any more, there is nobody to talk to."""
    [listener] = await listen("127.0.0.1:0")
    async with listener:
        reset(listener.socket.getsockname()[1])
        stream = await listener.accept()
        await Server(Memory(), config=CONFIG).talk(stream)

        assert stream.socket.fileno() == -1


async def test_a_drain_ends_serve_and_closes_the_listener() -> None:
    """Idle clients hear 421, later ones are not let in, and `serve` returns."""
    server = Server(Memory(), config=CONFIG)
    async with serving(server) as served:
        peer = await served.connect()
        await peer.reply()
        await trio.testing.wait_all_tasks_blocked()

        server.drain()

        assert (await peer.reply()).startswith("421 4.3.2")
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert not served.nursery.child_tasks
        with pytest.raises(OSError, match="all attempts"):
            await served.connect()


async def test_a_drain_lets_a_transaction_finish() -> None:
    """Nothing acknowledged is lost, and what was begun in time is accepted."""
    intake = Memory()
    server = Server(intake, config=CONFIG)
    async with serving(server) as served:
        peer = await served.connect()
        await peer.reply()
        await peer.open_transaction()

        server.drain()

        assert (await peer.ask("DATA")).startswith("354")
        assert (await peer.ask("hello", ".")).startswith("250")
        assert (await peer.reply()).startswith("421")

    assert len(intake.taken) == 1


async def test_a_transaction_that_outlasts_the_grace_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    """After the grace time `serve` returns, whatever the clients do; a later, shorter grace counts."""
    server = Server(Memory(), config=CONFIG)
    ours, theirs = trio.testing.memory_stream_pair()
    queue = [ours]

    class Listener(trio.abc.Listener[trio.abc.Stream]):
        async def accept(self) -> trio.abc.Stream:
            return queue.pop() if queue else await trio.sleep_forever()

        async def aclose(self) -> None:
            pass

    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [Listener()])
        peer = Peer(theirs)
        await peer.reply()
        await peer.open_transaction()
        began = trio.current_time()
        server.drain(grace=100)
        server.drain(grace=10)

        assert await peer.reply() == "421 4.3.2 service shutting down"
        await theirs.aclose()

    assert trio.current_time() - began == pytest.approx(10)


async def test_a_connection_that_arrives_with_the_drain_hears_421() -> None:
    """Whoever is accepted in the last moment is told so instead of a greeting."""
    server = Server(Memory(), config=CONFIG)
    ours, theirs = trio.testing.memory_stream_pair()
    server.drain()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.talk, ours)
        peer = Peer(theirs)

        assert await peer.reply() == "421 4.3.2 service shutting down"
        assert await peer.hear() == ""


@pytest.mark.parametrize("last", ["QUIT", "RCPT TO:<x@mx.example>"])
async def test_the_last_reply_is_heard_though_more_was_sent(last: str) -> None:
    """A client that pipelines past the end reads its 221 or 421, and no reset takes it away."""

    class HangsUp:
        async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
            return Reply(421, "go away")

    async with serving(Server(Memory(), config=CONFIG, policy=HangsUp())) as served:
        peer = await served.connect()
        await peer.reply()
        await peer.ask("EHLO client.example")
        await peer.ask("MAIL FROM:<a@client.example>")
        await peer.say(last, *["NOOP"] * 50_000)

        assert (await peer.reply())[:3] in {"221", "421"}
        assert await peer.hear() == ""


async def test_a_want_of_file_descriptors_pauses_accepting(caplog: pytest.LogCaptureFixture) -> None:
    """EMFILE is no crash: who waits is let in when there is room again."""
    caplog.set_level(logging.CRITICAL)  # Trio logs each pause as an error, which is right
    async with serving(Server(Memory(), config=CONFIG)) as served:
        before = await served.connect()
        await before.reply()
        waiting = socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
        try:
            waiting.connect(("127.0.0.1", served.port))
            await trio.testing.wait_all_tasks_blocked(0.01)
            still = await before.ask("NOOP")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(waiting))
        with trio.fail_after(5):
            greeting = await Peer(stream).reply()
        await stream.aclose()

    assert still.startswith("250")
    assert greeting.startswith("220")


async def test_one_dialogue_does_not_delay_another() -> None:
    """Design, promise 5: while one client's policy takes its time, another is served."""
    gate = trio.Event()

    class Slow:
        async def mail(self, client: Client, mail: object) -> Reply:
            if str(getattr(mail, "reverse_path", "")).startswith("slow"):
                await gate.wait()
            return Reply(250, "ok")

    async with serving(Server(Memory(), config=CONFIG, policy=Slow())) as served:
        slow, fast = [await served.connect() for _ in range(2)]
        await slow.reply()
        await fast.reply()
        await slow.ask("EHLO a.example")
        await slow.say("MAIL FROM:<slow@a.example>")

        await fast.open_transaction()

        gate.set()
        assert (await slow.reply()).startswith("250")


async def test_a_server_that_drains_serves_nobody_else() -> None:
    """Listeners that are given to it after the drain has begun are closed at once."""
    server = Server(Memory(), config=CONFIG)
    server.drain()
    [listener] = await listen("127.0.0.1:0")

    with trio.fail_after(5):
        await server.serve([listener])

    assert listener.socket.fileno() == -1
