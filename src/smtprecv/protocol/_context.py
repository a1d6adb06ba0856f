"""What may be known when a command line is read and judged, beside the line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from smtprecv.protocol._config import Config
from smtprecv.protocol._envelope import Envelope, Session


@final
@dataclass(frozen=True, slots=True)
class Context:
    """Where a session stands, but for its state.

    ``accepted``: RCPT commands of this transaction that were accepted; ``transactions``: MAIL commands of this
    session. ``is_followed``: octets stand behind the line already.
    """

    config: Config
    session: Session
    envelope: Envelope | None = None
    accepted: int = 0
    transactions: int = 0
    is_followed: bool = False
