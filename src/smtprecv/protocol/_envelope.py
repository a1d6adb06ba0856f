"""What is known of a session and of a mail transaction: plain values.

The machine fills them, policies and deliveries read them, the spool keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import final

from smtprecv.protocol._address import ForwardPath, ReversePath
from smtprecv.protocol._xtext import Xtext, decode_unitext


@final
class Dialect(Enum):
    """Which protocol is spoken."""

    SMTP = "SMTP"
    LMTP = "LMTP"
    """Each recipient has a reply of its own to the mail data (RFC 2033)."""


@final
class Body(Enum):
    """The BODY parameter of MAIL (RFC 6152 section 3, RFC 3030 section 3)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"
    BINARY_MIME = "BINARYMIME"


@final
class Ret(Enum):
    """The RET parameter of MAIL: how much of the message a report of its failure brings back (RFC 3461 section 4.3)."""

    FULL = "FULL"
    HDRS = "HDRS"


@final
class Notify(Enum):
    """What a sender may want to be told of (RFC 3461 section 4.1)."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@final
class ByMode(Enum):
    """What becomes of a message that could not be delivered in time (RFC 2852 section 4)."""

    NOTIFY = "N"
    RETURN = "R"


@final
@dataclass(frozen=True, slots=True)
class DeliverBy:
    """The BY parameter of MAIL (RFC 2852 section 4).

    ``seconds``: counted from the MAIL command, not above 0 only with NOTIFY, whose time may be over already.
    ``is_traced``: the sender wants a report from each relay.
    """

    seconds: int
    mode: ByMode
    is_traced: bool = False

    def __str__(self) -> str:
        """The parameter's value: ``120;RT``."""
        return f"{self.seconds};{self.mode.value}{'T' * self.is_traced}"


@final
@dataclass(frozen=True, slots=True)
class MailParameters:
    """The ESMTP parameters of MAIL.

    ``size``: the declared octets (RFC 1870), None if not declared. ``body``: 7BIT if not
    declared. ``smtputf8``: the message or an address may be internationalized (RFC 6531).
    ``ret`` and ``envid``: for reports to the sender, None if not given (RFC 3461). ``deliver_by``: the time
    that the sender sets (RFC 2852). ``priority``: from -9 to 9, and 0 from a client that is not trusted (RFC 6710).
    ``require_tls``: every hop must use verified TLS (RFC 8689). ``auth``: who submitted the message, as the
    client says, empty for ``<>`` (RFC 4954 section 5); never a proof.
    """

    size: int | None = None
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: Ret | None = None
    envid: Xtext | None = None
    deliver_by: DeliverBy | None = None
    priority: int = 0
    require_tls: bool = False
    auth: str | None = None


@final
@dataclass(frozen=True, slots=True)
class OriginalRecipient:
    """The ORCPT parameter of RCPT: an address of some type, as the sender wrote it (RFC 3461 section 4.2)."""

    address_type: str
    encoded: Xtext

    @property
    def address(self) -> str:
        """The address without its encoding."""
        text = str(self.encoded)
        # RFC 6533 section 3: this type alone has a second encoding.
        return decode_unitext(text) if self.address_type.lower() == "utf-8" else text

    def __str__(self) -> str:
        """The parameter's value, just as it came."""
        return f"{self.address_type};{self.encoded.encoded}"


@final
@dataclass(frozen=True, slots=True)
class RcptParameters:
    """The ESMTP parameters of RCPT (RFC 3461 section 4).

    ``notify``: what the sender wants to be told of this recipient, the empty set for NEVER, None if not given.
    ``orcpt``: None if not given.
    """

    notify: frozenset[Notify] | None = None
    orcpt: OriginalRecipient | None = None


@final
@dataclass(frozen=True, slots=True)
class Recipient:
    """A mailbox that a message goes to: one for each accepted RCPT, or several where RCPT was redirected.

    ``original``: the mailbox that RCPT named, of which the sender knows; None where ``forward_path`` is that one.
    ``parameters``: those of the RCPT, for what it was redirected to as well.
    """

    forward_path: ForwardPath
    original: ForwardPath | None = None
    parameters: RcptParameters = RcptParameters()

    def __str__(self) -> str:
        """The recipient's address without angle brackets."""
        return str(self.forward_path)


@final
@dataclass(frozen=True, slots=True)
class Envelope:
    """A mail transaction: who from, how, and who for, in the order of the RCPT commands and their replacements."""

    reverse_path: ReversePath
    parameters: MailParameters = MailParameters()
    recipients: tuple[Recipient, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Tls:
    """What is known of the TLS around a session.

    ``version``: ``TLSv1.3``; ``cipher``: its name; ``bits``: the size of its key. ``client_name``: the name in a client
    certificate that was verified, None without one.
    """

    version: str
    cipher: str
    bits: int = 0
    client_name: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Session:
    """What the protocol knows of the client.

    ``hello``: the argument of HELO, EHLO or LHLO as it was given (printable ASCII or UTF-8, at most
    255 octets), None before it. ``is_extended``: it was no HELO. ``identity``: who AUTH showed the client to be, None
    without. ``tls``: None in clear. ``dialect``: what is spoken.
    """

    hello: str | None = None
    is_extended: bool = False
    identity: str | None = None
    tls: Tls | None = None
    dialect: Dialect = Dialect.SMTP

    @property
    def is_secure(self) -> bool:
        """True inside TLS."""
        return self.tls is not None
