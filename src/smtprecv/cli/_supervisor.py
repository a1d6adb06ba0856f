"""``serve --workers N``: binds once, and keeps N processes that accept from the same sockets.

Each worker is the same command in a fresh process, which inherits what listens; the kernel hands each connection to
one of them, and what waits in a backlog stays there when a worker dies. The one rule: the supervisor does nothing
that could fail as a worker may. It runs no loop of Trio, opens no queue and talks to no client; it waits.
"""

from __future__ import annotations

import logging
import math
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final, final

import trio

from smtprecv.cli._arguments import Options
from smtprecv.cli._ends import SIGNALS, asks_for_end, hangup_ends, ignored_behind
from smtprecv.cli._listening import Listening, open_listeners
from smtprecv.cli._serve import make_plan
from smtprecv.cli._worker import Worker, hear
from smtprecv.server import UnixListener

_log: Final = logging.getLogger("smtprecv.serve")

_DELAYS: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds until a worker starts again after its first, second … death in a row; the last one from then on."""
_LONG_LIFE: Final = 60.0
"""Seconds of life behind which a death is the first in a row."""


def supervise(options: Options, argv: Sequence[str]) -> int:
    """Serve by ``--workers`` processes until SIGTERM or SIGINT, which drain them; a second one cuts that short.

    The first worker goes ahead: if it ends before it takes mail, its status is the command's. From then on a worker
    that ends is replaced, whatever the reason. Status 0 if all of them drained, 1 if one of them failed at that.
    Should the supervisor die, its workers drain. ConfigError and OSError are as those of ``serve``.
    """
    make_plan(options)
    supervisor = _Supervisor(options.workers, argv, trio.run(open_listeners, options))
    with ignored_behind(), _wakened() as signals:
        return supervisor.run(signals)


def restart(deaths: int, lived: float) -> tuple[int, float]:
    """Give how many times in a row a worker has died, with the death after this life, and the seconds to wait now."""
    deaths = 1 if lived >= _LONG_LIFE else deaths + 1
    return deaths, _DELAYS[min(deaths, len(_DELAYS)) - 1]


@final
@dataclass(slots=True)
class _Life:
    """A process, from its start to its death."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    began: float
    is_ready: bool = False


@final
@dataclass(slots=True)
class _Place:
    """The place of one worker, in which its processes follow each other."""

    number: int
    due: float
    life: _Life | None = None
    deaths: int = 0


