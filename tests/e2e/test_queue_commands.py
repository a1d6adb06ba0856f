"""`showqueue` and `runqueue` beside a running server, over a mailbox that can't be written for a while."""

from __future__ import annotations

import json
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.messages import without_trace
from tests.e2e.served import COMMAND, Served, smtprecv, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def send(served: Served, *recipients: str) -> str:
    """Send a message, and give its queue id."""
    with smtplib.SMTP(served.host, served.port) as client:
        client.ehlo("client.example.com")
        client.mail("anna@example.com")
        for recipient in recipients:
            client.rcpt(recipient)
        code, text = client.data(b"hello\r\n")
    assert code == 250
    return text.decode().split()[-1]


def runqueue(served: Served, *queue_ids: str) -> tuple[int, str]:
    """Run the queue once, and give the exit status and what was printed."""
    delivery = f"maildir:{served.maildir}/{{local_part}}"
    result = smtprecv("runqueue", "--queue", served.queue, "--deliver", delivery, *queue_ids)
    return result.returncode, result.stdout


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Served]:
    """Give a server that leaves the queue to others."""
    with Served(tmp_path, "--no-runqueue", deliver=None) as served:
        yield served


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Served]:
    """Give a server whose every attempt for eve fails: a file stands where her Maildir would be."""
    (tmp_path / "Maildir").mkdir()
    (tmp_path / "Maildir" / "eve").write_text("")
    with Served(tmp_path, "--retry-first", "1h", deliver="Maildir/{local_part}") as served:
        yield served


def test_receive_here_deliver_there(receiver: Served) -> None:
    """A server with --no-runqueue only receives; runqueue beside it delivers what is due."""
    first, second = send(receiver, "ben@example.org"), send(receiver, "carl@example.org")
    assert receiver.files("ben/new") == []
    shown = receiver.showqueue()
    assert first in shown
    assert second in shown
    assert runqueue(receiver) == (0, "2 delivered, 0 deferred, 0 failed\n")
    (file,) = receiver.await_files(1, "ben/new")
    assert without_trace(file) == b"hello\n"
    assert receiver.showqueue() == "queue is empty\n"
    assert runqueue(receiver) == (0, "0 delivered, 0 deferred, 0 failed\n")
    receiver.terminate()


def test_named_messages(receiver: Served) -> None:
    """Runqueue and showqueue with ids touch just these, and say which is not there, with exit status 1."""
    first, second = send(receiver, "ben@example.org"), send(receiver, "carl@example.org")
    assert first not in receiver.showqueue(second)
    assert runqueue(receiver, first) == (0, "1 delivered, 0 deferred, 0 failed\n")
    assert receiver.files("carl/new") == []
    assert runqueue(receiver, first, second) == (1, "1 delivered, 0 deferred, 0 failed\n")
    missing = smtprecv("showqueue", "--queue", receiver.queue, first)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == f"smtprecv showqueue: {first} is not in the queue\n"


def test_one_recipient_fails(runner: Served) -> None:
    """A recipient who could not be served stays with reply and next attempt, and the others have their copy once."""
    queue_id = send(runner, "ben@example.org", "eve@example.org", "carl@example.org")
    until(lambda: "451" in runner.showqueue(), "a failed attempt")
    entry = json.loads(runner.showqueue("--json"))
    assert entry["id"] == queue_id
    assert [(r["address"], r["status"], r["attempts"]) for r in entry["recipients"]] == [
        ("ben@example.org", "delivered", 1),
        ("eve@example.org", "pending", 1),
        ("carl@example.org", "delivered", 1),
    ]
    assert entry["recipients"][1]["last_reply"]["code"] == 451
    assert entry["next_attempt"] > entry["last_attempt"] > entry["arrival"]
    table = runner.showqueue()
    assert [word for word in (queue_id, "anna@example.com", "eve@example.org", "451") if word not in table] == []
    (runner.maildir / "eve").unlink()
    assert runqueue(runner) == (0, "0 delivered, 0 deferred, 0 failed\n")
    assert runqueue(runner, queue_id) == (0, "1 delivered, 0 deferred, 0 failed\n")
    for local_part in ("ben", "eve", "carl"):
        runner.await_files(1, f"{local_part}/new")
    assert runner.showqueue() == "queue is empty\n"


def test_retry_by_itself(tmp_path: Path) -> None:
    """The server tries again when --retry-first is over, and not at some later look into the queue."""
    (tmp_path / "Maildir").write_text("")
    with Served(tmp_path, "--retry-first", "1s") as served:
        send(served, "ben@example.org")
        served.await_log("deferred")
        (tmp_path / "Maildir").unlink()
        served.await_files(1, seconds=15)
        served.await_empty_queue()


def test_given_up(tmp_path: Path) -> None:
    """A message older than --give-up is kept as failed, and tried again when it is named."""
    (tmp_path / "Maildir").mkdir()
    (tmp_path / "Maildir" / "eve").write_text("")
    options = ["--retry-first", "1s", "--give-up", "1s"]
    with Served(tmp_path, *options, deliver="Maildir/{local_part}") as served:
        queue_id = send(served, "eve@example.org")
        until(lambda: "failed" in served.showqueue(), "a failed recipient", seconds=15)
        (recipient,) = json.loads(served.showqueue("--json"))["recipients"]
        assert (recipient["status"], recipient["next_attempt"]) == ("failed", None)
        (served.maildir / "eve").unlink()
        assert runqueue(served, queue_id) == (0, "1 delivered, 0 deferred, 0 failed\n")
        served.await_files(1, "eve/new")
        served.await_empty_queue()


@pytest.mark.alone
def test_a_retry_is_noticed(tmp_path: Path) -> None:
    """A running server tries a message within a second of `queue retry`, and leaves what is held until its release."""
    (tmp_path / "Maildir").write_text("")
    with Served(tmp_path, "--retry-first", "1h") as served:
        send(served, "ben@example.org")
        served.await_log("deferred")
        (tmp_path / "Maildir").unlink()
        assert queue(served, "hold", "ALL") == "1 held\n"
        assert queue(served, "flush", "ALL") == "0 due now, 1 unchanged\n"
        assert queue(served, "release", "ALL") == "1 released\n"
        assert served.files() == []
        assert queue(served, "retry", "--domain", "example.org") == "1 due now\n"
        served.await_files(1, seconds=1)
        served.await_empty_queue()


def queue(served: Served, verb: str, *arguments: str) -> str:
    """Run a verb on the queue of a server, and give what it prints."""
    done = smtprecv("queue", verb, "--queue", served.queue, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_reader_that_stops(receiver: Served) -> None:
    """`showqueue | head -1` is no error worth a word."""
    for _ in range(3):
        send(receiver, "ben@example.org")
    with subprocess.Popen(
        [*COMMAND, "showqueue", "--queue", str(receiver.queue)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_showqueue_while_mail_comes(receiver: Served) -> None:
    """Every showqueue beside a receiving server sees a whole queue, that grows."""
    counts: list[int] = []
    for _ in range(5):
        send(receiver, "ben@example.org")
        counts.append(len(receiver.showqueue("--json").splitlines()))
    assert counts == [1, 2, 3, 4, 5]
