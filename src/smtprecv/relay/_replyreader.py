"""Replies, cut from the stream of octets that the next hop sends.

One rule: memory is bounded, and what is no reply ends the reading for good: behind it nothing could be trusted to
answer what it seems to answer. A lone LF ends a line too, for nothing hangs on it here. How the input is cut into
reads changes nothing.
"""

from __future__ import annotations

import re
from typing import Final, final

from smtprecv.protocol import EnhancedStatus, Reply

MAX_LINE_SIZE: Final = 12288
"""Octets of one line: a challenge of AUTH is the longest (RFC 4954 section 4)."""
MAX_LINES: Final = 256
MAX_REPLY_SIZE: Final = 64 * 1024

NOT_A_REPLY: Final = Reply(451, "the next hop sent what is no reply", EnhancedStatus(4, 5, 0))
"""Stands for what could not be read, and for all that would have followed it."""

_LINE: Final = re.compile(rb"(?P<code>[2-5][0-9]{2})(?:(?P<mark>[ -])(?P<text>.*))?", re.DOTALL)
_STATUS: Final = re.compile(r"(?P<status>(?P<klass>[245])\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


@final
class ReplyReader:
    """Takes replies from what is received; ``is_broken`` once there was something that is none."""

    def __init__(self) -> None:
        """Expect the first reply."""
        self._buffer = bytearray()
        self._searched = 0
        self._code = 0
        self._lines: list[bytes] = []
        self._size = 0
        self.is_broken: bool = False

    @property
    def has_unread(self) -> bool:
        """True if there are octets behind the last reply that was given."""
        return bool(self._buffer or self._lines)

    def receive(self, octets: bytes | bytearray) -> None:
        """Take what was received."""
        self._buffer += octets

    def next_reply(self) -> Reply | None:
        """Take the next reply; None if it is not all there, or was never one."""
        while not self.is_broken:
            end = self._buffer.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._buffer)
                self.is_broken = self._searched > MAX_LINE_SIZE
                break
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            self._searched = 0
            if self._is_last(line):
                reply = _reply(self._code, self._lines)
                self._lines, self._size = [], 0
                return reply
        if self.is_broken:
            self._buffer.clear()
            self._lines.clear()
        return None

    def _is_last(self, line: bytes) -> bool:
        """Add a line to the reply, and say whether it is complete."""
        match = _LINE.fullmatch(line)
        self._size += len(line)
        if (
            match is None
            or len(line) > MAX_LINE_SIZE
            or self._size > MAX_REPLY_SIZE
            or len(self._lines) == MAX_LINES
            # RFC 5321 section 4.2.1: the code is the same on every line.
            or (self._lines and int(match["code"]) != self._code)
        ):
            self.is_broken = True
            return False
        self._code = int(match["code"])
        self._lines.append(match["text"] or b"")
        return match["mark"] != b"-"


def _reply(code: int, lines: list[bytes]) -> Reply:
    """Make a reply of its lines; a status of another class than the code's stays in the text."""
    texts = [_printable(line.decode(errors="replace")) for line in lines]
    found = _STATUS.match(texts[0])
    if found is None or int(found["klass"]) != code // 100:
        return Reply(code, "\n".join(texts))
    # RFC 2034 section 4: the status stands on every line.
    text = "\n".join(line.removeprefix(found["status"]).removeprefix(" ") for line in texts)
    return Reply(code, text, EnhancedStatus.parse(found["status"]))


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
