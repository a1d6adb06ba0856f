"""What the world sees of a process, and remembers when the process has forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

from smtprecv.message import QueueId


@final
@dataclass(frozen=True, slots=True)
class Promised:
    """A client was answered 250 to the end of this message's data."""

    token: str


@final
@dataclass(frozen=True, slots=True)
class Refused:
    """A client was answered something else."""

    token: str
    reply: str


@final
@dataclass(frozen=True, slots=True)
class Served:
    """A recipient has got a message: the delivery is about to answer 2yz for it."""

    queue_id: QueueId
    token: str
    recipient: str


@final
@dataclass(frozen=True, slots=True)
class Told:
    """A sender has got a report of a message, about these recipients."""

    queue_id: QueueId
    token: str
    recipients: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class Recorded:
    """The outcome of an attempt is in the spool, as the spool says."""

    queue_id: QueueId


@final
@dataclass(frozen=True, slots=True)
class Crashed:
    """The process is no more."""


@final
@dataclass(frozen=True, slots=True)
class Odd:
    """Something was seen that may not be, whatever comes of it."""

    what: str


Sight: TypeAlias = Promised | Refused | Served | Told | Recorded | Crashed | Odd