@final
class _Supervisor:
    """Starts the workers, replaces those that die, and ends them."""

    def __init__(self, count: int, argv: Sequence[str], listening: Sequence[Listening]) -> None:
        """Take over what listens."""
        self._argv: Final = argv
        self._listeners: Final = [listener for each in listening for listener in each.listeners]
        self._sockets: Final = [[listener.socket.fileno() for listener in each.listeners] for each in listening]
        self._lines: Final = [line for each in listening for line in each.lines]
        self._places: Final = [_Place(1, due=0.0), *(_Place(number, due=math.inf) for number in range(2, count + 1))]
        self._selector: Final = selectors.DefaultSelector()
        self._hangup_ends: Final = hangup_ends()
        self._is_ready = False
        self._is_ending = False
        self._status = 0

    def run(self, signals: socket.socket) -> int:
        """Keep the workers until all have ended, and give the exit status."""
        with self._selector:
            self._selector.register(signals, selectors.EVENT_READ)
            try:
                self._start_due()
                while not self._is_ending or self._is_anyone_left:
                    ready = {key.fd for key, _ in self._selector.select(self._patience)}
                    if signals.fileno() in ready:
                        self._heed(signals.recv(1))
                    for place in self._places:
                        if place.life is not None and place.life.channel.fileno() in ready:
                            self._hear(place, place.life)
                    self._start_due()
            finally:
                self._close_listeners()
        return self._status

    @property
    def _is_anyone_left(self) -> bool:
        return any(place.life is not None for place in self._places)

    @property
    def _patience(self) -> float | None:
        """The seconds to the next start, at most; None without one."""
        due = min(place.due for place in self._places)
        return None if due == math.inf else max(0.0, due - time.monotonic())

    def _start_due(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if place.due <= now:
                place.due = math.inf
                try:
                    place.life = self._start(place.number)
                except OSError as error:
                    self._lose(place, f"could not be started ({error.strerror})", 0.0)
                else:
                    self._selector.register(place.life.channel, selectors.EVENT_READ)

    def _start(self, number: int) -> _Life:
        """Start a process: in a session of its own, as Ctrl-C is for the supervisor alone."""
        ours, theirs = socket.socketpair()
        with theirs:
            worker = Worker(number, theirs.fileno(), self._sockets)
            place = self._argv.index("serve") + 1
            try:
                process = subprocess.Popen(  # noqa: S603  # this very command
                    [*_program(), *self._argv[:place], "--worker", str(worker), *self._argv[place:]],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), *(listening for role in self._sockets for listening in role)],
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        return _Life(process, ours, time.monotonic())

    def _hear(self, place: _Place, life: _Life) -> None:
        """Take what a worker says: that it is ready, or, by the end of its channel, that it has died."""
        if hear(life.channel.fileno()):
            life.is_ready = True
            _log.info("worker %d is process %d", place.number, life.process.pid)
            self._begin()
            return
        self._selector.unregister(life.channel)
        life.channel.close()
        place.life = None
        code = life.process.wait()
        if self._is_ending and (code == 0 or not life.is_ready):
            return
        how = f"ended with status {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        self._lose(place, how, time.monotonic() - life.began, max(1, code))

    def _begin(self) -> None:
        """Say that mail is taken, and let the others follow, once."""
        if self._is_ready:
            return
        self._is_ready = True
        for line in self._lines:
            _log.info("%s", line)
        if not self._is_ending:
            for place in self._places[1:]:
                place.due = 0.0

    def _lose(self, place: _Place, how: str, lived: float, status: int = 1) -> None:
        """Replace a worker that is gone, unless nothing has begun yet, or all are ending."""
        if self._is_ending:
            self._status = 1
            _log.warning("worker %d %s", place.number, how)
        elif not self._is_ready:
            self._status = status
            self._is_ending = True
            _log.error("worker %d %s before it took mail", place.number, how)
        else:
            place.deaths, delay = restart(place.deaths, lived)
            place.due = time.monotonic() + delay
            _log.warning("worker %d %s, the next one starts in %g s", place.number, how, delay)

    def _heed(self, signals: bytes) -> None:
        """Pass on a signal that asks for the end, by the channels, as it may have come to the workers too."""
        if not asks_for_end(signals[0], hangup_ends=self._hangup_ends):
            return
        if not self._is_ending:
            _log.info("%s: the workers end", signal.Signals(signals[0]).name)
        self._is_ending = True
        self._close_listeners()
        for place in self._places:
            place.due = math.inf
            if place.life is not None:
                with suppress(OSError):  # it has died, which its channel tells
                    place.life.channel.sendall(signals)

    def _close_listeners(self) -> None:
        """Close what listens, files of Unix sockets included; outside of Trio, whose sockets would want it."""
        while self._listeners:
            listener = self._listeners.pop()
            if isinstance(listener, UnixListener):
                listener.remove_file()
            socket.close(listener.socket.detach())


def _program() -> list[str]:
    """Give what starts this program: with the working folder among Python's only where it is there in this process."""
    safe = [] if sys.modules["__main__"].__spec__ is not None else ["-P"]
    return [sys.executable, *safe, "-m", "smtprecv"]


def _wake(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the number comes through the socket. What is ignored would stay so in the workers."""


@contextmanager
def _wakened() -> Generator[socket.socket, None, None]:
    """Give a socket through which comes the number of each signal."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)  # noqa: FBT003  # its own word for it
        writer.setblocking(False)  # noqa: FBT003
        for number in SIGNALS:
            signal.signal(number, _wake)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(before)
