"""Ready-made deliveries."""

from smtprecv.deliveries._maildir import Maildir

__all__ = ["Maildir"]
