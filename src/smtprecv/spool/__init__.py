"""The durable store: what it promises, what it holds, and the implementation on SQLite."""

from smtprecv.spool._entry import Entry, Standing, Status
from smtprecv.spool._spool import Claim, Draft, FreshMail, Spool, all_entries

__all__ = ["Claim", "Draft", "Entry", "FreshMail", "Spool", "Standing", "Status", "all_entries"]
