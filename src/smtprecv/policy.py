"""What a user may implement to decide over a session: one Protocol of one method for each hook.

A policy is any object with one hook or more; a hook that it lacks gets the default answer. Every
hook answers with a Reply: 2yz lets the command pass, 4yz and 5yz refuse it with just that reply.
A hook that raises, or answers with anything else, is our fault: 451 with a reference id,
the text only in the log, and the session goes on.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

from smtprecv.message import Client
from smtprecv.protocol import Envelope, Hello, Mail, Rcpt, Reply


@runtime_checkable
class ConnectPolicy(Protocol):
    """Decides over a connection before the banner."""

    async def connect(self, client: Client) -> Reply:
        """Answer a connection; the text of a 2yz reply is ignored, a 421 hangs up."""
        ...


@runtime_checkable
class HelloPolicy(Protocol):
    """Decides over HELO and EHLO."""

    async def hello(self, client: Client, hello: Hello) -> Reply:
        """Answer the greeting of a client; the text of a 2yz reply is ignored."""
        ...


@runtime_checkable
class MailPolicy(Protocol):
    """Decides over MAIL."""

    async def mail(self, client: Client, mail: Mail) -> Reply:
        """Answer a sender."""
        ...


@runtime_checkable
class RcptPolicy(Protocol):
    """Decides over RCPT: the place to refuse relaying."""

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
        """Answer a recipient; ``envelope`` has those accepted before."""
        ...


@runtime_checkable
class DataPolicy(Protocol):
    """Decides over DATA, when the envelope is complete."""

    async def data(self, client: Client, envelope: Envelope) -> Reply:
        """Answer DATA; a 2yz reply becomes the 354 that lets the message come."""
        ...


Policy: TypeAlias = ConnectPolicy | HelloPolicy | MailPolicy | RcptPolicy | DataPolicy
"""An object with at least one hook."""
