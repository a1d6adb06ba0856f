"""The programs that docs/deliveries.md prints run, and its tables say what the code does."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from smtprecv import Delivery, Router
from smtprecv.cli._arguments import parse_arguments
from smtprecv.deliveries._command import OUTCOMES
from smtprecv.deliveries._webhook import LATER, NEVER

PAGE = (Path(__file__).parents[1] / "docs" / "deliveries.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_program(number: int, tmp_path: Path) -> None:
    """What is printed runs."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[number])
    names = runpy.run_path(str(program))
    assert isinstance(names.get("delivery", Router), type | Delivery)


@pytest.mark.parametrize("command", re.findall(r"^\$ smtprecv (.*)$", PAGE, re.MULTILINE))
def test_command(command: str, tmp_path: Path) -> None:
    """Each command line is one that is understood; the file of the user is there."""
    user = tmp_path / "user"
    user.write_text("anna\na secret\n")
    words = shlex.split(command.replace("/etc/smtprecv/smarthost", str(user)))
    options = parse_arguments(words)
    assert options.delivery is not None


def rows(heading: str) -> dict[str, str]:
    """Give the rows of the table below this heading."""
    _, _, table = PAGE.partition(f"| {heading} | means |\n|---|---|\n")
    found = (line.strip("| ").split(" | ") for line in table.partition("\n\n")[0].splitlines())
    return {name: meaning for name, meaning in found}  # noqa: C416  # pairs by their names


def test_exit_statuses() -> None:
    """Each status that is never in the code is never on the page, and so for later."""
    said: dict[int, str] = {}
    for name, meaning in rows("exit status (sysexits.h)").items():
        span = re.match(r"(\d+) to (\d+)", name)
        numbers = range(int(span[1]), int(span[2]) + 1) if span else map(int, re.findall(r"\b\d+\b", name))
        said |= dict.fromkeys(numbers, meaning.partition(":")[0])
    words = {2: "delivered", 4: "later", 5: "never"}
    assert said == {status: words[outcome.code // 100] for status, outcome in OUTCOMES.items()}


def test_http_statuses() -> None:
    """The page has just those 4xx that mean later, and those with a reply of their own."""
    found: dict[str, set[int]] = {"later": set(), "never": set()}
    for name, meaning in rows("answer").items():
        found.get(re.split("[:,]", meaning)[0], set()).update(map(int, re.findall(r"4\d\d", name)))
    assert found == {"later": set(LATER), "never": set(NEVER)}
