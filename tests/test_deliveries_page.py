"""What docs/deliveries.md prints can be run."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from smtprecv import Delivery, DeliveryRun
from smtprecv.cli._arguments import parse_arguments

PAGE = (Path(__file__).parents[1] / "docs" / "deliveries.md").read_text()


def test_program(tmp_path: Path) -> None:
    """The program makes a delivery, which keeps connections while a queue runs."""
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "program.py").write_text(program)
    delivery: object = runpy.run_path(str(tmp_path / "program.py"))["delivery"]
    assert isinstance(delivery, Delivery)
    assert isinstance(delivery, DeliveryRun)


@pytest.mark.parametrize("command", re.findall(r"^\$ smtprecv (.*)$", PAGE, re.MULTILINE))
def test_command(command: str, tmp_path: Path) -> None:
    """Each command line is one that is understood; the file of the user is there."""
    user = tmp_path / "user"
    user.write_text("anna\na secret\n")
    words = command.replace("'", "").replace("/etc/smtprecv/smarthost", str(user)).split()
    options = parse_arguments(words)
    assert options.deliver is not None
