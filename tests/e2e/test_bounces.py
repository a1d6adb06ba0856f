"""Reports of `serve --bounce`: a delivery refuses, and the sender's Maildir has what an independent parser reads."""

from __future__ import annotations

import smtplib
import sys
from email.message import EmailMessage
from pathlib import Path

import pytest
from tests.e2e.served import Served, smtprecv, until
from tests.statusreport import parsed, told

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REFUSING = f"command:{sys.executable} -c 'import sys; sys.exit(67)'"


def send(served: Served, *recipients: str) -> None:
    """Send a message from ann@example.com."""
    with smtplib.SMTP(served.host, served.port, timeout=20) as client:
        client.sendmail("ann@example.com", recipients, "Subject: Hello\r\n\r\nHello\r\n")


def bounce(folder: Path) -> tuple[str, str]:
    """Give the arguments that send reports to Maildirs."""
    return "--bounce", f"maildir:{folder}/senders/{{local_part}}"


def reports(folder: Path) -> list[bytes]:
    """Give the reports that ann has."""
    new = folder / "senders" / "ann" / "new"
    return [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []


def test_a_program_that_refuses(tmp_path: Path) -> None:
    """Who is refused for good is told of to the sender, the other has the message, and the queue is empty."""
    refusing = ("--deliver", f"no.example={REFUSING}")
    with Served(tmp_path, *refusing, *bounce(tmp_path)) as served:
        send(served, "ben@no.example", "carla@example.com")
        served.await_files(1)
        until(lambda: len(reports(tmp_path)) == 1, "the report")
        served.await_empty_queue()
        served.terminate()
    [octets] = reports(tmp_path)
    report = parsed(octets)
    assert told(octets) == [("rfc822; ben@no.example", "failed", "5.1.1")]
    assert (report["Return-Path"], report["To"]) == ("<>", "ann@example.com")
    [*_, original] = report.iter_parts()
    [message] = original.iter_parts()
    assert isinstance(message, EmailMessage)
    assert message["Subject"] == "Hello"


def test_a_next_hop_that_refuses(tmp_path: Path) -> None:
    """A server behind us that refuses a recipient is quoted in the report."""
    (tmp_path / "hop").mkdir()
    with (
        Served(tmp_path / "hop", "--accept-domain", "example.org") as hop,
        Served(tmp_path, "--deliver", f"smtp://{hop.address}", *bounce(tmp_path), deliver=None) as served,
    ):
        send(served, "ben@example.net")
        until(lambda: len(reports(tmp_path)) == 1, "the report")
        served.await_empty_queue()
        served.terminate()
        hop.terminate()
    [octets] = reports(tmp_path)
    [(recipient, action, status)] = told(octets)
    assert (recipient, action, status[:2]) == ("rfc822; ben@example.net", "failed", "5.")
    assert b"Diagnostic-Code: smtp; 550 " in octets


def test_what_had_failed_is_retried_with_a_report(tmp_path: Path) -> None:
    """A message that failed without `--bounce` is reported by the pass that retries it by hand, and is gone."""
    with Served(tmp_path, "--deliver", REFUSING, deliver=None) as served:
        send(served, "ben@example.net")
        until(lambda: "failed" in served.showqueue(), "the failure in showqueue")
        served.terminate()
    queue_id = served.showqueue().splitlines()[2].split()[0]
    command = ("runqueue", "--queue", tmp_path / "queue", "--deliver", REFUSING, *bounce(tmp_path))
    assert smtprecv(*command, queue_id).stdout == "1 delivered, 0 deferred, 1 failed\n"
    assert [told(octets)[0][0] for octets in reports(tmp_path)] == ["rfc822; ben@example.net"]
    served.await_empty_queue()


@pytest.mark.crash
def test_kills_between_failure_and_report(tmp_path: Path) -> None:
    """Killed at any moment, every message that was acknowledged has one report in the end, and none is left failed."""
    count = 0
    for _ in range(6):
        with Served(tmp_path, "--deliver", REFUSING, *bounce(tmp_path), deliver=None) as served:
            for _ in range(5):
                send(served, f"user-{count}@example.net")
                count += 1
            served.kill()
    with Served(tmp_path, "--deliver", REFUSING, *bounce(tmp_path), deliver=None) as served:
        served.await_empty_queue()
        served.terminate()
    found = sorted(told(octets)[0][0] for octets in reports(tmp_path))
    assert found == sorted(f"rfc822; user-{number}@example.net" for number in range(count))
