"""A disk as a power cut may leave it.

What is written is pending until a sync of that very file or folder; a power cut leaves of what is pending what a
``Loss`` says. Its one rule: a sync of a file promises its octets and its size, not its name; that is its folder's
to promise. The unit that is written whole or not at all is a sector of 512 octets.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random
from typing import Final, TypeAlias, TypeVar, final

T = TypeVar("T")

ROOT: Final = 0
"""The inode of the disk's uppermost folder."""
SECTOR_SIZE: Final = 512


@final
@dataclass(frozen=True, slots=True)
class Link:
    """A folder gets a name for an inode."""

    folder: int
    name: str
    inode: int
    is_folder: bool = False


@final
@dataclass(frozen=True, slots=True)
class Unlink:
    """A folder loses a name."""

    folder: int
    name: str


@final
@dataclass(frozen=True, slots=True)
class Write:
    """A file gets octets at a place."""

    inode: int
    offset: int
    octets: bytes


@final
@dataclass(frozen=True, slots=True)
class Truncate:
    """A file gets a size."""

    inode: int
    size: int


@final
@dataclass(frozen=True, slots=True)
class Sync:
    """A file's octets, or a folder's names, are durable."""

    inode: int


Operation: TypeAlias = Link | Unlink | Write | Truncate | Sync


@final
class Loss(Enum):
    """What a crash leaves of what is pending."""

    KILL = "the process was killed: all is there, and still pending"
    NOTHING = "everything pending is lost"
    ORDERED = "what was pending arrived in its order, up to some moment"
    SCATTERED = "each sector, each size and each name stands as it was at some moment since its sync"


Pending: TypeAlias = list[tuple[int, T]]
"""What is pending, each with its place in the order of all."""


