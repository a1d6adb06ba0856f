"""A bare SMTP client: octets out, replies in."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Final, Self

from tests.e2e.served import Served


class Wire:
    """A connection to a server, past its banner."""

    def __init__(self, server: Served | socket.socket, *, greets: bool = True) -> None:
        """Connect, unless that is done, and read the banner, which is 220, if the server greets."""
        if isinstance(server, Served):
            server = socket.create_connection((server.host, server.port), timeout=30)
        self.socket: Final = server
        self._lines: Final = self.socket.makefile("rb")
        if greets:
            banner = self.reply()
            assert banner[0] == 220, banner

    def send(self, octets: bytes) -> None:
        """Send octets as they are."""
        self.socket.sendall(octets)

    def reply(self) -> tuple[int, list[str]]:
        """Read one reply: its code, and the texts of its lines."""
        texts: list[str] = []
        while True:
            line = self._lines.readline().decode()
            assert line.endswith("\r\n"), f"not a line of a reply: {line!r}"
            texts.append(line[4:-2])
            if line[3] == " ":
                return int(line[:3]), texts

    def ask_any(self, command: str) -> tuple[int, list[str]]:
        """Send one command, and give the reply."""
        self.send(f"{command}\r\n".encode())
        return self.reply()

    def ask(self, command: str, code: int) -> str:
        """Send one command, and give the reply's text, whose code must be this one."""
        given, texts = self.ask_any(command)
        assert given == code, f"{command!r}: {given} {texts}"
        return "\n".join(texts)

    def starttls(self, context: ssl.SSLContext, name: str = "mx.example.com") -> Wire:
        """Give the session inside TLS, with a server of this name; this one is of no more use."""
        self.ask("STARTTLS", 220)
        return Wire(context.wrap_socket(self.socket, server_hostname=name), greets=False)

    def begin(self, to: str, sender: str = "anna@example.com") -> None:
        """Hold a transaction with one recipient up to the 354."""
        self.ask(f"MAIL FROM:<{sender}>", 250)
        self.ask(f"RCPT TO:<{to}>", 250)
        self.ask("DATA", 354)

    def mail(self, to: str) -> None:
        """Send a message to one recipient, which must be accepted."""
        self.begin(to)
        self.ask("Subject: hello\r\n\r\nhello\r\n.", 250)

    def rest(self) -> bytes:
        """Read until the server closes."""
        return self._lines.read()

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self.socket.close()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self.close()
