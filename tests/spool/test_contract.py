"""The spool on SQLite passes the contract suite that every spool must pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from tests.spool.spoolhouse import opened

from smtprecv.spool import open_spool
from smtprecv.testing import OpenSpool, check_spool
from smtprecv.testing._spool import CHECKS


@pytest.mark.parametrize("check", CHECKS)
async def test_each_promise(check: Callable[[OpenSpool], Awaitable[None]], tmp_path: Path) -> None:
    """The spool on SQLite keeps each promise of the Protocol, its work run on the spot."""
    await check(partial(opened, tmp_path / "queue"))


@pytest.mark.slow
async def test_whole_suite_in_threads(tmp_path: Path) -> None:
    """The whole suite passes in threads, as programs run it."""
    numbers = iter(range(100))
    await check_spool(lambda: partial(open_spool, tmp_path / str(next(numbers))))
