"""The events of the protocol core: what a client did, as values.

A closed union, so that a ``match`` over it is checked for exhaustiveness. All but MailData
and ConnectionClosed ask for a reply.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias, final

from smtprecv.protocol._address import ForwardPath, ReversePath
from smtprecv.protocol._envelope import MailParameters
from smtprecv.protocol._reply import Reply


@final
class Signal(Enum):
    """What ``next_event`` gives when there is no event."""

    NEED_DATA = auto()
    """The input is used up: flush the replies, then ``receive_data``."""
    PAUSED = auto()
    """An event still waits for its reply."""


@final
@dataclass(frozen=True, slots=True)
class Connected:
    """A client is there and waits for the greeting (RFC 5321 section 3.1)."""


@final
@dataclass(frozen=True, slots=True)
class Hello:
    """HELO or EHLO (RFC 5321 section 4.1.1.1). ``offers``: the EHLO keyword lines that may be announced now."""

    domain: str
    is_extended: bool
    offers: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM (RFC 5321 section 4.1.1.2)."""

    reverse_path: ReversePath
    parameters: MailParameters


@final
@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO (RFC 5321 section 4.1.1.3)."""

    forward_path: ForwardPath


@final
@dataclass(frozen=True, slots=True)
class Data:
    """DATA (RFC 5321 section 4.1.1.4); 354 lets the mail data come."""


@final
@dataclass(frozen=True, slots=True)
class MailData:
    """A piece of the message, dot-stuffing removed, line ends CRLF. Needs no reply."""

    octets: bytes


@final
@dataclass(frozen=True, slots=True)
class EndOfMailData:
    """The end of the message. ``size``: its octets; ``defect``: the refusal it is due, None for a sound message."""

    size: int
    defect: Reply | None


@final
@dataclass(frozen=True, slots=True)
class Rset:
    """RSET (RFC 5321 section 4.1.1.5)."""


@final
@dataclass(frozen=True, slots=True)
class Noop:
    """NOOP (RFC 5321 section 4.1.1.9)."""


@final
@dataclass(frozen=True, slots=True)
class Help:
    """HELP (RFC 5321 section 4.1.1.8); ``topic`` may be empty."""

    topic: str


@final
@dataclass(frozen=True, slots=True)
class Vrfy:
    """VRFY (RFC 5321 section 4.1.1.6)."""

    text: str


@final
@dataclass(frozen=True, slots=True)
class Expn:
    """EXPN (RFC 5321 section 4.1.1.7)."""

    text: str


@final
@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT (RFC 5321 section 4.1.1.10)."""


@final
@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that the protocol itself refuses; ``reply`` is what it is due.

    ``line``: the command line without its CRLF, at most its first 512 octets.
    """

    line: bytes
    reply: Reply


@final
@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The client closed its side. Needs no reply; the state is CLOSED."""


Event: TypeAlias = (
    Connected
    | Hello
    | Mail
    | Rcpt
    | Data
    | MailData
    | EndOfMailData
    | Rset
    | Noop
    | Help
    | Vrfy
    | Expn
    | Quit
    | Rejected
    | ConnectionClosed
)
"""Everything that ``Connection.next_event`` may tell."""
