"""A program that delivers into its spool's database dies at every step, and under load: each message is there once."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("storing.py")

pytestmark = [pytest.mark.crash, pytest.mark.slow]


def started(mode: str, queue: Path) -> subprocess.Popen[str]:
    """Start the program."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), mode, str(queue)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def check(queue: Path, accepted: set[str]) -> None:
    """Each message that was acknowledged has its rows, no recipient has two, and nobody was told twice."""
    with sqlite3.connect(f"{(queue / 'queue.sqlite').as_uri()}?mode=ro", uri=True) as reader:
        rows: list[tuple[str, str]] = reader.execute("SELECT key, id FROM box").fetchall()
        reports: list[tuple[str]] = reader.execute("SELECT id FROM report").fetchall()
        assert reader.execute("SELECT count(*) FROM smtprecv_message").fetchone() == (0,)
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    reader.close()
    assert len({key for key, _ in rows}) == len(rows) == 2 * len({queue_id for _, queue_id in rows})
    assert len(set(reports)) == len(reports) > 0
    assert accepted <= {queue_id for _, queue_id in rows}


def test_a_death_at_every_step(tmp_path: Path) -> None:
    """Wherever between acceptance, claim, delivery and record the process dies, nothing is lost or repeated."""
    program = started("step", tmp_path / "queue")
    output, _ = program.communicate(timeout=300)
    accepted = {line.split()[1] for line in output.splitlines()}
    assert (program.returncode, len(accepted) > 50) == (0, True)
    check(tmp_path / "queue", accepted)


def test_kills_under_load(tmp_path: Path) -> None:
    """Killed again and again while it accepts and delivers, it ends with each message exactly once in its table."""
    queue, accepted = tmp_path / "queue", set[str]()
    for _ in range(6):
        program = started("load", queue)
        assert program.stdout is not None
        accepted.add(program.stdout.readline().split()[1])
        time.sleep(random.uniform(0, 1))
        program.kill()
        # The last line may be cut off.
        accepted.update(line.split()[1] for line in program.communicate()[0].splitlines(keepends=True)[:-1])
    last = started("end", queue)
    accepted.update(line.split()[1] for line in last.communicate(timeout=300)[0].splitlines())
    assert (last.returncode, len(accepted) > 200) == (0, True)
    check(queue, accepted)
