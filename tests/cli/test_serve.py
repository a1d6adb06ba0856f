"""``smtprecv serve``, as a process: from a socket to a Maildir, and to an end when it is told to."""

from __future__ import annotations

import os
import pty
import re
import resource
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from smtprecv.cli import _serve, main

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

TIMEOUT = 60


class Running:
    """A server that runs in a process of its own."""

    def __init__(self, arguments: Sequence[str], listeners: int) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "smtprecv", "serve", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.log = [self.read_line() for _ in range(listeners)]
        self.addresses = [line.split("listening on ")[1].strip() for line in self.log]
        self.port = int(self.addresses[0].rpartition(":")[2])

    def read_line(self) -> str:
        """Give the next line of its log."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def read_to(self, text: str) -> None:
        """Read its log up to a line with this text."""
        while text not in (line := self.read_line()):
            assert line, "the log ended"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send it a signal; give its exit status and the rest of its log."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, log


class Start(Protocol):
    """Starts servers that end with the test."""

    def __call__(self, *arguments: str, listeners: int = 1) -> Running:
        """Start one, with a queue below the test's folder."""
        ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give the starter of servers."""
    started: list[Running] = []

    def start(*arguments: str, listeners: int = 1) -> Running:
        started.append(Running([*given(tmp_path), *arguments], listeners))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.communicate()


def given(tmp_path: Path) -> list[str]:
    """Give the arguments of every server here."""
    return ["--listen", "127.0.0.1:0", "--queue", str(tmp_path / "q"), "--hostname", "mx.example.com"]


def maildir(tmp_path: Path) -> list[str]:
    """Give the arguments for delivery below the test's folder."""
    return ["--deliver", f"maildir:{tmp_path}/m/{{domain}}/{{local_part}}"]


def send(port: int, *recipients: str) -> dict[str, tuple[int, bytes]]:
    """Send a message; give the refusals."""
    with smtplib.SMTP("127.0.0.1", port, timeout=TIMEOUT) as client:
        return client.sendmail("alice@example.net", recipients or ["bob@example.com"], "Subject: x\n\n.dot\n")


def test_from_socket_to_maildir(start: Start, tmp_path: Path) -> None:
    """A message that was answered 250 comes to the Maildir; SIGTERM ends with status 0 and leaves the queue empty."""
    server = start(*maildir(tmp_path))
    assert re.fullmatch(r"\S+ \S+ listening on 127\.0\.0\.1:[1-9]\d*\n", server.log[0])
    assert send(server.port) == {}
    server.read_to("bob@example.com> delivered")
    [path] = (tmp_path / "m/example.com/bob/new").iterdir()
    text = path.read_bytes()
    assert text.startswith(b"Return-Path: <alice@example.net>\nDelivered-To: bob@example.com\nReceived: from ")
    assert text.endswith(b"\n\n.dot\n")
    status, log = server.stop()
    assert status == 0
    assert "Traceback" not in log


def test_two_listeners(start: Start, tmp_path: Path) -> None:
    """Each listener has its line when all accept, with the real port."""
    server = start("--listen", "[::1]:0", *maildir(tmp_path), listeners=2)
    assert [address.rpartition(":")[0] for address in server.addresses] == ["127.0.0.1", "[::1]"]
    with smtplib.SMTP("::1", int(server.addresses[1].rpartition(":")[2]), timeout=TIMEOUT) as client:
        assert client.ehlo()[1].startswith(b"mx.example.com")
    assert server.stop(signal.SIGINT)[0] == 0


def test_accept_domain(start: Start, tmp_path: Path) -> None:
    """With a domain to accept, every other one is refused, but for the postmaster here."""
    server = start("--accept-domain", "example.com", *maildir(tmp_path))
    refused = send(server.port, "bob@example.com", "postmaster", "eve@example.org")
    assert {address: code for address, (code, _) in refused.items()} == {"eve@example.org": 550}
    assert server.stop()[0] == 0


