"""Real file systems, cut off from their disk under load: what was acknowledged is there when they are mounted again.

An image of ext4, XFS or btrfs in a file, as a loop device, holds the queue and the Maildir. Its power cut: the server
is killed, and at once all but the first sector of the device is gone, so that nothing pending is written. The kill
comes first because a file system that fails is no power cut: a sync that is under way may then succeed, its octets lost
(seen with ext4 and btrfs of Linux 6.18), and a server that lives would pass on what is not true. It takes root, and a
kernel that may mount such an image.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from tests.crash.load import Load, account
from tests.e2e.served import Served, smtprecv, until

pytestmark = [pytest.mark.crash, pytest.mark.slow]

ROUNDS: Final = int(os.environ.get("CRASH_IMAGES", "4"))
IMAGE_SIZE: Final = 320 * 1024 * 1024
"""Octets, which are not there before they are written: the least that XFS is made with."""

_LOOP_SET_STATUS64: Final = 0x4C04
_LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_INFO_SIZE: Final = 232
_SIZE_LIMIT: Final = slice(32, 40)
"""Where ``struct loop_info64`` has the size of the device."""


@dataclass(frozen=True)
class Disk:
    """A file system on an image, mounted at ``place``."""

    kind: str
    device: str
    place: Path

    def lose_power(self) -> None:
        """Let nothing more be written, not even what is pending: the device ends behind its first sector."""
        until(lambda: self._has_size(512), "the device is gone")

    def come_back(self) -> None:
        """Mount it again, as after a restart of the machine."""
        run("umount", str(self.place)).check_returncode()
        until(lambda: self._has_size(0), "the device is back")
        run("mount", "-t", self.kind, self.device, str(self.place)).check_returncode()

    def _has_size(self, size: int) -> bool:
        """Give the device a size, 0 for that of its image; False if somebody was in the way."""
        info = bytearray(_LOOP_INFO_SIZE)
        with Path(self.device).open("rb") as device, suppress(BlockingIOError):
            fcntl.ioctl(device, _LOOP_GET_STATUS64, info)
            info[_SIZE_LIMIT] = struct.pack("Q", size)
            fcntl.ioctl(device, _LOOP_SET_STATUS64, bytes(info))
            return True
        return False


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the system."""
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    return subprocess.run(["env", *command], check=False, capture_output=True, text=True, env=env)


def allowed(*command: str) -> str:
    """Run a command of the system, and give what it says; the test is skipped where it cannot be run."""
    done = run(*command)
    if done.returncode != 0:
        pytest.skip(f"{command[0]} cannot be run here: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def image(kind: str, folder: Path) -> Iterator[Disk]:
    """Make and mount a file system; the test is skipped where that is not allowed."""
    path, place = folder / "disk.image", folder / "disk"
    place.mkdir()
    path.touch()
    os.truncate(path, IMAGE_SIZE)
    allowed(f"mkfs.{kind}", "-q", str(path))
    device = allowed("losetup", "--find", "--show", str(path))
    try:
        allowed("mount", "-t", kind, device, str(place))
        try:
            yield Disk(kind, device, place)
        finally:
            run("umount", "--lazy", str(place))
    finally:
        run("losetup", "--detach", device).check_returncode()


def move_onto(disk: Disk, folder: Path) -> None:
    """Let the queue and the Maildir of a server in ``folder`` be on the disk."""
    for name in ("queue", "Maildir"):
        (disk.place / name).mkdir()
        (folder / name).symlink_to(disk.place / name)
    os.sync()


def leave_junk(queue: Path) -> None:
    """Leave what a power cut may leave, and what is nobody's: files without an octet, of every kind of name."""
    owner = "0123456789abcdef"
    for name in (owner, f"{owner}.bell", "junk"):
        (queue / "owners" / name).touch()
    for name in (f"{owner}.0123456789abcdefghij", f"{owner}.0123456789abcdefghij.0", "junk"):
        (queue / "bodies" / name).touch()
    (queue / "queue.sqlite-journal").touch()
    (queue / "junk").touch()


def _has_acknowledged(load: Load, count: int) -> bool:
    return len(load.acknowledged) >= count


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_power_cut_under_load(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RFC 5321 section 6.1: mounted again, the disk has all that was acknowledged, and a server goes on with it.

    What lies about in the queue's folder after the cut, without an octet in it, is no hindrance.
    """
    chance = random.Random(os.environ.get("CRASH_SEED", "3"))  # a seed that can be given again
    load, port = Load(), 0
    with image(kind, tmp_path) as disk:
        move_onto(disk, tmp_path)
        for _ in range(ROUNDS):
            served = Served(tmp_path, "--retry-first", "1s", "--retry-max", "1s", port=port)
            port, enough = served.port, len(load.acknowledged) + chance.randint(5, 60)
            load.start(port)
            until(partial(_has_acknowledged, load, enough), "some acknowledged")
            served.kill()
            disk.lose_power()
            load.stop()
            disk.come_back()
            leave_junk(served.queue)
        with Served(tmp_path, port=port) as served:
            served.await_empty_queue()
            report = account(load, [served.maildir])
            assert [path.name for path in (served.queue / "bodies").iterdir()] == ["junk"]
            served.terminate()
        faults = smtprecv("queue", "verify", "--queue", served.queue)
        assert (faults.returncode, faults.stderr) == (0, ""), faults.stdout

    with capsys.disabled():
        sys.stdout.write(f"\n{ROUNDS} power cuts on {kind}: {report}\n")
