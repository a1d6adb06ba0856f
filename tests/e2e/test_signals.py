"""How a server ends: asked, asked twice, or not able to begin; and that it begins again."""

from __future__ import annotations

import signal
import smtplib
import socket
from pathlib import Path

import pytest
from tests.e2e.messages import without_trace
from tests.e2e.served import Served, smtprecv, until
from tests.e2e.wire import Wire

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def begin(wire: Wire) -> None:
    """Hold a transaction up to the 354."""
    wire.ask("EHLO client.example.com", 250)
    wire.ask("MAIL FROM:<anna@example.com>", 250)
    wire.ask("RCPT TO:<ben@example.org>", 250)
    wire.ask("DATA", 354)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_end(served: Served, number: signal.Signals) -> None:
    """With nobody there, a signal ends the server at once, with exit status 0."""
    served.signal(number)
    assert served.wait() == 0


def test_drain(served: Served) -> None:
    """A signal closes the listener and idle sessions; a transaction finishes and hears its 250, then 421."""
    with Wire(served) as busy, Wire(served) as idle:
        begin(busy)
        idle.ask("EHLO client.example.com", 250)
        served.signal(signal.SIGTERM)
        assert idle.reply()[0] == 421
        assert idle.rest() == b""
        served.await_log("SIGTERM")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((served.host, served.port))
        busy.ask("hello\r\n.", 250)
        assert busy.reply()[0] == 421
        assert busy.rest() == b""
    assert served.wait() == 0
    with Served(served.folder) as again:
        (file,) = again.await_files(1)
        assert without_trace(file) == b"hello\n"
        again.await_empty_queue()


def test_drain_ends_with_the_grace(tmp_path: Path) -> None:
    """A transaction that does not end in time hears 421, and the server ends with 0."""
    with Served(tmp_path, "--grace", "1s") as served, Wire(served) as wire:
        begin(wire)
        served.signal(signal.SIGTERM)
        assert wire.reply()[0] == 421
        assert served.wait() == 0
    assert served.files() == []


def test_second_signal(tmp_path: Path) -> None:
    """A second signal does not wait for the transaction, and the exit status is 0 as well."""
    with Served(tmp_path, "--grace", "1h") as served, Wire(served) as wire:
        begin(wire)
        served.signal(signal.SIGTERM)
        served.await_log("SIGTERM")
        served.signal(signal.SIGTERM)
        assert wire.reply()[0] == 421
        assert served.wait() == 0


def test_restart_on_the_same_port(served: Served) -> None:
    """After SIGKILL, with a client connected, the same port and queue work at once; what was queued is delivered."""
    with Wire(served) as wire:
        begin(wire)
        wire.ask("hello\r\n.", 250)
        served.kill()
    with Served(served.folder, port=served.port) as again:
        assert again.port == served.port
        (file,) = again.await_files(1)
        assert without_trace(file) == b"hello\n"
        again.await_empty_queue()
        again.terminate()


def test_a_killed_transaction_leaves_nothing(served: Served) -> None:
    """A message that was never answered is not there after a restart, and neither is the file of its octets."""
    with Wire(served) as wire:
        begin(wire)
        wire.send((b"x" * 998 + b"\r\n") * 10_000)
        until(lambda: large_files(served.queue) != [], "a file of the message's octets")
        served.kill()
    assert large_files(served.queue) != []
    with Served(served.folder) as again:
        again.await_empty_queue()
        again.terminate()
    assert (served.files(), large_files(served.queue)) == ([], [])


def large_files(folder: Path) -> list[Path]:
    """Give the files of more than a megabyte."""
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 1_000_000]


