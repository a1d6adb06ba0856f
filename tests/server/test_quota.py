"""A server that ends after so many messages, and one that talks over a single stream."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from tests.server.harness import CONFIG, Memory, Peer
from tests.server.test_peer import send
from tests.server.test_server import serving

from smtprecv.errors import ConfigError
from smtprecv.message import Client, Message
from smtprecv.protocol import Envelope, Reply
from smtprecv.server import Server


async def test_the_server_drains_after_the_last_message() -> None:
    """With the last message accepted, others hear 421, clients whose mail it has may say QUIT, and `serve` returns."""
    memory = Memory()
    async with serving(Server(memory, config=CONFIG, max_messages=2)) as served:
        idle, first, second = [await served.connect() for _ in range(3)]
        await idle.reply()
        await send(first)
        assert (await idle.ask("NOOP")).startswith("250")
        await send(second)
        assert (await idle.reply()).startswith("421 4.3.2")
        await idle.stream.aclose()
        # To many clients anything but 221 is a failure of the mail that they have just sent.
        for peer in (first, second):
            assert (await peer.ask("QUIT")).startswith("221")
            await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert not served.nursery.child_tasks
    assert len(memory.taken) == 2


async def test_no_message_more_is_accepted() -> None:
    """What comes in another session while the last place is being taken gets 451, and is not stored."""
    memory = Memory(may_commit=trio.Event())
    assert memory.may_commit is not None
    async with serving(Server(memory, config=CONFIG, max_messages=1)) as served:
        first, second = [await served.connect() for _ in range(2)]
        for peer in (first, second):
            await peer.reply()
            await peer.open_transaction()
            assert (await peer.ask("DATA")).startswith("354")
        await first.say("hello", ".")
        await memory.committing.wait()
        assert (await second.ask("hello", ".")).startswith("451 4.3.0")
        memory.may_commit.set()
        assert (await first.reply()).startswith("250")
    assert len(memory.taken) == 1
    assert memory.aborted == 1


@pytest.mark.parametrize("memory", [Memory(replies=[Reply(550, "no")]), Memory(on_commit=OSError("disk"))])
async def test_a_message_that_is_not_accepted_does_not_count(memory: Memory) -> None:
    """A refusal, or a fault of ours, gives its place back."""
    async with serving(Server(memory, config=CONFIG, max_messages=1)) as served:
        peer = await served.connect()
        await peer.reply()
        await peer.open_transaction()
        await peer.ask("DATA")
        assert (await peer.ask("hello", "."))[0] in "45"
        memory.replies = memory.on_commit = None
        for line in ("MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>", "DATA"):
            await peer.ask(line)
        assert (await peer.ask("hello", ".")).startswith("250")
        with pytest.raises(OSError, match="all attempts"):
            await served.connect()


async def test_the_last_client_has_a_grace(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever brought the last message may bring no other one, and is cut off in the end."""
    memory = Memory()
    server = Server(memory, config=CONFIG, max_messages=1)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.talk, ours)
        peer = Peer(theirs)
        await send(peer)
        began = trio.current_time()
        for line in ("MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>", "DATA"):
            await peer.ask(line)
        assert (await peer.ask("hello", ".")).startswith("451")
        assert (await peer.reply()).startswith("421 4.3.2")
        await theirs.aclose()
    assert trio.current_time() - began == pytest.approx(10)
    assert len(memory.taken) == 1


def test_at_least_one_message() -> None:
    """A server that may take nothing is a mistake."""
    with pytest.raises(ConfigError, match="max_messages"):
        Server(Memory(), config=CONFIG, max_messages=0)


async def test_talk() -> None:
    """One session over a stream of somebody else's, to its end; and another one after it."""
    memory = Memory()
    server = Server(memory, config=CONFIG)
    for count in (1, 2):
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.talk, ours)
            peer = Peer(theirs)
            await send(peer)
            assert (await peer.ask("QUIT")).startswith("221")
            assert await peer.hear() == ""
        assert len(memory.taken) == count


async def test_a_drain_cuts_off_a_talk(autojump_clock: trio.testing.MockClock) -> None:
    """An open transaction may finish within the grace, and no longer."""
    server = Server(Memory(), config=CONFIG)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.talk, ours)
        peer = Peer(theirs)
        await peer.reply()
        await peer.open_transaction()
        began = trio.current_time()
        server.drain(grace=10)
        assert (await peer.reply()).startswith("421 4.3.2")
        await theirs.aclose()
    assert trio.current_time() - began == pytest.approx(10)


async def test_a_policy_sees_the_messages_of_a_quota() -> None:
    """What is counted can be read before it is accepted, like every other message."""
    seen: list[bytes] = []

    class Reader:
        async def message(self, client: Client, envelope: Envelope, message: Message) -> Reply:
            seen.append(await message.bytes())
            return Reply(250, "ok")

    async with serving(Server(Memory(), config=CONFIG, policy=Reader(), max_messages=1)) as served:
        peer = await served.connect()
        await peer.reply()
        await peer.open_transaction()
        await peer.ask("DATA")
        assert (await peer.ask("hello", ".")).startswith("250")

    assert seen == [b"hello\r\n"]
