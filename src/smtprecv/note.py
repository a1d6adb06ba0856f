"""Notes: what a delivery remembers with a message from one attempt to the next, as a type of the program's own.

The spool keeps text and a version; a codec is what makes a type of it. Its one rule: a note that cannot be
read is no note. It is logged and gone, and never stops a message.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass
from functools import partial
from operator import index
from typing import ClassVar, Final, Generic, Protocol, TypeVar, final

from smtprecv.spool import Note

_log: Final = logging.getLogger("smtprecv.queue")

_LEAST_VERSION: Final = -(2**63)


class _Dataclass(Protocol):
    """What every dataclass is."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]


_N = TypeVar("_N")
_D = TypeVar("_D", bound=_Dataclass)


class NoteCodec(Protocol[_N]):
    """Writes and reads the notes of one type."""

    @property
    def version(self) -> int:
        """The version of the form that ``encode`` writes."""
        ...

    def encode(self, note: _N) -> str:
        """Write a note."""
        ...

    def decode(self, version: int, text: str) -> _N:
        """Read what ``encode`` wrote, in this version or an older one; any exception if that cannot be."""
        ...


@final
@dataclass(frozen=True, slots=True)
class JsonNote(Generic[_D]):
    """A NoteCodec for a dataclass whose fields are what JSON has: texts, numbers, truths, lists, None.

    ``kind``: the dataclass. ``version``: raise it when the fields change. ``upgrade``: is given the
    version and the fields of an older note, and gives the fields of today's; without it, older notes
    are read as they are.

    ::

        @dataclass
        class Progress:
            tries: int

        PROGRESS = JsonNote(Progress)
    """

    kind: type[_D]
    version: int = 1
    upgrade: Callable[[int, Mapping[str, object]], Mapping[str, object]] | None = None

    def encode(self, note: _D) -> str:
        """Write the fields as a JSON object; TypeError for a field that JSON has not."""
        return json.dumps(asdict(note))

    def decode(self, version: int, text: str) -> _D:
        """Read the fields, upgraded if they are of another version, and make the dataclass of them."""
        named: Mapping[str, object] = dict(json.loads(text))
        if version != self.version and self.upgrade is not None:
            named = self.upgrade(version, named)
        return partial(self.kind, **named)()


@final
@dataclass(slots=True)
class Notebook:
    """The note of one message during one attempt: what was there, and what was saved; the log names ``queue_id``."""

    note: Note | None = None
    queue_id: str = "-"

    def load(self, codec: NoteCodec[_N]) -> _N | None:
        """Read the note; None if there is none, or none that can be read."""
        if self.note is None:
            return None
        try:
            return codec.decode(self.note.version, self.note.text)
        # A codec is the user's code, and its old notes are years old: that must not stop today's mail.
        except Exception:
            text = "%s: a note of version %d cannot be read, and counts as none"
            _log.exception(text, self.queue_id, self.note.version)
            return None

    def save(self, codec: NoteCodec[_N], note: _N) -> None:
        """Write a note in the place of the one before; TypeError or ValueError for one that can't be stored."""
        version, text = index(codec.version), codec.encode(note)
        # Found out here, in the delivery that saves it, and not by the store, which could never record the outcome.
        str.isprintable(text)
        if not _LEAST_VERSION <= version <= -_LEAST_VERSION - 1:
            msg = f"the version {version} of a note does not fit into 64 bits"
            raise ValueError(msg)
        self.note = Note(version, text)
