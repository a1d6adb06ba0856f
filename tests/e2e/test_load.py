"""Many messages at a time, from Postfix's load generator: none lost, none twice."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.e2e import programs
from tests.e2e.served import Served, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MESSAGES = 2000
_ID = re.compile(r"\sid (\S+)")


@pytest.mark.parametrize("kept", [[], ["-d"]], ids=["connection-each", "connections-kept"])
def test_every_message_once(served: Served, kept: list[str]) -> None:
    """Of 2000 messages over ten sessions, 2000 files are in new/, no queue id twice, and the queue is empty."""
    load = ["-s", "10", "-m", str(MESSAGES), "-l", "4096", "-f", "anna@example.com", "-t", "ben@example.org"]
    programs.run("smtp-source", *load, *kept, served.address)
    files = served.await_files(MESSAGES, seconds=120)
    queue_ids = {queue_id(file) for file in files}
    assert len(queue_ids) == MESSAGES
    assert min(file.stat().st_size for file in files) > 4096
    served.await_empty_queue()
    served.terminate()
    assert (len(served.files()), served.files("tmp")) == (MESSAGES, [])
    assert "Traceback" not in served.log


def test_drain_under_load(served: Served) -> None:
    """A signal in the midst of the load: exit status 0, and after a restart all that was answered 250 is there once."""
    load = ["-s", "10", "-m", "100000", "-l", "4096", "-f", "anna@example.com", "-t", "ben@example.org"]
    with subprocess.Popen([programs.find("smtp-source"), *load, served.address], stderr=subprocess.DEVNULL) as source:
        until(lambda: len(served.files()) > 200, "the load")
        served.terminate()
        source.kill()
    acknowledged = set(re.findall(r"queued as (\S+)", served.log))
    with Served(served.folder) as again:
        again.await_empty_queue()
        files = again.files()
        again.terminate()
    assert (len(files), {queue_id(file) for file in files}) == (len(acknowledged), acknowledged)
    assert "Traceback" not in served.log


def queue_id(file: Path) -> str:
    """Give the queue id that the Received field shows."""
    match = _ID.search(file.read_text())
    assert match is not None
    return match[1]


def test_two_thousand_recipients(served: Served) -> None:
    """Twenty messages for a hundred recipients each are 2000 files."""
    load = ["-s", "10", "-m", "20", "-r", "100", "-f", "anna@example.com", "-t", "ben@example.org"]
    programs.run("smtp-source", *load, served.address)
    served.await_files(2000, seconds=120)
    served.await_empty_queue()


def test_more_clients_than_are_let_in(tmp_path: Path) -> None:
    """Over the limit of one address clients hear 421, and the others are served; the limit is for open connections."""
    with Served(tmp_path, "--max-connections-per-client", "5") as served:
        for _ in range(2):
            load = ["-s", "5", "-m", "50", "-l", "1000", "-f", "anna@example.com", "-t", "ben@example.org"]
            programs.run("smtp-source", *load, "-d", served.address)
        served.await_files(100)
