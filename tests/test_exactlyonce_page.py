"""The program that docs/exactlyonce.md prints writes what it says, and others can read it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Protocol

import pytest
from tests.spool.spoolhouse import opened
from tests.test_queue import accept, now

from smtprecv import Delivery, run_once

PAGE = (Path(__file__).parents[1] / "docs" / "exactlyonce.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


class Reader(Protocol):
    """Reads the tickets."""

    def __call__(self, database: Path) -> list[tuple[int, str]]:
        """Give number and sender of each."""
        ...


@pytest.fixture
def names(tmp_path: Path) -> dict[str, object]:
    """Give what the programs define."""
    names: dict[str, object] = {}
    for number, text in enumerate(PROGRAMS):
        program = tmp_path / f"program_{number}.py"
        program.write_text(text)
        names |= runpy.run_path(str(program))
    return names


async def test_the_programs(names: dict[str, object], tmp_path: Path) -> None:
    """A ticket is written for each recipient, seen by a reader, and closed, as the page has it."""
    tickets, make_tables, close, read = (names[name] for name in ("Tickets", "make_tables", "close", "tickets"))
    assert callable(tickets)
    assert callable(make_tables)
    assert callable(close)
    reader: Reader = read  # type: ignore[assignment]
    delivery: object = tickets()
    assert isinstance(delivery, Delivery)
    async with opened(tmp_path / "queue") as spool:
        await spool.transact(make_tables)
        await accept(spool, "b@example.com", "c@example.com")
        await run_once(spool, delivery, now=now)
        assert reader(spool.database) == [(1, "a@example.com"), (2, "a@example.com")]
        assert await spool.transact(lambda connection: [close(number, connection) for number in (1, 3)]) == [
            True,
            False,
        ]
        assert reader(spool.database) == [(2, "a@example.com")]
