"""One run of a program that reads a message.

Its one rule: a program sees the end of its input only behind the last octet of the message. Where it is ended
instead (by the time, by cancellation, by a message that cannot be read), it is ended before its input is, with
whatever it has started in its process group. No process, zombie or open file is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import trio

from smtprecv.errors import SpoolError

_OUTPUT_SIZE: Final = 4096
_GRACE: Final = 2.0
"""Seconds between SIGTERM and SIGKILL."""
_LAST_WORDS: Final = 0.5
"""Seconds for which output is still read after the program has ended, where something that it started holds it open."""
_PAUSE: Final = 0.02


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """How a program has ended: its exit status, minus the signal that killed it; and the end of what it wrote."""

    status: int
    output: bytes


@final
class Program:
    """One run of ``argv``, without a shell, in a session of its own."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], folder: Path | None) -> None:
        """Take the settings; start nothing."""
        self._argv: Final = argv
        self._environment: Final = environment
        self._folder: Final = folder
        self._output = b""
        self._failure: SpoolError | None = None
        self._is_reaped = False

    async def run(self, octets: AbstractAsyncContextManager[AsyncIterator[bytes]]) -> Ended:
        """Run it to its end, with the octets as its input; what it does not read is dropped.

        OSError if it cannot be started, SpoolError if the octets cannot be read. Cancellation ends it, in 2 s at most.
        """
        process = await trio.lowlevel.open_process(
            list(self._argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env=dict(self._environment),
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, process.stdin, octets, nursery.cancel_scope)
                nursery.start_soon(self._read, process.stdout)
                status = await process.wait()
                self._is_reaped = True
                # How it has ended is known: no cancellation may lose that now.
                nursery.cancel_scope.shield = True
                nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORDS
        finally:
            with trio.CancelScope(shield=True):
                if not self._is_reaped:
                    await _end(process)
                await process.stdin.aclose()
                await process.stdout.aclose()
        if self._failure is not None:
            raise self._failure
        return Ended(status, self._output)

    async def _write(
        self,
        stdin: trio.abc.SendStream,
        octets: AbstractAsyncContextManager[AsyncIterator[bytes]],
        scope: trio.CancelScope,
    ) -> None:
        try:
            async with octets as pieces:
                async for piece in pieces:
                    await stdin.send_all(piece)
        except trio.BrokenResourceError:
            pass
        except SpoolError as error:
            self._failure = error
            scope.cancel()
            return
        await stdin.aclose()

    async def _read(self, stdout: trio.abc.ReceiveStream) -> None:
        while octets := await stdout.receive_some():
            self._output = (self._output + octets)[-_OUTPUT_SIZE:]


async def _end(process: trio.Process) -> None:
    """End a process group whose first process is not reaped yet, so that its id cannot mean another one."""
    os.killpg(process.pid, signal.SIGTERM)
    with trio.move_on_after(_GRACE):
        while not _has_ended(process.pid):  # noqa: ASYNC110  # nothing tells of an end and leaves it to be reaped
            await trio.sleep(_PAUSE)
    os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
