"""How the log names what a client was refused.

Its one rule: nothing that a client sends forges a line of the log, and no password gets there.
"""

from __future__ import annotations

from typing import Final

from smtprecv.protocol import Auth, AuthResponse, EndOfChunk, EndOfMailData, Event, Mail, Rcpt, Rejected

_LOGGED_SIZE: Final = 100
"""Octets of a refused command line that the log shows."""


def is_redacted(refused: Rejected) -> bool:
    """Say whether the core left nothing of a line but that it was of AUTH."""
    return refused.line.upper() in {b"", b"AUTH"}


def subject(event: Event) -> str:
    """Name what was refused, in ASCII and without control characters."""
    match event:
        case Rejected(line):
            return ascii(line[:_LOGGED_SIZE])[1:]
        case Mail(reverse_path):
            return ascii(f"MAIL <{reverse_path}>")[1:-1]
        case Rcpt(forward_path):
            return ascii(f"RCPT <{forward_path}>")[1:-1]
        case Auth() | AuthResponse():
            return "AUTH"
        case EndOfMailData() | EndOfChunk():
            return "the message"
        case _:
            return type(event).__name__.upper()
