"""The root of the exceptions, and the one that the protocol core raises."""

from typing import final


class SmtprecvError(Exception):
    """The root of all exceptions of this package."""


@final
class LocalProtocolError(SmtprecvError):
    """The caller of the core misspoke: a reply that no event waits for, or that cannot answer it."""
