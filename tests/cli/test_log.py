"""Where the log goes: one line, one object or one datagram for each record, with its ids."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtprecv.cli._log import Datagrams, JsonFormatter, LogTarget, ids_in, read_log_target

SESSION = "4f8a1a3e3f"
QUEUED = "01k81n5eoq0000gemtk6"


class Daemon:
    """A log daemon: a Unix socket for datagrams."""

    def __init__(self, path: Path) -> None:
        """Listen."""
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(10)

    def hear(self) -> bytes:
        """Give the next datagram."""
        return self.socket.recv(100_000)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Give a daemon that listens."""
    held = Daemon(tmp_path / "log")
    yield held
    held.socket.close()


def record(text: str, level: int = logging.INFO, error: BaseException | None = None) -> logging.LogRecord:
    """Make a record."""
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("smtprecv.server", level, "f", 1, "%s", (text,), info)


def sent(daemon: Daemon, kind: str, record: logging.LogRecord) -> bytes:
    """Give the datagram of a record."""
    handler = LogTarget(kind, daemon.path).handler("mx", "mail")
    handler.emit(record)
    handler.close()
    return daemon.hear()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (f"{SESSION}: connection lost", {"session_id": SESSION}),
        (f"{QUEUED}: to=<b@example.net> delivered", {"queue_id": QUEUED}),
        (f"{QUEUED} cannot be read", {"queue_id": QUEUED}),
        (
            f"{SESSION}: from=<a@example.com> 250 2.0.0 queued as {QUEUED}",
            {"session_id": SESSION, "queue_id": QUEUED},
        ),
        (f"{SESSION}: refused MAIL <queued as {QUEUED}>: 550 no", {"session_id": SESSION}),
        ("listening on 127.0.0.1:25", {}),
        ("", {}),
    ],
)
def test_ids(text: str, ids: dict[str, str]) -> None:
    """A line tells which session and which message it is about."""
    assert ids_in(text) == ids


def test_json() -> None:
    """One object a line, in ASCII, whatever a stranger wrote."""
    line = JsonFormatter().format(record(f"{SESSION}: \n\x1b\u00e9", logging.ERROR, ValueError("x")))
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    assert told.pop("traceback").endswith("ValueError: x")
    assert told == {
        "level": "error",
        "logger": "smtprecv.server",
        "message": f"{SESSION}: \n\x1b\u00e9",
        "session_id": SESSION,
    }


def test_worker() -> None:
    """Where several processes log to one standard error, each record tells which of them wrote it."""
    text, data = (LogTarget(kind).handler("mx", "mail", 2).format(record(f"{SESSION}: a")) for kind in ("text", "json"))
    assert text.endswith(f" worker 2: {SESSION}: a")
    assert (json.loads(data)["worker"], json.loads(data)["session_id"]) == (2, SESSION)


