"""Listeners of every kind in one process, with other people's clients: TCP, TLS, Unix sockets, those of systemd."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from tests.e2e import programs
from tests.e2e.peers.certificates import Authority, Certificate, serving
from tests.e2e.peers.clients import ANNA
from tests.e2e.served import COMMAND, Served, until
from tests.e2e.wire import Wire

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LAUNCHER: Final = """
import os, sys
numbers = [int(number) for number in sys.argv[1].split(",")]
for place, number in enumerate(numbers):
    os.dup2(number, 100 + place)
for place in range(len(numbers)):
    os.dup2(100 + place, 3 + place)
os.closerange(3 + len(numbers), 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""
"""What systemd does between fork and exec."""


def protocols(served: Served) -> list[str]:
    """Give what each message in the Maildir came with."""
    found = [re.search(r"\bwith ([A-Z0-9]+)", file.read_text()) for file in served.files()]
    return sorted(match[1] for match in found if match)


def test_unix_sockets(tmp_path: Path) -> None:
    """Postfix's generator and swaks send at Unix sockets, SMTP and LMTP; the sockets are gone when the server is."""
    smtp, lmtp = tmp_path / "smtp", tmp_path / "lmtp"
    with Served(tmp_path, "--listen", f"unix:{smtp}", "--lmtp-listen", f"unix:{lmtp},mode=600") as served:
        assert served.listener("LMTP") == str(lmtp)
        load = ["-s", "5", "-m", "50", "-f", ANNA, "-t", "ben@example.org"]
        programs.run("smtp-source", *load, f"unix:{smtp}")
        programs.run("smtp-source", "-L", *load, f"unix:{lmtp}")
        for path, options in ((smtp, []), (lmtp, ["--protocol", "LMTP"])):
            programs.run("swaks", "--socket", str(path), "--from", ANNA, "--to", "ben@example.org", *options)
        served.await_files(102)
        assert Counter(protocols(served)) == {"SMTP": 50, "ESMTP": 1, "LMTP": 51}
        served.terminate()
    assert not smtp.exists()
    assert not lmtp.exists()


def test_all_at_once(tmp_path: Path, certificate: Certificate, authority: Authority) -> None:
    """One process serves TCP, TLS and a Unix socket, each in its role, and a signal ends them all."""
    options = ["--tls-listen", "127.0.0.1:0", "--lmtp-listen", f"unix:{tmp_path}/lmtp", *serving(certificate)]
    with Served(tmp_path, *options) as served, ExitStack() as stack:
        host, _, port = served.listener("TLS").rpartition(":")
        secured = authority.context.wrap_socket(
            socket.create_connection((host, int(port)), timeout=30), server_hostname="mx.example.com"
        )
        local = socket.socket(socket.AF_UNIX)
        local.settimeout(30)
        local.connect(served.listener("LMTP"))
        wires = [stack.enter_context(Wire(each)) for each in (served, secured, local)]
        for wire, hello in zip(wires, ("EHLO", "EHLO", "LHLO"), strict=True):
            wire.ask(f"{hello} client.example.com", 250)
            wire.mail("ben@example.org")
        served.await_files(3)
        assert protocols(served) == ["ESMTP", "ESMTPS", "LMTP"]
        served.terminate()
        assert [wire.reply()[0] for wire in wires] == [421, 421, 421]


def test_sockets_of_systemd(tmp_path: Path) -> None:
    """The command serves what systemd has opened: each socket in the role that its name is given to."""
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as smtp, socket.socket(socket.AF_UNIX) as lmtp:
        lmtp.bind(str(tmp_path / "lmtp"))
        lmtp.listen()
        numbers = [lmtp.fileno(), smtp.fileno()]
        serve = [*COMMAND[1:], "serve", "--listen", "systemd:mx", "--lmtp-listen", "systemd:local"]
        where = ["--queue", str(tmp_path / "queue"), "--deliver", f"maildir:{tmp_path}/Maildir"]
        launch = [sys.executable, "-c", LAUNCHER, ",".join(map(str, numbers)), "local:mx", *serve, *where]
        with log.open("wb") as said, subprocess.Popen(launch, pass_fds=numbers, stderr=said) as process:
            try:
                until(lambda: "(LMTP)" in log.read_text(), "listening")
                local = socket.socket(socket.AF_UNIX)
                local.settimeout(30)
                local.connect(str(tmp_path / "lmtp"))
                with Wire(local) as wire:
                    wire.ask("LHLO client.example.com", 250)
                    wire.mail("ben@example.org")
                with Wire(socket.create_connection(smtp.getsockname(), timeout=30)) as wire:
                    wire.ask("EHLO client.example.com", 250)
                    wire.mail("carla@example.org")
                until(lambda: len(list((tmp_path / "Maildir/new").glob("*"))) == 2, "the messages")
                process.terminate()
                assert process.wait(30) == 0, log.read_text()
            finally:
                process.kill()
    # The socket is systemd's, and stays for the next start.
    assert (tmp_path / "lmtp").is_socket()
