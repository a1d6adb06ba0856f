"""Delivery status notifications (RFC 3464): who is told of what, and the report that tells him.

Pure: no clock, no randomness, no I/O; date and token are arguments, the original passes by in pieces. To make one:
``settled`` or ``delayed`` say what to report (nothing, mostly); ``returns_all`` says how much of the message comes
back; a ``Survey`` looks at it; ``notification`` gives what goes around it.
"""

from smtprecv.dsn._notification import Notification, notification
from smtprecv.dsn._original import Original, Survey
from smtprecv.dsn._rules import Action, NotifyPolicy, Outcome, delayed, reportable, returns_all, settled, wanted

__all__ = [
    "Action",
    "Notification",
    "NotifyPolicy",
    "Original",
    "Outcome",
    "Survey",
    "delayed",
    "notification",
    "reportable",
    "returns_all",
    "settled",
    "wanted",
]
