"""Which folder belongs to a recipient: a path template that no address can escape from.

Pure. Its one rule: what an address contributes is always part of one path component, spelled in
characters that mean nothing to a file system. Distinct addresses, after folding the case,
give distinct folders.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from smtprecv.errors import ConfigError
from smtprecv.protocol import Mailbox

NAME_SIZE: Final = 255
"""Octets of the longest file name that common file systems take."""

_COMPONENT: Final = re.compile(r"(?P<before>[^{}]*)(?:\{(?P<field>[^{}]*)\}(?P<after>[^{}]*))?")
_ESCAPED: Final = re.compile(r"\A\.|\.\Z|[^a-z0-9._+=@-]")
_HASH_SIZE: Final = 32
_LEAST_ROOM: Final = 2 * _HASH_SIZE

_FIELDS: Final[Mapping[str, Callable[[Mailbox], str]]] = {
    "domain": lambda mailbox: str(mailbox.domain),
    "local_part": lambda mailbox: mailbox.local_part,
    "address": lambda mailbox: f"{mailbox.local_part}@{mailbox.domain}",
}


@final
@dataclass(frozen=True, slots=True)
class _Component:
    before: str
    field: str | None
    after: str
    spare: int

    @property
    def room(self) -> int:
        return NAME_SIZE - self.spare - len(os.fsencode(self.before + self.after))

    def expand(self, mailbox: Mailbox) -> str:
        if self.field is None:
            return self.before
        return self.before + escape(fold(_FIELDS[self.field](mailbox)), self.room) + self.after


@final
class FolderTemplate:
    """A path in which ``{domain}``, ``{local_part}`` and ``{address}`` stand for those of the recipient.

    ``prefix`` is the part before the first placeholder, made absolute: every folder is this or below
    it. A path component has at most one placeholder. Case is folded: ``Bob@example.com`` and
    ``bob@example.com`` share a folder. ConfigError for an unknown placeholder, a stray brace,
    or ``..`` behind a placeholder.
    """

    def __init__(self, template: str | Path, spare: int = 0) -> None:
        """Read the template; each name that it makes is ``spare`` octets shorter than a file name may be."""
        text = str(template)
        if not text or "\0" in text:
            raise _error(text, "it is not a path")
        parts = Path(text).absolute().parts
        fixed = next((index for index, part in enumerate(parts) if "{" in part or "}" in part), len(parts))
        self.prefix: Final = Path(*parts[:fixed])
        self._prefix: Final = str(self.prefix)
        self._components: Final = [_component(text, part, spare) for part in parts[fixed:]]

    def folder(self, mailbox: Mailbox) -> Path:
        """Give the folder of a recipient."""
        return Path(self.path(mailbox))

    def path(self, mailbox: Mailbox) -> str:
        """Give the folder of a recipient as text, which costs a tenth."""
        return os.path.join(self._prefix, *[component.expand(mailbox) for component in self._components])


def fold(text: str) -> str:
    """Make equal what people take for the same address: lower case, Unicode composed (NFC)."""
    return unicodedata.normalize("NFC", text.lower())


def escape(text: str, room: int = NAME_SIZE) -> str:
    """Spell folded text in ``a-z 0-9 . _ + = @ -``, never with a dot at an end; all other octets as ``%XX``.

    Reversible, and so without collisions, for what fits into ``room``; the empty text is ``%``. What
    does not fit is cut and ends in ``%=`` and a hash of the whole, which no escaped text contains.
    """
    escaped = _ESCAPED.sub(_percent, text) or "%"
    if len(escaped) <= room:
        return escaped
    digest = hashlib.sha256(escaped.encode()).hexdigest()[:_HASH_SIZE]
    return f"{escaped[: room - len(digest) - 2]}%={digest}"


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in match[0].encode())


def _component(template: str, text: str, spare: int) -> _Component:
    match = _COMPONENT.fullmatch(text)
    if match is None:
        raise _error(template, f"{text!r} must have one placeholder at most, and no stray braces")
    component = _Component(match["before"], match["field"], match["after"] or "", spare)
    if component.field is not None and component.field not in _FIELDS:
        known = ", ".join(f"{{{name}}}" for name in _FIELDS)
        raise _error(template, f"{{{component.field}}} is unknown, there are {known}")
    if text == "..":
        raise _error(template, ".. would leave the folder of the recipient")
    if component.room < _LEAST_ROOM:
        raise _error(template, f"{text!r} leaves no room for the address")
    return component


def _error(template: str, reason: str) -> ConfigError:
    return ConfigError(f"path {template!r}: {reason}")
