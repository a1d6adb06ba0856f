"""The durable store: what it promises, what it holds, and the implementation on SQLite."""

from smtprecv.spool._document import Document, document_text, read_document
from smtprecv.spool._entry import Entry, Note, Standing, Status
from smtprecv.spool._open import open_spool
from smtprecv.spool._options import SpoolOptions
from smtprecv.spool._scratch import PassingBody, Scratch
from smtprecv.spool._spool import Change, Claim, Draft, FreshMail, Recorder, Spool, all_entries
from smtprecv.spool._thread import RunInThread
from smtprecv.spool._transactional import TransactionalSpool
from smtprecv.spool._tried import Answered, Tried

__all__ = [
    "Answered",
    "Change",
    "Claim",
    "Document",
    "Draft",
    "Entry",
    "FreshMail",
    "Note",
    "PassingBody",
    "Recorder",
    "RunInThread",
    "Scratch",
    "Spool",
    "SpoolOptions",
    "Standing",
    "Status",
    "TransactionalSpool",
    "Tried",
    "all_entries",
    "document_text",
    "open_spool",
    "read_document",
]
