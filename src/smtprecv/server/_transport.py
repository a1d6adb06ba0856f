"""A connected socket as a stream, without what a stream for everybody costs.

The theory. In a dialogue one task owns the stream, and it always listens after it has spoken. So nothing guards
against two tasks, and octets that the kernel takes at once go out without a turn of the event loop. To listen lets
the others have their turn first: under load the client has answered by then, and nobody need wait for it.

Its one rule: ``receive_some`` is a checkpoint, always; ``send_all`` is one only where it must wait.
"""

from __future__ import annotations

import socket
from typing import Final, NoReturn, final

import trio

_READ_SIZE: Final = 65536


@final
class SocketTransport(trio.abc.HalfCloseableStream):
    """A connected, non-blocking stream socket as a stream, for one task.

    BrokenResourceError where the connection is lost; ClosedResourceError once it is closed. Cancelled, ``send_all``
    does not tell how much was sent.
    """

    __slots__ = ("_has_waited", "socket")

    def __init__(self, connected: socket.socket) -> None:
        """Take over the socket."""
        self.socket: Final = connected
        self._has_waited = False
        """Whether the event loop may know of the socket."""

    def send_at_once(self, octets: bytes | memoryview) -> int:
        """Send what the kernel takes now, and say how many octets that were."""
        try:
            return self.socket.send(octets)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._lose(error)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send octets."""
        unsent = memoryview(data)
        while unsent := unsent[self.send_at_once(unsent) :]:
            await self.wait_send_all_might_not_block()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes octets."""
        self._demand_open()
        self._has_waited = True
        await trio.lowlevel.wait_writable(self.socket)

    async def send_eof(self) -> None:
        """Tell the other side that nothing more will come."""
        await trio.lowlevel.checkpoint()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(error)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for octets, and give at most ``max_bytes`` of them; none where the other side sends no more."""
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self.socket.recv(max_bytes or _READ_SIZE)
            except BlockingIOError:
                pass  # and no word more: an exception would be kept for as long as the client is silent
            except OSError as error:
                self._lose(error)
            self._has_waited = True
            await trio.lowlevel.wait_readable(self.socket)

    async def aclose(self) -> None:
        """Close the socket at once; done when cancelled, too."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close the socket at once, if it is open."""
        if self.socket.fileno() >= 0:
            if self._has_waited:
                trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    def _demand_open(self) -> None:
        if self.socket.fileno() < 0:
            msg = "the stream is closed"
            raise trio.ClosedResourceError(msg)

    def _lose(self, error: OSError) -> NoReturn:
        self._demand_open()
        raise trio.BrokenResourceError(str(error)) from error


async def close_at_once(stream: trio.abc.Stream) -> None:
    """Close a stream without another word; done when cancelled, too."""
    if isinstance(stream, SocketTransport):
        stream.close()
    else:
        await trio.aclose_forcefully(stream)
