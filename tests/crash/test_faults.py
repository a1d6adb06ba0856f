"""A real server whose disk fails, is full, or turns unwritable: 4yz, alive, and well again afterwards."""

from __future__ import annotations

import os
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.crash.load import Load, account, arrived, strace
from tests.e2e.served import Served, smtprecv, until

pytestmark = [pytest.mark.crash, pytest.mark.slow]


def send(served: Served, size: int = 1000, count: int = 1) -> list[int]:
    """Send messages over one session and give the code of each reply to the end of data (or before)."""
    codes: list[int] = []
    body = ("z" * 70 + "\r\n") * (size // 72)
    with smtplib.SMTP(served.host, served.port, timeout=20) as client:
        for number in range(count):
            try:
                client.sendmail("a@example.com", ["b@mx.example.com"], f"X-Token: {number}\r\n\r\n{body}")
                codes.append(250)
            except smtplib.SMTPResponseException as error:
                codes.append(error.smtp_code)
                client.rset()
    return codes


@contextmanager
def injecting(served: Served, fault: str) -> Iterator[None]:
    """Make system calls of the running server fail while the block lasts."""
    tracer = subprocess.Popen(
        [strace(), "-f", "-p", str(served.pid), "-o", os.devnull, "-e", f"inject={fault}"],
        stderr=subprocess.PIPE,
    )
    try:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.terminate()
        tracer.wait()
        assert tracer.stderr is not None
        tracer.stderr.close()


@pytest.mark.parametrize(
    "fault",
    [
        "fdatasync,fsync:error=EIO",
        "fdatasync,fsync,pwrite64:error=EROFS",
        "pwrite64:error=ENOSPC",
    ],
)
@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_disk_that_fails_for_a_while(fault: str, size: int, tmp_path: Path) -> None:
    """While the disk fails, every message is 4yz and the session goes on; then mail is taken and delivered again."""
    with Served(tmp_path, "--retry-first", "1s", "--retry-max", "1s") as served:
        assert send(served, size, 3) == [250] * 3
        served.await_files(3)
        with injecting(served, fault):
            codes = send(served, size, 5)
        recovered = send(served, size, 3)
        served.await_empty_queue()
        served.await_files(6)
        served.terminate()

    assert set(codes) <= {451, 452}
    assert recovered == [250] * 3


def test_every_other_sync_fails_under_load(tmp_path: Path) -> None:
    """When some syncs fail and some don't, 250 is said for those alone that are durable, and all of them arrive."""
    load = Load()
    with Served(tmp_path, "--retry-first", "1s", "--retry-max", "1s") as served:
        with injecting(served, "fdatasync,fsync:error=EIO:when=2+3"):
            load.start(served.port)
            until(lambda: len(load.acknowledged) > 50 or not served.is_running, "50 acknowledged")
            load.stop()
        served.await_empty_queue()
        report = account(load, [served.maildir])
        assert send(served) == [250]
        served.terminate()

    assert load.attempted > len(load.acknowledged), report


@contextmanager
def small_disk(path: Path, size: str, *options: str) -> Iterator[Path]:
    """Mount a tmpfs; skip where that is not allowed, but never in CI."""
    path.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(path)],
        check=False,
        capture_output=True,
    )
    if mount.returncode != 0:
        assert "CI" not in os.environ, "CI must be able to mount a tmpfs"
        pytest.skip("a tmpfs can be mounted by root only")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk has no octet left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("size", [4000, 200_000])
def test_a_full_disk(size: int, tmp_path: Path) -> None:
    """452 when there is no room, with the server alive; a queue run beside it makes room, and mail is taken again."""
    with small_disk(tmp_path / "disk", "16m") as disk:
        maildir = tmp_path / "Maildir"
        with Served(disk, "--no-runqueue", deliver=None) as served:
            codes: list[int] = []
            while codes[-1:] != [452]:
                codes += send(served, size, 20)
                assert len(codes) < 10_000, "the disk never fills"
            accepted = codes.count(250)
            assert set(codes) == {250, 452}
            assert accepted > 5
            with smtplib.SMTP(served.host, served.port, timeout=20) as client:
                assert client.noop()[0] == 250

            run = smtprecv("runqueue", "--queue", served.queue, "--deliver", f"maildir:{maildir}")
            assert run.returncode == 0
            served.await_empty_queue()
            assert sum(arrived(maildir).values()) == accepted
            until(lambda: send(served, size) == [250], "mail is taken again")
            served.terminate()


