"""A Postfix of our own, which passes on to one next hop whatever it is given.

It needs root, as Postfix does: it starts its processes as other users. So its folder, and a Unix socket to which it
delivers, must be where every user may go: the fixture `open_folder`.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
from tests.e2e import programs
from tests.e2e.peers.daemon import Daemon, accepts
from tests.e2e.served import until

OWNER: Final = "postfix"
QUEUES: Final = ("maildrop", "incoming", "active", "deferred")
FOLDERS: Final = (*QUEUES, "bounce", "corrupt", "defer", "flush", "hold", "private", "public", "saved", "trace", "data")
LIFETIME: Final = 900
"""After so many seconds it ends by itself, were the tests killed."""

SETTINGS: Final[Mapping[str, str]] = {
    "compatibility_level": "3.6",
    "maillog_file": "/dev/stdout",
    "mail_owner": OWNER,
    # Who it is. A next hop that greets with the same name would be a loop.
    "myhostname": "relay.example.com",
    "mynetworks": "127.0.0.0/8",
    "inet_protocols": "ipv4",
    # Nothing is local, nothing is looked up in the DNS, nothing is rewritten.
    "mydestination": "",
    "alias_maps": "",
    "local_recipient_maps": "",
    "local_transport": "error:nothing is local",
    "smtpd_relay_restrictions": "permit_mynetworks, reject",
    "smtpd_peername_lookup": "no",
    "smtp_dns_support_level": "disabled",
    "lmtp_dns_support_level": "disabled",
    "smtp_host_lookup": "native",
    "lmtp_host_lookup": "native",
    "local_header_rewrite_clients": "",
    # Nobody waits.
    "in_flow_delay": "0",
    "default_process_limit": "20",
    "initial_destination_concurrency": "20",
    "default_destination_concurrency_limit": "20",
    "queue_run_delay": "1s",
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s",
    "transport_retry_time": "1s",
}

# name, type, private, unprivileged, chroot, wake up, limit of processes, command: master(5)
SERVICES: Final = """\
127.0.0.1:{port} inet n - n - - smtpd
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
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """An instance that listens when the constructor returns.

    `next_hop` is a transport and a destination: `smtp:[127.0.0.1]:PORT`, `lmtp:unix:/path`. `settings` goes to
    main.cf, beside and before ours.
    """

    def __init__(self, folder: Path, next_hop: str, settings: Mapping[str, str] | None = None) -> None:
        """Make an instance in a folder that is not there yet, and start it. Skips the test unless run by root."""
        if os.geteuid() != 0:
            pytest.skip("Postfix's master must be started by root")
        master = programs.run("postconf", "-dh", "daemon_directory").strip() + "/master"
        self._queue: Final = folder / "queue"
        _make_folders(self._queue)
        self.host: Final = "127.0.0.1"
        # It never listens: it keeps the port ours until Postfix does, and beside it.
        self._reserved: Final = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((self.host, 0))
        self.port: Final = int(self._reserved.getsockname()[1])
        (folder / "master.cf").write_text(SERVICES.format(port=self.port))
        folders = {"queue_directory": str(self._queue), "data_directory": str(self._queue / "data")}
        main = {**SETTINGS, **folders, "default_transport": next_hop, **(settings or {})}
        (folder / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in main.items()))
        self._daemon: Final = Daemon(folder / "log", master, "-c", str(folder), "-s", "-e", str(LIFETIME))
        try:
            self._daemon.wait(lambda: accepts(self.port), "Postfix listening")
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Where it listens, HOST:PORT."""
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> str:
        """What it wrote: for each delivery a line with dsn=, delay= and status=."""
        return self._daemon.log

    def await_log(self, text: str) -> None:
        """Wait until the log has `text`."""
        until(lambda: text in self.log, f"{text!r} in the log of Postfix")

    def queued(self) -> int:
        """Count the messages that it still has."""
        return sum(1 for name in QUEUES for path in (self._queue / name).rglob("*") if path.is_file())

    def await_empty_queue(self) -> None:
        """Wait until it has passed on, or returned, all that it was given."""
        until(lambda: self.queued() == 0, "an empty queue of Postfix")

    def close(self) -> None:
        """End the instance."""
        self._daemon.end()
        self._reserved.close()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the instance."""
        self.close()


def _make_folders(queue: Path) -> None:
    """Make the queue's folders, as `postfix check` would: Postfix's own, but for `pid`."""
    owner = pwd.getpwnam(OWNER)
    (queue / "pid").mkdir(parents=True)
    for name in FOLDERS:
        (queue / name).mkdir(mode=0o700)
        os.chown(queue / name, owner.pw_uid, owner.pw_gid)
