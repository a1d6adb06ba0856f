"""A dialogue at the end of a memory stream, and an intake that remembers."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trio.testing

from smtprecv.message import Client, Message, SessionId
from smtprecv.policy import Policy
from smtprecv.protocol import Config, Envelope, Reply
from smtprecv.server import Incoming, Intake, Limits
from smtprecv.server._dialogue import Dialogue
from smtprecv.server._hooks import Hooks
from smtprecv.server._limits import Doorkeeper
from smtprecv.server._networks import Networks
from smtprecv.server._role import Service
from smtprecv.server._tls import TlsSource

CONFIG = Config(hostname="mx.example", max_message_size=100_000)
CLIENT = Client(SessionId("s1"), None, None)


@dataclass
class Memory:
    """An intake that keeps what it was given, and fails where it is told to."""

    taken: list[tuple[Client, Envelope, bytes]] = field(default_factory=list)
    aborted: int = 0
    on_begin: Exception | None = None
    on_write: Exception | None = None
    on_commit: Exception | None = None
    on_message: Exception | None = None
    messages: int = 0
    committing: trio.Event = field(default_factory=trio.Event)
    may_commit: trio.Event | None = None
    replies: list[Reply] | None = None

    async def begin(self, client: Client) -> Incoming:
        await trio.lowlevel.checkpoint()
        if self.on_begin is not None:
            raise self.on_begin
        return MemoryIncoming(self)


@dataclass
class MemoryIncoming:
    """One message on its way into a Memory."""

    memory: Memory
    octets: bytes = b""
    is_over: bool = False

    async def write(self, octets: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.memory.on_write is not None:
            raise self.memory.on_write
        self.octets += octets

    async def message(self) -> Message:
        self.memory.messages += 1
        if self.memory.on_message is not None:
            raise self.memory.on_message
        return MemoryMessage(self.octets)

    async def commit(self, client: Client, envelope: Envelope) -> Sequence[Reply]:
        self.memory.committing.set()
        if self.memory.may_commit is not None:
            await self.memory.may_commit.wait()
        if self.memory.on_commit is not None:
            raise self.memory.on_commit
        self.is_over = True
        self.memory.taken.append((client, envelope, self.octets))
        if self.memory.replies is not None:
            return self.memory.replies
        return [Reply(250, f"queued as {len(self.memory.taken)}")]

    async def abort(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.memory.aborted += 1


@dataclass
class MemoryMessage:
    """Octets as a message."""

    octets: bytes

    @property
    def size(self) -> int:
        return len(self.octets)

    @asynccontextmanager
    async def chunks(self) -> AsyncGenerator[AsyncIterator[bytes], None]:
        async def pieces() -> AsyncGenerator[bytes, None]:
            for start in range(0, self.size, 1000):
                yield self.octets[start : start + 1000]

        async with aclosing(pieces()) as them:
            yield them

    @asynccontextmanager
    async def as_file(self) -> AsyncGenerator[Path, None]:
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.octets)
            file.flush()
            yield Path(file.name)

    async def bytes(self) -> bytes:
        return self.octets


class Peer:
    """The client's end: says lines and reads replies."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.unread = b""
        self.greeting = ""

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands as the client; from then on an end without a last word (close_notify) is an error."""
        secured = trio.SSLStream(self.stream, context, server_hostname="mx.example")
        await secured.do_handshake()
        self.stream = secured

    async def say(self, *lines: str) -> None:
        await self.stream.send_all("".join(f"{line}\r\n" for line in lines).encode())

    async def hear(self) -> str:
        """Give the next line; empty at the end."""
        while b"\r\n" not in self.unread:
            octets = await self.stream.receive_some()
            if not octets:
                return ""
            self.unread += octets
        line, _, self.unread = self.unread.partition(b"\r\n")
        return line.decode()

    async def reply(self) -> str:
        """Give the next reply, its last line of several."""
        line = await self.hear()
        while line[3:4] == "-":
            line = await self.hear()
        return line

    async def lines(self) -> list[str]:
        """Give all lines of the next reply."""
        lines = [await self.hear()]
        while lines[-1][3:4] == "-":
            lines.append(await self.hear())
        return lines

    async def ask(self, *lines: str) -> str:
        """Say lines and give the next reply."""
        await self.say(*lines)
        return await self.reply()

    async def open_transaction(self) -> None:
        """Go as far as an accepted recipient."""
        for line in ("EHLO client.example", "MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>"):
            assert (await self.ask(line)).startswith("250")


def talk(
    stream: trio.abc.Stream,
    client: Client = CLIENT,
    config: Config = CONFIG,
    hooks: Hooks | None = None,
    intake: Intake | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | TlsSource | None = None,
    *,
    implicit_tls: bool = False,
    xclient_from: Networks | None = None,
) -> Dialogue:
    """Prepare a dialogue over a stream."""
    service = Service(
        config,
        hooks or Hooks(None),
        intake or Memory(),
        limits or Limits(),
        tls=tls,
        implicit_tls=implicit_tls,
        xclient_from=xclient_from,
    )
    return Dialogue(stream, client, service, Doorkeeper(service.limits))


@asynccontextmanager
async def dialogue(
    intake: Intake,
    policy: Policy | None = None,
    limits: Limits | None = None,
    client: Client = CLIENT,
    config: Config = CONFIG,
    *,
    tls: ssl.SSLContext | TlsSource | None = None,
    implicit_tls: ssl.SSLContext | None = None,
    xclient_from: Networks | None = None,
) -> AsyncIterator[tuple[Peer, Dialogue]]:
    """Hold a dialogue beside the block, past its greeting; at the end of the block the client is gone.

    ``implicit_tls``: the context of a client that begins with TLS.
    """
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        held = talk(
            *(ours, client, config, Hooks(policy), intake, limits, tls),
            implicit_tls=implicit_tls is not None,
            xclient_from=xclient_from,
        )
        nursery.start_soon(held.run)
        peer = Peer(theirs)
        if implicit_tls is not None:
            await peer.start_tls(implicit_tls)
        peer.greeting = await peer.reply()
        yield peer, held
        await theirs.aclose()
