"""Other people's servers: a process in the foreground, what it says, and its end.

Its one rule: what is started ends with the test, and all that it started in turn: a daemon leads a process group of
its own, which is killed without warning, since its folder is thrown away.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.e2e import programs
from tests.e2e.served import until


class Daemon:
    """A server's process, and the log of what it writes to standard output and standard error."""

    def __init__(self, log: Path, program: str, *arguments: str, inherited: Sequence[socket.socket] = ()) -> None:
        """Start a program that stays in the foreground; it inherits these sockets under their numbers."""
        self._log: Final = log
        with log.open("wb") as output:
            self._process: Final = subprocess.Popen(
                [programs.find(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[each.fileno() for each in inherited],
            )

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(errors="replace")

    def wait(self, fact: Callable[[], bool], what: str) -> None:
        """Return when `fact()` holds; AssertionError with the log if the process ends before, or time runs out."""
        until(lambda: self._process.poll() is not None or fact(), what)
        assert self._process.poll() is None, f"not to be had, {what}: {self.log}"

    def end(self) -> None:
        """Kill the process group; if its leader has ended before, the others have seen that and end too."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def accepts(port: int) -> bool:
    """Tell whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
