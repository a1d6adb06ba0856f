"""What is answered when our own system fails, or the network: never a permanent refusal."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from smtprecv.errors import SpoolError
from smtprecv.protocol import EnhancedStatus, Reply


class NetworkError(OSError):
    """Nobody answered; the text says why."""


BROKEN_OFF: Final = Reply(451, "the attempt was broken off", EnhancedStatus(4, 3, 2))
"""What those have who were not served when an attempt was cancelled that had served others."""

_STATUSES: Final[Mapping[int | None, tuple[int, EnhancedStatus]]] = {
    errno.ENOSPC: (452, EnhancedStatus(4, 3, 1)),
    errno.EDQUOT: (452, EnhancedStatus(4, 2, 2)),
}
_OTHER_STATUS: Final = (451, EnhancedStatus(4, 3, 0))
_NO_ANSWER: Final = EnhancedStatus(4, 4, 1)


def trouble(error: OSError | SpoolError) -> Reply:
    """Give the 4yz for an error of the system or the network, or of the queue when the message is read."""
    if isinstance(error, NetworkError):
        return Reply(451, str(error), _NO_ANSWER)
    number = error.errno if isinstance(error, OSError) else None
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    code, status = _STATUSES.get(number, _OTHER_STATUS)
    return Reply(code, text, status)
