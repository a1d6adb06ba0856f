"""The sans-IO protocol core: bytes and replies in, events and bytes out.

No I/O, clock, randomness, logging or async here, and no import outside the standard library.
The loop that drives it stands in the docstring of ``Connection``.
"""

from smtprecv.protocol._address import AddressLiteral, Domain, ForwardPath, Host, Mailbox, ReversePath
from smtprecv.protocol._config import Config
from smtprecv.protocol._envelope import Body, Envelope, MailParameters, Recipient, Session
from smtprecv.protocol._error import LocalProtocolError, SmtprecvError
from smtprecv.protocol._events import (
    Connected,
    ConnectionClosed,
    Data,
    EndOfMailData,
    Event,
    Expn,
    Hello,
    Help,
    Mail,
    MailData,
    Noop,
    Quit,
    Rcpt,
    Rejected,
    Rset,
    Signal,
    Vrfy,
)
from smtprecv.protocol._reply import EnhancedStatus, Reply, Severity

__all__ = [
    "AddressLiteral",
    "Body",
    "Config",
    "Connected",
    "ConnectionClosed",
    "Data",
    "Domain",
    "EndOfMailData",
    "EnhancedStatus",
    "Envelope",
    "Event",
    "Expn",
    "ForwardPath",
    "Hello",
    "Help",
    "Host",
    "LocalProtocolError",
    "Mail",
    "MailData",
    "MailParameters",
    "Mailbox",
    "Noop",
    "Quit",
    "Rcpt",
    "Recipient",
    "Rejected",
    "Reply",
    "ReversePath",
    "Rset",
    "Session",
    "Severity",
    "Signal",
    "SmtprecvError",
    "Vrfy",
]
