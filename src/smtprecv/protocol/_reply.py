"""SMTP replies: the one currency of the program.

Policies answer with a Reply, deliveries return one for each recipient, the spool
remembers the last one, the wire carries it. Nothing else means "how did it go".
A Reply may hold any text; what goes on the wire is made safe here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple, final

MAX_REPLY_LINE_SIZE: Final = 512
"""Octets of one reply line, code and CRLF included (RFC 5321 section 4.5.3.1.5)."""
MAX_CHALLENGE_SIZE: Final = 12288
"""Octets of a 334 line, which can't be divided (RFC 4954 section 4)."""

_MAX_KEPT_SIZE: Final = 1024
"""Characters of a text whose lines are kept, so that those that are take little room."""


@final
class Severity(Enum):
    """What the first digit of a reply code says (RFC 5321 section 4.2.1)."""

    COMPLETION = 2
    INTERMEDIATE = 3
    TRANSIENT = 4
    PERMANENT = 5


_SEVERITIES: Final = {severity.value: severity for severity in Severity}


@final
class EnhancedStatus(NamedTuple):
    """An enhanced mail system status code (RFC 3463 section 2)."""

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        """The code as it is written: ``5.1.1``."""
        return f"{self.klass}.{self.subject}.{self.detail}"

    @classmethod
    def parse(cls, text: str) -> EnhancedStatus:
        """Read ``5.1.1``; anything else is a ValueError."""
        klass, subject, detail = (int(number) for number in text.split("."))
        return cls(klass, subject, detail)


@final
@dataclass(frozen=True, slots=True)
class Reply:
    r"""One SMTP reply: a code, a text for people, and perhaps an enhanced status code.

    ``text`` may have several lines, divided by ``\n``. ``status`` must be of the class
    that the code's first digit names (RFC 2034 section 4). ValueError for a code outside
    200-599, for 1yz, and for a status of another class; TypeError for a text that is none.
    """

    code: int
    text: str
    status: EnhancedStatus | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be sent."""
        # TypeError for what is no text: it would be found out only when it is written, far from its maker.
        str.isprintable(self.text)
        if not 200 <= self.code <= 599:
            msg = f"{self.code} is not an SMTP reply code"
            raise ValueError(msg)
        if self.status is not None and self.status.klass != self.code // 100:
            msg = f"the status {self.status} does not belong to the code {self.code}"
            raise ValueError(msg)

    @property
    def severity(self) -> Severity:
        """The class of the reply, by its first digit."""
        return _SEVERITIES[self.code // 100]

    @property
    def is_ok(self) -> bool:
        """True for 2yz, positive completion."""
        return self.code < 300

    def __str__(self) -> str:
        """Code, status and text on one line, safe for logs and tables."""
        status = "" if self.status is None else f"{self.status} "
        return f"{self.code} {status}{_printable(self.text)}"

    def __bytes__(self) -> bytes:
        """The lines for the wire, each ended by CRLF, all but the last with a hyphen (RFC 5321 section 4.2.1)."""
        return wire_form(self, self.status)


def wire_form(reply: Reply, enhanced_status: EnhancedStatus | None) -> bytes:
    """Give the lines for the wire, each ended by CRLF, with this status in the place of the reply's own."""
    written = _written_once if len(reply.text) <= _MAX_KEPT_SIZE else _written
    return written(reply.code, reply.text, enhanced_status)


def _written(code: int, text: str, enhanced_status: EnhancedStatus | None) -> bytes:
    status = "" if enhanced_status is None else f"{enhanced_status} "
    line_size = MAX_CHALLENGE_SIZE if code == 334 else MAX_REPLY_LINE_SIZE
    room = line_size - len("250-\r\n") - len(status)
    if len(text) <= room and text.isprintable():
        return f"{code} {status}{text}\r\n".encode("ascii", "replace")
    pieces = [piece for line in text.split("\n") for piece in _cut(_printable(line), room)]
    *others, last = pieces
    lines = [f"{code}-{status}{piece}\r\n" for piece in others]
    lines.append(f"{code} {status}{last}\r\n")
    return "".join(lines).encode("ascii", "replace")


_written_once: Final = lru_cache(maxsize=256)(_written)
"""A server has few replies, and says them again and again."""


def _printable(text: str) -> str:
    """Let no control character reach the wire, a log or a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _cut(line: str, room: int) -> list[str]:
    """Divide a line that is too long for the wire."""
    return [line[start : start + room] for start in range(0, len(line), room)] or [""]
