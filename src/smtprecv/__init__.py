"""Receive mail by SMTP in a Trio program, with the guarantees that mail servers make.

A message answered 250 is on disk, and is tried until every recipient has it. The names here are
the public ones; ``protocol`` is the sans-IO core for programs that bring their own I/O, ``sasl`` has the
mechanisms of AUTH for them, ``control`` steers a queue, and ``testing`` has contract suites for your own parts.

Its one rule: a name costs nothing until it is asked for, so that a command that looks at the queue imports no server.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from smtprecv import control, protocol, sasl, testing
    from smtprecv.deliveries import (
        Chooser,
        Command,
        Format,
        Maildir,
        Mbox,
        Per,
        Relay,
        RelayTimeouts,
        Route,
        Router,
        Webhook,
        load_delivery,
        verify_signature,
    )
    from smtprecv.delivery import Attempt, Delivery, DeliveryCheck, DeliveryReports, DeliveryRun
    from smtprecv.dsn import NotifyPolicy
    from smtprecv.errors import ConfigError, CorruptEntry, SpoolError, SpoolFull, SpoolUnusable
    from smtprecv.hostname import own_hostname
    from smtprecv.message import Client, Message, Now, QueueId, Redirect, SessionId, utc_now
    from smtprecv.note import JsonNote, NoteCodec
    from smtprecv.policies import (
        AcceptDomains,
        Dnsbl,
        PasswordFile,
        on_authenticate,
        on_connect,
        on_data,
        on_hello,
        on_mail,
        on_message,
        on_rcpt,
    )
    from smtprecv.policy import (
        All,
        AuthPolicy,
        ConnectPolicy,
        DataPolicy,
        HelloPolicy,
        MailPolicy,
        MessagePolicy,
        Policy,
        RcptPolicy,
        ScramPolicy,
    )
    from smtprecv.protocol import (
        AddressLiteral,
        Body,
        ByMode,
        Config,
        DeliverBy,
        Dialect,
        Domain,
        EnhancedStatus,
        Envelope,
        ForwardPath,
        Hello,
        Host,
        LocalProtocolError,
        Mail,
        Mailbox,
        MailParameters,
        Notify,
        OriginalRecipient,
        Rcpt,
        RcptParameters,
        Recipient,
        Reply,
        Ret,
        ReversePath,
        Session,
        Severity,
        SmtprecvError,
        Tls,
        Xtext,
    )
    from smtprecv.queue import Bounces, Report, run_once, run_queue
    from smtprecv.relay import TlsMode
    from smtprecv.retry import Backoff, RetryPolicy
    from smtprecv.sasl import External, Identity, Password, ScramKeys
    from smtprecv.server import (
        ClientLookup,
        DirectIntake,
        Ident,
        Incoming,
        Intake,
        Limits,
        Listener,
        Network,
        Networks,
        Rate,
        ReverseDns,
        Role,
        Server,
        SpoolIntake,
        TlsFiles,
        TlsSource,
        UnixListener,
        address_of,
        listen,
        raise_file_limit,
    )
    from smtprecv.spool import (
        Answered,
        Change,
        Claim,
        Draft,
        Entry,
        FreshMail,
        Note,
        RunInThread,
        Spool,
        SpoolOptions,
        Standing,
        Status,
        Tried,
        all_entries,
        open_spool,
    )

__all__ = [
    "AcceptDomains",
    "AddressLiteral",
    "All",
    "Answered",
    "Attempt",
    "AuthPolicy",
    "Backoff",
    "Body",
    "Bounces",
    "ByMode",
    "Change",
    "Chooser",
    "Claim",
    "Client",
    "ClientLookup",
    "Command",
    "Config",
    "ConfigError",
    "ConnectPolicy",
    "CorruptEntry",
    "DataPolicy",
    "DeliverBy",
    "Delivery",
    "DeliveryCheck",
    "DeliveryReports",
    "DeliveryRun",
    "Dialect",
    "DirectIntake",
    "Dnsbl",
    "Domain",
    "Draft",
    "EnhancedStatus",
    "Entry",
    "Envelope",
    "External",
    "Format",
    "ForwardPath",
    "FreshMail",
    "Hello",
    "HelloPolicy",
    "Host",
    "Ident",
    "Identity",
    "Incoming",
    "Intake",
    "JsonNote",
    "Limits",
    "Listener",
    "LocalProtocolError",
    "Mail",
    "MailParameters",
    "MailPolicy",
    "Mailbox",
    "Maildir",
    "Mbox",
    "Message",
    "MessagePolicy",
    "Network",
    "Networks",
    "Note",
    "NoteCodec",
    "Notify",
    "NotifyPolicy",
    "Now",
    "OriginalRecipient",
    "Password",
    "PasswordFile",
    "Per",
    "Policy",
    "QueueId",
    "Rate",
    "Rcpt",
    "RcptParameters",
    "RcptPolicy",
    "Recipient",
    "Redirect",
    "Relay",
    "RelayTimeouts",
    "Reply",
    "Report",
    "Ret",
    "RetryPolicy",
    "ReverseDns",
    "ReversePath",
    "Role",
    "Route",
    "Router",
    "RunInThread",
    "ScramKeys",
    "ScramPolicy",
    "Server",
    "Session",
    "SessionId",
    "Severity",
    "SmtprecvError",
    "Spool",
    "SpoolError",
    "SpoolFull",
    "SpoolIntake",
    "SpoolOptions",
    "SpoolUnusable",
    "Standing",
    "Status",
    "Tls",
    "TlsFiles",
    "TlsMode",
    "TlsSource",
    "Tried",
    "UnixListener",
    "Webhook",
    "Xtext",
    "address_of",
    "all_entries",
    "control",
    "listen",
    "load_delivery",
    "on_authenticate",
    "on_connect",
    "on_data",
    "on_hello",
    "on_mail",
    "on_message",
    "on_rcpt",
    "open_spool",
    "own_hostname",
    "protocol",
    "raise_file_limit",
    "run_once",
    "run_queue",
    "sasl",
    "testing",
    "utc_now",
    "verify_signature",
]

_NAMESPACES: Final = frozenset({"control", "protocol", "sasl", "testing"})
_HOMES: Final = (
    *("protocol", "errors", "message", "hostname"),
    *("retry", "spool", "sasl", "dsn", "relay"),
    *("note", "delivery", "policy"),
    *("queue", "server", "deliveries", "policies"),
)
"""Where the names are, from the lowest layer up: to find one imports little but what stands below it anyway.

``Claim`` is the spool's; that of ``sasl`` is for its own namespace."""


def _attribute(name: str) -> object:
    """Import what has ``name``, keep it for the next time, and give it (PEP 562)."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found: object = import_module(f"{__name__}.{name}") if name in _NAMESPACES else _found(name)
    globals()[name] = found
    return found


def _found(name: str) -> object:
    homes = (import_module(f"{__name__}.{home}") for home in _HOMES)
    return next(getattr(home, name) for home in homes if hasattr(home, name))


def _names() -> Sequence[str]:
    return sorted({*globals(), *__all__})


# Type checkers know the names from the imports above, and must go on to refuse all others.
if not TYPE_CHECKING:
    __getattr__, __dir__ = _attribute, _names
