"""Exim, an instance of our own under the folder of the run, into its queue only.

Started by root it receives as its own user, so its folder must be where every user may go. Nothing is looked up in the
DNS, no limit of a client's connections, the log goes to files of its own.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.peer import Running
from bench.peers.postfix import accepts, reserved_port
from bench.process import find, started

CONFIGURATION: Final = """\
primary_hostname = mx.example.org
spool_directory = {folder}/spool
log_file_path = {folder}/exim-%s.log
local_interfaces = 127.0.0.1.{port}
queue_only
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = {connections}
smtp_connect_backlog = 1024
message_size_limit = 0
acl_smtp_rcpt = all
acl_smtp_data = all
begin acl
all:
  accept
"""
"""Exim's specification, chapter 14. A connection may bring more than 10 messages, all are queued."""


@dataclass(frozen=True, slots=True)
class Exim:
    """A way to run Exim."""

    name: str

    def missing(self) -> str | None:
        if _program() is None:
            return "Exim"
        return None if os.geteuid() == 0 else "root, who starts Exim"

    @contextmanager
    def running(self, folder: Path, connections: int = 0) -> Generator[Running]:
        folder.chmod(0o777)  # its own user makes the queue
        with reserved_port() as port:
            configuration = CONFIGURATION.format(folder=folder, port=port, connections=connections or 1000)
            (folder / "configuration").write_text(configuration)
            command = [_program() or "exim", "-C", str(folder / "configuration"), "-bdf"]
            with started(command, folder / "output", lambda _: accepts(port)) as pid:
                yield Running(pid, "127.0.0.1", port)


def _program() -> str | None:
    return find("exim4") or find("exim")
