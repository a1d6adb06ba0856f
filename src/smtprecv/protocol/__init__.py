"""The sans-IO protocol core: bytes and replies in, events and bytes out.

No I/O, clock, randomness, logging or async here, and no import outside the standard library.
The loop that drives it stands in the docstring of ``Connection``.
"""

from typing import TYPE_CHECKING, Final

from smtprecv._on_demand import on_demand

if TYPE_CHECKING:
    from smtprecv.protocol._address import AddressLiteral, Domain, ForwardPath, Host, Mailbox, ReversePath
    from smtprecv.protocol._config import Config
    from smtprecv.protocol._connection import Connection
    from smtprecv.protocol._envelope import (
        Body,
        ByMode,
        DeliverBy,
        Dialect,
        Envelope,
        MailParameters,
        Notify,
        OriginalRecipient,
        RcptParameters,
        Recipient,
        Ret,
        Session,
        Tls,
    )
    from smtprecv.protocol._error import LocalProtocolError, SmtprecvError
    from smtprecv.protocol._events import (
        Auth,
        AuthResponse,
        Bdat,
        Connected,
        ConnectionClosed,
        Data,
        EndOfChunk,
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
        StartTls,
        Vrfy,
        Xclient,
        Xforward,
    )
    from smtprecv.protocol._grammar import (
        parse_forward_path,
        parse_hello,
        parse_host,
        parse_mailbox,
        parse_reverse_path,
    )
    from smtprecv.protocol._reply import EnhancedStatus, Reply, Severity
    from smtprecv.protocol._state import ENDS_GROUP, TRANSITIONS, State, after_reply
    from smtprecv.protocol._xtext import Xtext

__all__ = [
    "ENDS_GROUP",
    "TRANSITIONS",
    "AddressLiteral",
    "Auth",
    "AuthResponse",
    "Bdat",
    "Body",
    "ByMode",
    "Config",
    "Connected",
    "Connection",
    "ConnectionClosed",
    "Data",
    "DeliverBy",
    "Dialect",
    "Domain",
    "EndOfChunk",
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
    "Notify",
    "OriginalRecipient",
    "Quit",
    "Rcpt",
    "RcptParameters",
    "Recipient",
    "Rejected",
    "Reply",
    "Ret",
    "ReversePath",
    "Rset",
    "Session",
    "Severity",
    "Signal",
    "SmtprecvError",
    "StartTls",
    "State",
    "Tls",
    "Vrfy",
    "Xclient",
    "Xforward",
    "Xtext",
    "after_reply",
    "parse_forward_path",
    "parse_hello",
    "parse_host",
    "parse_mailbox",
    "parse_reverse_path",
]

_HOMES: Final = (
    *("_error", "_reply", "_xtext", "_address", "_envelope", "_grammar"),
    *("_config", "_events", "_state", "_connection"),
)
"""Where the names are: first what a message needs that lies in the queue, then what only a session needs."""

if not TYPE_CHECKING:
    __getattr__, __dir__ = on_demand(__name__, __all__, _HOMES)
