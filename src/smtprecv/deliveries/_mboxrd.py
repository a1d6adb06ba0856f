"""The mboxrd form: messages in one file, each below a line that begins with ``From ``.

Pure. Its one rule: within a message no line begins so. ``From ``, ``>From ``, ``>>From `` and so on get one more
``>``, which a reader takes away again.
"""

from __future__ import annotations

import re
import time
from typing import Final, final

from smtprecv.spool import Entry

_FROM: Final = re.compile(rb"(\n>*)From ")
_UNDECIDED: Final = re.compile(rb"\n>*(F|Fr|Fro|From)?\Z")


def separator(entry: Entry) -> bytes:
    """Give the line above a message: who sent it, and when it came, in UTC."""
    mailbox = entry.envelope.reverse_path.mailbox
    sender = "MAILER-DAEMON" if mailbox is None else str(mailbox)
    word = "".join(c if c.isprintable() and not c.isspace() else "?" for c in sender)
    return f"From {word} {time.asctime(entry.received.utctimetuple())}\n".encode()


@final
class FromQuoter:
    """Quotes the lines of one message, however it is cut into pieces; holds back four octets at most."""

    def __init__(self) -> None:
        """Begin a message."""
        self._held = b""
        self._before = b"\n"
        self._last = b"\n"

    def convert(self, octets: bytes) -> bytes:
        """Give the next piece; what may be the beginning of ``From `` waits for what follows."""
        if not octets:
            return b""
        # The `>` of a line may be written before it is known what follows them: one more in their midst is no other.
        text = _FROM.sub(rb"\1>From ", self._before + self._held + octets)
        undecided = _UNDECIDED.search(text)
        self._held = undecided[1] or b"" if undecided else b""
        start, end = len(self._before), len(text) - len(self._held)
        self._before = b"\n" if undecided else b"x"
        self._last = text[end - 1 : end] if end > start else self._last
        return text[start:end]

    def rest(self) -> bytes:
        """Give what still waits, the end of the last line if it has none, and the empty line below a message."""
        last = self._held[-1:] or self._last
        return self._held + (b"\n" if last == b"\n" else b"\n\n")
