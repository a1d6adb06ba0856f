"""A mail transaction while it grows: the envelope, and which recipients came with which RCPT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from smtprecv.protocol._address import ForwardPath
from smtprecv.protocol._envelope import Body, Dialect, Envelope, MailParameters, Recipient
from smtprecv.protocol._events import Mail, Rcpt


@final
class Transaction:
    """What the 2yz reply to MAIL began."""

    __slots__ = ("envelope", "shares")

    def __init__(self, mail: Mail, parameters: MailParameters) -> None:
        """Begin without recipients; ``parameters`` are those of ``mail`` as far as they were granted."""
        self.envelope = Envelope(mail.reverse_path, parameters)
        self.shares: list[int] = []
        """How many recipients each accepted RCPT has put into the envelope."""

    def add(self, rcpt: Rcpt, instead: Sequence[ForwardPath]) -> None:
        """Add the recipient that an accepted RCPT names, or those that take its place."""
        path, parameters = rcpt.forward_path, rcpt.parameters
        if instead:
            added = tuple(Recipient(other, path, parameters) for other in instead)
        else:
            added = (Recipient(path, None, parameters),)
        envelope = self.envelope
        self.envelope = Envelope(envelope.reverse_path, envelope.parameters, envelope.recipients + added)
        self.shares.append(len(added))

    def spans(self, dialect: Dialect) -> tuple[int, ...]:
        """Give for each reply to the message how many recipients it speaks for (RFC 2033 section 4.2)."""
        return tuple(self.shares) if dialect is Dialect.LMTP else (len(self.envelope.recipients),)

    @property
    def is_internationalized(self) -> bool:
        """True if its addresses may be non-ASCII (RFC 6531 section 3.4)."""
        return self.envelope.parameters.smtputf8

    @property
    def is_binary(self) -> bool:
        """True if the message may have any octets at all (RFC 3030 section 3)."""
        return self.envelope.parameters.body is Body.BINARY_MIME
