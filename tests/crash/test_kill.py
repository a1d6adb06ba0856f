"""A real server, killed at any moment under load: what it acknowledged is delivered, and nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.crash.load import Load, account, free_port, strace
from tests.e2e.served import COMMAND, Served

pytestmark = [pytest.mark.crash, pytest.mark.slow]

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "30"))


def test_rounds_of_kill_under_load(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """SIGKILL at random moments: a restart on the same port and queue works at once, and the account is clean.

    RFC 5321 section 6.1.
    """
    chance = random.Random(os.environ.get("CRASH_SEED", "1"))  # a seed that can be given again
    load = Load()
    served = Served(tmp_path)
    port = served.port
    for _ in range(ROUNDS):
        load.start(port)
        # Not a wait for anything: the moment of death itself is what varies.
        time.sleep(chance.uniform(0.02, 0.7))
        served.kill()
        load.stop()
        served = Served(tmp_path, port=port)
    with served:
        served.await_empty_queue()
        report = account(load, [served.maildir])
        served.terminate()

    record_property("account", f"{ROUNDS} rounds of SIGKILL: {report}")
    assert len(load.acknowledged) > ROUNDS


def test_rounds_of_kill_of_a_queue_run(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """A `runqueue` killed beside a receiving server, many times, leaves no claim behind and delivers nothing twice."""
    chance = random.Random(os.environ.get("CRASH_SEED", "2"))  # a seed that can be given again
    load = Load(clients=2)
    maildir = tmp_path / "Maildir"
    with Served(tmp_path, "--no-runqueue", deliver=None) as served:
        load.start(served.port)
        for _ in range(max(5, ROUNDS // 3)):
            run_queue_for(served, maildir, chance.uniform(0.3, 0.9))
        load.stop()
        run_queue_for(served, maildir, 60)
        served.await_empty_queue()
        report = account(load, [maildir])
        served.terminate()

    record_property("account", f"SIGKILL of runqueue beside serve: {report}")


def run_queue_for(served: Served, maildir: Path, seconds: float) -> None:
    """Run `runqueue`, and kill it after so many seconds if it has not ended by itself."""
    command = [*COMMAND, "runqueue", "--queue", str(served.queue), "--deliver", f"maildir:{maildir}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with suppress(subprocess.TimeoutExpired):
        assert process.wait(seconds) == 0
    process.kill()
    process.wait()


STEPS = [
    *(("fdatasync", when) for when in (1, 2, 3, 6, 20)),
    *(("fsync", when) for when in (1, 2, 4, 9, 30)),
    *(("pwrite64", when) for when in (1, 4, 15, 60)),
    *(("rename", when) for when in (1, 3, 12)),
    *(("unlink,unlinkat", when) for when in (1, 2, 5)),
]


@pytest.mark.parametrize(("calls", "when"), STEPS)
def test_a_kill_placed_at_a_system_call(calls: str, when: int, tmp_path: Path) -> None:
    """Death at the Nth write, sync, rename or removal leaves a queue from which everything acknowledged arrives."""
    load = Load(clients=3)
    port = free_port()
    # strace counts the calls of each thread on its own: the death is the first thread's that gets so far.
    prefix = [strace(), "-f", "-qqq", "-o", os.devnull, "-e", f"inject={calls}:signal=KILL:when={when}"]
    command = [*prefix, *COMMAND, "serve", "--listen", f"127.0.0.1:{port}", "--queue", str(tmp_path / "queue")]
    with (tmp_path / "log.strace").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--deliver", f"maildir:{tmp_path / 'Maildir'}"],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    load.start(port)
    try:
        status = process.wait(120)
    finally:
        process.kill()
        load.stop()

    assert status == -signal.SIGKILL, (tmp_path / "log.strace").read_text()
    with Served(tmp_path, port=port) as served:
        served.await_empty_queue()
        account(load, [served.maildir])
        assert list((served.queue / "bodies").iterdir()) == [], "litter in the queue folder"
        served.terminate()
