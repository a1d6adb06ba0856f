"""Workers of one server, killed under load: the others and the next ones keep every promise."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from tests.crash.load import Load, account
from tests.e2e.served import Served, until
from tests.e2e.workers import is_over, processes, workers

pytestmark = [pytest.mark.crash, pytest.mark.slow]

_KILLS = 6
"""Half of them for each worker, which starts again after 0, 1 and 2 seconds."""


def have_come(served: Served, count: int) -> bool:
    """Say whether so many workers have taken mail until now."""
    return len(processes(served)) >= count


def test_kills_of_workers_and_of_the_supervisor(tmp_path: Path) -> None:
    """SIGKILL of one worker after the other, and of the supervisor in the end: nothing is lost, nothing comes twice.

    RFC 5321 section 6.1.
    """
    chance = random.Random(os.environ.get("CRASH_SEED", "3"))  # a seed that can be given again
    load = Load()
    with Served(tmp_path, "--workers", "2") as served:
        load.start(served.port)
        for kills in range(_KILLS):
            until(partial(have_come, served, 2 + kills), "a worker in its place")
            # Not a wait for anything: the moment of death itself is what varies.
            time.sleep(chance.uniform(0.02, 0.7))
            os.kill(workers(served)[kills % 2 + 1], signal.SIGKILL)
        served.kill()
        until(lambda: all(map(is_over, processes(served))), "the end of the workers")
        load.stop()
    with Served(tmp_path, port=served.port) as again:
        again.await_empty_queue()
        account(load, [again.maildir])
        again.terminate()
    assert len(load.acknowledged) > _KILLS
    assert "Traceback" not in served.log
