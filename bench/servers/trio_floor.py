"""The floor: what Trio itself takes to hold the dialogue of a client that sends messages, when all is forgotten.

`python bench/servers/trio_floor.py stream|socket` listens on a free port of loopback and says on which. It answers each
segment by its first octet and looks for the end of the mail data; a command is not parsed, and two in a segment are
one. It holds the dialogue of smtp-source and of bench/, and no other.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

END: Final = b"\r\n.\r\n"
SIZE: Final = 65536
GREETING: Final = b"220 floor ESMTP\r\n"
OK: Final = b"250 ok\r\n"
GO_ON: Final = b"354 go on\r\n"
BYE: Final = b"221 bye\r\n"


async def converse(receive: Callable[[int], Awaitable[bytes]], send: Callable[[bytes], Awaitable[object]]) -> None:
    """Hold a session."""
    await send(GREETING)
    while octets := await receive(SIZE):
        match octets[:1]:
            case b"D":
                await send(GO_ON)
                end = b""
                while end != END and (octets := await receive(SIZE)):
                    end = (end + octets[-5:])[-5:]
                await send(OK)
            case b"Q":
                await send(BYE)
                return
            case _:
                await send(OK)


async def serve_streams(listener: trio.SocketListener) -> None:
    """Serve as Trio's own server does: SocketStreams."""

    async def hold(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                await converse(stream.receive_some, stream.send_all)

    await trio.serve_listeners(hold, [listener])


async def serve_sockets(listener: trio.SocketListener) -> None:
    """Serve with nothing between us and the socket but `trio.socket`."""

    async def hold(socket: trio.socket.SocketType) -> None:
        with socket, suppress(OSError):
            await converse(socket.recv, socket.send)

    async with trio.open_nursery() as nursery:
        while True:
            socket, _ = await listener.socket.accept()
            socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            nursery.start_soon(hold, socket)


async def main(kind: str) -> None:
    """Serve until killed."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print("listening on {}:{}".format(*listener.socket.getsockname()), file=sys.stderr, flush=True)
    await {"stream": serve_streams, "socket": serve_sockets}[kind](listener)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
