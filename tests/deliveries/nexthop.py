"""Next hops at the other end of memory streams: our own server, and servers that follow a script."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from tests.server.harness import CLIENT, CONFIG, Memory, MemoryMessage, talk

from smtprecv.delivery import Attempt
from smtprecv.message import Message, QueueId
from smtprecv.policy import Policy
from smtprecv.protocol import (
    Config,
    Envelope,
    MailParameters,
    RcptParameters,
    Recipient,
    parse_forward_path,
    parse_reverse_path,
)
from smtprecv.server._hooks import Hooks
from smtprecv.spool import Entry, Standing
from smtprecv.testing._sample import NOON

MESSAGE = b"Subject: hello\r\n\r\n.hello\r\nend\r\n"
HANG_UP = "hang up"
SILENCE = "silence"
OFFERS = "250-mx.example|250-PIPELINING|250 SIZE"


def attempt(
    *addresses: str,
    octets: bytes = MESSAGE,
    given: MailParameters = MailParameters(),
    wanted: RcptParameters | None = None,
    message: Message | None = None,
) -> Attempt:
    """Give an attempt for a message of anna@example.com."""
    wanted = wanted or RcptParameters()
    people = tuple(Recipient(parse_forward_path(address), parameters=wanted) for address in addresses)
    envelope = Envelope(parse_reverse_path("anna@example.com"), given, people)
    standings = tuple(map(Standing, people))
    entry = Entry(QueueId("0" * 20), NOON, CLIENT, envelope, len(octets), standings, due=NOON)
    return Attempt(entry, message or MemoryMessage(octets))


@dataclass
class Net:
    """What is connected to in the place of a network: `serve` is run at the other end of each connection."""

    nursery: trio.Nursery
    serve: Callable[[trio.abc.Stream], Awaitable[object]]
    connections: int = 0
    hook: Callable[[], Awaitable[None]] | None = None
    """What is waited for before what is sent arrives."""

    async def connect(self, host: object, port: int = 0) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.connections += 1
        ours, theirs = trio.testing.memory_stream_pair()
        pump, hook = ours.send_stream.send_all_hook, self.hook
        if pump is not None and hook is not None:
            arrive = pump

            async def hooked() -> None:
                await hook()
                await arrive()

            ours.send_stream.send_all_hook = hooked
        self.nursery.start_soon(self.serve, theirs)
        return ours


@asynccontextmanager
async def net(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[[trio.abc.Stream], Awaitable[object]]
) -> AsyncGenerator[Net, None]:
    """Have everything that connects, in the block, be connected to this server."""
    async with trio.open_nursery() as nursery:
        net = Net(nursery, serve)
        monkeypatch.setattr(trio, "open_tcp_stream", net.connect)
        monkeypatch.setattr(trio, "open_unix_socket", net.connect)
        yield net
        nursery.cancel_scope.cancel()


def ourselves(
    intake: Memory,
    policy: Policy | None = None,
    config: Config = CONFIG,
    tls: ssl.SSLContext | None = None,
    *,
    implicit_tls: bool = False,
) -> Callable[[trio.abc.Stream], Awaitable[object]]:
    """Give our own server."""

    async def serve(stream: trio.abc.Stream) -> None:
        await talk(stream, CLIENT, config, Hooks(policy), intake, tls=tls, implicit_tls=implicit_tls).run()

    return serve


@dataclass
class Scripted:
    """A server that answers each command as it is told: reply lines divided by `|`, HANG_UP or SILENCE.

    `answers`: for the beginning of a command the reply to it, or the replies to it in turn. `greeting` is what comes
    first, `.` stands for the end of a message, `message` for its first octets. It keeps what was `said` and the
    `messages` that it took.
    """

    answers: Mapping[str, str | Sequence[str]] = field(default_factory=dict[str, str | Sequence[str]])
    said: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)

    async def __call__(self, stream: trio.abc.Stream) -> None:
        await _Session(self, stream).run()

    def answer(self, command: str) -> str:
        usual = {"greeting": "220 mx.example", "EHLO": OFFERS, "DATA": "354 go", "message": "", "QUIT": "221 bye"}
        answers = {**usual, **self.answers}
        key = max((key for key in answers if command.startswith(key)), key=len, default=None)
        if key is None:
            return "250 ok"
        told = answers[key]
        if isinstance(told, str):
            return told
        self.asked[key] = self.asked.get(key, 0) + 1
        return told[min(self.asked[key], len(told)) - 1]


@dataclass
class _Session:
    server: Scripted
    stream: trio.abc.Stream
    unread: bytes = b""

    async def run(self) -> None:
        try:
            if await self._answer("greeting"):
                while (line := await self._until(b"\r\n")) is not None:
                    command = line.decode()
                    self.server.said.append(command)
                    if not await self._answer(command) or (command == "DATA" and not await self._message()):
                        break
        except trio.BrokenResourceError:
            pass
        await self.stream.aclose()

    async def _message(self) -> bool:
        if not self.server.answer("DATA").startswith("354"):
            return True
        if not await self._answer("message"):
            return False
        message = await self._until(b"\r\n.\r\n")
        if message is not None:
            self.server.messages.append(message)
        return message is not None and await self._answer(".")

    async def _answer(self, command: str) -> bool:
        told = self.server.answer(command)
        if told == SILENCE:
            await trio.sleep_forever()
        if told and told != HANG_UP:
            await self.stream.send_all("".join(f"{line}\r\n" for line in told.split("|")).encode())
        return told != HANG_UP and not told.startswith(("421", "221"))

    async def _until(self, end: bytes) -> bytes | None:
        while end not in self.unread:
            octets = await self.stream.receive_some()
            if not octets:
                return None
            self.unread += octets
        found, _, self.unread = self.unread.partition(end)
        return found
