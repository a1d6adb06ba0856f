"""What a client is told of our own faults: 4yz and a reference id, never a word of the fault itself.

Whether a policy or an intake has answered at all is judged here too: no answer is a fault of ours.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final

from smtprecv.errors import SpoolError, SpoolFull
from smtprecv.message import Client
from smtprecv.protocol import EnhancedStatus, Reply, Severity

_log: Final = logging.getLogger("smtprecv.server")

_INTERMEDIATE: Final = Severity.INTERMEDIATE
"""Under a name of its own, as an Enum is slow to find its members, and every reply of a hook is looked at."""


def local_error(client: Client, error: BaseException) -> Reply:
    """Log a fault of ours, with its traceback, and give the 451 for it."""
    reference = secrets.token_hex(4)
    _log.error("%s: local error, reference %s", client.session_id, reference, exc_info=error)
    return Reply(451, f"local error, try again later (reference {reference})", EnhancedStatus(4, 3, 0))


def spool_trouble(client: Client, error: SpoolError) -> Reply:
    """Log that the spool can't take mail, in one line, and give the 452 (no room) or 451 for it."""
    reference = secrets.token_hex(4)
    _log.error("%s: cannot take mail, reference %s: %s", client.session_id, reference, error)
    if isinstance(error, SpoolFull):
        return Reply(452, f"no room, try again later (reference {reference})", EnhancedStatus(4, 3, 1))
    return Reply(451, f"cannot store mail, try again later (reference {reference})", EnhancedStatus(4, 3, 0))


def is_final(reply: Reply) -> bool:
    """Say whether a reply is a yes or a no; 3yz is neither, and 221 answers QUIT alone (RFC 5321 section 4.3.2)."""
    return reply.severity is not _INTERMEDIATE and reply.code != 221
