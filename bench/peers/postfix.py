"""Postfix, an instance of our own under the folder of the run: into its queue only (all mail is held), or a Maildir.

It must be started by root, as it runs its processes as other users; so its folder must be where every user may go.
The settings are those of a busy server (100 processes of a kind, no look-up in the DNS, no pause, no limit of the rate
of a client, and so no anvil), the log goes to a file.
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.peer import Running
from bench.process import count_files, find, started

OWNER: Final = "postfix"
READER: Final = "nobody"
"""Whose the Maildir is."""
QUEUES: Final = ("maildrop", "incoming", "active", "deferred", "hold")
FOLDERS: Final = (*QUEUES, "bounce", "corrupt", "defer", "flush", "private", "public", "saved", "trace", "data")

SETTINGS: Final[Mapping[str, str]] = {
    "compatibility_level": "3.6",
    "mail_owner": OWNER,
    "myhostname": "mx.example.org",
    "mynetworks": "127.0.0.0/8",
    "inet_protocols": "ipv4",
    "mydestination": "",
    "alias_maps": "",
    "local_recipient_maps": "",
    "local_transport": "error:nothing is local",
    "default_transport": "smtp:[127.0.0.1]:1",  # nobody is there; what is held is not passed on
    "smtpd_peername_lookup": "no",
    "message_size_limit": "0",
    "mailbox_size_limit": "0",
    "virtual_mailbox_limit": "0",
    "in_flow_delay": "0",
    "default_process_limit": "100",
    "smtpd_client_connection_count_limit": "0",
}
HOLD: Final[Mapping[str, str]] = {"smtpd_client_restrictions": "check_client_access static:hold"}

# name, type, private, unprivileged, chroot, wake up, limit of processes, command: master(5)
SERVICES: Final = """\
127.0.0.1:{port} inet n - n - {limit} smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True)
class Postfix:
    """A way to run Postfix."""

    name: str
    is_delivering: bool = False

    def missing(self) -> str | None:
        if find("postconf") is None:
            return "Postfix"
        return None if os.geteuid() == 0 else "root, who starts Postfix"

    @contextmanager
    def running(self, folder: Path, connections: int = 0) -> Generator[Running]:
        folder.chmod(0o755)
        _make_folders(folder / "queue")
        with reserved_port() as port:
            limit = str(connections) if connections else "-"
            (folder / "master.cf").write_text(SERVICES.format(port=port, limit=limit))
            kind = self._delivery(folder) if self.is_delivering else HOLD
            main = {**SETTINGS, **_places(folder), **kind}
            (folder / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in main.items()))
            command = [f"{_daemons()}/master", "-c", str(folder), "-d"]
            with started(command, folder / "output", lambda _: accepts(port)) as pid:
                stored = partial(count_files, folder / "mail" / "Maildir") if self.is_delivering else None
                yield Running(pid, "127.0.0.1", port, stored)

    def _delivery(self, folder: Path) -> Mapping[str, str]:
        """Give the settings by which virtual(8) delivers all mail of a domain into one Maildir."""
        reader = pwd.getpwnam(READER)
        (folder / "mail").mkdir()
        os.chown(folder / "mail", reader.pw_uid, reader.pw_gid)
        return {
            "virtual_mailbox_domains": "example.org",
            "virtual_mailbox_base": str(folder / "mail"),
            "virtual_mailbox_maps": "static:Maildir/",
            "virtual_uid_maps": f"static:{reader.pw_uid}",
            "virtual_gid_maps": f"static:{reader.pw_gid}",
            # By default 20 at a time into one mailbox.
            "virtual_destination_concurrency_limit": "100",
            "virtual_destination_recipient_limit": "1",
        }


def _daemons() -> str:
    return subprocess.run(
        [find("postconf") or "postconf", "-dh", "daemon_directory"], check=True, capture_output=True, text=True
    ).stdout.strip()


def _places(folder: Path) -> Mapping[str, str]:
    """Give the settings that keep all that it writes in the folder."""
    return {
        "queue_directory": str(folder / "queue"),
        "data_directory": str(folder / "queue" / "data"),
        "maillog_file": str(folder / "log"),
        "maillog_file_prefixes": str(folder),
    }


def _make_folders(queue: Path) -> None:
    """Make the queue's folders, as `postfix check` would: Postfix's own, but for `pid`."""
    owner = pwd.getpwnam(OWNER)
    (queue / "pid").mkdir(parents=True)
    for name in FOLDERS:
        (queue / name).mkdir(mode=0o700)
        os.chown(queue / name, owner.pw_uid, owner.pw_gid)


@contextmanager
def reserved_port() -> Generator[int]:
    """Give a free port; a socket that never listens keeps it ours until Postfix listens there, and beside it."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield int(reserved.getsockname()[1])


def accepts(port: int) -> bool:
    """Tell whether somebody listens, and greets."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        return client.recv(4).startswith(b"220")
    return False
