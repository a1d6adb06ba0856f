"""What is answered when our own system fails: never a permanent refusal."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from smtprecv.errors import SpoolError
from smtprecv.protocol import EnhancedStatus, Reply

_STATUSES: Final[Mapping[int | None, tuple[int, EnhancedStatus]]] = {
    errno.ENOSPC: (452, EnhancedStatus(4, 3, 1)),
    errno.EDQUOT: (452, EnhancedStatus(4, 2, 2)),
}
_OTHER_STATUS: Final = (451, EnhancedStatus(4, 3, 0))


def trouble(error: OSError | SpoolError) -> Reply:
    """Give the 4yz for an error of the system, or of the queue when the message is read."""
    number = error.errno if isinstance(error, OSError) else None
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    code, status = _STATUSES.get(number, _OTHER_STATUS)
    return Reply(code, text, status)
