"""The command `smtprecv`, which at each SIGUSR2 writes to a file how many blocks of memory Python has given out.

`python bench/servers/counted.py FILE serve …`. Resident memory moves in steps and never comes back; blocks are counted
one by one, so that the smallest leak shows.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

from smtprecv.cli import main


def count(number: int, frame: FrameType | None) -> None:
    """Write down what is given out now."""
    Path(sys.argv[1]).write_text(str(sys.getallocatedblocks()))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, count)
    sys.exit(main(sys.argv[2:]))
