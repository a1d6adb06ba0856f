"""Servers as processes: started, watched from outside, ended.

What is measured of a server is read from /proc, of the whole tree of its processes; its one rule is that nothing that
was started here is left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

DEADLINE: Final = 120.0
"""Seconds after which a server that does not get ready, or does not deliver, is given up."""
GRACE: Final = 20.0
"""Seconds that a server has to end."""


class Trouble(SystemExit):
    """Something that is measured did not do what it should; ends a program that does not catch it, with the reason."""


class Ended(SystemExit):
    """This program was told to end."""


def until(fact: Callable[[], bool], what: str, pause: float) -> None:
    """Return when the fact holds; Trouble that names it if it does not in time."""
    deadline = time.monotonic() + DEADLINE
    while not fact():
        if time.monotonic() > deadline:
            reason = f"not within {DEADLINE:g} s: {what}"
            raise Trouble(reason)
        time.sleep(pause)


def find(program: str) -> str | None:
    """Give the path of a program of the system, None if it is not installed."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextmanager
def started(command: Sequence[str], log: Path, is_ready: Callable[[str], bool]) -> Generator[int]:
    """Run a server in a process group of its own; give its pid once its log or its port says that it is ready."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            until(lambda: process.poll() is not None or is_ready(log.read_text(errors="replace")), "ready", 0.02)
            if process.poll() is not None:
                reason = f"{' '.join(command)} did not start: {log.read_text(errors='replace')}"
                raise Trouble(reason)
            yield process.pid
        finally:
            end(process)


def end_at_sigterm() -> None:
    """Let SIGTERM end this program as an exception does, so that what it started ends, too."""

    def leave(number: int, frame: FrameType | None) -> None:
        reason = f"ended by signal {number}"
        raise Ended(reason)

    signal.signal(signal.SIGTERM, leave)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a server to end, and kill what is left of its process group then, or after a while."""
    if process.poll() is not None:
        return
    process.terminate()
    deadline = time.monotonic() + GRACE
    # While its leader was not waited for, the number of the group is nobody else's.
    unseen = os.WEXITED | os.WNOWAIT | os.WNOHANG
    while os.waitid(os.P_PID, process.pid, unseen) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tree(pid: int) -> Iterator[int]:
    """Give a process and all that descend from it and live."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from tree(int(child))


def total(pid: int, of: Callable[[int], float]) -> float:
    """Give the sum over a tree of processes, as it is at one moment: not while one of them ends."""
    while True:
        try:
            return sum(of(each) for each in [*tree(pid)])
        except (FileNotFoundError, ProcessLookupError):
            if not Path(f"/proc/{pid}").exists():
                raise


def cpu_seconds(pid: int) -> float:
    """Give the user and system time of a process, of its children and of those that have ended and were waited for."""
    return total(pid, _own_cpu)


def _own_cpu(pid: int) -> float:
    # proc(5), fields 14 to 17: utime, stime, cutime, cstime
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, numbers[11:15])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Give the octets of memory of a tree of processes, what they share divided among those who share it."""
    return total(pid, _own_memory)


def _own_memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def resident(pid: int) -> float:
    """Give the resident octets of a tree of processes: quickly, what they share counted for each."""
    return total(pid, lambda each: int(Path(f"/proc/{each}/statm").read_text().split()[1])) * os.sysconf("SC_PAGESIZE")


def descriptors(pid: int) -> float:
    """Count the open descriptors of a tree of processes."""
    return total(pid, lambda each: _entries(f"/proc/{each}/fd"))


def threads(pid: int) -> float:
    """Count the threads of a tree of processes."""
    return total(pid, lambda each: _entries(f"/proc/{each}/task"))


def _entries(folder: str) -> int:
    return sum(1 for _ in os.scandir(folder))


def count_files(folder: Path) -> int:
    """Count the messages in a Maildir, which may not be there yet."""
    new = folder / "new"
    return _entries(str(new)) if new.exists() else 0
