"""Other people's programs: where they are, or a word on which one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

import pytest

_PATH: Final = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # Debian keeps Postfix's programs there


def find(program: str) -> str:
    """Give a program's path. Skips the test where it is not installed, and fails it in CI, where it must be."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        missing = f"{program} is not installed"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    return path


def outcome(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and give its exit status and what it printed."""
    return subprocess.run(
        [find(program), *arguments], capture_output=True, text=True, errors="replace", check=False, timeout=120
    )


def run(program: str, *arguments: str) -> str:
    """Run a program that must succeed, and give what it printed."""
    result = outcome(program, *arguments)
    assert result.returncode == 0, f"{program}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
    return result.stdout
