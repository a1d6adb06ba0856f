"""What makes a file, or the names in a folder, outlive a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path | str) -> None:
    """Make a file's octets, or a folder's names, durable. It blocks: call it in a thread."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
