"""Owners: alive as long as their lock is held, dead at once when it is not, however they died."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.spool.spoolhouse import LARGE, LATE, Disk, accept, ask, bodies, names, opened

from smtprecv.errors import SpoolError
from smtprecv.spool import SpoolOptions, _litter
from smtprecv.spool._lock import WriteLock
from smtprecv.spool._owner import Owner, bury, dead_owners, is_alive
from smtprecv.spool._sqlite import SqliteSpool


def test_life(tmp_path: Path) -> None:
    """An owner lives from its birth until its lock is let go, and is buried only then."""
    owner = Owner(tmp_path)
    assert (is_alive(tmp_path, owner.id), dead_owners(tmp_path)) == (True, [])
    assert (tmp_path / owner.id).stat().st_mode & 0o777 == 0o600
    owner.close()
    assert (is_alive(tmp_path, owner.id), dead_owners(tmp_path)) == (False, [owner.id])
    bury(tmp_path, [owner.id])
    bury(tmp_path, [owner.id])
    assert (is_alive(tmp_path, owner.id), dead_owners(tmp_path)) == (False, [])


def test_probing_does_not_end_a_life(tmp_path: Path) -> None:
    """An owner that is probed by its own process keeps its lock: flock is not a POSIX record lock."""
    owner = Owner(tmp_path)
    assert [is_alive(tmp_path, owner.id) for _ in range(3)] == [True] * 3
    owner.leave(tmp_path)
    owner.leave(tmp_path)
    owner.close()


def test_an_owner_whose_removals_may_come_undone_does_not_leave(tmp_path: Path) -> None:
    """Where the folder of bodies cannot be synced, the owner's file stays, for the litter to be looked for."""
    owner = Owner(tmp_path)
    owner.leave(tmp_path / "no folder")
    owner.close()
    assert dead_owners(tmp_path) == [owner.id]


