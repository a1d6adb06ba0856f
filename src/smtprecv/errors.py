"""The exceptions above the protocol core.

A peer's faults are events and a refusal is a Reply; these are for what should not happen.
"""

from typing import final

from smtprecv.protocol import SmtprecvError


class SpoolError(SmtprecvError):
    """The spool could not do it now (disk error, lock not to be had). Nothing was promised; becomes 451 4.3.0."""


@final
class SpoolFull(SpoolError):
    """No room for another message; becomes 452 4.3.1."""


@final
class SpoolUnusable(SpoolError):
    """The spool cannot be opened: not writable, of a newer version, on a network file system. The text says which."""


@final
class CorruptEntry(SpoolError):
    """A message in the spool cannot be read. It is moved aside, never dropped."""


@final
class ConfigError(SmtprecvError):
    """A setting is wrong. The text names it and says why; the command prints it without a traceback."""
