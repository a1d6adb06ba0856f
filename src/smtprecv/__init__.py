"""Receive mail by SMTP in a Trio program, with the guarantees that mail servers make.

A message answered 250 is on disk, and is tried until every recipient has it. The names here are
the public ones; ``protocol`` is the sans-IO core for programs that bring their own I/O, and
``testing`` holds contract suites for your own implementations.
"""

from smtprecv import protocol, testing
from smtprecv.deliveries import Maildir
from smtprecv.delivery import Attempt, Delivery, DeliveryCheck
from smtprecv.errors import ConfigError, CorruptEntry, SpoolError, SpoolFull, SpoolUnusable
from smtprecv.hostname import own_hostname
from smtprecv.message import Client, Message, Now, QueueId, SessionId, utc_now
from smtprecv.note import JsonNote, NoteCodec
from smtprecv.policies import AcceptDomains
from smtprecv.policy import ConnectPolicy, DataPolicy, HelloPolicy, MailPolicy, Policy, RcptPolicy
from smtprecv.protocol import (
    AddressLiteral,
    Body,
    Config,
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
    Rcpt,
    Recipient,
    Reply,
    ReversePath,
    Session,
    Severity,
    SmtprecvError,
)
from smtprecv.queue import Report, run_once, run_queue
from smtprecv.retry import Backoff, RetryPolicy
from smtprecv.server import Incoming, Intake, Limits, Server, SpoolIntake, address_of, listen, raise_file_limit
from smtprecv.spool import (
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
    all_entries,
    open_spool,
)

__all__ = [
    "AcceptDomains",
    "AddressLiteral",
    "Attempt",
    "Backoff",
    "Body",
    "Claim",
    "Client",
    "Config",
    "ConfigError",
    "ConnectPolicy",
    "CorruptEntry",
    "DataPolicy",
    "Delivery",
    "DeliveryCheck",
    "Domain",
    "Draft",
    "EnhancedStatus",
    "Entry",
    "Envelope",
    "ForwardPath",
    "FreshMail",
    "Hello",
    "HelloPolicy",
    "Host",
    "Incoming",
    "Intake",
    "JsonNote",
    "Limits",
    "LocalProtocolError",
    "Mail",
    "MailParameters",
    "MailPolicy",
    "Mailbox",
    "Maildir",
    "Message",
    "Note",
    "NoteCodec",
    "Now",
    "Policy",
    "QueueId",
    "Rcpt",
    "RcptPolicy",
    "Recipient",
    "Reply",
    "Report",
    "RetryPolicy",
    "ReversePath",
    "RunInThread",
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
    "address_of",
    "all_entries",
    "listen",
    "open_spool",
    "own_hostname",
    "protocol",
    "raise_file_limit",
    "run_once",
    "run_queue",
    "testing",
    "utc_now",
]
