"""The deliveries of `serve`, each to something real: a web server that fails in every way, a program, mbox files."""

from __future__ import annotations

import mailbox
import os
import smtplib
import sys
from pathlib import Path

import pytest
from tests.crash.test_faults import fill, small_disk
from tests.deliveries.webserver import HANG, RESET, Answer, Web, web
from tests.e2e.served import Served, until

from smtprecv.deliveries import verify_signature
from smtprecv.message import utc_now

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RETRY = ("--retry-first", "1s", "--retry-max", "1s")
SECRET = "0123456789abcdef"  # noqa: S105  # nothing depends on it


def serve(folder: Path, *deliveries: str) -> Served:
    """Start a server with these deliveries."""
    options = [word for delivery in deliveries for word in ("--deliver", delivery)]
    return Served(folder, *RETRY, *options, deliver=None)


def send(served: Served, token: str, *recipients: str, text: str = "") -> None:
    """Send one message."""
    with smtplib.SMTP(served.host, served.port, timeout=20) as client:
        client.sendmail("a@example.net", recipients or ["b@example.com"], f"Subject: {token}\r\n\r\n{text}\r\n")


def subjects(path: Path) -> list[str]:
    """Give the subjects of the messages in a mailbox, as another reader sees it."""
    box = mailbox.mbox(path, create=False)
    try:
        return [str(message["Subject"]) for message in box]
    finally:
        box.close()


def test_web_hook_that_fails_in_every_way(tmp_path: Path) -> None:
    """200, 429 with Retry-After, 500, a reset and a hang: each message is taken exactly once by its key, and signed."""
    (tmp_path / "secret").write_text(SECRET)
    answers = [Answer(500), RESET, Answer(200), Answer(429, {"Retry-After": "1"}), HANG, Answer(408), Answer(404)]
    with web(*answers) as server:
        # The hanging connection ends with the server's patience, set short here by the test's own server.
        hook = f"{server.url()}#allow=127.0.0.0/8&secret-file={tmp_path}/secret"
        with serve(tmp_path, hook) as served:
            for number in range(10):
                send(served, f"token-{number}")
            until(lambda: HANG not in server.answers, "the answer that hangs")
            server.is_over.set()
            served.await_empty_queue()
            served.terminate()
        check(server, 10)
        repeated = len(server.requests) - len(server.taken)
    assert repeated >= len(answers) - 1


def check(server: Web, count: int) -> None:
    """Require that each message was taken once, whole and signed."""
    assert sorted(token(body) for body in server.taken.values()) == sorted(f"token-{n}" for n in range(count))
    for request in server.requests:
        assert verify_signature(SECRET, request.fields, request.body, utc_now())


def token(body: bytes) -> str:
    """Give the subject of a message."""
    return body.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()


def test_web_hook_across_a_kill(tmp_path: Path) -> None:
    """A server that is killed while a hook hangs asks again under the same key."""
    with web(HANG) as server:
        hook = f"{server.url()}#allow=127.0.0.1"
        with serve(tmp_path, hook) as served:
            send(served, "token-0")
            until(lambda: len(server.requests) == 1, "the first request")
            served.kill()
        with serve(tmp_path, hook) as served:
            until(lambda: len(server.taken) == 1, "the second request")
            served.await_empty_queue()
            served.terminate()
        keys = {request.fields["idempotency-key"] for request in server.requests}
        assert (len(server.requests), len(keys)) == (2, 1)


def test_routes(tmp_path: Path) -> None:
    """One message for three routes: an mbox, a program and a module; each gets its recipient, and the rest waits."""
    module = (
        "from pathlib import Path\nfrom smtprecv import Reply\n"
        "class Mine:\n    async def deliver(self, attempt):\n"
        "        Path('mine').write_text(' '.join(map(str, attempt.recipients)))\n"
        "        return [Reply(250, 'mine')] * len(attempt.recipients)\n"
    )
    (tmp_path / "their_delivery.py").write_text(module.replace("'mine').write", f"{str(tmp_path / 'mine')!r}).write"))
    script = f"cat > {tmp_path}/$RECIPIENT; test $RECIPIENT != wait@c.example || exit 75"
    options = ["--deliver", f"mbox:{tmp_path}/mail/{{local_part}}", "--deliver", f"c.example=command:sh -c '{script}'"]
    options += ["--deliver", "d@d.example=python:their_delivery:Mine"]
    env = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    with Served(tmp_path, *RETRY, *options, deliver=None, env=env) as served:
        send(served, "token", "a@example.com", "b@c.example", "d@d.example", "wait@c.example")
        until(lambda: "451 4.3.0 not now" in served.showqueue(), "the reason in showqueue")
        assert subjects(tmp_path / "mail" / "a") == ["token"]
        assert (tmp_path / "mine").read_text() == "d@d.example"
        assert (
            (tmp_path / "b@c.example")
            .read_bytes()
            .startswith(b"Return-Path: <a@example.net>\nDelivered-To: b@c.example\n")
        )
        served.terminate()


def test_a_program_that_hangs_is_ended_with_the_server(tmp_path: Path) -> None:
    """A second signal cancels a program under way; nothing of it is left, and its message is still in the queue."""
    script = f"echo $$ > {tmp_path}/pid; sleep 60"
    with serve(tmp_path, f"command:sh -c '{script}'") as served:
        send(served, "token")
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"), "the program")
        served.terminate()
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the program")
    assert "pending" in served.showqueue()


@pytest.mark.crash
def test_mbox_on_a_full_disk(tmp_path: Path) -> None:
    """A mailbox without room is as before, the message waits with its reason, and comes when there is room."""
    with small_disk(tmp_path / "mail", "1m") as disk, serve(tmp_path, f"mbox:{disk}/box") as served:
        send(served, "one")
        served.await_empty_queue()
        before = (disk / "box").read_bytes()
        fill(disk / "filler")
        send(served, "two", text="x" * 900)
        until(lambda: "No space left" in served.showqueue(), "the reason in showqueue")
        assert (disk / "box").read_bytes() == before
        (disk / "filler").unlink()
        served.await_empty_queue()
        assert subjects(disk / "box") == ["one", "two"]
        assert sorted(path.name for path in disk.iterdir()) == ["box"]
        served.terminate()


@pytest.mark.crash
def test_mbox_across_kills(tmp_path: Path) -> None:
    """Killed at any moment, each message is in the mailbox once, and nothing else is."""
    count = 0
    for _ in range(6):
        with serve(tmp_path, f"mbox:{tmp_path}/box") as served:
            for _ in range(5):
                send(served, f"token-{count}", text="y" * 500_000)
                count += 1
            served.kill()
    with serve(tmp_path, f"mbox:{tmp_path}/box") as served:
        served.await_empty_queue()
        served.terminate()
    found = subjects(tmp_path / "box")
    assert sorted(found) == sorted(f"token-{number}" for number in range(count))


def test_procmail_conventions(tmp_path: Path) -> None:
    """A program in another language that only reads its standard input and SENDER works as behind Postfix."""
    program = tmp_path / "filter.py"
    program.write_text("import os, sys\nopen(sys.argv[1], 'w').write(os.environ['SENDER'] + sys.stdin.read())\n")
    with serve(tmp_path, f"command:{sys.executable} {program} {tmp_path}/out") as served:
        send(served, "token")
        served.await_empty_queue()
        served.terminate()
    assert (tmp_path / "out").read_text().startswith("a@example.netReturn-Path: <a@example.net>\n")
