"""Dovecot's LMTP server, which puts what it is given into Maildirs.

It needs root, as Dovecot does: it starts its processes as other users. So its folder must be where every user may go:
the fixture `open_folder`.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
from tests.e2e import programs
from tests.e2e.peers.daemon import Daemon

OWNER: Final = "dovecot"

_CONFIGURATION: Final = """\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = /dev/stderr
protocols = lmtp
listen = 127.0.0.1
ssl = no
mail_location = maildir:{folder}/mail/%u
first_valid_uid = 1
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={owner} gid={owner} home={folder}/mail/%u allow_all_users=yes
}}
service lmtp {{
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
}}
"""


class Dovecot:
    """A server that listens at `socket` when the constructor returns; every mailbox is there."""

    def __init__(self, folder: Path) -> None:
        """Start one in a folder that is not there yet. Skips the test unless run by root."""
        if os.geteuid() != 0:
            pytest.skip("Dovecot's master must be started by root")
        dovecot = programs.find("dovecot")
        self.socket: Final = folder / "lmtp"
        self._mail: Final = folder / "mail"
        self._mail.mkdir(parents=True)
        (folder / "run").mkdir()
        shutil.chown(self._mail, OWNER, OWNER)
        configuration = folder / "dovecot.conf"
        configuration.write_text(_CONFIGURATION.format(folder=folder, owner=OWNER))
        # Were the tests killed, the kernel would end it.
        guarded = ["setpriv", "--pdeathsig", "KILL", dovecot, "-F", "-c", str(configuration)]
        self._daemon: Final = Daemon(folder / "log", *guarded)
        try:
            self._daemon.wait(self._is_there, "Dovecot listening")
        except BaseException:
            self._daemon.end()
            raise

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._daemon.log

    def _is_there(self) -> bool:
        return self.socket.exists() and stat.S_ISSOCK(self.socket.stat().st_mode)

    def messages(self) -> list[tuple[str, Path]]:
        """Give each message that is delivered: whose it is, and its file."""
        return [(file.parents[1].name, file) for file in self._mail.glob("*/new/*")]

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server."""
        self._daemon.end()
