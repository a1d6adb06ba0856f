"""A running `smtprecv serve`, for the tests that talk to a real process or kill one.

Its one rule: nothing waits for a time, everything waits for a fact, with a deadline. A `Served` ends
the process that it started, and no other.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import trio

from smtprecv import open_spool

COMMAND: Final = (sys.executable, "-m", "smtprecv")

_READY: Final = re.compile(r"listening on (\S+):(\d+)$", re.MULTILINE)
_PAUSE: Final = 0.01
_DEADLINE: Final = 120.0


def until(fact: Callable[[], bool], what: str, seconds: float = _DEADLINE) -> None:
    """Return when `fact()` holds; AssertionError that names `what` if it does not in time."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(_PAUSE)


def smtprecv(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run another command of smtprecv to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=_DEADLINE
    )


class Served:
    """One `smtprecv serve`, listening when the constructor returns.

    `folder` holds everything: `queue`, `maildir` and the log of each run. For a restart, make another one
    with the same folder (and `port`). `prefix` stands before the command (`strace …`), `env` is added to
    the environment. `deliver` is the path of the Maildir below `folder`, or a template whose placeholders begin
    a path component (`Maildir/{local_part}`); None leaves `--deliver` out.
    As a context manager it kills on leaving what still runs.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int = 0,
        deliver: str | None = "Maildir",
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start, and wait until the server listens; AssertionError with its log if it does not."""
        self.folder: Final = folder
        self.queue: Final = folder / "queue"
        self.maildir: Final = folder / (deliver or "Maildir").partition("/{")[0]
        runs = len(list(folder.glob("log.*")))
        self._log: Final = folder / f"log.{runs}"
        listen = ["--listen", f"127.0.0.1:{port}", "--queue", str(self.queue), "--hostname", "mx.example.com"]
        delivery = [] if deliver is None else ["--deliver", f"maildir:{folder / deliver}"]
        with self._log.open("wb") as log:
            self._process: Final = subprocess.Popen(
                [*prefix, *COMMAND, "serve", *listen, *delivery, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        try:
            until(lambda: self._process.poll() is not None or _READY.search(self.log) is not None, "listening")
            ready = _READY.search(self.log)
            assert ready is not None, f"the server did not start: {self.log}"
            self.host: Final = ready[1]
            self.port: Final = int(ready[2])
            self.pid: Final = _descendant(self._process.pid) if prefix else self._process.pid
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        """What the server wrote to standard error (and output) in this run."""
        return self._log.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    @property
    def address(self) -> str:
        """Where it listens, HOST:PORT."""
        return f"{self.host}:{self.port}"

    def listener(self, role: str) -> str:
        """Give where it listens in another role, TLS or LMTP: HOST:PORT, or a path."""
        line = re.compile(rf"listening on (\S+) \({role}\)$", re.MULTILINE)
        until(lambda: line.search(self.log) is not None, f"listening ({role})")
        found = line.search(self.log)
        assert found is not None
        return found[1]

    def files(self, part: str = "new") -> list[Path]:
        """Give the files in a folder below `maildir`, which may not be there yet."""
        folder = self.maildir / part
        return sorted(folder.iterdir()) if folder.exists() else []

    def await_files(self, count: int, part: str = "new", seconds: float = _DEADLINE) -> list[Path]:
        """Wait for `count` files in a folder below `maildir`, and give them; more is an AssertionError."""
        folder = self.maildir / part
        until(
            lambda: folder.exists() and sum(1 for _ in os.scandir(folder)) >= count, f"{count} files in {part}", seconds
        )
        files = self.files(part)
        assert len(files) == count
        return files

    def await_log(self, text: str, seconds: float = _DEADLINE) -> None:
        """Wait until the log has `text`."""
        until(lambda: text in self.log, f"{text!r} in the log", seconds)

    def showqueue(self, *arguments: str) -> str:
        """Give what `showqueue` prints."""
        result = smtprecv("showqueue", "--queue", self.queue, *arguments)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    def await_empty_queue(self, seconds: float = _DEADLINE) -> None:
        """Wait until the queue is empty."""
        until(lambda: trio.run(_is_empty, self.queue), "an empty queue", seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = _DEADLINE) -> int:
        """Wait until the process has ended, and give its exit status: minus the signal that killed it."""
        return self._process.wait(seconds)

    def terminate(self, seconds: float = _DEADLINE) -> None:
        """Ask the server to end, and see that it drains and exits with 0."""
        self.signal(signal.SIGTERM)
        assert self.wait(seconds) == 0, self.log

    def kill(self) -> None:
        """End the server without warning."""
        if self.is_running:
            self.signal(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """End whatever still runs of what was started."""
        if self.is_running:
            # First the server: a tracer that dies before it would leave it running.
            with suppress(ProcessLookupError):
                os.kill(_descendant(self._process.pid), signal.SIGKILL)
            self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End whatever still runs."""
        self.close()


async def _is_empty(queue: Path) -> bool:
    """Look into a queue beside its server, without the cost of a `showqueue`."""
    async with open_spool(queue, create=False) as spool:
        return not await spool.entries()


def _descendant(pid: int) -> int:
    """Give the process at the end of the chain of first children: the server behind `strace`, or itself."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid
