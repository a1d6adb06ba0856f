"""Mbox delivery: a message is at the end of the file whole, under the locks of local programs, or not at all."""

from __future__ import annotations

import errno
import fcntl
import mailbox
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from tests.deliveries.test_maildir import BOB, EVE, Hops, attempt, failing, recipient

from smtprecv.deliveries import Mbox, _mboxfile
from smtprecv.deliveries._dotlock import MailboxLocked, dot_lock
from smtprecv.deliveries._mboxfile import MboxDraft
from smtprecv.deliveries._mboxrd import FromQuoter, separator
from smtprecv.delivery import Delivery, DeliveryCheck
from smtprecv.protocol import Domain, Envelope, Mailbox, ReversePath

TORN = b"From a@b.example Tue Feb  3 04:05:06 2026\nSubject: torn"


def mbox(folder: Path, lock_timeout: float = 30) -> Mbox:
    """Give a delivery below the test's folder, its work run on the spot."""
    return Mbox(folder / "{local_part}", hostname="mx.example.com", lock_timeout=lock_timeout, run_in_thread=Hops())


def messages(path: Path) -> list[str]:
    """Give the last line of each message in a mailbox, as Python's own reader sees it."""
    box = mailbox.mbox(path, create=False)
    try:
        return [str(message.get_payload()).splitlines()[-1] for message in box]
    finally:
        box.close()


async def test_deliver(tmp_path: Path) -> None:
    """A message stands below a From line and its trace fields, an empty line ends it; modes are private."""
    work = attempt(b"Subject: x\r\n\r\nFrom me\r\n>From you\r\nlast", recipients=(BOB, EVE))
    replies = await mbox(tmp_path / "in").deliver(work)
    assert [str(reply) for reply in replies] == ["250 2.0.0 delivered"] * 2
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["bob", "eve"]
    path = tmp_path / "in" / "bob"
    assert path.read_bytes().startswith(
        b"From MAILER-DAEMON Tue Feb  3 04:05:06 2026\nReturn-Path: <>\nDelivered-To: bob@"
    )
    assert path.read_bytes().endswith(b"\nSubject: x\n\n>From me\n>>From you\nlast\n\n")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_protocols(tmp_path: Path) -> None:
    """An Mbox is a Delivery that can say what it has done already."""
    assert isinstance(mbox(tmp_path), Delivery)
    assert isinstance(mbox(tmp_path), DeliveryCheck)


async def test_other_readers_agree(tmp_path: Path) -> None:
    """Messages are told apart by another reader, also behind one whose last line another program left open."""
    (tmp_path / "bob").write_bytes(b"From x Tue Feb  3 04:05:06 2026\n\nopen")
    for text in (b"\r\nFrom the start\r\none\r\n", b"\r\ntwo"):
        await mbox(tmp_path).deliver(attempt(text))
    assert messages(tmp_path / "bob") == ["open", "one", "two"]


async def test_twice_in_the_envelope(tmp_path: Path) -> None:
    """A recipient whom the envelope has twice gets one copy."""
    replies = await mbox(tmp_path).deliver(attempt(recipients=(BOB, EVE, BOB)))
    assert [reply.code for reply in replies] == [250] * 3
    assert len(messages(tmp_path / "bob")) == 1


@pytest.mark.parametrize(("address", "name"), [("bob.lock", "bob.loc%6B"), (".bob.append", "%2Ebob.append")])
async def test_no_mailbox_is_another_ones_lock(address: str, name: str, tmp_path: Path) -> None:
    """Whatever an address is called, its mailbox is neither the lock nor the journal of another one."""
    await mbox(tmp_path).deliver(attempt(recipients=(recipient(address),)))
    assert [path.name for path in tmp_path.iterdir()] == [name]


async def test_longest_name(tmp_path: Path) -> None:
    """The longest name leaves room for those of its lock and its journal."""
    [reply] = await mbox(tmp_path).deliver(attempt(recipients=(recipient("ö" * 64),)))
    assert reply.code == 250


