"""Messages that go wrong on the way, in the form of files: LF line ends, no dots doubled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

HEAD: Final = b"From: anna@example.com\nSubject: hello\n\n"
_OCTETS: Final = bytes(octet for octet in range(256) if octet not in b"\r\n")
_MEGABYTE: Final = b"".join(b"%07d %s\n" % (number, b"x" * 91) for number in range(10_000))

MESSAGES: Final[Mapping[str, bytes]] = {
    "plain": HEAD + b"hello\n",
    "dots": HEAD + b".\n..\n...\n.x\n..x\n .\n.\n",
    "dots-first": b".\n..\n.x\n",
    "long-line": HEAD + b"x" * 100_000 + b"\nend\n",
    "long-line-of-dots": HEAD + b"." * 100_000 + b"\n",
    "every-octet": HEAD + b"".join(_OCTETS[i:] + _OCTETS[:i] + b"\n" for i in range(0, 250, 50)),
    "utf-8": HEAD + "Füße, 日本\n".encode(),
    "empty-body": HEAD,
    "no-body": b"Subject: hello\n",
    "no-header": b"\nhello\n",
    "neither": b"hello\n",
    "blank": b"\n",
    "many-blank": b"\n" * 5000,
    "mbox": HEAD + b"From anna\n>From ben\n",
    "trace": b"Return-Path: <x@example.com>\nDelivered-To: x\nReceived: from x by y; now\n" + HEAD + b"hello\n",
    "30-MB": HEAD + _MEGABYTE * 30,
}

_TRACE: Final = re.compile(
    rb"Return-Path: <[^\n]*>\nDelivered-To: [^\n]+\nReceived: [^\n]+(?:\n\t[^\n]+)*; [A-Z][a-z][a-z], [^\n]+\n|"
    rb"Return-Path: <[^\n]*>\nDelivered-To: [^\n]+\nReceived: [^\n]+(?:\n\t[^\n]+)*;\n\t[A-Z][a-z][a-z], [^\n]+\n"
)


def without_trace(file: Path) -> bytes:
    """Give what a file in a Maildir holds below the three trace fields; AssertionError if they are not there."""
    stored = file.read_bytes()
    trace = _TRACE.match(stored)
    assert trace is not None, stored[:500]
    return stored[trace.end() :]
