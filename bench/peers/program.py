"""The receivers of bench/servers/: programs of a page, each of which listens on a free port and says on which."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bench.peer import Running
from bench.process import count_files, started

_READY: Final = re.compile(r"listening on (\S+):(\d+)$", re.MULTILINE)
_SERVERS: Final = Path(__file__).parents[1] / "servers"


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is started with these words behind its name; `{folder}` in one is the run's folder."""

    name: str
    file: str
    word: str
    needs: str
    is_storing: bool = False

    def missing(self) -> str | None:
        return None if find_spec(self.needs) else f"the package {self.needs}"

    @contextmanager
    def running(self, folder: Path, connections: int = 0) -> Generator[Running]:
        log = folder / "log"
        command = [sys.executable, str(_SERVERS / self.file), self.word.format(folder=folder)]
        with started(command, log, lambda text: _READY.search(text) is not None) as pid:
            ready = _READY.search(log.read_text())
            assert ready is not None
            stored = partial(count_files, folder / "Maildir") if self.is_storing else None
            yield Running(pid, ready[1], int(ready[2]), stored)