def test_no_runqueue(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --no-runqueue mail is only accepted, and another process finds it at once."""
    server = start("--no-runqueue")
    assert send(server.port) == {}
    queue = ["--queue", str(tmp_path / "q")]
    assert main(["runqueue", *queue, *maildir(tmp_path), "--hostname", "mx.example.com"]) == 0
    assert capsys.readouterr().out == "1 delivered, 0 deferred, 0 failed\n"
    assert main(["showqueue", *queue]) == 0
    assert capsys.readouterr().out == "queue is empty\n"
    assert server.stop()[0] == 0


def test_drain_and_second_signal(start: Start, tmp_path: Path) -> None:
    """The first signal lets an open transaction go on, the second one ends it: status 0, and no traceback."""
    server = start("--grace", "1h", *maildir(tmp_path))
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, timeout=TIMEOUT) as client, client.makefile("rb") as lines:
        client.sendall(b"EHLO x.example\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\n")
        while not lines.readline().startswith(b"250 2.1.5"):
            pass
        server.process.send_signal(signal.SIGTERM)
        server.read_to("SIGTERM: no new mail")
        client.sendall(b"DATA\r\n")
        assert lines.readline().startswith(b"354")
        status, log = server.stop(signal.SIGINT)
    assert status == 0
    assert "SIGINT again: stopping at once" in log
    assert "Traceback" not in log


def test_hangup(start: Start, tmp_path: Path) -> None:
    """SIGHUP, by which many daemons are told to read their files again, ends nothing; SIGTERM still does."""
    server = start(*maildir(tmp_path))
    with smtplib.SMTP("127.0.0.1", server.port, timeout=TIMEOUT) as client:
        client.ehlo()
        server.process.send_signal(signal.SIGHUP)
        server.read_to("SIGHUP: nothing to do")
        assert client.noop()[0] == 250
    assert send(server.port) == {}
    assert server.stop()[0] == 0


def test_terminal_gone(tmp_path: Path) -> None:
    """A server that logs to a terminal ends with it, as after SIGTERM, and does not stay behind unseen."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "smtprecv", "serve", *given(tmp_path), *maildir(tmp_path)]
    with subprocess.Popen(command, stderr=terminal) as process, os.fdopen(controller, "rb", buffering=0) as screen:
        os.close(terminal)
        seen = b""
        while b"listening on" not in seen:
            seen += screen.read(1000)
        process.send_signal(signal.SIGHUP)
        assert process.wait(TIMEOUT) == 0
        assert b"SIGHUP: no new mail" in seen + screen.read(1000)


def test_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A port in use is status 1 and one line; no queue is made."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "127.0.0.1:{1}".format(*other.getsockname())
        assert main(["serve", *given(tmp_path), *maildir(tmp_path), "--listen", address]) == 1
    assert capsys.readouterr().err == f"smtprecv serve: cannot listen on {address}: Address already in use\n"
    assert list(tmp_path.iterdir()) == []


def test_unusable_queue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A queue folder that cannot be used is status 1 and one line."""
    (tmp_path / "q").write_bytes(b"")
    assert main(["serve", *given(tmp_path), *maildir(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("smtprecv serve: ")
    assert err.count("\n") == 1


def test_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where the system allows fewer connections than were asked for, the log says how many there are."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 300))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    (tmp_path / "q").write_bytes(b"")
    assert main(["serve", *given(tmp_path), *maildir(tmp_path)]) == 1
    assert "--max-connections is 50" in caplog.text


def test_interrupted_before_it_knows_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C while the command is still being read is status 130, too, and no traceback."""

    def interrupt(_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("smtprecv.cli.parse_arguments", interrupt)
    assert main(["serve"]) == 130


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C before the server listens is status 130, as shells have it."""

    def interrupt(_options: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(_serve, "refuse_contradictions", interrupt)
    assert main(["serve", *given(Path("unused")), "--no-runqueue"]) == 130