def test_port_in_use(served: Served, tmp_path: Path) -> None:
    """A port in use is exit status 1 and one line that names it."""
    other = ["--queue", str(tmp_path / "other"), "--deliver", f"maildir:{tmp_path / 'Other'}"]
    result = smtprecv("serve", "--listen", served.address, *other)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert served.address in result.stderr


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["--listen", "127.0.0.1:x"], "127.0.0.1:x"),
        (["--listen", "127.0.0.1:65536"], "127.0.0.1:65536"),
        (["--listen", "0.0.0.0:0"], "0.0.0.0:0"),
        (["--listen", "[::]:0"], "[::]:0"),
        (["--listen", ":0"], ":0"),
        (["--listen", "127.0.0.1:0", "--grace", "5 minutes"], "5 minutes"),
        (["--listen", "127.0.0.1:0", "--max-recipients", "99"], "99"),
        (["--listen", "127.0.0.1:0", "--accept-domain", "not a domain"], "not a domain"),
        (["--listen", "127.0.0.1:0", "--accept-any", "--accept-domain", "example.org"], "--accept-domain"),
        (["--listen", "127.0.0.1:0", "--deliver", "uucp:x"], "uucp:x"),
        (["--listen", "127.0.0.1:0", "--deliver", "maildir:{user}"], "{user}"),
        (["--listen", "127.0.0.1:0", "--retry-first", "1h", "--retry-max", "1m"], "retry"),
        (["--listen", "127.0.0.1:0", "--what"], "--what"),
        ([], "--listen"),
    ],
)
def test_usage_errors(tmp_path: Path, arguments: list[str], culprit: str) -> None:
    """What was asked wrongly is exit status 2, one line that names the culprit, and no folder made."""
    delivery = [] if "--deliver" in arguments else ["--deliver", f"maildir:{tmp_path / 'Maildir'}"]
    result = smtprecv("serve", "--queue", tmp_path / "queue", *delivery, *arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert culprit in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["showqueue", "runqueue"])
def test_no_queue(tmp_path: Path, command: str) -> None:
    """A folder without a queue is exit status 1, one line, and stays as it is."""
    delivery = ["--deliver", f"maildir:{tmp_path / 'Maildir'}"] if command == "runqueue" else []
    result = smtprecv(command, "--queue", tmp_path / "queue", *delivery)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert str(tmp_path / "queue") in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_queue_that_is_a_file(tmp_path: Path) -> None:
    """A queue that can't be used is exit status 1 and one line that names it."""
    (tmp_path / "queue").write_text("")
    delivery = ["--deliver", f"maildir:{tmp_path / 'Maildir'}"]
    result = smtprecv("serve", "--listen", "127.0.0.1:0", "--queue", tmp_path / "queue", *delivery)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert str(tmp_path / "queue") in result.stderr


def test_two_servers_on_one_queue(tmp_path: Path) -> None:
    """Two processes may receive into one queue at one time; each message is delivered once."""
    with Served(tmp_path) as one, Served(tmp_path) as two:
        for served in (one, two):
            with Wire(served) as wire:
                begin(wire)
                wire.ask("hello\r\n.", 250)
        one.await_files(2)
        one.await_empty_queue()
        one.terminate()
        two.terminate()


def test_a_reset_is_one_line(served: Served) -> None:
    """A client that resets the connection in the middle of its data leaves one line in the log, and no traceback."""
    with Wire(served) as wire:
        begin(wire)
        wire.send(b"hello\r\n")
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    served.await_log("connection lost")
    assert "Traceback" not in served.log
    served.terminate()


def test_ipv6_beside_ipv4(tmp_path: Path) -> None:
    """Every listener says where it listens, and takes mail there."""
    if not has_ipv6():
        pytest.skip("the loopback interface has no IPv6 address")
    with Served(tmp_path, "--listen", "[::1]:0") as served:
        served.await_log("listening on [::1]:")
        port = int(served.log.rpartition("listening on [::1]:")[2].split()[0])
        with smtplib.SMTP("::1", port) as client:
            client.sendmail("anna@example.com", ["ben@example.org"], b"hello\r\n")
        (file,) = served.await_files(1)
        assert b" ([IPv6:::1]) by mx.example.com" in file.read_bytes()


def has_ipv6() -> bool:
    """Say whether this machine's loopback interface has IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_closed_output(tmp_path: Path) -> None:
    """A daemon without standard output ends with 0 like any other."""
    with Served(tmp_path, prefix=["sh", "-c", 'exec "$@" >&-', "sh"]) as served:
        served.terminate()
