"""What the exchanges of a session ask for, and how they fail: the words between them and whoever does the I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias, TypeVar, final

from smtprecv.protocol import EnhancedStatus, Reply

T = TypeVar("T")

OUT_OF_STEP: Final = Reply(451, "the next hop answers what was not asked", EnhancedStatus(4, 5, 0))
"""Stands for every reply that can no longer be told from another one's."""


@final
class Phase(Enum):
    """Where in a session a reply is due: each has a time limit (RFC 5321 section 4.5.3.2), and a name for people."""

    GREETING = "the greeting"
    HELLO = "the reply to EHLO or LHLO"
    STARTTLS = "the reply to STARTTLS"
    AUTH = "the reply to AUTH"
    MAIL = "the reply to MAIL"
    RCPT = "the reply to RCPT"
    DATA = "the reply to DATA"
    CHUNK = "the reply to a chunk"
    END = "the reply to the message"
    RSET = "the reply to RSET"
    QUIT = "the reply to QUIT"


@final
@dataclass(frozen=True, slots=True)
class Say:
    """Send these octets, and give the next ``due`` replies."""

    octets: bytes
    due: int
    phase: Phase


@final
@dataclass(frozen=True, slots=True)
class Handshake:
    """Begin TLS here, and give one reply that says how it went: 2yz, or a 4yz of our own."""


@final
@dataclass(frozen=True, slots=True)
class SendMail:
    """Send the message, in chunks (RFC 3030 section 2) or behind DATA, and give the ``due`` replies to it."""

    is_chunked: bool
    due: int


@final
@dataclass(frozen=True, slots=True)
class Compute:
    """Do this work, which takes long, where nobody else waits for it; no reply is due."""

    work: Callable[[], None]


Step: TypeAlias = Say | Handshake | SendMail | Compute
"""What an exchange may ask for."""

Exchange: TypeAlias = Generator[Step, Sequence[Reply], T]
"""Steps out, the replies to each in, what became of it at the end; SessionFailed if the session is of no more use."""


@final
class SessionFailed(Exception):
    """The session can't go on; ``reply`` is a 4yz for every recipient who has no other one.

    ``is_tls``: because there is no TLS such as it must be.
    """

    def __init__(self, reply: Reply, *, is_tls: bool = False) -> None:
        """Fail with ``reply``."""
        super().__init__(str(reply))
        self.reply: Final = reply
        self.is_tls: Final = is_tls
