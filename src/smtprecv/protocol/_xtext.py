"""xtext, in which parameters carry what their syntax forbids (RFC 3461 section 4), and unitext (RFC 6533 section 3).

One rule: what came from a client is kept as it came, for it must be passed on so; to read it is to decode it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, final

_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_UTF8_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~\u00a0-\U0010ffff]|\+[0-9A-F]{2})*")
_HEXCHAR: Final = re.compile(rb"\+([0-9A-F]{2})")
_UNICODE: Final = re.compile(r"\\x\{([0-9A-F]{2,6})\}")


@final
@dataclass(frozen=True, slots=True)
class Xtext:
    """A text and the encoding in which it came; ``encoded`` is well-formed if ``read`` or ``of`` made this."""

    encoded: str

    @classmethod
    def read(cls, encoded: str, *, is_utf8: bool = False) -> Xtext:
        """Take what a client sent; ValueError if it is no xtext, or has in it what is not printable.

        Non-ASCII characters are such, but for ``is_utf8``.
        """
        xtext = cls(encoded)
        if not (_UTF8_XTEXT if is_utf8 else _XTEXT).fullmatch(encoded):
            msg = "not an xtext"
            raise ValueError(msg)
        text = str(xtext)
        if not text.isprintable() or not (is_utf8 or text.isascii()):
            msg = "the xtext has in it what is not printable"
            raise ValueError(msg)
        return xtext

    @classmethod
    def of(cls, text: str) -> Xtext:
        """Encode a text."""
        return cls("".join(_encoded(octet) for octet in text.encode()))

    def __str__(self) -> str:
        """The text; ValueError if its octets are no UTF-8."""
        octets = self.encoded.encode()
        return _HEXCHAR.sub(lambda match: bytes([int(match[1], 16)]), octets).decode()


def decode_unitext(text: str) -> str:
    r"""Give the characters that stand as ``\x{...}``; what names no character that can be shown is left as it is."""
    return _UNICODE.sub(_character, text)


def _character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    character = chr(number) if number <= 0x10FFFF else "\0"
    return character if character.isprintable() else match[0]


def _encoded(octet: int) -> str:
    character = chr(octet)
    return character if "!" <= character <= "~" and character not in "+=" else f"+{octet:02X}"
