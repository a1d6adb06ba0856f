"""A worker of ``serve --workers``: what its supervisor tells it at the start, and afterwards.

A socket, the channel, leads from each worker to the supervisor. The worker writes one octet when it takes mail; the
supervisor one for each time that the end is asked for, the number of the signal. Its one rule: whoever reads the end
of the channel knows that the other one has died, however that was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, final

_WORKER: Final = re.compile(r"(?P<number>[0-9]{1,9}):(?P<channel>[0-9]{1,9})(?P<sockets>(:[0-9]{1,9}(,[0-9]{1,9})*)+)")
_READY: Final = b"+"


@final
@dataclass(frozen=True, slots=True)
class Worker:
    """Which worker a process is, and the descriptors that it has inherited.

    ``channel``: to the supervisor. ``sockets``: for each role, in turn, those that listen.
    """

    number: int
    channel: int
    sockets: Sequence[Sequence[int]]

    def __str__(self) -> str:
        """Write it as ``read_worker`` reads it: ``NUMBER:CHANNEL:SOCKET,SOCKET:SOCKET``."""
        return ":".join([f"{self.number}:{self.channel}", *(",".join(map(str, each)) for each in self.sockets)])

    def tell_ready(self) -> None:
        """Tell the supervisor that mail is taken now."""
        with suppress(ConnectionError):  # it has died, which the end of the channel tells
            os.write(self.channel, _READY)


def read_worker(text: str) -> Worker:
    """Read what a supervisor has written; ValueError for anything else."""
    match = _WORKER.fullmatch(text)
    if match is None:
        msg = f"{text!r} is not written by a supervisor"
        raise ValueError(msg)
    sockets = [[int(each) for each in role.split(",")] for role in match["sockets"].removeprefix(":").split(":")]
    return Worker(int(match["number"]), int(match["channel"]), sockets)


def hear(channel: int) -> bytes:
    """Read what has come through a channel; nothing is its end."""
    try:
        return os.read(channel, 1)
    except ConnectionResetError:
        return b""  # it has died with something unread
