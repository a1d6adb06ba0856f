"""Who a client claims to be and who it is, the two refusals, and how names and passwords are read.

Its one rule: ``Identity`` decides what a name may be, and every name is read by its leave.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, final

from smtprecv.protocol import EnhancedStatus, Reply, SmtprecvError
from smtprecv.sasl._saslprep import saslprep

MAX_SIZE: Final = 1024
"""Octets of a name or a password, in UTF-8; RFC 4616 section 2 wants 255 at least."""

MALFORMED_RESPONSE: Final = Reply(501, "Malformed authentication response", EnhancedStatus(5, 5, 2))
"""What a response gets that its mechanism's grammar does not know."""

CREDENTIALS_INVALID: Final = Reply(535, "Authentication credentials invalid", EnhancedStatus(5, 7, 8))
"""What a client gets that is not shown to be who it claims, whether or not there is such a user."""


@final
class SaslError(SmtprecvError):
    """The exchange has failed; ``reply`` says how: MALFORMED_RESPONSE, or CREDENTIALS_INVALID for a wrong proof."""

    def __init__(self, reply: Reply) -> None:
        """End the exchange with this reply."""
        super().__init__(str(reply))
        self.reply: Final = reply


@final
@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client was shown to be: the name that it acts under.

    ValueError for a name that is empty, not printable, or of more than MAX_SIZE octets.
    """

    name: str

    def __post_init__(self) -> None:
        """Refuse what would forge a line, or flood one."""
        # What is printable can be encoded too.
        if not self.name or not self.name.isprintable() or len(self.name.encode()) > MAX_SIZE:
            msg = f"a name is printable text of at most {MAX_SIZE} octets"
            raise ValueError(msg)


@final
@dataclass(frozen=True, slots=True)
class Password:
    """What PLAIN and LOGIN bring: a user, a password as the client sent it, and whom the user wants to act as.

    ``authorization``: empty for the user himself.
    """

    user: str
    password: str = field(repr=False)
    authorization: str = ""


@final
@dataclass(frozen=True, slots=True)
class External:
    """What EXTERNAL brings: the name that something outside of SASL has shown, and whom the client wants to act as.

    ``name``: that of the client's verified certificate. ``authorization``: empty for whom the name stands for.
    """

    name: str
    authorization: str = ""


def read_name(text: str, *, is_stored: bool = False) -> str:
    """Prepare a name; ValueError for one that SASLprep or Identity does not allow. ``is_stored`` as for saslprep."""
    return Identity(saslprep(text, is_stored=is_stored)).name


def name_in(octets: bytes) -> str:
    """Read the name in a response. RFC 4954 section 4: what cannot be prepared, or leaves nothing, fails."""
    try:
        return read_name(text_in(octets, MAX_SIZE))
    except ValueError:
        raise SaslError(MALFORMED_RESPONSE) from None


def optional_name_in(octets: bytes) -> str:
    """Read the name in a response, or nothing."""
    return name_in(octets) if octets else ""


def password_in(octets: bytes) -> str:
    """Read the password in a response, as it stands there."""
    password = text_in(octets, MAX_SIZE)
    if not password or "\0" in password:
        raise SaslError(MALFORMED_RESPONSE)
    return password


def text_in(octets: bytes, max_size: int) -> str:
    """Read UTF-8 of at most so many octets."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise SaslError(MALFORMED_RESPONSE) from None
    if len(octets) > max_size:
        raise SaslError(MALFORMED_RESPONSE)
    return text
