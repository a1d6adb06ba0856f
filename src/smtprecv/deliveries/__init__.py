"""Ready-made deliveries."""

from smtprecv.deliveries._command import Command
from smtprecv.deliveries._maildir import Maildir
from smtprecv.deliveries._relay import Relay
from smtprecv.deliveries._wire import RelayTimeouts

__all__ = ["Maildir", "Relay", "RelayTimeouts"]
from smtprecv.deliveries._mbox import Mbox
from smtprecv.deliveries._per import Per

__all__ = ["Command", "Maildir", "Mbox", "Per"]
