"""What may be known when a command line is read and judged, beside the line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from smtprecv.protocol._config import Config
from smtprecv.protocol._envelope import Session
from smtprecv.protocol._events import Mail
from smtprecv.protocol._transaction import Transaction


@final
@dataclass(slots=True)
class Context:
    """Where a session stands, but for its state: one for the whole of it, which the machine alone changes.

    ``transaction``: None outside one; ``transactions``: MAIL commands of this session. ``is_trusted``: the client may
    set priorities without AUTH. ``is_followed``: octets stand behind the line already.
    """

    config: Config
    session: Session
    transaction: Transaction | None = None
    transactions: int = 0
    is_trusted: bool = False
    is_followed: bool = False

    def begin(self, mail: Mail) -> None:
        """Begin a transaction, with the parameters of ``mail`` as far as they are granted."""
        parameters = mail.parameters
        # RFC 6710 section 4.1: a priority is granted to those who may ask for one; others are served at 0.
        if parameters.priority and self.session.identity is None and not self.is_trusted:
            parameters = replace(parameters, priority=0)
        self.transaction = Transaction(mail, parameters)
        self.transactions += 1

    def assume(self, assumed: Session) -> None:
        """Go on with another client: only who spoke for it was trusted, and each has its own transactions."""
        tls = self.session.tls and replace(self.session.tls, client_name=None)
        self.session = replace(assumed, tls=tls, dialect=self.session.dialect)
        self.transactions = 0
        self.is_trusted = False
