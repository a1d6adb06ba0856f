"""One arena for all threads of ``serve``."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from smtprecv.cli import main
from smtprecv.cli._memory import keep_one_arena

_MANY_THREADS = """
import ctypes, threading
from smtprecv.cli._memory import keep_one_arena

{before}
barrier = threading.Barrier(9)

def take():
    libc.free(libc.malloc(100_000))  # past what Python has an allocator of its own for
    barrier.wait()
    barrier.wait()

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
for _ in range(8):
    threading.Thread(target=take).start()
barrier.wait()
libc.malloc_stats()
barrier.wait()
"""


def arenas(before: str) -> int:
    """Give the number of arenas of a process of nine threads, each of which has taken memory."""
    program = _MANY_THREADS.format(before=before)
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment)
    return ended.stderr.count("Arena ")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
def test_threads_share_one_arena() -> None:
    """Where there would be one for each otherwise."""
    assert arenas("keep_one_arena()") == 1
    assert arenas("") > 1


def test_a_library_without_arenas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another C library is left alone."""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_one_arena()


def test_a_python_without_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves all the same."""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert not keep_one_arena()


def test_what_an_operator_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of the C library's own decides."""
    asked: list[object] = []
    monkeypatch.setattr(ctypes, "CDLL", asked.append)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not keep_one_arena()
    assert asked == []


def test_serve_keeps_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It does so first of all, whatever comes of it."""
    asked: list[int] = []
    monkeypatch.setattr("smtprecv.cli._serve.keep_one_arena", lambda: asked.append(1))
    (tmp_path / "q").write_bytes(b"")
    assert main(["serve", "--queue", str(tmp_path / "q"), "--no-runqueue", "--listen", "127.0.0.1:0"]) == 1
    assert asked == [1]
