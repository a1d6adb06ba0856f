"""A connected socket as a stream, without what a stream for everybody costs.

The theory. In a dialogue one task owns the stream, and it always listens after it has spoken. So nothing guards
against two tasks, octets that the kernel takes at once go out without a turn of the event loop, and nothing is
asked of the kernel before it has said that there is something.

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

    __slots__ = ("socket",)

    def __init__(self, connected: socket.socket) -> None:
        """Take over the socket."""
        self.socket: Final = connected

    def has_sent(self, octets: bytearray) -> bool:
        """Send what the kernel takes at once, and leave the rest in ``octets``; True if there is none."""
        try:
            sent = self.socket.send(octets)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lose(error)
        del octets[:sent]
        return not octets

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send octets."""
        octets = bytearray(data)
        while not self.has_sent(octets):
            await trio.lowlevel.wait_writable(self.socket)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes octets."""
        self._demand_open()
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
        self._demand_open()
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                return self.socket.recv(max_bytes or _READ_SIZE)
            except BlockingIOError:  # the kernel has thought better of it
                continue
            except OSError as error:
                self._lose(error)

    async def aclose(self) -> None:
        """Close the socket at once; done when cancelled, too."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close the socket at once, if it is open."""
        if self.socket.fileno() >= 0:
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
