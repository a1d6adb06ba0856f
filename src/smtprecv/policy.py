"""What a user may implement to decide over a session: one Protocol of one method for each hook.

A policy is any object with one hook or more; a hook that it lacks gets the default answer. Every
hook answers with a Reply: 2yz lets the command pass, 4yz and 5yz refuse it with just that reply. Where a
yes must say more, something else stands for it: a Redirect, an Identity, ScramKeys.
A hook that raises, or answers with anything else, is our fault: 451 with a reference id,
the text only in the log, and the session goes on. Parameters go by position: name them as you like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias, final, runtime_checkable

from smtprecv.message import Client, Message, Redirect
from smtprecv.protocol import Envelope, Hello, Mail, Rcpt, Reply
from smtprecv.sasl import External, Identity, Password, ScramKeys


@runtime_checkable
class ConnectPolicy(Protocol):
    """Decides over a connection before the banner."""

    async def connect(self, client: Client, /) -> Reply:
        """Answer a connection; the text of a 2yz reply is ignored, a 421 hangs up."""
        ...


@runtime_checkable
class HelloPolicy(Protocol):
    """Decides over HELO and EHLO."""

    async def hello(self, client: Client, hello: Hello, /) -> Reply:
        """Answer the greeting of a client; the text of a 2yz reply is ignored."""
        ...


@runtime_checkable
class AuthPolicy(Protocol):
    """Decides who a client is that brings a password or a certificate (AUTH PLAIN, LOGIN, EXTERNAL)."""

    async def authenticate(self, client: Client, credentials: Password | External, /) -> Identity | Reply:
        """Answer AUTH: the Identity that the client is shown to be, or a refusal (``sasl.CREDENTIALS_INVALID``).

        Whether the client may act as ``credentials.authorization`` is decided here too. An answer must take as long
        for a user who is not there as for a wrong password, or it tells who is there.
        """
        ...


@runtime_checkable
class ScramPolicy(Protocol):
    """Knows the keys of users (AUTH SCRAM-SHA-256)."""

    async def scram_keys(self, client: Client, user: str, /) -> ScramKeys | None:
        """Give the keys of a user; None if there is no such user, which the client is not told.

        It is shown keys of ``sasl.ITERATIONS`` and a salt of ``sasl.SALT_SIZE`` then: who has others gives keys of
        nobody (``ScramKeys.of_nobody``) itself.
        """
        ...


@runtime_checkable
class MailPolicy(Protocol):
    """Decides over MAIL."""

    async def mail(self, client: Client, mail: Mail, /) -> Reply:
        """Answer a sender."""
        ...


@runtime_checkable
class RcptPolicy(Protocol):
    """Decides over RCPT: the place to refuse relaying, and to send mail elsewhere."""

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt, /) -> Reply | Redirect:
        """Answer a recipient; ``envelope`` has those accepted before, and what they were redirected to."""
        ...


@runtime_checkable
class DataPolicy(Protocol):
    """Decides over DATA, when the envelope is complete."""

    async def data(self, client: Client, envelope: Envelope, /) -> Reply:
        """Answer DATA; a 2yz reply becomes the 354 that lets the message come."""
        ...


@runtime_checkable
class MessagePolicy(Protocol):
    """Decides over a message when all of it is there, before anybody has taken responsibility for it."""

    async def message(self, client: Client, envelope: Envelope, message: Message, /) -> Reply:
        """Answer the end of data of a sound message; the text of a 2yz reply is ignored.

        Refused, the message is forgotten, and the session goes on. ``message`` can be read until this returns, in
        pieces or at once. The idle limit holds: RFC 5321 section 4.5.3.2.6 lets a client wait ten minutes in all.
        """
        ...


@final
@dataclass(frozen=True, slots=True, init=False)
class All:
    """Several policies as one: at each hook those that have it are asked, in order, and the first refusal ends it.

    If nobody refuses, the reply of the last that was asked is the answer. A Redirect refuses nothing, and the next are
    asked about the recipient that RCPT named, not about where it is sent; of several the last counts,
    whatever replies came after it. AUTH is the other way round: the first that knows the client, or has keys of the
    user, decides; if none does, the first 4yz is the answer, else the first 5yz.
    """

    policies: tuple[Policy, ...]

    def __init__(self, *policies: Policy) -> None:
        """Ask these policies, in this order."""
        object.__setattr__(self, "policies", policies)


Policy: TypeAlias = (
    ConnectPolicy | HelloPolicy | AuthPolicy | ScramPolicy | MailPolicy | RcptPolicy | DataPolicy | MessagePolicy | All
)
"""An object with at least one hook, or several such objects."""
