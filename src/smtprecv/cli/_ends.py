"""How ``serve`` is told to end: by signals, or, as a worker, by its supervisor.

Its one rule: the first word begins the drain and the second one cuts it short, whoever says them.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, final

import trio

from smtprecv.cli._worker import Worker, hear

_log: Final = logging.getLogger("smtprecv.serve")

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that the command takes."""


class Ends(Protocol):
    """Whoever asks for the end."""

    async def next(self) -> str:
        """Wait until it is asked for once more, and give the words of the log for that."""
        ...


@final
@dataclass(frozen=True, slots=True)
class _SignalEnds:
    """The signals that ask for the end, among those that come."""

    signals: AsyncIterator[int]
    hangup_ends: bool

    async def next(self) -> str:
        """Wait for the next one, and give its name."""
        while True:
            number = await anext(self.signals)
            if asks_for_end(number, hangup_ends=self.hangup_ends):
                return signal.Signals(number).name


def asks_for_end(number: int, *, hangup_ends: bool) -> bool:
    """Say whether this signal asks for the end; the log says why it does not."""
    if number != signal.SIGHUP or hangup_ends:
        return True
    _log.info("SIGHUP: nothing to do, the certificate and the users are read again when they change")
    return False


def hangup_ends() -> bool:
    """Say whether SIGHUP is the end: where the log goes to a terminal. Asked early: one that is gone is none."""
    return sys.stderr.isatty()


@final
class _Orders:
    """What the supervisor asks for: each time the end; and once, when it has died, the same without a word."""

    def __init__(self, channel: int) -> None:
        """Listen to a channel, which no child gets."""
        os.set_inheritable(channel, False)  # noqa: FBT003  # its own word for it
        self._channel: Final = channel
        self._is_asked = False

    async def next(self) -> str:
        """Wait for the next order, and give the name of the signal behind it; a death after an order is none."""
        await trio.lowlevel.wait_readable(self._channel)
        order = hear(self._channel)
        if not order and self._is_asked:
            await trio.sleep_forever()
        self._is_asked = True
        return signal.Signals(order[0]).name if order else "the supervisor has died"


@contextmanager
def ends_for(worker: Worker | None) -> Generator[Ends, None, None]:
    """Receive the signals of the command, which are nothing to a worker: its supervisor has them too."""
    with ignored_behind(), trio.open_signal_receiver(*SIGNALS) as signals:
        yield _SignalEnds(signals, hangup_ends()) if worker is None else _Orders(worker.channel)


@contextmanager
def ignored_behind() -> Generator[None, None, None]:
    """Ignore the signals of the command behind a block that ended well, as the command is ending."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise
