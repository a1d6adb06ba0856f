"""The program in examples/ does what it says: a process of its own, mail from smtplib, and a signal at the end."""

from __future__ import annotations

import re
import runpy
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.served import smtprecv, until

from smtprecv import Delivery, open_spool, run_once

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PROGRAM = Path(__file__).parents[2] / "examples" / "receiver.py"
TEXT = "From: carla@example.org\r\nSubject: lunch\r\n\r\nat one?\r\n"


@dataclass
class Running:
    """The program, listening, and where it keeps things."""

    process: subprocess.Popen[str]
    folder: Path
    port: int

    def send(self, *recipients: str, text: str = TEXT) -> dict[str, tuple[int, bytes]]:
        """Send a message and give the recipients that were refused; SMTPException if all were, or the message."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=30) as client:
            return client.sendmail("carla@example.org", recipients, text)

    def mail(self, name: str) -> list[bytes]:
        """Give the messages that a person has."""
        return [path.read_bytes() for path in (self.folder / "mail" / name).glob("*") if path.suffix != ".part"]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    """Give the program, running; it must end well on SIGTERM."""
    log = tmp_path / "log"
    listening = re.compile(r"listening on 127\.0\.0\.1:(\d+)$", re.MULTILINE)
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, PROGRAM, "127.0.0.1:0", tmp_path / "receiver"], stderr=output, text=True
        ) as process,
    ):
        try:
            until(lambda: process.poll() is not None or listening.search(log.read_text()) is not None, "listening")
            match = listening.search(log.read_text())
            assert match is not None, log.read_text()
            yield Running(process, tmp_path / "receiver", int(match[1]))
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()


def test_a_message_is_stored_for_each_recipient(receiver: Running) -> None:
    """Our people have the message as it was sent, under other names too, and the queue is empty."""
    assert receiver.send("anna@example.com") == {}
    assert receiver.send("staff@example.com") == {}
    assert receiver.send("postmaster") == {}
    until(lambda: len(receiver.mail("anna")) == 3, "three messages")
    until(lambda: len(receiver.mail("ben")) == 1, "one message")
    assert set(receiver.mail("anna") + receiver.mail("ben")) == {TEXT.encode()}
    queue = receiver.folder / "queue"
    until(lambda: smtprecv("showqueue", "--queue", queue).stdout == "queue is empty\n", "an empty queue")


def test_others_are_refused(receiver: Running) -> None:
    """Other domains and unknown names are refused, each with its own reply, beside recipients that are served."""
    assert receiver.send("ben@example.org", "postmaster@example.org", "nobody@example.com", "anna@example.com") == {
        "ben@example.org": (550, b"5.7.1 relaying denied"),
        "postmaster@example.org": (550, b"5.7.1 relaying denied"),
        "nobody@example.com": (550, b"5.1.1 nobody has that name here"),
    }
    until(lambda: receiver.mail("anna") == [TEXT.encode()], "the message")


def test_a_message_is_refused(receiver: Running) -> None:
    """A message without a From field is refused at its end and never queued; one after it is taken."""
    with pytest.raises(smtplib.SMTPDataError) as refused:
        receiver.send("anna@example.com", text="Subject: lunch\r\n\r\nFrom: nobody\r\n")
    assert (refused.value.smtp_code, refused.value.smtp_error) == (554, b"5.6.0 a message must say who it is from")
    assert receiver.send("anna@example.com") == {}
    until(lambda: receiver.mail("anna") == [TEXT.encode()], "the message")


async def test_what_cannot_be_stored_waits(receiver: Running) -> None:
    """A delivery that fails leaves the message in the queue with the reason; who has it by then gets no second copy."""
    place = receiver.folder / "mail"
    place.write_text("in the way")
    assert receiver.send("staff@example.com") == {}
    delivery: Delivery = runpy.run_path(str(PROGRAM))["Receiver"](place)
    queue = receiver.folder / "queue"
    until(lambda: "NotADirectoryError" in smtprecv("showqueue", "--queue", queue).stdout, "the reason")
    async with open_spool(queue) as spool:
        [entry] = await spool.entries()
        place.unlink()
        (place / "anna").mkdir(parents=True)
        (place / "anna" / entry.queue_id).write_text("had it")
        assert (await run_once(spool, delivery, ids=[entry.queue_id])).delivered == 2

    assert (receiver.mail("anna"), receiver.mail("ben")) == ([b"had it"], [TEXT.encode()])
