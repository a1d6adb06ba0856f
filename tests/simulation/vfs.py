"""SQLite's way to the disk, with a note of every write, truncation, sync and removal.

A VFS of the very SQLite library that ``sqlite3`` uses, by ctypes: the table of functions of SQLite's own VFS, with
those few replaced that change a file, each of which asks the original and then makes a note.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from random import Random
from typing import Final, final

from tests.simulation.recorder import Recorder

_NAME: Final = b"simulation"
_WITH_ITS_NAME: Final = 0x800 | 0x80000
"""SQLITE_OPEN_MAIN_JOURNAL and SQLITE_OPEN_WAL: the first sync of such a file that may be made syncs its folder too."""

_Open: Final = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete: Final = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_Randomness: Final = CFUNCTYPE(c_int, c_void_p, c_int, c_void_p)
_Close: Final = CFUNCTYPE(c_int, c_void_p)
_Write: Final = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate: Final = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync: Final = CFUNCTYPE(c_int, c_void_p, c_int)

_Methods: Final = c_void_p * 19
"""``sqlite3_io_methods``: its version and 18 functions."""
_CLOSE, _WRITE, _TRUNCATE, _SYNC = 1, 3, 4, 5


class _Vfs(ctypes.Structure):
    """``sqlite3_vfs``."""

    _fields_ = (
        ("version", c_int),
        ("file_size", c_int),
        ("path_size", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        ("between", c_void_p * 6),
        ("randomness", c_void_p),
        ("rest", c_void_p * 7),
    )


@final
class RecordingVfs:
    """The VFS, which is the default one for the blocks of ``recording``."""

    def __init__(self) -> None:
        """Make the table of functions."""
        self._library = ctypes.CDLL(_sqlite3.__file__)
        self._library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._original = self._library.sqlite3_vfs_find(None)
        self._vfs = _Vfs.from_buffer_copy(self._original.contents)
        self._vfs.name = _NAME
        self._kept: list[object] = []  # what SQLite points to
        self._tables: dict[int, ctypes.Array[c_void_p]] = {}
        self._files: dict[int, tuple[int, int | None]] = {}
        self._recorder: Recorder | None = None
        self._chance = Random()
        self._real_open = _Open(self._vfs.open)
        self._real_delete = _Delete(self._vfs.delete)
        self._vfs.open = self._address(_Open(self._open))
        self._vfs.delete = self._address(_Delete(self._delete))
        self._vfs.randomness = self._address(_Randomness(self._randomness))

    @contextmanager
    def recording(self, recorder: Recorder, chance: Random) -> Generator[None, None, None]:
        """Note what SQLite does while the block lasts, and give it its random numbers."""
        self._recorder, self._chance = recorder, chance
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)
        self._library.sqlite3_randomness(0, None)  # ask for new ones
        try:
            yield
        finally:
            self._library.sqlite3_vfs_register(self._original, 1)
            self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
            self._recorder = None
            self._files.clear()

    def _address(self, function: ctypes._FuncPointer) -> int | None:
        self._kept.append(function)
        return ctypes.cast(function, c_void_p).value

    def _open(self, vfs: int, name: int | None, file: int, flags: int, out_flags: int | None) -> int:
        status: int = self._real_open(vfs, name, file, flags, out_flags)
        if status != sqlite3.SQLITE_OK or name is None or self._recorder is None:
            return status
        path = ctypes.string_at(name).decode()
        inode = self._recorder.opened(path)
        if inode is None:
            return status
        methods = c_void_p.from_address(file)
        assert methods.value is not None
        folder = self._recorder.folder_of(path) if flags & _WITH_ITS_NAME else None
        self._files[file] = inode, folder
        methods.value = ctypes.addressof(self._table(methods.value))
        return status

    def _table(self, original: int) -> ctypes.Array[c_void_p]:
        """Give the functions of a file in the place of those at the address ``original``."""
        if original not in self._tables:
            table = _Methods.from_buffer_copy(_Methods.from_address(original))
            for place, replacement in (
                (_CLOSE, self._closing(_Close(table[_CLOSE] or 0))),
                (_WRITE, self._writing(_Write(table[_WRITE] or 0))),
                (_TRUNCATE, self._truncating(_Truncate(table[_TRUNCATE] or 0))),
                (_SYNC, self._syncing(_Sync(table[_SYNC] or 0))),
            ):
                table[place] = self._address(replacement)
            self._tables[original] = table
        return self._tables[original]

    def _delete(self, vfs: int, name: bytes, syncs_folder: int) -> int:
        status: int = self._real_delete(vfs, name, syncs_folder)
        if status == sqlite3.SQLITE_OK and self._recorder is not None:
            self._recorder.deleted(name.decode())
            if syncs_folder:
                self._recorder.synced(self._recorder.folder_of(name.decode()))
        return status

    def _randomness(self, _vfs: int, size: int, place: int) -> int:
        ctypes.memmove(place, self._chance.randbytes(size), size)
        return size

    def _closing(self, original: Callable[[int], int]) -> ctypes._FuncPointer:
        def close(file: int) -> int:
            self._files.pop(file, None)
            return original(file)

        return _Close(close)

    def _writing(self, original: Callable[[int, int, int, int], int]) -> ctypes._FuncPointer:
        def write(file: int, octets: int, size: int, offset: int) -> int:
            status = original(file, octets, size, offset)
            if status == sqlite3.SQLITE_OK and self._recorder is not None:
                self._recorder.written(self._files[file][0], offset, ctypes.string_at(octets, size))
            return status

        return _Write(write)

    def _truncating(self, original: Callable[[int, int], int]) -> ctypes._FuncPointer:
        def truncate(file: int, size: int) -> int:
            status = original(file, size)
            if status == sqlite3.SQLITE_OK and self._recorder is not None:
                self._recorder.truncated(self._files[file][0], size)
            return status

        return _Truncate(truncate)

    def _syncing(self, original: Callable[[int, int], int]) -> ctypes._FuncPointer:
        def sync(file: int, flags: int) -> int:
            status = original(file, flags)
            if status == sqlite3.SQLITE_OK and self._recorder is not None:
                inode, folder = self._files[file]
                self._recorder.synced(inode)
                if folder is not None:
                    self._recorder.synced(folder)
                    self._files[file] = inode, None
            return status

        return _Sync(sync)


VFS: Final = RecordingVfs()
"""The one there is: SQLite knows it by its name."""