def test_a_disk_that_others_fill_to_the_last_octet(tmp_path: Path) -> None:
    """With no octet left, not even outcomes can be recorded: nothing is lost or repeated, and room heals it."""
    with small_disk(tmp_path / "disk", "24m") as disk, Served(disk, deliver="Maildir") as served:
        assert send(served, 4000, 5) == [250] * 5
        served.await_files(5)
        served.await_empty_queue()
        filler = disk / "filler"
        fill(filler)
        assert set(send(served, 4000, 3)) == {452}
        filler.unlink()

        until(lambda: send(served, 4000) == [250], "mail is taken again")
        served.await_files(6)
        served.await_empty_queue()
        served.terminate()


def test_a_maildir_on_a_full_disk_is_tried_again(tmp_path: Path) -> None:
    """A delivery without room is deferred, shown with its reason, leaves nothing half-written, and succeeds later."""
    with small_disk(tmp_path / "mail", "1m") as disk:
        filler = disk / "filler"
        with Served(tmp_path, "--retry-first", "1s", "--retry-max", "1s", deliver="mail/Maildir") as served:
            assert send(served) == [250]
            served.await_files(1)
            fill(filler)
            assert send(served, 50_000) == [250]
            until(lambda: "No space left" in served.showqueue(), "the reason in showqueue")
            assert len(served.files()) == 1
            assert served.files("tmp") == []
            filler.unlink()

            served.await_files(2)
            served.await_empty_queue()
            served.terminate()


def test_a_queue_folder_that_is_moved_away_and_comes_back(tmp_path: Path) -> None:
    """250 is only for what is durable in the queue folder: while that is gone it is 4yz, and then all is well."""
    with Served(tmp_path) as served:
        assert send(served) == [250]
        served.await_files(1)
        served.await_empty_queue()
        away = served.queue.rename(tmp_path / "away")
        assert set(send(served, 1000, 2)) == {451}
        assert set(send(served, 200_000, 2)) == {451}
        away.rename(served.queue)

        assert send(served) == [250]
        assert send(served, 200_000) == [250]
        served.await_files(3)
        served.await_empty_queue()
        served.terminate()


def test_a_read_only_disk_at_start_is_one_line_and_exit_1(tmp_path: Path) -> None:
    """A queue folder that can't be written is said at once, and nobody is let in."""
    with small_disk(tmp_path / "disk", "1m", "ro") as disk:
        ended = smtprecv("serve", "--listen", "127.0.0.1:0", "--queue", disk / "queue", "--no-runqueue")

    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "Read-only file system" in ended.stderr


def test_a_queue_folder_below_a_file_is_one_line_and_exit_1(tmp_path: Path) -> None:
    """The same for a path that cannot be a folder."""
    (tmp_path / "file").write_text("")
    ended = smtprecv("serve", "--listen", "127.0.0.1:0", "--queue", tmp_path / "file" / "queue", "--no-runqueue")

    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "Not a directory" in ended.stderr


def test_junk_in_the_queue_folder_does_not_stop_a_start(tmp_path: Path) -> None:
    """Zero-length files and strangers' files in the queue folder are left alone or swept, and mail goes on."""
    with Served(tmp_path) as served:
        assert send(served, 200_000) == [250]
        served.await_empty_queue()
        served.terminate()
    for name in ("", "owners", "bodies"):
        (served.queue / name / "junk").write_bytes(b"")
        (served.queue / name / "öther junk").write_bytes(b"\0" * 100)

    with Served(tmp_path) as served:
        assert send(served, 200_000) == [250]
        served.await_empty_queue()
        served.await_files(2)
        served.terminate()
