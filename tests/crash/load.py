"""Clients that send while the server dies, and the count of what was promised and what arrived."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

LARGE_SIZE: Final = 200_000
"""Octets of the large messages: beyond the spool's memory, so that their bodies are files."""
_TOKEN: Final = re.compile(rb"^X-Token: (\S+)$", re.MULTILINE)


@dataclass
class Load:
    """Clients that send small and large messages, each with a token of its own, until they are stopped.

    The token is the recipients' local part too, one recipient in each of `domains`. A message that was not answered
    250 is never sent again, so that a token that arrives twice can only be the server's doing. `pause`: seconds between
    two messages of a client, for what delivers to keep up.
    """

    clients: int = 4
    domains: Sequence[str] = ("mx.example.com",)
    pause: float = 0
    acknowledged: set[str] = field(default_factory=set)
    attempted: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, *ports: int) -> None:
        """Begin to send to these ports of 127.0.0.1, each client to one of them."""
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_on, args=(ports[number % len(ports)], number), daemon=True)
            for number in range(self.clients)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every client end its message, or find the server gone."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a client hangs"

    def _send_on(self, port: int, number: int) -> None:
        while not self._stop.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                    while not self._stop.is_set():
                        self._send(client, number)
                        self._stop.wait(self.pause)
            except (OSError, smtplib.SMTPException):
                # Refused, cut off, or 4yz: nothing was promised, and the next message is tried.
                self._stop.wait(0.005)

    def _send(self, client: smtplib.SMTP, number: int) -> None:
        with self._lock:
            self.attempted += 1
            token = f"{number}-{self.attempted}"
        size = LARGE_SIZE if self.attempted % 10 == 0 else 1000
        text = f"X-Token: {token}\r\n\r\n{'x' * 70}\r\n" + ("y" * 70 + "\r\n") * (size // 72)
        refused = client.sendmail("a@example.com", [f"{token}@{domain}" for domain in self.domains], text)
        assert refused == {}, "a message that not everybody is to have promises nothing"
        with self._lock:
            self.acknowledged.add(token)


def free_port() -> int:
    """Give a port of 127.0.0.1 that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def strace() -> str:
    """Give the path of strace; without it, or where it may not trace, the test is skipped, but never in CI."""
    path = shutil.which("strace")
    if (
        path is not None
        and subprocess.run([path, "-qqq", "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0
    ):
        return path
    assert "CI" not in os.environ, "strace must work in CI"
    pytest.skip("strace is not here, or may not trace")


def arrived(maildir: Path) -> Counter[str]:
    """Count how often each token is in the Maildir."""
    tokens: Counter[str] = Counter()
    for part in ("new", "cur"):
        for path in (maildir / part).iterdir() if (maildir / part).exists() else ():
            match = _TOKEN.search(path.read_bytes())
            assert match is not None, f"{path} is not whole"
            tokens[match[1].decode()] += 1
    return tokens


def account(load: Load, maildirs: Sequence[Path]) -> str:
    """Compare promise and delivery: AssertionError for a message lost or delivered twice; else a line for people."""
    tokens: Counter[str] = Counter()
    for maildir in maildirs:
        tokens += arrived(maildir)
    lost = load.acknowledged - set(tokens)
    twice = [token for token, count in tokens.items() if count > 1]
    assert not lost, f"{len(lost)} lost, of {len(load.acknowledged)} acknowledged"
    assert not twice, f"{len(twice)} delivered twice"
    return (
        f"attempted {load.attempted}, acknowledged {len(load.acknowledged)}, "
        f"delivered {len(tokens)}, lost 0, duplicates 0"
    )
