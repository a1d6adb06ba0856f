"""The sans-IO protocol core: bytes and replies in, events and bytes out.

No I/O, clock, randomness, logging or async here, and no import outside the standard library.
The loop that drives it stands in the docstring of ``Connection``.
"""

from smtprecv.protocol._address import AddressLiteral, Domain, ForwardPath, Host, Mailbox, ReversePath
from smtprecv.protocol._config import Config
from smtprecv.protocol._connection import Connection
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
from smtprecv.protocol._grammar import parse_forward_path, parse_host, parse_mailbox, parse_reverse_path
from smtprecv.protocol._reply import EnhancedStatus, Reply, Severity
from smtprecv.protocol._state import ENDS_GROUP, TRANSITIONS, State, after_reply

__all__ = [
    "ENDS_GROUP",
    "TRANSITIONS",
    "AddressLiteral",
    "Body",
    "Config",
    "Connected",
    "Connection",
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
    "State",
    "Vrfy",
    "after_reply",
    "parse_forward_path",
    "parse_host",
    "parse_mailbox",
    "parse_reverse_path",
]
