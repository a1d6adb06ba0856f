"""What clients do to a server all day: the roles of bench/soak.py. To add one is to add a row to `ROLES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from bench.client import ENVELOPE, LINE, Client, trusting
from bench.load import Load, send
from bench.peer import Running
from bench.process import Trouble

SMALL: Final = [b"Subject: hello\r\n\r\n", LINE * 50]
LARGE: Final = 5_000_000
MAIL: Final = ENVELOPE[0]
NOT_HERE: Final = b"RCPT TO:<ben@elsewhere.example>\r\n"
CONTEXT: Final = trusting()


@dataclass(frozen=True, slots=True)
class Servers:
    """Where a server listens, and how one comes to TLS there."""

    plain: Running
    starttls: Running
    implicit: Running


def refuse(client: Client, command: bytes, code: bytes) -> None:
    """Say what must be refused by this code."""
    reply = client.ask(command)
    if not reply.startswith(code):
        reason = f"{command!r} was answered by {reply!r}"
        raise Trouble(reason)


def keep(servers: Servers) -> None:
    """Send many messages over connections that are kept."""
    send(servers.plain.address, Load(5, "k"), 500)


def come_and_go(servers: Servers) -> None:
    """Send many messages, each over a new connection."""
    send(servers.plain.address, Load(5, "n"), 300)


def be_large(servers: Servers) -> None:
    """Send a large message."""
    with Client(servers.plain) as client:
        client.transact(repeat(LINE * 800, LARGE // (800 * len(LINE))))
        client.expect(b"QUIT\r\n")


def start_tls(servers: Servers) -> None:
    """Send a message behind STARTTLS."""
    with Client(servers.starttls, CONTEXT) as client:
        client.transact(SMALL)
        client.expect(b"QUIT\r\n")


def be_inside_tls(servers: Servers) -> None:
    """Send some messages inside TLS."""
    with Client(servers.implicit, CONTEXT) as client:
        for _ in range(5):
            client.transact(SMALL)
        client.expect(b"QUIT\r\n")


def be_refused(servers: Servers) -> None:
    """Name a recipient who is not here, say what is no command, and give up without QUIT."""
    with Client(servers.plain) as client:
        client.expect(MAIL)
        refuse(client, NOT_HERE, b"550")
        refuse(client, ENVELOPE[2], b"5")
        client.expect(b"RSET\r\n")
        refuse(client, b"MAIL FROM:anna\r\n", b"501")
        refuse(client, b"HELLO\r\n", b"500")
        client.transact(SMALL)


def break_off(servers: Servers) -> None:
    """Close in the middle of a command, and of the mail data of a small message and a large one."""
    for size in (1, 5_000):
        with Client(servers.plain) as client:
            for command in ENVELOPE:
                client.expect(command)
            client.socket.sendall(LINE * size)
    with Client(servers.implicit, CONTEXT) as client:
        client.socket.sendall(b"MAIL FR")


def be_deferred(servers: Servers) -> None:
    """Send a message for somebody here, and somebody whose server is away."""
    with Client(servers.plain) as client:
        client.expect(MAIL)
        client.expect(ENVELOPE[1])
        client.expect(b"RCPT TO:<eve@away.example>\r\n")
        client.expect(ENVELOPE[2])
        client.socket.sendall(b"".join(SMALL))
        client.expect(b".\r\n")
        client.expect(b"QUIT\r\n")


@dataclass(frozen=True, slots=True)
class Role:
    """What is played, by how many at a time, and the seconds that each pauses between."""

    play: Callable[[Servers], None]
    players: int = 1
    pause: float = 0.0


ROLES: Final[Mapping[str, Role]] = {
    "kept connections": Role(keep),
    "new connections": Role(come_and_go),
    "large": Role(be_large, pause=0.5),
    "STARTTLS": Role(start_tls, pause=0.1),
    "inside TLS": Role(be_inside_tls, pause=0.1),
    "refused": Role(be_refused, pause=0.05),
    "broken off": Role(break_off, pause=0.1),
    "deferred": Role(be_deferred, players=2, pause=0.1),
}