def test_json_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Other libraries say exc_info=False, and mean that there is none."""
    logging.getLogger("other").warning("x", exc_info=False)
    assert "traceback" not in json.loads(JsonFormatter().format(caplog.records[0]))


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.CRITICAL, 18), (logging.ERROR, 19), (logging.WARNING, 20), (logging.INFO, 22), (10, 23)],
)
def test_syslog(daemon: Daemon, level: int, priority: int) -> None:
    """Facility and severity, name and process id, and the message on one line.

    RFC 3164 section 4.1, RFC 5424 section 6.2.1.
    """
    said = sent(daemon, "syslog", record(f"{SESSION}: a\nb", level))
    assert said == f"<{priority}>mx[{os.getpid()}]: {SESSION}: a\\nb".encode()


def test_journal(daemon: Daemon) -> None:
    """The native protocol: a field a line, and the message by its length, so that a traceback may have lines."""
    said = sent(daemon, "journal", record(f"{SESSION}: a\nPRIORITY=0", logging.ERROR, ValueError("x")))
    head, _, rest = said.partition(b"MESSAGE\n")
    text = rest[8:-1]
    assert head == (
        b"PRIORITY=3\nSYSLOG_IDENTIFIER=mx\nSYSLOG_FACILITY=2\nLOGGER=smtprecv.server\n"
        b"SMTPRECV_SESSION_ID=" + SESSION.encode() + b"\n"
    )
    assert int.from_bytes(rest[:8], "little") == len(text)
    assert rest[-1:] == b"\n"
    assert text == f"{SESSION}: a\\nPRIORITY=0\n  ValueError: x".encode()


def test_long_records_are_cut(daemon: Daemon) -> None:
    """A datagram has a bound, and is cut between characters."""
    said = sent(daemon, "syslog", record("\u00e9" * 100_000))
    assert 32_000 < len(said) < 33_000
    said.decode()


def test_a_daemon_may_be_started_anew(daemon: Daemon) -> None:
    """Records go to whoever listens at the path now."""
    handler = Datagrams(daemon.path, lambda record: record.getMessage().encode())
    handler.emit(record("one"))
    assert daemon.hear() == b"one"
    daemon.socket.close()
    Path(daemon.path).unlink()
    again = Daemon(Path(daemon.path))
    handler.emit(record("two"))
    assert again.hear() == b"two"
    again.socket.close()
    handler.close()


def test_a_daemon_that_does_not_read_holds_nobody_up(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that is not taken in time is lost, and those behind it are not even tried for a while."""
    now = 1000.0
    monkeypatch.setattr("smtprecv.cli._log.time.monotonic", lambda: now)
    handler = Datagrams(daemon.path, lambda record: record.getMessage().encode())
    handler._socket.settimeout(0.0)
    for _ in range(10_000):
        handler.emit(record("x" * 1000))
    assert handler._mute_until > now
    daemon.socket.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        while daemon.hear():
            pass
    handler.emit(record("lost"))
    now += 5.0
    handler.emit(record("heard"))
    assert daemon.hear() == b"heard"
    handler.close()


@pytest.mark.parametrize("kind", ["text", "json", "syslog", "journal"])
def test_targets(kind: str) -> None:
    """Each kind has its name, and daemons their usual sockets."""
    path = {"syslog": "/dev/log", "journal": "/run/systemd/journal/socket"}.get(kind, "")
    assert read_log_target(kind) == LogTarget(kind, path)
    if path:
        assert read_log_target(f"{kind}:/x:y") == LogTarget(kind, "/x:y")


def serve(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Take one message over standard input, and end."""
    dialogue = (
        b"EHLO x.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n"
    )
    command = [sys.executable, "-m", "smtprecv", "serve", "--stdio", "--no-runqueue", "--queue", str(tmp_path / "q")]
    return subprocess.run([*command, *arguments], input=dialogue, capture_output=True, check=False, timeout=60)


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["syslog", "journal"])
def test_a_process_that_logs_to_a_daemon(kind: str, daemon: Daemon, tmp_path: Path) -> None:
    """What is accepted is in the daemon's log, under the name that was asked for, and not on standard error."""
    arguments = ["--log", f"{kind}:{daemon.path}", "--log-name", "mx-2", "--log-facility", "local3"]
    ended = serve(tmp_path, *arguments)
    assert (ended.returncode, ended.stderr) == (0, b"")
    said = daemon.hear()
    assert b"mx-2" in said
    assert b"from=<a@example.com> 250 2.0.0 queued as" in said
    assert said.startswith({"syslog": b"<158>mx-2[", "journal": b"PRIORITY=6\n"}[kind])


@pytest.mark.slow
@pytest.mark.e2e
def test_a_process_that_logs_json(tmp_path: Path) -> None:
    """Each line of standard error is an object, with the ids of session and message."""
    ended = serve(tmp_path, "--log", "json")
    assert ended.returncode == 0
    [told] = map(json.loads, ended.stderr.splitlines())
    assert told["message"].endswith(told["queue_id"])
    assert told["message"].startswith(told["session_id"])


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["syslog", "journal"])
def test_no_daemon(kind: str, tmp_path: Path) -> None:
    """A socket that is missing is status 1 and one line, and nothing is begun."""
    ended = serve(tmp_path, "--log", f"{kind}:{tmp_path}/none")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr == f"smtprecv serve: cannot log to {tmp_path}/none: No such file or directory\n".encode()
    assert list(tmp_path.iterdir()) == []