def test_a_child_does_not_inherit_a_life(tmp_path: Path) -> None:
    """A program that is started does not keep its parent's owner alive: the file is closed on exec."""
    owner = Owner(tmp_path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        owner.close()
        assert not is_alive(tmp_path, owner.id)
        child.communicate()


def _leave_for_dead(path: Path) -> str:
    """Make what a killed owner leaves: its file unlocked, its claims in the table, its litter."""
    owner = Owner(path / "owners")
    owner.close()
    return owner.id


async def test_recover(tmp_path: Path) -> None:
    """Claims of the dead are void, their files gone, their unnamed bodies swept; the living are left alone."""
    async with opened(tmp_path) as spool:
        kept = await accept(spool, LARGE)
        small = await accept(spool)
    dead = _leave_for_dead(tmp_path)
    ask(tmp_path, "UPDATE smtprecv_message SET owner = ? WHERE id = ?", dead, small.queue_id)
    ask(tmp_path, "UPDATE smtprecv_message SET owner = 'nofile' WHERE id = ?", kept.queue_id)
    (named,) = bodies(tmp_path)
    for name in (f"{dead}.{'0' * 20}", f"{dead}.{kept.queue_id}.1"):
        (tmp_path / "bodies" / name).touch()
    async with opened(tmp_path, SpoolOptions()) as living:
        assert len(await living.claim(LATE, 9)) == 2
        assert bodies(tmp_path) == [named]
        assert not (tmp_path / "owners" / dead).exists()
        draft = await living.begin(LATE)
        await draft.write(LARGE)
        dead = _leave_for_dead(tmp_path)
        async with opened(tmp_path) as other:
            assert (len(bodies(tmp_path)), await other.recover()) == (2, 0)
            assert not (tmp_path / "owners" / dead).exists()
        await draft.abort()
        assert (await living.recover(), bodies(tmp_path)) == (0, [named])


async def test_recover_counts(tmp_path: Path) -> None:
    """`recover` gives the number of claims it voided."""
    async with opened(tmp_path) as spool:
        entries = [await accept(spool) for _ in range(3)]
        async with opened(tmp_path) as other:
            await other.claim(LATE, 3)
            assert await spool.recover() == 0
        dead = _leave_for_dead(tmp_path)
        await spool.claim_ids([entries[0].queue_id])
    ask(tmp_path, "UPDATE smtprecv_message SET owner = ? WHERE id <> ?", dead, entries[0].queue_id)
    async with opened(tmp_path) as spool:
        assert len(await spool.claim(LATE, 9)) == 3


async def test_what_is_set_aside_keeps_its_body(tmp_path: Path) -> None:
    """A body file that only a row set aside names is not swept: nothing is dropped."""
    async with opened(tmp_path) as spool:
        await accept(spool, LARGE)
    ask(tmp_path, "UPDATE smtprecv_message SET client = 'junk'")
    async with opened(tmp_path) as spool:
        assert list(await spool.claim(LATE, 9)) == []
    _leave_for_dead(tmp_path)
    async with opened(tmp_path):
        assert len(bodies(tmp_path)) == 1


async def test_the_end_leaves_nothing_behind(tmp_path: Path) -> None:
    """A spool that ends in order gives its claims back and removes its owner's file."""
    async with opened(tmp_path) as spool:
        await accept(spool)
        await spool.claim(LATE, 1)
        async with spool.fresh(1):
            await accept(spool)
    assert names(tmp_path / "owners") == []
    assert ask(tmp_path, "SELECT count(*) FROM smtprecv_message WHERE owner IS NOT NULL") == [(0,)]


async def test_an_end_without_the_lock(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A spool that cannot get the lock at its end leaves its owner's file, unlocked: to all others it is dead."""
    lock_path = tmp_path / "lock"
    async with opened(tmp_path, SpoolOptions(lock_patience=1)) as spool:
        await accept(spool)
        await spool.claim(LATE, 1)
        assert isinstance(spool, SqliteSpool)
        left = spool
        lock = WriteLock(lock_path, 0)
        holding = lock.held()
        await holding.__aenter__()
    assert "claims were not given back" in caplog.text
    assert "was not closed cleanly" in caplog.text
    # It stays open, because to close it without the lock could damage the database.
    left._writer._disconnect()
    await holding.__aexit__(None, None, None)
    (owner_id,) = names(tmp_path / "owners")
    assert not is_alive(tmp_path / "owners", owner_id)
    async with opened(tmp_path) as spool:
        assert len(await spool.claim(LATE, 1)) == 1
    lock.close()
    assert autojump_clock.autojump_threshold == 0


async def test_the_lock_excludes(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """One holds the lock at a time; who waits gets it soon after it is free, or SpoolError in the end."""
    one, two = WriteLock(tmp_path / "lock", 10), WriteLock(tmp_path / "lock", 10)
    async with one.held():
        with pytest.raises(SpoolError, match="locked by another process for 10 s"):
            async with two.held():
                pass
        with trio.move_on_after(1) as scope:
            async with two.held():
                pass
        assert scope.cancelled_caught
    async with two.held():
        assert names(tmp_path) == ["lock"]
    one.close()
    two.close()
    assert autojump_clock.autojump_threshold == 0


async def test_a_lock_that_somebody_removed(tmp_path: Path) -> None:
    """Who has the spool open and who opens it later lock the same file, though the first one was removed."""
    one = WriteLock(tmp_path / "lock", 0)
    async with one.held():
        pass
    (tmp_path / "lock").unlink()
    async with one.held():
        two = WriteLock(tmp_path / "lock", 0)
        with pytest.raises(SpoolError, match="locked by another process"):
            async with two.held():
                pass
    (tmp_path / "lock").unlink()
    three = WriteLock(tmp_path / "lock", 0)
    async with three.held():
        with pytest.raises(SpoolError, match="locked by another process"):
            async with two.held():
                pass
    for lock in (one, two, three):
        lock.close()
    with pytest.raises(SpoolError):
        async with one.held():
            pass


async def test_what_root_makes_belongs_to_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that root runs on another user's queue leaves nothing there that this user could not open."""
    given: list[tuple[str, int, int]] = []

    def fchown(fd: int, uid: int, gid: int) -> None:
        given.append((str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(tmp_path)), uid, gid))
        raise PermissionError

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", fchown)
    async with opened(tmp_path) as spool:
        await accept(spool, LARGE)
        (owner,) = names(tmp_path / "owners")
        (body,) = bodies(tmp_path)
    status = tmp_path.stat()
    made = ["owners", "bodies", "lock", "queue.sqlite", f"owners/{owner}", f"bodies/{body}"]
    assert given == [(name, status.st_uid, status.st_gid) for name in made]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    given.clear()
    async with opened(tmp_path) as spool:
        await accept(spool, LARGE)
    assert given == []


async def test_an_owner_that_cannot_be_probed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An owner's file that cannot be opened counts as alive: its claims stand, and nobody else is kept out."""
    async with opened(tmp_path) as spool:
        await accept(spool)
        await accept(spool)
    owner_id = "0" * 16
    (tmp_path / "owners" / owner_id).mkdir()
    ask(tmp_path, "UPDATE smtprecv_message SET owner = ? WHERE number = 1", owner_id)
    async with opened(tmp_path) as spool:
        assert len(await spool.claim(LATE, 9)) == 1
    assert f"owners/{owner_id}: Is a directory" in caplog.text


@pytest.mark.parametrize(
    "owner", ["", "..", "../bodies", "x" * 300, "a\0b", b"\xff", "w" * 16, "0" * 15, "0" * 16 + "\n"], ids=ascii
)
async def test_what_could_not_be_an_owner_is_dead(tmp_path: Path, owner: str | bytes) -> None:
    """A claim of what could not be an owner is void, and stops nobody; a living one's beside it stands."""
    async with opened(tmp_path) as living:
        await accept(living)
        (claim,) = await living.claim(LATE, 1)
        await accept(living)
        await living.claim(LATE, 1)
        ask(tmp_path, "UPDATE smtprecv_message SET owner = CAST(? AS TEXT) WHERE number = 2", owner)
        assert await living.recover() == 1
        assert await living.recover() == 0
        assert [again.entry.queue_id == claim.entry.queue_id for again in await living.claim(LATE, 9)] == [False]


async def test_what_is_not_the_spools_is_left_alone(tmp_path: Path) -> None:
    """Names that the spool does not give are neither owners nor bodies: they stop no start and no sweep, and stay."""
    async with opened(tmp_path):
        pass
    junk = [b"x.\xff", b".DS_Store", b"lost+found", b"0.1", b"%s.%s.x" % (b"0" * 16, b"0" * 20)]
    for folder in ("owners", "bodies"):
        for name in junk:
            path = os.fsencode(tmp_path / folder) + b"/" + name
            Path(os.fsdecode(path)).mkdir() if b"+" in name else Path(os.fsdecode(path)).touch()
    dead = _leave_for_dead(tmp_path)
    (tmp_path / "bodies" / f"{dead}.{'0' * 20}").touch()
    async with opened(tmp_path):
        assert not (tmp_path / "owners" / dead).exists()
    for folder in ("owners", "bodies"):
        assert sorted(os.fsencode(name) for name in names(tmp_path / folder)) == sorted(junk)


async def test_a_sweep_goes_by_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A sweep lets go of the write lock now and then; a file that cannot be removed keeps it from no other."""
    async with opened(tmp_path):
        pass
    dead = _leave_for_dead(tmp_path)
    for number in range(7):
        (tmp_path / "bodies" / f"{dead}.{number:020}").touch()
    (tmp_path / "bodies" / f"{dead}.{9:020}").mkdir()
    monkeypatch.setattr(_litter, "_SWEEP_SIZE", 2)
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        assert disk.statements.count("COMMIT") == 1 + 4 + 1
        assert await spool.recover() == 0
        assert disk.statements.count("COMMIT") == 6 + 1
    assert bodies(tmp_path) == [f"{dead}.{9:020}"]
    assert f"left behind: {tmp_path}/bodies/{dead}.{9:020}: " in caplog.text


async def test_a_sweep_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When litter cannot be looked for, that is logged, the claims are void all the same, and the next one sweeps."""
    async with opened(tmp_path) as spool:
        await accept(spool)
        dead = _leave_for_dead(tmp_path)
        ask(tmp_path, "UPDATE smtprecv_message SET owner = ?", dead)
        folder = (tmp_path / "bodies").rename(tmp_path / "away")
        assert await spool.recover() == 1
        assert "was not swept" in caplog.text
        assert (tmp_path / "owners" / dead).exists()
        folder.rename(tmp_path / "bodies")
        assert await spool.recover() == 0
        assert not (tmp_path / "owners" / dead).exists()
