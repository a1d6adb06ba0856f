"""A client of the benchmark's own, which says one thing after the other: TLS and more that smtp-source cannot do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from bench.peer import Running, Tls
from bench.process import DEADLINE, Trouble

ENVELOPE: Final = (b"MAIL FROM:<anna@example.com>\r\n", b"RCPT TO:<ben@example.org>\r\n", b"DATA\r\n")
EHLO: Final = b"EHLO client.example.com\r\n"
LINE: Final = b"x" * 78 + b"\r\n"


def trusting() -> ssl.SSLContext:
    """Give a context that trusts the server, whose certificate nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def is_complete(reply: bytes) -> bool:
    """Tell whether the last line of a reply is there."""
    return reply.endswith(b"\r\n") and reply.splitlines()[-1][3:4] != b"-"


class Client:
    """A session that has said EHLO, inside TLS if that is what the server is there for.

    OSError if the connection breaks, Trouble if the server refuses what it should take.
    """

    def __init__(self, running: Running, context: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> None:
        """Connect; a context is needed for TLS."""
        where = (running.host, running.port)
        self.socket: socket.socket = socket.create_connection(where, timeout=DEADLINE, source_address=(source, 0))
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None and running.tls is Tls.IMPLICIT:
                self.socket = context.wrap_socket(self.socket)
            self.expect(b"")
            self.expect(EHLO)
            if context is not None and running.tls is Tls.STARTTLS:
                self.expect(b"STARTTLS\r\n")
                self.socket = context.wrap_socket(self.socket)
                self.expect(EHLO)
        except BaseException:
            self.socket.close()
            raise

    def ask(self, octets: bytes) -> bytes:
        """Say something, and give the reply; ConnectionError if there is none."""
        self.socket.sendall(octets)
        reply = b""
        while not is_complete(reply):
            octets = self.socket.recv(4096)
            if not octets:
                reason = f"the server has closed, behind {reply!r}"
                raise ConnectionError(reason)
            reply += octets
        return reply

    def expect(self, octets: bytes) -> None:
        """Say something to which the server has nothing to object."""
        reply = self.ask(octets)
        if reply[:1] not in b"23":
            reason = f"refused: {reply!r}"
            raise Trouble(reason)

    def transact(self, lines: Iterable[bytes]) -> None:
        """Send a message, whose mail data are these octets: whole lines, none of which begins with a dot."""
        for command in ENVELOPE:
            self.expect(command)
        for octets in lines:
            self.socket.sendall(octets)
        self.expect(b".\r\n")

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, without a word."""
        self.socket.close()
