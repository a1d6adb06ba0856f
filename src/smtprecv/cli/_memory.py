"""How a process that stays for weeks takes its memory from the system."""

from __future__ import annotations

import os
from typing import Final

_M_ARENA_MAX: Final = -8
"""The parameter of glibc's ``mallopt``, from its ``malloc.h``."""
_ASKED_FOR: Final = "MALLOC_ARENA_MAX"
"""The variable of the environment by which an operator asks glibc for a number of arenas."""


def keep_one_arena() -> bool:
    """Have all threads take their memory from one arena; False where the C library has none, or was asked for others.

    glibc gives each thread one of its own, up to eight for each core, and what is free in one is of no use to the
    others: so a process grows for days that has let go of everything. Call it before there are threads.
    """
    if _ASKED_FOR in os.environ:
        return False
    try:
        import ctypes  # noqa: PLC0415  # not every Python has it

        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1))
    except (ImportError, AttributeError, OSError):
        return False
