"""A `serve --workers` that runs, and its processes: found by what the log says, stopped, and ended."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.e2e.served import Served, until

_PROCESS: Final = re.compile(r"worker (\d+) is process (\d+)$", re.MULTILINE)


def processes(served: Served) -> list[int]:
    """Give the processes of all workers that there have been."""
    return [int(pid) for _, pid in _PROCESS.findall(served.log)]


def workers(served: Served) -> dict[int, int]:
    """Give the process of each worker, as the log names the last one."""
    return {int(number): int(pid) for number, pid in _PROCESS.findall(served.log)}


@contextmanager
def serving_by(folder: Path, *options: str, count: int = 2, port: int = 0) -> Iterator[Served]:
    """Serve by so many workers, all of which take mail; whatever still runs behind the block is killed."""
    with Served(folder, "--workers", str(count), *options, port=port) as served:
        try:
            until(lambda: len(workers(served)) == count, "the workers")
            yield served
        finally:
            for pid in processes(served):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def is_over(pid: int) -> bool:
    """Say whether a process has ended, though perhaps nobody has waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
