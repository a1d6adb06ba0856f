"""``smtprecv runqueue``: one pass, for cron and for hands."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from smtprecv.cli import main
from smtprecv.cli._arguments import Options
from smtprecv.cli._runqueue import runqueue
from smtprecv.errors import ConfigError
from smtprecv.message import Client, QueueId, SessionId, utc_now
from smtprecv.protocol import Domain, Envelope, ForwardPath, Mailbox, Recipient, ReversePath
from smtprecv.spool import Spool, open_spool


async def accept(spool: Spool) -> QueueId:
    """Accept a message for bob@example.com."""
    now = utc_now()
    draft = await spool.begin(now)
    await draft.write(b"Subject: x\r\n\r\n")
    envelope = Envelope(ReversePath(None), recipients=(Recipient(ForwardPath(Mailbox("bob", Domain("example.com")))),))
    return (await draft.commit(Client(SessionId("s"), None, None), envelope, now)).queue_id


def fill(folder: Path) -> QueueId:
    """Put one message into a queue."""

    async def fill() -> QueueId:
        async with open_spool(folder) as spool:
            return await accept(spool)

    return trio.run(fill)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Give the command for a queue and Maildirs below the test's folder."""
    name = ["--hostname", "mx.example.com"]
    return ["runqueue", "--queue", str(tmp_path / "q"), "--deliver", f"maildir:{tmp_path}/m/{{local_part}}", *name]


def delivered(tmp_path: Path) -> int:
    """Count the files that bob has."""
    return len(list((tmp_path / "m" / "bob" / "new").glob("*")))


def test_due(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is due is delivered, and one line says what was done."""
    fill(tmp_path / "q")
    assert main(command) == 0
    assert capsys.readouterr() == ("1 delivered, 0 deferred, 0 failed\n", "")
    assert delivered(tmp_path) == 1
    assert main(command) == 0
    assert capsys.readouterr().out == "0 delivered, 0 deferred, 0 failed\n"


def test_named(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A named message is tried before it is due; what was deferred waits for its time otherwise."""
    queue_id = fill(tmp_path / "q")
    (tmp_path / "m").write_bytes(b"")
    assert main(command) == 0
    (tmp_path / "m").unlink()
    assert main(command) == 0
    assert main([*command, queue_id]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "0 delivered, 1 deferred, 0 failed",
        "0 delivered, 0 deferred, 0 failed",
        "1 delivered, 0 deferred, 0 failed",
    ]


def test_missing(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is not in the queue is told, status 1; the others are tried all the same."""
    queue_id = fill(tmp_path / "q")
    assert main([*command, "0" * 20, queue_id]) == 1
    out, err = capsys.readouterr()
    assert out == "1 delivered, 0 deferred, 0 failed\n"
    assert err == f"smtprecv runqueue: {'0' * 20} is not in the queue\n"


def test_no_queue(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without a queue is status 1 and one line; nothing is made there."""
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == []


async def test_busy(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A message that another process is delivering is named and left to it."""
    async with open_spool(tmp_path / "q") as spool:
        queue_id = await accept(spool)
        assert len(await spool.claim_ids([queue_id])) == 1
        status = await trio.to_thread.run_sync(lambda: main([*command, queue_id]))
    assert status == 0
    out, err = capsys.readouterr()
    assert out == "0 delivered, 0 deferred, 0 failed\n"
    assert err == f"smtprecv runqueue: {queue_id} is being delivered by another process\n"


async def test_no_delivery(tmp_path: Path) -> None:
    """A pass needs somewhere to deliver to."""
    with pytest.raises(ConfigError, match="--deliver"):
        await runqueue(Options(deliver=None, queue=tmp_path))
