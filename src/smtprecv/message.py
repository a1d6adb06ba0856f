"""A message, the client it came from, where else it may go, and what is done with its outcome.

As policies, deliveries and the spool see them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Final, NewType, Protocol, Self, TypeAlias, final

from smtprecv.protocol import EnhancedStatus, ForwardPath, Reply, Session, Severity, parse_forward_path

if TYPE_CHECKING:
    import sqlite3

QueueId = NewType("QueueId", str)
"""The name of a message in the spool: 20 characters of ``0-9a-v``, unique by construction, sortable by time."""

SessionId = NewType("SessionId", str)
"""The name of a connection in the log."""


@final
@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end of a connection, as far as it is known at this moment.

    ``address`` and ``port``: the peer's, None where there is none (a Unix socket). ``host``:
    its forward-confirmed name, ``ident``: what its ident service says; None if not known.
    ``session``: what the protocol knows of it. ``local_address`` and ``local_port``: our end of the
    connection, which tells one listener from another.
    """

    session_id: SessionId
    address: IPv4Address | IPv6Address | None
    port: int | None
    session: Session = Session()
    host: str | None = None
    ident: str | None = None
    local_address: IPv4Address | IPv6Address | None = None
    local_port: int | None = None


@final
@dataclass(frozen=True, slots=True)
class Redirect:
    """The recipient is accepted, but the message goes to ``forward_paths`` instead: one mailbox at least.

    The sender is not told, and goes on knowing the recipient by the name that RCPT gave it. ValueError for
    no mailbox at all, and for one that could not be stored.
    """

    forward_paths: tuple[ForwardPath, ...]

    def __post_init__(self) -> None:
        """Refuse to send a message to nobody."""
        if not self.forward_paths:
            msg = "a redirect needs a mailbox to go to"
            raise ValueError(msg)
        # A path that was made by hand may be none, or read as another one: found out here, and not when the
        # message has been accepted for it.
        if any(parse_forward_path(str(path)) != path for path in self.forward_paths):
            msg = "a redirect needs mailboxes that can be written and read again"
            raise ValueError(msg)

    @classmethod
    def to(cls, *addresses: str) -> Self:
        """Redirect to these addresses, written without angle brackets; ValueError for one that is none."""
        return cls(tuple(parse_forward_path(address) for address in addresses))


_TAKEN: Final = Reply(250, "taken", EnhancedStatus(2, 0, 0))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """The outcome is ``reply``, and ``work`` is done in the very transaction that records it: both, or neither.

    ``work`` gets the connection to the spool's own database, and has a SAVEPOINT there of its own. It is called in a
    thread, under the spool's write lock: it must not block, and must not keep the connection. It may be called more
    than once, with everything but the last call rolled back, so let it do nothing but to read and write the database.
    When it raises, the recipient counts as if the delivery had raised, and the outcomes of the others stand. What it
    may not do, it is refused with a RuntimeError: to begin or end a transaction, ATTACH, temporary tables, a
    PRAGMA that changes something, and to write to the tables whose names begin with ``smtprecv_``.

    The very same Commit for several recipients is called once for them all. ``reply`` may be any but 3yz.
    """

    work: Callable[[sqlite3.Connection], None]
    reply: Reply = _TAKEN


@final
@dataclass(frozen=True, slots=True)
class Later:
    """The recipient is to be tried again, and not before ``after`` has passed: what a delivery was told, as a rule.

    ``reply``: what the recipient's last reply is then. More than a day counts as a day. The message may still be given
    up before that. ValueError for a reply that is no 4yz, and for less than no time.
    """

    reply: Reply
    after: dt.timedelta

    def __post_init__(self) -> None:
        """Refuse what is not later."""
        if self.reply.severity is not Severity.TRANSIENT:
            msg = f"{self.reply} does not mean later: it must be 4yz"
            raise ValueError(msg)
        if self.after < dt.timedelta():
            msg = "later must not be before now"
            raise ValueError(msg)


DeliveryAnswer: TypeAlias = Reply | Redirect | Later | Commit
"""What a delivery may say of one recipient."""


class Message(Protocol):
    """The octets of a message as the client sent them: CRLF line ends, no dot-stuffing, no trace fields.

    Each method may be called several times, and raises SpoolError if the octets cannot be read.
    """

    @property
    def size(self) -> int:
        """How many octets."""
        ...

    def chunks(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Give the octets in pieces of at most 256 KiB; not one piece is held longer than it is used."""
        ...

    async def bytes(self) -> bytes:
        """Give all octets at once; for messages known to be small."""
        ...

    def as_file(self) -> AbstractAsyncContextManager[Path]:
        """Give a file that holds the octets, for programs that want a name; read only, gone at the end of the block."""
        ...


class Now(Protocol):
    """The wall clock, injected so that tests can move it."""

    def __call__(self) -> dt.datetime:
        """Give the time now, with a time zone."""
        ...


def utc_now() -> dt.datetime:
    """Give the time now, in UTC: the wall clock of every ``now`` argument that is not given."""
    return dt.datetime.now(dt.UTC)
