"""Ready-made deliveries."""

from smtprecv.deliveries._command import Command
from smtprecv.deliveries._load import load_delivery
from smtprecv.deliveries._maildir import Maildir
from smtprecv.deliveries._mbox import Mbox
from smtprecv.deliveries._payload import Format
from smtprecv.deliveries._per import Per
from smtprecv.deliveries._relay import Relay
from smtprecv.deliveries._router import Chooser, Route, Router
from smtprecv.deliveries._signature import verify_signature
from smtprecv.deliveries._webhook import Webhook
from smtprecv.deliveries._wire import RelayTimeouts

__all__ = [
    "Chooser",
    "Command",
    "Format",
    "Maildir",
    "Mbox",
    "Per",
    "Relay",
    "RelayTimeouts",
    "Route",
    "Router",
    "Webhook",
    "load_delivery",
    "verify_signature",
]
