"""The names of messages: unique by construction, sortable by time.

Twenty characters of base32hex in lower case (RFC 4648 section 7): ten of time in milliseconds, four of
a counter in this process, six of the owner's random id. Nothing is looked up and nothing can collide
unless a process begins a million messages in one millisecond or two owners draw the same thirty bits.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
from itertools import count
from typing import Final, TypeGuard, final

from smtprecv.message import QueueId

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"
_PAIRS: Final = [first + second for first in _DIGITS for second in _DIGITS]
_TIME_WIDTH: Final = 10
_COUNTER_WIDTH: Final = 4
_OWNER_WIDTH: Final = 6
_OWNER_ID_WIDTH: Final = 16
_OWNER_ID: Final = re.compile(f"[{_DIGITS}]{{16}}")
_QUEUE_ID: Final = re.compile(f"[{_DIGITS}]{{20}}")
_BODY_FILE: Final = re.compile(rf"[{_DIGITS}]{{16}}\.[{_DIGITS}]{{20}}(\.[0-9]+)?")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)


def base32hex(number: int, width: int) -> str:
    """Write the lowest ``5 * width`` bits of a number so that texts are in the order of numbers; ``width`` is even."""
    return "".join([_PAIRS[number >> place & 1023] for place in range(5 * width - 10, -10, -10)])


def random_owner_id() -> str:
    """Draw the name of an owner: 80 random bits."""
    return base32hex(secrets.randbits(5 * _OWNER_ID_WIDTH), _OWNER_ID_WIDTH)


def is_owner_id(name: object) -> TypeGuard[str]:
    """Say whether a name could be an owner's; whatever else lies in the folder of owners is not the spool's."""
    return isinstance(name, str) and _OWNER_ID.fullmatch(name) is not None


def is_queue_id(name: object) -> TypeGuard[str]:
    """Say whether a name could be a message's."""
    return isinstance(name, str) and _QUEUE_ID.fullmatch(name) is not None


def is_body_file(name: object) -> TypeGuard[str]:
    """Say whether a name could be a body file's: owner, queue id, and a number if it is a second file of that body."""
    return isinstance(name, str) and _BODY_FILE.fullmatch(name) is not None


@final
class QueueIds:
    """Gives the queue ids of one owner."""

    def __init__(self, owner_id: str) -> None:
        """Name messages for the owner ``owner_id``."""
        self._tail = owner_id[:_OWNER_WIDTH]
        self._counter = count()
        self._milliseconds = 0
        self._head = base32hex(0, _TIME_WIDTH)

    def next(self, received: dt.datetime) -> QueueId:
        """Give the next id, for a message that begins to arrive at ``received``."""
        milliseconds = (received - _EPOCH) // _MILLISECOND
        if milliseconds != self._milliseconds:
            self._milliseconds, self._head = milliseconds, base32hex(milliseconds, _TIME_WIDTH)
        return QueueId(self._head + base32hex(next(self._counter), _COUNTER_WIDTH) + self._tail)