# ---------------------------------------------------------------- the form


@given(st.lists(st.sampled_from([b"From ", b"Fr", b"om ", b"From", b" ", b">", b"\n", b"a", b"", b"F"])))
def test_quoting(pieces: list[bytes]) -> None:
    """Wherever the pieces are cut, just the lines that begin with From, behind any number of >, get one > more."""
    quoter = FromQuoter()
    quoted = b"".join([*map(quoter.convert, pieces), quoter.rest()])
    lines = b"".join(pieces).split(b"\n")
    expected = b"\n".join(b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in lines)
    assert quoted == expected + (b"\n\n" if lines[-1] else b"\n")


def test_few_octets_are_held_back() -> None:
    """An endless line of > is not kept in memory."""
    quoter = FromQuoter()
    assert quoter.convert(b">" * 1000) == b">" * 1000
    assert quoter.convert(b">From") == b">"
    assert quoter.convert(b" x") == b">From x"


def test_separator() -> None:
    """A sender is one word on the From line."""
    envelope = Envelope(ReversePath(Mailbox("a b", Domain("example.net"))))
    entry = replace(attempt().entry, envelope=envelope)
    assert separator(entry) == b'From "a?b"@example.net Tue Feb  3 04:05:06 2026\n'


# ---------------------------------------------------------------- locks


@contextmanager
def held_by_dot_lock(path: Path) -> Iterator[None]:
    """Hold the lock beside the mailbox."""
    with dot_lock(path):
        yield


@contextmanager
def held_by_flock(path: Path) -> Iterator[None]:
    """Hold the flock of the mailbox."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held_by_fcntl(path: Path) -> Iterator[None]:
    """Hold the fcntl lock of the mailbox, which only another process can."""
    program = (
        "import fcntl,sys; f=open(sys.argv[1],'ab'); fcntl.lockf(f,fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("held", [held_by_dot_lock, held_by_flock, held_by_fcntl])
async def test_locked(
    held: Callable[[Path], AbstractContextManager[None]], tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A mailbox that stays locked is 450 after the time that was set; nothing is left, and the next one succeeds."""
    path = tmp_path / "bob"
    path.write_bytes(b"")
    with held(path):
        names = sorted(each.name for each in tmp_path.iterdir())
        started = trio.current_time()
        [reply] = await mbox(tmp_path, lock_timeout=7).deliver(attempt())
        assert (str(reply), trio.current_time() - started) == ("450 4.2.0 the mailbox is locked", 7)
        assert sorted(each.name for each in tmp_path.iterdir()) == names
    assert path.read_bytes() == b""
    [reply] = await mbox(tmp_path).deliver(attempt())
    assert reply.code == 250


async def test_a_lock_is_waited_for(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A mailbox that is unlocked in time is served."""
    async with trio.open_nursery() as nursery:

        async def hold() -> None:
            with dot_lock(tmp_path / "bob"):
                await trio.sleep(5)

        nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()
        [reply] = await mbox(tmp_path).deliver(attempt())
        assert (reply.code, trio.current_time() >= 5) == (250, True)


def ended_process() -> int:
    """Give the id of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def test_stale_lock(tmp_path: Path) -> None:
    """The lock of a dead process is broken; one of a living process, or of nobody known, is not."""
    lock = tmp_path / "bob.lock"
    for text in (f"{os.getppid()}\n", "1\n", "0", "", "host:12", "-1", "9" * 30):
        lock.write_text(text)
        with pytest.raises(MailboxLocked), dot_lock(tmp_path / "bob"):
            pass
        assert lock.read_text() == text
    lock.write_text(f"{ended_process()}\n")
    with dot_lock(tmp_path / "bob"):
        assert lock.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_who_had_our_process_id(tmp_path: Path) -> None:
    """A lock with our own id that we do not hold is of who died before us; one that we hold is kept."""
    lock = tmp_path / "bob.lock"
    lock.write_text(f"{os.getpid()}\n")
    with dot_lock(tmp_path / "bob"):
        held = lock.stat().st_ino
        with pytest.raises(MailboxLocked), dot_lock(tmp_path / "bob"):
            pass
        assert lock.stat().st_ino == held
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to])
async def test_no_links(make: Callable[[Path, Path], None], tmp_path: Path) -> None:
    """What a local user has linked to another file is not written to, and the mail waits."""
    target = tmp_path / "target"
    target.write_bytes(b"secret")
    make(tmp_path / "bob", target)
    [reply] = await mbox(tmp_path).deliver(attempt())
    assert (reply.code, target.read_bytes()) == (451, b"secret")


async def test_no_device(tmp_path: Path) -> None:
    """A mailbox that is no file is not written to."""
    os.mkfifo(tmp_path / "bob")
    [reply] = await mbox(tmp_path).deliver(attempt())
    assert str(reply) == "451 4.3.0 the mailbox is not a regular file with one name"


@pytest.mark.parametrize("skip", range(4))
async def test_an_append_that_fails_is_undone(skip: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever sync fails, the answer is 4yz, the file is as before, and the next attempt succeeds."""
    await mbox(tmp_path).deliver(attempt(b"\r\none\r\n"))
    before = (tmp_path / "bob").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.ENOSPC, os.fsync, skip=skip))
        [reply] = await mbox(tmp_path).deliver(attempt(b"\r\ntwo\r\n"))
    expected = "250 2.0.0 delivered" if skip == 3 else "452 4.3.1 No space left on device"
    assert str(reply) == expected
    assert (tmp_path / "bob").read_bytes().startswith(before)
    assert messages(tmp_path / "bob") == ["one", "two"][: 1 + (skip == 3)]
    await mbox(tmp_path).deliver(attempt(b"\r\nthree\r\n"))
    assert messages(tmp_path / "bob")[-1] == "three"
    assert [path.name for path in tmp_path.iterdir()] == ["bob"]


def killed_while_appending(path: Path, blocks: int) -> None:
    """Let another process append a message of many blocks, and kill itself after so many."""
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom smtprecv.deliveries import _mboxfile\n"
        "real, left = _mboxfile._blocks, int(sys.argv[2])\n"
        "def blocks(fd, start):\n"
        "    for number, block in enumerate(real(fd, start)):\n"
        "        if number == left: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield block\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "_mboxfile._blocks = blocks\n"
        "draft = _mboxfile.MboxDraft(Path(sys.argv[1]), 'x')\n"
        "draft.write([b'From x Tue Feb  3 04:05:06 2026\\n\\n', b'y' * 1_000_000, b'\\nkilled\\n\\n'])\n"
        "draft.append()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, path, str(blocks)], check=False, timeout=30)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [0, 1, 3, 9])
async def test_killed(blocks: int, tmp_path: Path) -> None:
    """What a killed process has left at the end is cut off by the next append, but for a message that is whole."""
    await mbox(tmp_path).deliver(attempt(b"\r\none\r\n"))
    killed_while_appending(tmp_path / "bob", blocks)
    assert {path.name for path in tmp_path.iterdir()} == {"bob", "bob.lock", ".bob.append"}
    await mbox(tmp_path).deliver(attempt(b"\r\ntwo\r\n"))
    assert messages(tmp_path / "bob") == ["one", *["killed"][: blocks == 9], "two"]
    assert [path.name for path in tmp_path.iterdir()] == ["bob"]


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        (b"", b""),
        (TORN, b""),
        (TORN + b"\0" * 20, b""),
        (b"\0" * 20, b""),
        (TORN + b"\n\nFrom x Tue Feb  3 04:05:06 2026\n\nother\n", None),
        (b"From x Tue Feb  3 04:05:06 2026\n\nother\n", None),
        (TORN + b" and the whole rest\n\n", None),
        (TORN + b" and the whole rest\n\nFrom x Tue Feb  3 04:05:06 2026\n\nother\n", None),
    ],
)
async def test_only_what_is_ours_is_cut_off(tail: bytes, kept: bytes | None, tmp_path: Path) -> None:
    """A torn message is cut off, zeros of a power cut with it; what another program wrote meanwhile never is."""
    path, first = tmp_path / "bob", b"From x Tue Feb  3 04:05:06 2026\n\nfirst\n\n"
    path.write_bytes(first + tail)
    (tmp_path / ".bob.append").write_bytes(b"%020d\n" % len(first) + TORN + b" and the whole rest\n\n")
    with _mboxfile.opened(path, 0):
        pass
    assert path.read_bytes() == first + (tail if kept is None else kept)
    assert not (tmp_path / ".bob.append").exists()


@pytest.mark.parametrize("journal", [b"", b"junk" * 10, b"%020d\n" % 9999])
async def test_junk_for_a_journal(journal: bytes, tmp_path: Path) -> None:
    """A journal that says nothing changes nothing."""
    (tmp_path / "bob").write_bytes(TORN)
    (tmp_path / ".bob.append").write_bytes(journal)
    with _mboxfile.opened(tmp_path / "bob", 0):
        pass
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [TORN]


async def test_a_journal_of_somebody_else(tmp_path: Path) -> None:
    """Who may make files beside a mailbox cannot have it cut: the mail waits."""
    (tmp_path / "bob").write_bytes(TORN)
    (tmp_path / "planted").write_bytes(b"%020d\n" % 0 + TORN + b"x")
    (tmp_path / ".bob.append").hardlink_to(tmp_path / "planted")
    [reply] = await mbox(tmp_path).deliver(attempt())
    assert str(reply) == "451 4.3.0 .bob.append is somebody else's"
    assert (tmp_path / "bob").read_bytes() == TORN


async def test_order_of_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal and its name are on disk before the mailbox changes, and the mailbox before the journal goes."""
    (tmp_path / "bob").touch()
    steps: list[str] = []
    real_fsync, real_unlink = os.fsync, Path.unlink

    def fsync(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}"[:12])
        real_fsync(descriptor)

    def unlink(path: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002  # as Path has it
        steps.append(f"unlink {path.name}")
        real_unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "unlink", unlink)
    draft = MboxDraft(tmp_path / "bob", "name")
    draft.append()
    draft.discard()
    folder = f"sync {tmp_path.name}"[:12]
    syncs = [step for step in steps if step.startswith("sync") or step == "unlink .bob.append"]
    assert syncs == ["sync .bob.na", folder, "sync bob", "unlink .bob.append"]


# ---------------------------------------------------------------- what is there already


async def test_is_delivered(tmp_path: Path) -> None:
    """A copy is found by its first lines, for its own recipient and message only; a quotation of them is no copy."""
    box, work = mbox(tmp_path), attempt(recipients=(BOB, recipient("bob.lock")))
    assert not await box.is_delivered(work.entry, BOB)
    await box.deliver(attempt(recipients=(EVE,)))
    await box.deliver(work)
    assert await box.is_delivered(work.entry, BOB)
    assert await box.is_delivered(work.entry, recipient("bob.lock"))
    assert await box.is_delivered(work.entry, EVE) is not False
    copy = (tmp_path / "bob").read_bytes()
    (tmp_path / "bob").write_bytes(b"")
    await box.deliver(attempt(b"\r\n", copy.replace(b"\n", b"\r\n"), recipients=(recipient("carl"),)))
    (tmp_path / "carl").rename(tmp_path / "bob")
    assert not await box.is_delivered(work.entry, BOB)


async def test_is_delivered_far_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found wherever the blocks of a large mailbox are cut."""
    monkeypatch.setattr(_mboxfile, "_BLOCK_SIZE", 64)
    await mbox(tmp_path).deliver(attempt(b"x" * 1000 + b"\r\n", recipients=(EVE,)))
    (tmp_path / "eve").rename(tmp_path / "bob")
    await mbox(tmp_path).deliver(attempt())
    assert await mbox(tmp_path).is_delivered(attempt().entry, BOB)
