"""Everything that a process does to the files below a folder, in order, and what the world sees of it in between.

The real files are written as ever; what is done is written down as well: by Python through ``os``, by SQLite through
its VFS (``vfs``). Its one rule: it misses nothing, which ``Disk.differences`` can tell.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TypeAlias, final
from unittest.mock import patch

from tests.simulation.disk import ROOT, Disk, Link, Operation, Sync, Truncate, Unlink, Write
from tests.simulation.sights import Sight

Trace: TypeAlias = list[Operation | Sight]

_PathLike: TypeAlias = str | os.PathLike[str]


@final
class Recorder:
    """Writes down what happens below ``place``, which begins as ``disk``."""

    def __init__(self, place: Path, disk: Disk) -> None:
        """Begin with nothing that has happened."""
        self.trace: Trace = []
        self._place = f"{place}/"
        self._inodes = {"": ROOT, **dict(disk.paths())}
        self._new_inodes = count(max(disk.nodes) + 1)
        self._open: dict[int, int] = {}

    @property
    def paths(self) -> Mapping[str, int]:
        """The paths that are there now, with their inodes."""
        return self._inodes

    @contextmanager
    def recording_os(self) -> Generator[None, None, None]:
        """Write down what Python does to files while the block lasts."""
        real_open, real_close, real_fsync = os.open, os.close, os.fsync
        real_write, real_writev = os.write, os.writev
        real_mkdir, real_unlink, real_link = os.mkdir, os.unlink, os.link

        def open_file(path: _PathLike, flags: int, mode: int = 0o777) -> int:
            fd = real_open(path, flags, mode)
            if (inode := self.opened(os.fspath(path))) is not None:
                self._open[fd] = inode
            return fd

        def close(fd: int) -> None:
            self._open.pop(fd, None)
            real_close(fd)

        def write(fd: int, octets: bytes) -> int:
            return appended(fd, real_write(fd, octets), octets)

        def writev(fd: int, pieces: Sequence[bytes]) -> int:
            return appended(fd, real_writev(fd, pieces), b"".join(pieces))

        def appended(fd: int, size: int, octets: bytes) -> int:
            if fd in self._open:
                # Whatever writes here appends.
                self.trace.append(Write(self._open[fd], os.fstat(fd).st_size - size, bytes(octets[:size])))
            return size

        def fsync(fd: int) -> None:
            real_fsync(fd)
            if fd in self._open:
                self.trace.append(Sync(self._open[fd]))

        def mkdir(path: _PathLike, mode: int = 0o777) -> None:
            real_mkdir(path, mode)
            self.opened(os.fspath(path), is_folder=True)

        def unlink(path: _PathLike) -> None:
            real_unlink(path)
            self.deleted(os.fspath(path))

        def link(source: _PathLike, path: _PathLike) -> None:
            real_link(source, path)
            self.opened(os.fspath(path), self.opened(os.fspath(source)))

        with (
            patch.multiple(os, open=open_file, close=close, fsync=fsync),
            patch.multiple(os, write=write, writev=writev),
            patch.multiple(os, mkdir=mkdir, unlink=unlink, link=link),
        ):
            yield

    def opened(self, path: str, inode: int | None = None, *, is_folder: bool = False) -> int | None:
        """Note a file that is there now, perhaps a new one; give its inode, None if it is none of this disk's."""
        name = self._inside(path)
        if name is None or name in self._inodes:
            return None if name is None else self._inodes[name]
        if not is_folder and not Path(path).is_file():
            return None  # a pipe: it does not matter after a crash
        self._inodes[name] = next(self._new_inodes) if inode is None else inode
        self.trace.append(Link(self.folder_of(path), Path(name).name, self._inodes[name], is_folder))
        return self._inodes[name]

    def deleted(self, path: str) -> None:
        """Note a name that is gone."""
        name = self._inside(path)
        if name is not None and self._inodes.pop(name, None) is not None:
            self.trace.append(Unlink(self.folder_of(path), Path(name).name))

    def written(self, inode: int, offset: int, octets: bytes) -> None:
        """Note octets that were written."""
        self.trace.append(Write(inode, offset, octets))

    def truncated(self, inode: int, size: int) -> None:
        """Note a size that was set."""
        self.trace.append(Truncate(inode, size))

    def synced(self, inode: int) -> None:
        """Note what is durable."""
        self.trace.append(Sync(inode))

    def saw(self, sight: Sight) -> None:
        """Note what the world has seen."""
        self.trace.append(sight)

    def folder_of(self, path: str) -> int:
        """Give the inode of the folder that a path is in."""
        return self._inodes[self._inside(str(Path(path).parent)) or ""]

    def _inside(self, path: str) -> str | None:
        """Give a path as seen from the place, None for one elsewhere."""
        return f"{path}/".removeprefix(self._place).removesuffix("/") if f"{path}/".startswith(self._place) else None
