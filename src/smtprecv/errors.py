"""The exceptions above the protocol core.

A peer's faults are events and a refusal is a Reply; these are for what should not happen.
"""

from collections.abc import Mapping
from typing import TypeGuard, final

from smtprecv.message import Commit
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
class CommitFailed(SpoolError):
    """Functions of the program's that were to run in the transaction raised: nothing of it was done.

    ``failures``: what each of them raised. Record again, without them.
    """

    def __init__(self, failures: Mapping[Commit, Exception]) -> None:
        """Tell of functions that raised."""
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        """Say what they raised."""
        return ", ".join(f"{type(error).__name__}: {error}" for error in self.failures.values())


def cancellation_in(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give the first exception in a group that is no ``Exception``: as a rule, a cancellation.

    A user's nursery gives such a group when it is cancelled and something in it fails at that. What failed is
    to be logged; the cancellation must go on, and alone, or it would end more than it was meant to.
    """
    exceptions: list[BaseException] = [group]
    for exception in exceptions:
        if is_group(exception):
            exceptions += exception.exceptions
        elif not isinstance(exception, Exception):
            return exception
    return group


def is_group(error: BaseException) -> TypeGuard[BaseExceptionGroup[BaseException]]:
    """Say whether an exception holds others."""
    return isinstance(error, BaseExceptionGroup)


@final
class ConfigError(SmtprecvError):
    """A setting is wrong. The text names it and says why; the command prints it without a traceback."""
