"""A journalled ext4 of our own, in a file, as a loop device: for machines whose disks have none. It takes root."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.process import Trouble, find

SIZE: Final = 16 * 2**30
"""Octets, which are not there before they are written."""


@contextmanager
def mounted(folder: str | None) -> Generator[str]:
    """Make a file system on the disk of a folder, and give where it is mounted; it is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path, place = Path(temporary, "image"), Path(temporary, "disk")
        Path(temporary).chmod(0o755)  # others than root measure here
        place.mkdir()
        path.touch()
        os.truncate(path, SIZE)
        _run("mkfs.ext4", "-q", "-F", "-O", "has_journal", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(path))
        _run("mount", "-t", "ext4", "-o", "loop", str(path), str(place))
        try:
            yield str(place)
        finally:
            _run("umount", str(place))


def _run(command: str, *words: str) -> None:
    program = find(command)
    if program is None:
        reason = f"{command} is not installed"
        raise Trouble(reason)
    done = subprocess.run([program, *words], check=False, capture_output=True, text=True)
    if done.returncode:
        reason = f"{command}: {done.stderr.strip()}"
        raise Trouble(reason)
