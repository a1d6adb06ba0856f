"""Ready-made deliveries."""

from smtprecv.deliveries._command import Command
from smtprecv.deliveries._maildir import Maildir
from smtprecv.deliveries._relay import Relay
from smtprecv.deliveries._wire import RelayTimeouts

__all__ = ["Maildir", "Relay", "RelayTimeouts"]
from smtprecv.deliveries._mbox import Mbox
from smtprecv.deliveries._payload import Format
from smtprecv.deliveries._per import Per
from smtprecv.deliveries._signature import verify_signature
from smtprecv.deliveries._webhook import Webhook

__all__ = ["Command", "Format", "Maildir", "Mbox", "Per", "Webhook", "verify_signature"]
