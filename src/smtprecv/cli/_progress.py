"""A bar on the terminal for what takes a while; nothing anywhere else.

Its one rule: it is drawn on standard error alone, and only there where that is a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, final

import trio

_WIDTH: Final = 30
_PAUSE: Final = 0.1
"""Seconds between two drawings."""
_MANY: Final = 500
"""How many there must be for a bar to be worth its line."""


@final
class Progress:
    """How many of ``total`` are done; drawn now and then, if ``is_shown``."""

    def __init__(self, total: int, *, is_shown: bool) -> None:
        """Begin with none done, and draw nothing yet."""
        self._total = total
        self._done = 0
        self._is_shown = is_shown and total >= _MANY
        self._drawn: float | None = None

    def advance(self, count: int) -> None:
        """Say that so many more are done."""
        self._done += count
        now = trio.current_time()
        if self._is_shown and (self._drawn is None or now >= self._drawn + _PAUSE):
            self._drawn = now
            sys.stderr.write(f"\r{self.line}")
            sys.stderr.flush()

    @property
    def line(self) -> str:
        """The bar, the share and the numbers; what came meanwhile makes no more than all."""
        share = min(1.0, self._done / max(1, self._total))
        bar = "#" * int(share * _WIDTH)
        return f"[{bar:-<{_WIDTH}}] {share:4.0%} {self._done} of {max(self._done, self._total)}"

    def erase(self) -> None:
        """Leave the line empty, for what is said next."""
        if self._drawn is not None:
            sys.stderr.write(f"\r{'':{len(self.line)}}\r")
            sys.stderr.flush()
            self._drawn = None


def wants_progress() -> bool:
    """Say whether somebody would see a bar."""
    return sys.stderr.isatty()


@contextmanager
def progress(total: int) -> Generator[Progress, None, None]:
    """Show how far the block is, on a terminal; the line is empty again at its end."""
    shown = Progress(total, is_shown=wants_progress())
    try:
        yield shown
    finally:
        shown.erase()
