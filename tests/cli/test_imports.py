"""What the command imports: what it was asked for needs, and nothing that only others need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smtprecv import open_spool

MODULES_AFTER = "import sys; from smtprecv.cli import main; status = main(); print(*sys.modules); sys.exit(status)"
HEAVY = ("server", "deliveries", "relay", "policies", "policy", "queue", "retry", "testing", "resolver")
"""The parts of smtprecv that receive and deliver, or that only tests need."""
STRANGERS = {"dns", "httpx2", "email", "importlib.metadata", "pytest"}


UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
"""The environment without what has coverage measured in a process, which imports modules of its own."""


def imported(*arguments: str) -> set[str]:
    """Give the names of the modules that a command has imported by its end."""
    command = [sys.executable, "-c", MODULES_AFTER, *arguments]
    output = subprocess.run(command, env=UNMEASURED, capture_output=True, text=True, check=True).stdout
    return set(output.splitlines()[-1].split())


def of_parts(modules: set[str], *parts: str) -> set[str]:
    """Give the modules of these parts of smtprecv."""
    return {name for name in modules if name.split(".")[:2] in [["smtprecv", part] for part in parts]}


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["list", "--limit", "20"], ["hold", "ALL"], ["verify"]])
async def test_the_queue_command_imports_no_server(tmp_path: Path, verb: list[str]) -> None:
    """Who looks at the queue, or steers it, waits for nothing that receives or delivers mail to be imported."""
    async with open_spool(tmp_path):
        pass
    modules = imported("queue", *verb, "--queue", str(tmp_path))
    assert "smtprecv.cli._queue" in modules
    assert of_parts(modules, *HEAVY) == set()
    assert modules & STRANGERS == set()


@pytest.mark.slow
@pytest.mark.parametrize("word", ["--help", "--version"])
def test_what_needs_no_command_imports_none(word: str) -> None:
    """The overview and the version need no Trio, no database, and nothing of any command."""
    command = [sys.executable, "-X", "importtime", "-m", "smtprecv", word]
    told = subprocess.run(command, env=UNMEASURED, capture_output=True, text=True, check=True).stderr
    modules = {line.rpartition("|")[2].strip() for line in told.splitlines()}
    assert "smtprecv.cli._arguments" in modules
    assert of_parts(modules, *HEAVY, "spool", "control") == set()
    assert modules & {"trio", "sqlite3"} == set()
