"""Mail is moved from the queue of one running server to that of another; everybody gets it once, as it was sent."""

from __future__ import annotations

import json
import smtplib
from pathlib import Path

import pytest
from tests.e2e.served import Served, smtprecv, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

COUNT = 20


def octets(number: int) -> bytes:
    """Give the text of a message; some are larger than what a queue keeps in its database."""
    lines = 3 + 3000 * (number % 4)
    return b"Subject: %d\r\n\r\n" % number + b"".join(b"line %d of %d\r\n" % (each, number) for each in range(lines))


def moved(served: Served, verb: str, *arguments: str | Path) -> str:
    """Run a verb on the queue of a server, and give what it prints."""
    done = smtprecv("queue", verb, "--queue", served.queue, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_from_server_to_server(tmp_path: Path) -> None:
    """What waits at one server goes by files to another, which delivers it at once, each message once and unchanged."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "Maildir").write_text("")
    (tmp_path / "new").mkdir()
    out = tmp_path / "out"
    with Served(tmp_path / "old", "--retry-first", "1h") as old, Served(tmp_path / "new") as new:
        with smtplib.SMTP(old.host, old.port) as client:
            for number in range(COUNT):
                client.sendmail("anna@example.com", [f"ben{number}@example.org"], octets(number))
        until(lambda: old.log.count("deferred") >= COUNT, "every message tried once, in vain")
        until(lambda: all(_is_settled(line) for line in old.showqueue("--json").splitlines()), "nothing under way")
        assert moved(old, "export", "--to", out, "--remove", "ALL") == f"{COUNT} exported\n"
        old.await_empty_queue()
        exported = {path.stem: path.read_bytes() for path in out.glob("*.eml")}
        assert sorted(each.partition(b"\r\n\r\n")[2] for each in exported.values()) == sorted(
            octets(number).partition(b"\r\n\r\n")[2] for number in range(COUNT)
        )
        assert moved(new, "import", "--hold", "--remove", out) == f"{COUNT} imported\n"
        assert (list(out.iterdir()), new.files()) == ([], [])
        assert moved(new, "export", "--to", tmp_path / "look", "ALL") == f"{COUNT} exported\n"
        looked = {path.stem: path.read_bytes() for path in (tmp_path / "look").glob("*.eml")}
        assert looked == exported
        assert moved(new, "release", "ALL") == f"{COUNT} released\n"
        assert moved(new, "flush", "ALL").endswith(f"{COUNT} due now\n")
        files = new.await_files(COUNT)
        new.await_empty_queue()
        assert len(new.files()) == COUNT
        bodies = sorted(path.read_bytes().partition(b"\n\n")[2] for path in files)
        wanted = sorted(octets(number).partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n") for number in range(COUNT))
        assert bodies == wanted


def test_an_import_is_noticed(tmp_path: Path) -> None:
    """A running server delivers within a second what somebody else imports and is due."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with Served(tmp_path / "old", "--no-runqueue", deliver=None) as old, Served(tmp_path / "new") as new:
        with smtplib.SMTP(old.host, old.port) as client:
            client.sendmail("anna@example.com", ["ben@example.org"], octets(1))
        moved(old, "export", "--to", tmp_path / "out", "--remove", "ALL")
        moved(new, "import", tmp_path / "out")
        new.await_files(1, seconds=1)
        new.await_empty_queue()


def _is_settled(line: str) -> bool:
    fields: dict[str, object] = json.loads(line)
    return fields["last_attempt"] is not None
