"""The ident service (RFC 1413): a short printable name of the client's user, or none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
import trio

from smtprecv.errors import ConfigError
from smtprecv.message import Client, SessionId
from smtprecv.server import Ident
from smtprecv.server._ident import user_in

CLIENT = Client(SessionId("s"), ip_address("127.0.0.1"), 40000, local_address=ip_address("127.0.0.2"), local_port=25)


@dataclass
class Service:
    """Where the ident service is, and what it was asked by whom."""

    port: int
    asked: list[tuple[str, bytes]] = field(default_factory=list)


@asynccontextmanager
async def service(answer: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[Service]:
    """Answer beside the block."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    held = Service(listener.socket.getsockname()[1])

    async def accept(stream: trio.SocketStream) -> None:
        held.asked.append((stream.socket.getpeername()[0], bytes(await stream.receive_some(100))))
        with suppress(trio.BrokenResourceError):  # whoever asked has had enough
            await answer(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, accept, [listener])
        yield held
        nursery.cancel_scope.cancel()


def saying(*pieces: bytes) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """Say these octets, piece by piece, and close."""

    async def answer(stream: trio.SocketStream) -> None:
        for piece in pieces:
            await stream.send_all(piece)

    return answer


async def test_the_user_is_asked_for() -> None:
    """The query names the client's port and ours, from the address that the client connected to."""
    async with service(saying(b"40000 , 25 : USER", b"ID : UNIX : anna\r\n")) as held:
        assert await Ident(port=held.port).look_up(CLIENT) == "anna"
    assert held.asked == [("127.0.0.2", b"40000,25\r\n")]


@pytest.mark.parametrize(
    ("line", "user"),
    [
        (b"40000,25:USERID:UNIX:anna\r", "anna"),
        (b"40000, 25 : userid : OTHER,US-ASCII : [x9:7z]\r", "[x9:7z]"),
        (b"40000, 25 : USERID : UNIX : anna b", "anna b"),
        (b"40000, 25 : USERID : UNIX : " + b"a" * 64, "a" * 64),
        (b"40000, 25 : USERID : UNIX : " + b"a" * 65, None),
        (b"40000, 25 : USERID : UNIX :   ", None),
        (b"40000, 25 : USERID : UNIX : a\tb", None),
        (b"40000, 25 : USERID : UNIX : a\x1b[2J", None),
        (b"40000, 25 : USERID : UNIX : a\rb", None),
        (b"40000, 25 : USERID : UNIX : \xc3\xa9", None),
        (b"40000, 25 : USERID : anna", None),
        (b"40000, 26 : USERID : UNIX : anna", None),
        (b"40001, 25 : USERID : UNIX : anna", None),
        (b"40000, 25 : ERROR : NO-USER", None),
        (b"40000, 25 : ERROR : UNIX : NO-USER", None),
        (b"anna", None),
        (b"", None),
    ],
)
def test_answers(line: bytes, user: str | None) -> None:
    """A USERID about this very connection, 1 to 64 printable ASCII characters; anything else is nobody.

    RFC 1413 section 4.
    """
    assert user_in(line, CLIENT) == user


async def forever(stream: trio.SocketStream) -> None:
    """Say nothing."""
    await trio.sleep_forever()


async def drip(stream: trio.SocketStream) -> None:
    """Give an octet now and then, and never a whole line."""
    while True:
        await stream.send_all(b"4")
        await trio.sleep(0.01)


async def megabytes(stream: trio.SocketStream) -> None:
    """Give a line that has no end."""
    while True:
        await stream.send_all(b"40000, 25 : USERID : UNIX : " + b"a" * 1_000_000)


@pytest.mark.parametrize("answer", [forever, drip, megabytes, saying(), saying(b"\xff" * 5000), saying(b"\r\n" * 100)])
async def test_a_hostile_service_costs_a_bounded_delay(answer: Callable[[trio.SocketStream], Awaitable[None]]) -> None:
    """Silence, a slow drip, megabytes, garbage: nobody, after the timeout at the latest, and no exception."""
    async with service(answer) as held:
        with trio.fail_after(5):
            assert await Ident(port=held.port, timeout=0.1).look_up(CLIENT) is None
    assert len(held.asked) == 1


async def test_few_octets_are_read() -> None:
    """A line without an end is left after its first 1000 octets, not at the timeout (RFC 1413 section 4)."""
    async with service(megabytes) as held:
        with trio.fail_after(5):
            assert await Ident(port=held.port, timeout=3600).look_up(CLIENT) is None


async def test_no_service() -> None:
    """Most machines have none: the connection is refused."""
    async with service(forever) as held:
        pass
    assert await Ident(port=held.port).look_up(CLIENT) is None


@pytest.mark.parametrize("ends", [(None, None), ("127.0.0.1", None)])
async def test_a_client_that_is_not_on_the_net(ends: Sequence[str | None]) -> None:
    """There is nobody to ask about a Unix socket, or where our own end is not known."""
    address, local_address = (None if end is None else ip_address(end) for end in ends)
    client = Client(SessionId("s"), address, None, local_address=local_address)
    assert await Ident().look_up(client) is None


def test_a_timeout_is_more_than_nothing() -> None:
    """A lookup that can't ever find anything is a mistake."""
    with pytest.raises(ConfigError, match="more than 0 seconds"):
        Ident(timeout=0)
