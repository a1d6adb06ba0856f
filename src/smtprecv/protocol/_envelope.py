"""What is known of a session and of a mail transaction: plain values.

The machine fills them, policies and deliveries read them, the spool keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import final

from smtprecv.protocol._address import ForwardPath, ReversePath


@final
class Body(Enum):
    """The BODY parameter of MAIL (RFC 6152 section 3, RFC 3030 section 3)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"
    BINARY_MIME = "BINARYMIME"


@final
@dataclass(frozen=True, slots=True)
class MailParameters:
    """The ESMTP parameters of MAIL.

    ``size``: the declared octets (RFC 1870), None if not declared. ``body``: 7BIT if not
    declared. ``smtputf8``: the message or an address may be internationalized (RFC 6531).
    """

    size: int | None = None
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False


@final
@dataclass(frozen=True, slots=True)
class Recipient:
    """A mailbox that a message goes to: one for each accepted RCPT, or several where RCPT was redirected.

    ``original``: the mailbox that RCPT named, of which the sender knows; None where ``forward_path`` is that one.
    """

    forward_path: ForwardPath
    original: ForwardPath | None = None

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
class Session:
    """What the protocol knows of the client.

    ``hello``: the argument of HELO or EHLO as it was given (printable ASCII or UTF-8, at most
    255 octets), None before it. ``is_extended``: it was EHLO. ``is_secure``: the session runs
    inside TLS. ``identity``: who AUTH showed the client to be, None without.
    """

    hello: str | None = None
    is_extended: bool = False
    is_secure: bool = False
    identity: str | None = None
