"""What is around the process: its clients, who notice what they are answered, and its deliveries, who notice too."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias, final

import trio
import trio.testing
from tests.simulation.plan import Ending, Mail, Sending
from tests.simulation.sights import Odd, Promised, Refused, Served, Sight, Told

from smtprecv.delivery import Attempt
from smtprecv.message import Redirect
from smtprecv.protocol import Reply
from smtprecv.server import Server

SENDER: Final = "ada@example.com"
OK, LATER, NEVER = Reply(250, "taken"), Reply(451, "later"), Reply(550, "never")

PIECE_SIZE: Final = 4000
"""Octets that a client sends at once."""
MANNERS: Final = ("well", "well", "well", "slow", "hang", "later", "half", "raise")
"""How a sick delivery answers."""
WAITS: Final = {"slow": (0.0, 20.0), "hang": (900.0, 1000.0)}
"""Seconds before it does."""

Saw: TypeAlias = Callable[[Sight], None]
"""Notes what the world has seen."""

_TOKEN: Final = re.compile(rb"^X-Token: (\S+)\r$", re.MULTILINE)
_RECIPIENT: Final = re.compile(rb"^(?:Original|Final)-Recipient: rfc822; ?(\S+)\r$", re.MULTILINE | re.IGNORECASE)


def finals(recipient: str) -> tuple[str, ...]:
    """Give who gets what is sent to a recipient: the members of a list, or the recipient itself."""
    if recipient.startswith("list"):
        return f"ok.{recipient}", f"bad.{recipient}"
    return (recipient,)


def is_bad(recipient: str) -> bool:
    """Say whether no delivery ever serves this recipient."""
    return recipient.startswith("bad")


@final
@dataclass
class Destination:
    """Where messages go, and reports: the delivery of both. ``seed``: None for a healthy one.

    A sick one is slow, hangs, fails, serves some only, or raises, as chance has it. Whatever it is, it refuses who is
    bad and redirects what is for a list.
    """

    saw: Saw
    mails: Mapping[str, Mail]
    seed: str | None = None

    async def deliver(self, attempt: Attempt) -> Sequence[Reply | Redirect]:
        octets = await attempt.message.bytes()
        token = _token(octets)
        chance = Random(f"{self.seed} {token} {attempt.entry.report_of is None} {attempt.entry.attempts}")
        manner = "well" if self.seed is None else chance.choice(MANNERS)
        if manner in WAITS:
            await trio.sleep(chance.uniform(*WAITS[manner]))
        if manner == "raise":
            msg = "a fault of the delivery"
            raise ZeroDivisionError(msg)
        if attempt.entry.report_of is None and octets != self.mails[token].octets:
            self.saw(Odd(f"{token} is not what was sent"))
        failing = {"later": 1.0, "half": 0.5}.get(manner, 0.0)
        return [
            LATER if chance.random() < failing else self._answer(attempt, token, str(recipient), octets)
            for recipient in attempt.recipients
        ]

    def _answer(self, attempt: Attempt, token: str, recipient: str, octets: bytes) -> Reply | Redirect:
        if attempt.entry.report_of is not None:
            told = {address.decode() for address in _RECIPIENT.findall(octets)}
            self.saw(Told(attempt.queue_id, token, tuple(sorted(told))))
            return OK
        if is_bad(recipient):
            return NEVER
        if (members := finals(recipient)) != (recipient,):
            return Redirect.to(*members)
        self.saw(Served(attempt.queue_id, token, recipient))
        return OK


def _token(octets: bytes) -> str:
    found = _TOKEN.search(octets)
    return "none" if found is None else found[1].decode()


@final
class Wire(trio.abc.SendStream):
    """The server's way to a client. What is on it will arrive, whatever becomes of the server."""

    def __init__(self, stream: trio.abc.SendStream, saw: Saw) -> None:
        self.sending: str | None = None
        self._stream = stream
        self._saw = saw

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.sending is not None:
            reply = bytes(data).decode()
            self._saw(Promised(self.sending) if reply.startswith("250") else Refused(self.sending, reply))
            self.sending = None
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Gone(Exception):
    """The server is gone, or the client."""


@final
class SimulatedClient:
    """A client of SMTP, who waits for each reply and believes what it is told."""

    def __init__(self, server: Server, saw: Saw) -> None:
        self._server = server
        self._saw = saw

    async def send(self, sending: Sending) -> None:
        """Come, send the messages, and go."""
        await trio.sleep(sending.delay)
        self._theirs, ours = trio.testing.memory_stream_pair()
        self._wire = Wire(ours.send_stream, self._saw)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._server.talk, trio.StapledStream(self._wire, ours.receive_stream))
            with suppress(Gone, trio.BrokenResourceError, trio.ClosedResourceError):
                await self._hear()
                await self._ask("EHLO client.example")
                for mail in sending.mails:
                    await self._send(mail)
                await self._ask("QUIT")
            await trio.aclose_forcefully(self._theirs)

    async def _send(self, mail: Mail) -> None:
        await self._ask(f"MAIL FROM:<{SENDER if mail.has_sender else ''}>")
        for recipient in mail.recipients:
            await self._ask(f"RCPT TO:<{recipient}>")
        if mail.ending is Ending.RESET:
            await self._ask("RSET")
            return
        await self._ask("DATA")
        data = mail.octets.replace(b"\r\n.", b"\r\n..")
        for start in range(0, len(data), PIECE_SIZE):
            await self._theirs.send_all(data[start : start + PIECE_SIZE])
            await trio.lowlevel.checkpoint()
        if mail.ending is Ending.CUT:
            raise Gone
        self._wire.sending = mail.token
        await self._ask(".")

    async def _ask(self, line: str) -> None:
        await self._theirs.send_all(f"{line}\r\n".encode())
        await self._hear()

    async def _hear(self) -> None:
        """Wait for the end of a reply: the server sends each one whole."""
        if not await self._theirs.receive_some():
            raise Gone
