"""The events of the protocol core: what a client did, as values.

A closed union, so that a ``match`` over it is checked for exhaustiveness. All but Bdat, MailData
and ConnectionClosed ask for a reply.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias, final

from smtprecv.protocol._address import ForwardPath, ReversePath
from smtprecv.protocol._envelope import MailParameters, RcptParameters
from smtprecv.protocol._reply import Reply


@final
class Signal(Enum):
    """What ``next_event`` gives when there is no event."""

    NEED_DATA = auto()
    """The input is used up: flush the replies, then ``receive_data``."""
    PAUSED = auto()
    """An event still waits for its reply, or STARTTLS was agreed to and the session goes on inside TLS."""


@final
@dataclass(frozen=True, slots=True)
class Connected:
    """A client is there and waits for the greeting (RFC 5321 section 3.1)."""


@final
@dataclass(frozen=True, slots=True)
class Hello:
    """HELO, EHLO (RFC 5321 section 4.1.1.1) or LHLO (RFC 2033 section 4.1).

    ``offers``: the keyword lines that may be announced now.
    """

    domain: str
    is_extended: bool
    offers: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS (RFC 3207 section 4); after 220 the session goes on in ``Connection.secured``."""


@final
@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH (RFC 4954 section 4). ``initial_response``: without its base64, None if the client gave none.

    334 is a challenge, to which an AuthResponse comes; before a 2yz reply call ``Connection.identify``.
    """

    mechanism: str
    initial_response: bytes | None

    def __repr__(self) -> str:
        """The event without what may be a password."""
        return f"Auth({self.mechanism!r})"


@final
@dataclass(frozen=True, slots=True)
class AuthResponse:
    """The client's response to a challenge, without its base64; None for ``*``: it gives up, and is due 501."""

    octets: bytes | None

    def __repr__(self) -> str:
        """The event without what may be a password."""
        return "AuthResponse()"


@final
@dataclass(frozen=True, slots=True)
class Xclient:
    """XCLIENT of Postfix: who the client really is, as a trusted one says.

    ``attributes``: names in capitals and values, None for one that is not known. After 220 the session begins anew.
    """

    attributes: tuple[tuple[str, str | None], ...]


@final
@dataclass(frozen=True, slots=True)
class Xforward:
    """XFORWARD of Postfix: where the next message comes from, for the record. ``attributes`` as of Xclient."""

    attributes: tuple[tuple[str, str | None], ...]


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
    parameters: RcptParameters = RcptParameters()


@final
@dataclass(frozen=True, slots=True)
class Data:
    """DATA (RFC 5321 section 4.1.1.4); 354 lets the mail data come."""


@final
@dataclass(frozen=True, slots=True)
class Bdat:
    """BDAT (RFC 3030 section 2): a chunk of ``size`` octets follows as MailData. Needs no reply: its end is due one."""

    size: int
    is_last: bool


@final
@dataclass(frozen=True, slots=True)
class MailData:
    """A piece of the message, dot-stuffing removed. Needs no reply.

    Line ends are CRLF, but in a message of BODY=BINARYMIME.
    """

    octets: bytes


@final
@dataclass(frozen=True, slots=True)
class EndOfChunk:
    """The end of a chunk that is not the last. ``size`` and ``defect`` are of the message so far."""

    size: int
    defect: Reply | None


@final
@dataclass(frozen=True, slots=True)
class EndOfMailData:
    """The end of the message. ``size``: its octets; ``defect``: the refusal it is due, None for a sound message.

    Due are as many replies as ``Connection.replies_due`` says: in LMTP one for each accepted RCPT.
    """

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
    | StartTls
    | Auth
    | AuthResponse
    | Xclient
    | Xforward
    | Mail
    | Rcpt
    | Data
    | Bdat
    | MailData
    | EndOfChunk
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