@final
@dataclass(slots=True)
class File:
    """A file: what is durable of it, and what is pending."""

    durable: bytearray = field(default_factory=bytearray)
    pending: Pending[Write | Truncate] = field(default_factory=list)

    def content(self) -> bytes:
        """Give the octets as the processes see them."""
        octets = bytearray(self.durable)
        for _, change in self.pending:
            _apply(octets, change)
        return bytes(octets)

    def settle(self, end: int | None = None) -> None:
        """Make durable what is pending, or what of it is older than ``end``, and forget the rest."""
        for number, change in self.pending:
            if end is None or number < end:
                _apply(self.durable, change)
        self.pending.clear()

    def scatter(self, chance: Random) -> None:
        """Let each sector be as it was at some moment, and the size as at another."""
        ends: dict[int, int] = {}
        size, end_of_sizes = len(self.durable), chance.randint(0, len(self.pending))
        for index, (_, change) in enumerate(self.pending):
            for piece in _by_sector(change, len(self.durable)):
                if index < ends.setdefault(piece.offset // SECTOR_SIZE, chance.randint(0, len(self.pending))):
                    _apply(self.durable, piece)
            if index < end_of_sizes:
                size = change.size if isinstance(change, Truncate) else max(size, change.offset + len(change.octets))
        _apply(self.durable, Truncate(ROOT, size))
        self.pending.clear()


@final
@dataclass(slots=True)
class Folder:
    """A folder: the names that are durable, and those that are pending; None takes a name away."""

    durable: dict[str, int] = field(default_factory=dict)
    pending: Pending[tuple[str, int | None]] = field(default_factory=list)

    def content(self) -> dict[str, int]:
        """Give the names as the processes see them."""
        names = dict(self.durable)
        for _, (name, inode) in self.pending:
            _name(names, name, inode)
        return names

    def settle(self, end: int | None = None) -> None:
        """Make durable what is pending, or what of it is older than ``end``, and forget the rest."""
        for number, (name, inode) in self.pending:
            if end is None or number < end:
                _name(self.durable, name, inode)
        self.pending.clear()

    def scatter(self, chance: Random) -> None:
        """Let each name be as it was at some moment."""
        ends: dict[str, int] = {}
        for index, (_, (name, inode)) in enumerate(self.pending):
            if index < ends.setdefault(name, chance.randint(0, len(self.pending))):
                _name(self.durable, name, inode)
        self.pending.clear()


@final
class Disk:
    """Files and folders below ``ROOT``."""

    def __init__(self) -> None:
        """Begin with an empty folder."""
        self.nodes: dict[int, File | Folder] = {ROOT: Folder()}
        self._count = 0

    def apply(self, operation: Operation) -> None:
        """Do what was recorded."""
        self._count += 1
        match operation:
            case Link(folder, name, inode, is_folder):
                self.nodes.setdefault(inode, Folder() if is_folder else File())
                self.folder(folder).pending.append((self._count, (name, inode)))
            case Unlink(folder, name):
                self.folder(folder).pending.append((self._count, (name, None)))
            case Write() | Truncate():
                self.file(operation.inode).pending.append((self._count, operation))
            case Sync(inode):
                self.nodes[inode].settle()

    def after(self, loss: Loss, chance: Random) -> Disk:
        """Give the disk as a crash leaves it."""
        left = copy.deepcopy(self)
        end = chance.randint(1, self._count + 1)
        spare: dict[Loss, Callable[[File | Folder], None]] = {
            Loss.KILL: lambda _: None,
            Loss.NOTHING: lambda node: node.settle(0),
            Loss.ORDERED: lambda node: node.settle(end),
            Loss.SCATTERED: lambda node: node.scatter(chance),
        }
        for node in left.nodes.values():
            spare[loss](node)
        return left

    def file(self, inode: int) -> File:
        """Give a file."""
        node = self.nodes[inode]
        assert isinstance(node, File)
        return node

    def folder(self, inode: int) -> Folder:
        """Give a folder."""
        node = self.nodes[inode]
        assert isinstance(node, Folder)
        return node

    def paths(self, folder: int = ROOT, above: str = "") -> Iterator[tuple[str, int]]:
        """Give each path below a folder with its inode, folders before what is in them."""
        for name, inode in self.folder(folder).content().items():
            yield f"{above}{name}", inode
            if isinstance(self.nodes[inode], Folder):
                yield from self.paths(inode, f"{above}{name}/")

    def make(self, place: Path) -> None:
        """Make the files and folders in a real folder."""
        for path, inode in self.paths():
            node = self.nodes[inode]
            if isinstance(node, Folder):
                (place / path).mkdir()
            else:
                (place / path).write_bytes(node.content())

    def differences(self, place: Path) -> list[str]:
        """Name what is other in a real folder: nothing, if all that was done there was recorded."""
        files = {path: node.content() for path, inode in self.paths() if isinstance(node := self.nodes[inode], File)}
        real = {str(path.relative_to(place)): path for path in place.rglob("*") if path.is_file()}
        return sorted(
            path
            for path in files.keys() | real.keys()
            if path not in files or path not in real or files[path] != real[path].read_bytes()
        )


def _apply(octets: bytearray, change: Write | Truncate) -> None:
    end = change.size if isinstance(change, Truncate) else change.offset + len(change.octets)
    octets.extend(bytes(max(0, end - len(octets))))
    if isinstance(change, Truncate):
        del octets[end:]
    else:
        octets[change.offset : end] = change.octets


def _by_sector(change: Write | Truncate, size: int) -> Iterator[Write]:
    """Cut a change into writes of one sector at most; a truncation is one of zeros, up to the durable size."""
    if isinstance(change, Truncate):
        change = Write(change.inode, change.size, bytes(max(0, size - change.size)))
    start = change.offset
    while start < change.offset + len(change.octets):
        end = (start // SECTOR_SIZE + 1) * SECTOR_SIZE
        yield Write(change.inode, start, change.octets[start - change.offset : end - change.offset])
        start = end


def _name(names: dict[str, int], name: str, inode: int | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode
