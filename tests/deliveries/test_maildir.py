"""Maildir delivery: a file is whole, on disk and there once, or it is not there."""

from __future__ import annotations

import datetime as dt
import errno
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.deliveries import Maildir, _maildir
from smtprecv.deliveries._copy import LineEnds
from smtprecv.deliveries._mailfile import MailFile
from smtprecv.delivery import Attempt, Delivery, DeliveryCheck
from smtprecv.errors import SpoolError
from smtprecv.message import Client, QueueId, SessionId
from smtprecv.protocol import (
    Body,
    Domain,
    Envelope,
    ForwardPath,
    Mailbox,
    MailParameters,
    Recipient,
    ReversePath,
    Session,
)
from smtprecv.spool import Entry, Standing
from smtprecv.trace import trace_fields

T = TypeVar("T")

ID = QueueId("0123456789abcdefghij")
RECEIVED = dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
CLIENT = Client(SessionId("s"), IPv4Address("192.0.2.1"), 40000, Session("mail.example.net", is_extended=True))
TEXT = b"Subject: x\r\n\r\n.dot\r\nlast\r\n"


class Octets:
    """A message in memory, given in these pieces; an exception among them is raised."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        """Take the pieces."""
        self.pieces = pieces

    @property
    def size(self) -> int:
        """How many octets."""
        return sum(len(piece) for piece in self.pieces if isinstance(piece, bytes))

    @asynccontextmanager
    async def chunks(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give the pieces."""

        async def pieces() -> AsyncGenerator[bytes, None]:
            for piece in self.pieces:
                await trio.lowlevel.checkpoint()
                if isinstance(piece, Exception):
                    raise piece
                yield piece

        async with aclosing(pieces()) as generator:
            yield generator

    async def bytes(self) -> bytes:
        """Give them at once."""
        async with self.chunks() as pieces:
            return b"".join([piece async for piece in pieces])

    def as_file(self) -> AbstractAsyncContextManager[Path]:
        """Not used by a Maildir."""
        raise NotImplementedError


class Hops:
    """Runs functions inline, and counts them; cancels the scope it is given instead of the n-th."""

    def __init__(self, cancel_at: int = 0, scope: trio.CancelScope | None = None) -> None:
        """Begin at none."""
        self.count = 0
        self.cancel_at = cancel_at
        self.scope = scope

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Run it."""
        self.count += 1
        if self.scope is not None and self.count == self.cancel_at:
            self.scope.cancel()
        await trio.lowlevel.checkpoint()
        return function()


def recipient(local_part: str) -> Recipient:
    """Give a recipient at example.com."""
    return Recipient(ForwardPath(Mailbox(local_part, Domain("example.com"))))


BOB, EVE = recipient("bob"), recipient("eve")


def attempt(
    *pieces: bytes | Exception, recipients: Sequence[Recipient] = (BOB,), body: Body = Body.EIGHT_BIT_MIME
) -> Attempt:
    """Give an attempt to deliver these octets."""
    message = Octets(*(pieces or (TEXT,)))
    envelope = Envelope(ReversePath(None), MailParameters(body=body), tuple(recipients))
    standings = tuple(Standing(to) for to in recipients)
    return Attempt(Entry(ID, RECEIVED, CLIENT, envelope, message.size, standings, RECEIVED), message)


def files(folder: Path) -> list[str]:
    """Give the files below a folder, without the names that they have in a Maildir."""
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def only(folder: Path) -> Path:
    """Give the only file in a folder."""
    [path] = folder.iterdir()
    return path


@pytest.fixture
def maildir(tmp_path: Path) -> Maildir:
    """Give a delivery below the test's folder."""
    return Maildir(tmp_path / "{domain}" / "{local_part}", hostname="mx.example.com")


async def test_deliver(maildir: Maildir, tmp_path: Path) -> None:
    """Each recipient gets a file under new/, trace fields on top, line ends LF, and the answer 250 2.0.0."""
    work = attempt(recipients=(BOB, EVE))
    replies = await maildir.deliver(work)
    assert [str(reply) for reply in replies] == ["250 2.0.0 delivered"] * 2
    assert files(tmp_path) == ["example.com/bob/new", "example.com/eve/new"]
    head = trace_fields(work.entry, EVE, "mx.example.com")
    assert only(tmp_path / "example.com/eve/new").read_bytes() == (head + TEXT).replace(b"\r\n", b"\n")


async def test_envelope_to(tmp_path: Path) -> None:
    """On request each copy names its own recipient in X-Envelope-To, and no other one."""
    maildir = Maildir(tmp_path / "{local_part}", hostname="mx.example.com", envelope_to=True)
    await maildir.deliver(attempt(recipients=(BOB, EVE)))
    for name, other in (("bob", "eve"), ("eve", "bob")):
        head, _, _ = only(tmp_path / name / "new").read_bytes().partition(b"Subject: ")
        assert head.endswith(b"\nX-Envelope-To: %s@example.com\n" % name.encode())
        assert other.encode() not in head


async def test_private(maildir: Maildir, tmp_path: Path) -> None:
    """What a Maildir delivery makes is its user's alone: folders 0700, files 0600."""
    await maildir.deliver(attempt())
    folder = tmp_path / "example.com" / "bob"
    assert sorted(path.name for path in folder.iterdir()) == ["cur", "new", "tmp"]
    modes = {path.stat().st_mode & 0o777 for path in (folder.parent, folder, *folder.iterdir())}
    assert modes == {0o700}
    assert only(folder / "new").stat().st_mode & 0o777 == 0o600


def test_protocols(maildir: Maildir) -> None:
    """A Maildir is a Delivery that can say what it has done already."""
    assert isinstance(maildir, Delivery)
    assert isinstance(maildir, DeliveryCheck)


async def test_repeated(maildir: Maildir, tmp_path: Path) -> None:
    """An attempt that is repeated leaves one file, over what a killed process left under tmp/ too."""
    await maildir.deliver(attempt())
    name = only(tmp_path / "example.com/bob/new").name
    (tmp_path / "example.com/bob/tmp" / name).write_bytes(b"x" * 10_000)
    await maildir.deliver(attempt())
    assert files(tmp_path) == ["example.com/bob/new"]
    assert only(tmp_path / "example.com/bob/new").read_bytes().endswith(b"\n\n.dot\nlast\n")


async def test_case_is_folded_and_no_copy_is_lost(maildir: Maildir, tmp_path: Path) -> None:
    """Two spellings share a Maildir, and each has its file there."""
    await maildir.deliver(attempt(recipients=(BOB, recipient("BOB"), BOB)))
    assert files(tmp_path) == ["example.com/bob/new"] * 2


async def test_name(tmp_path: Path) -> None:
    """The name says when, which and where, with nothing in it that a Maildir forbids; it fits a file system."""
    await Maildir(tmp_path, hostname="a/b:c" + "x" * 300).deliver(attempt())
    seconds, identity, host = only(tmp_path / "new").name.split(".")
    assert seconds == str(int(RECEIVED.timestamp()))
    assert identity.startswith(ID)
    assert host.startswith("a\\057b\\072cxxx")
    assert len(only(tmp_path / "new").name) < 220


async def test_own_name(tmp_path: Path) -> None:
    """Without a name of its own the receiver has the machine's."""
    await Maildir(tmp_path).deliver(attempt())
    assert only(tmp_path / "new").name.endswith("." + socket.gethostname())


async def test_existing_and_symlinked(tmp_path: Path) -> None:
    """A Maildir that exists is used as it is, behind a symbolic link as well."""
    for part in ("tmp", "new", "cur"):
        (tmp_path / "real" / part).mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    [reply] = await Maildir(tmp_path / "link").deliver(attempt())
    assert reply.code == 250
    assert files(tmp_path / "real") == ["new"]


async def test_removed_while_running(maildir: Maildir, tmp_path: Path) -> None:
    """A Maildir that somebody removes is made again, in the same attempt."""
    await maildir.deliver(attempt())
    (tmp_path / "example.com/bob").rename(tmp_path / "away")
    [reply] = await maildir.deliver(attempt())
    assert reply.code == 250
    assert files(tmp_path / "example.com/bob") == ["new"]


# ---------------------------------------------------------------- line ends


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"", b"\r\n.\r\n"])))
def test_line_ends(pieces: list[bytes]) -> None:
    """CRLF becomes LF wherever the pieces are cut, and nothing else changes."""
    line_ends = LineEnds(Body.SEVEN_BIT)
    converted = b"".join([*(line_ends.convert(piece) for piece in pieces), line_ends.rest()])
    assert converted == b"".join(pieces).replace(b"\r\n", b"\n")
    assert line_ends.rest() == b""


async def test_binary(maildir: Maildir, tmp_path: Path) -> None:
    """The octets of BODY=BINARYMIME are not touched."""
    await maildir.deliver(attempt(b"A: b\r\n\r\n\r\0\r", b"\n\r", body=Body.BINARY_MIME))
    assert only(tmp_path / "example.com/bob/new").read_bytes().endswith(b"\r\nA: b\r\n\r\n\r\0\r\n\r")


# ---------------------------------------------------------------- threads and memory


async def test_few_hops(tmp_path: Path) -> None:
    """A small message takes one hop into a thread for each recipient, and one more where its Maildir is first met."""
    hops = Hops()
    maildir = Maildir(tmp_path / "{local_part}", run_in_thread=hops)
    await maildir.deliver(attempt())
    assert hops.count == 2
    await maildir.deliver(attempt(*[TEXT] * 100))
    assert hops.count == 3


async def test_control_c_waits(tmp_path: Path) -> None:
    """It does not take a delivery away whose group will wake it."""
    is_protected: list[bool] = []

    async def run(work: Callable[[], T], /) -> T:
        is_protected.append(trio.lowlevel.currently_ki_protected())
        await trio.lowlevel.checkpoint()
        return work()

    await Maildir(tmp_path, run_in_thread=run).deliver(attempt())
    assert is_protected[-1]


async def test_recipients_share_a_hop(tmp_path: Path) -> None:
    """The copies of one message are placed in one hop, as many as are 1 MiB together."""
    hops = Hops()
    maildir = Maildir(tmp_path, run_in_thread=hops)
    replies = await maildir.deliver(attempt(recipients=(BOB, EVE, BOB)))
    assert [reply.code for reply in replies] == [250] * 3
    assert (hops.count, files(tmp_path)) == (1 + 1, ["new"] * 2)
    await maildir.deliver(attempt(b"x" * 600_000, recipients=(BOB, EVE, recipient("ann"))))
    assert hops.count == 1 + 1 + 3


async def test_large(tmp_path: Path) -> None:
    """A large message is written in batches of about 1 MiB and synced before it joins a group, and arrives whole."""
    hops = Hops()
    piece = (b"x" * 126 + b"\r\n") * 2048
    await Maildir(tmp_path, run_in_thread=hops).deliver(attempt(*[piece] * 10))
    assert hops.count == 1 + 2 + 1 + 1
    assert only(tmp_path / "new").read_bytes().endswith(b"+0000\n" + (b"x" * 126 + b"\n") * 20480)


@pytest.mark.parametrize("start", [b"Subject: x\r\n\r\n", b" x\r\n", b"\tx\r\n"])
async def test_white_space_matters_at_the_very_start_alone(start: bytes, tmp_path: Path) -> None:
    """An empty line keeps white space at the start out of our fields; no other piece is touched, however it begins."""
    pieces = [start, *[b" " * 262_144] * 13]
    await Maildir(tmp_path, hostname="mx.example.com").deliver(attempt(*pieces))

    stored = only(tmp_path / "new").read_bytes()

    divided = b"\n" * (start[:1] in b" \t")
    assert stored.partition(b"+0000\n")[2] == divided + b"".join(pieces).replace(b"\r\n", b"\n")


async def test_an_empty_message_has_its_trace_fields(tmp_path: Path) -> None:
    """A message without an octet is a file all the same."""
    await Maildir(tmp_path, hostname="mx.example.com").deliver(attempt(b""))

    assert only(tmp_path / "new").read_bytes().startswith(b"Return-Path: <>\n")


async def test_prepared_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of folders that were met is bounded, whatever addresses come."""
    monkeypatch.setattr(_maildir, "_PREPARED_SIZE", 2)
    maildir = Maildir(tmp_path / "{local_part}", run_in_thread=Hops())
    await maildir.deliver(attempt(recipients=[recipient(name) for name in "abc"]))
    assert maildir._prepared == {str(tmp_path / "c")}


# ---------------------------------------------------------------- failures


def failing(number: int, real: Callable[[int], None], skip: int = 0) -> Callable[[int], None]:
    """Give an fsync that fails with this error after ``skip`` that do not."""
    left = skip

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    return fsync


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "452 4.3.1 No space left on device"),
        (errno.EDQUOT, "452 4.2.2 Disk quota exceeded"),
        (errno.EIO, "451 4.3.0 Input/output error"),
        (errno.EACCES, "451 4.3.0 Permission denied"),
    ],
)
async def test_trouble_of_ours(
    number: int, expected: str, maildir: Maildir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails is 4yz with its reason, nothing is left behind, and the next attempt succeeds."""
    await maildir.deliver(attempt(b"\r\n", recipients=(EVE,)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(number, os.fsync, skip=3))
        [reply] = await maildir.deliver(attempt())
    assert str(reply) == expected
    assert files(tmp_path) == ["example.com/eve/new"]
    [reply] = await maildir.deliver(attempt())
    assert reply.code == 250


async def test_name_not_on_disk(maildir: Maildir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose name could not be put on disk is no delivery, neither at once nor when it is looked for."""
    work = attempt()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EIO, os.fsync, skip=4))
        [reply] = await maildir.deliver(work)
        assert str(reply) == "451 4.3.0 Input/output error"
        with pytest.raises(OSError, match="Input/output error"):
            await maildir.is_delivered(work.entry, BOB)
    [reply] = await maildir.deliver(work)
    assert reply.code == 250
    assert files(tmp_path) == ["example.com/bob/new"]


async def test_each_recipient_alone(maildir: Maildir, tmp_path: Path) -> None:
    """One recipient's trouble is not another's."""
    (tmp_path / "example.com").mkdir()
    (tmp_path / "example.com/bob").write_bytes(b"")
    replies = await maildir.deliver(attempt(recipients=(BOB, EVE)))
    assert [reply.code for reply in replies] == [451, 250]


async def test_error_without_a_number(tmp_path: Path) -> None:
    """An OSError that has only a text is told by its text."""
    [reply] = await Maildir(tmp_path).deliver(attempt(OSError("odd")))
    assert str(reply) == "451 4.3.0 odd"


@pytest.mark.parametrize("size", [1, 2_000_000])
async def test_message_cannot_be_read(size: int, tmp_path: Path) -> None:
    """When the spool fails in the middle of a message, its recipient waits and tmp/ is empty."""
    [reply] = await Maildir(tmp_path).deliver(attempt(b"x" * size, SpoolError("cannot read it")))
    assert str(reply) == "451 4.3.0 cannot read it"
    assert files(tmp_path) == []


async def test_discard_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be swept up does not hide the first error."""
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, os.fsync, skip=1))
    monkeypatch.setattr(Path, "unlink", failing(errno.EROFS, os.fsync))
    [reply] = await Maildir(tmp_path).deliver(attempt())
    assert str(reply) == "451 4.3.0 Input/output error"


def test_nothing_to_discard(tmp_path: Path) -> None:
    """A file that was never begun has nothing to sweep up."""
    file = MailFile(str(tmp_path), "name")
    file.discard()
    assert not file.is_begun


@pytest.mark.parametrize("hop", range(1, 6))
async def test_cancelled(hop: int, tmp_path: Path) -> None:
    """Cancellation at any await leaves nothing under tmp/, and nothing but whole files anywhere."""
    with trio.CancelScope() as scope:
        await Maildir(tmp_path, run_in_thread=Hops(hop, scope)).deliver(attempt(*[b"x" * 1_000_000] * 5))
    assert scope.cancelled_caught == (hop < 5)
    assert files(tmp_path) == ["new"] * (hop == 5)


# ---------------------------------------------------------------- durability


async def test_order_of_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are on disk before the file, the file before its name under new/, and that name before the answer."""
    steps: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)).partition(".")[0])
        real_fsync(descriptor)

    def rename(source: str, target: str) -> None:
        steps.append("rename")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    maildir = Maildir(tmp_path / "in" / "{local_part}")
    seconds = int(RECEIVED.timestamp())
    await maildir.deliver(attempt())
    assert steps == ["", "in", "in/bob", f"in/bob/tmp/{seconds}", "rename", "in/bob/new"]
    steps.clear()
    await maildir.deliver(attempt())
    assert steps == [f"in/bob/tmp/{seconds}", "rename", "in/bob/new"]


async def test_is_delivered(maildir: Maildir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery is found again, for its own recipient and message only, and its name is on disk by then."""
    work = attempt()
    assert not await maildir.is_delivered(work.entry, BOB)
    await maildir.deliver(work)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert await maildir.is_delivered(work.entry, BOB)
    assert len(synced) == 1
    assert not await maildir.is_delivered(work.entry, EVE)
    assert not await maildir.is_delivered(work.entry, recipient("Bob"))
    assert not await maildir.is_delivered(replace(work.entry, queue_id=QueueId("1123456789abcdefghij")), BOB)


async def test_is_delivered_after_a_mail_reader(maildir: Maildir, tmp_path: Path) -> None:
    """A mail reader that has moved the file to cur/ and marked it as seen causes no second copy."""
    work = attempt()
    await maildir.deliver(work)
    path = only(tmp_path / "example.com/bob/new")
    path.rename(tmp_path / "example.com/bob/cur" / f"{path.name}:2,S")
    assert await maildir.is_delivered(work.entry, BOB)


async def test_is_delivered_under_another_hostname(tmp_path: Path) -> None:
    """A receiver that was given another name knows the files of the old one."""
    work = attempt()
    await Maildir(tmp_path, hostname="old.example.com").deliver(work)
    assert await Maildir(tmp_path, hostname="new.example.com").is_delivered(work.entry, BOB)


async def test_is_delivered_cannot_tell(tmp_path: Path) -> None:
    """Where the folder cannot be read, the answer is an error and not a second copy."""
    (tmp_path / "new").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        await Maildir(tmp_path).is_delivered(attempt().entry, BOB)
