"""This receiver, as its command is started: into its queue only, into a Maildir, with two processes, inside TLS."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import trustme
from bench.peer import Running, Tls
from bench.process import count_files, started

_READY: Final = re.compile(r"listening on (\S+):(\d+)(?: .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Smtprecv:
    """A way to start `smtprecv serve`; each setting that is not named is as it is by default."""

    name: str
    is_delivering: bool = False
    workers: int = 1
    tls: Tls = Tls.NONE

    def missing(self) -> str | None:
        return None

    @contextmanager
    def running(self, folder: Path, connections: int = 0) -> Generator[Running]:
        with listening(self.command(folder, connections), folder / "log", self.workers) as running:
            stored = partial(count_files, folder / "Maildir") if self.is_delivering else None
            yield replace(running, stored=stored, tls=self.tls)

    def command(self, folder: Path, connections: int) -> Sequence[str]:
        """Give the command."""
        listen = "--tls-listen" if self.tls is Tls.IMPLICIT else "--listen"
        where = ["--queue", str(folder / "queue"), "--deliver", f"maildir:{folder / 'Maildir'}", listen, "127.0.0.1:0"]
        limits = ("--max-connections", "--max-connections-per-client") if connections else ()
        return [
            *(sys.executable, "-m", "smtprecv", "serve", *where),
            *([] if self.is_delivering else ["--no-runqueue"]),
            *(["--workers", str(self.workers)] if self.workers > 1 else []),
            *(word for limit in limits for word in (limit, str(connections))),
            *([] if self.tls is Tls.NONE else certificate(folder)),
        ]


@contextmanager
def listening(command: Sequence[str], log: Path, workers: int = 1) -> Generator[Running]:
    """Run a command of smtprecv that serves; it is ready when all of its processes are."""
    last = rf"worker {workers} is process \d+$" if workers > 1 else ""

    def is_ready(text: str) -> bool:
        return _READY.search(text) is not None and re.search(last, text, re.MULTILINE) is not None

    with started(command, log, is_ready) as pid:
        ready = _READY.search(log.read_text())
        assert ready is not None
        yield Running(pid, ready[1], int(ready[2]))


def certificate(folder: Path) -> Sequence[str]:
    """Make a certificate, and give the options that name it."""
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    return ["--tls-cert", str(folder / "certificate.pem"), "--tls-key", str(folder / "key.pem")]
