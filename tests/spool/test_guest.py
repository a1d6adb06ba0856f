"""The spool's tables in a program's own database: where that is sound, whose they are, and what stays as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.spool.spoolhouse import NOON, accept, ask, finish, opened

from smtprecv.errors import SpoolUnusable
from smtprecv.spool import SpoolOptions
from smtprecv.spool._guest import demand_sound, prepare_guest
from smtprecv.spool._options import connect
from smtprecv.spool._schema import MIGRATIONS

SOUND = SpoolOptions(sqlite_version=(3, 51, 3))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Give a program's database, with a table whose name the spool once used, and a version of its own."""
    path = tmp_path / "own.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE message (text TEXT)")
        connection.execute("PRAGMA application_id = 7")
        connection.execute("PRAGMA user_version = 99")
    return path


def own(database: Path) -> list[object]:
    """Give what is the program's."""
    with closing(sqlite3.connect(database)) as connection:
        queries = ("SELECT * FROM message", "PRAGMA application_id", "PRAGMA user_version")
        return [connection.execute(query).fetchall() for query in queries]


@pytest.mark.parametrize("version", [(3, 44, 6), (3, 44, 7), (3, 50, 7), (3, 51, 3), (3, 52, 0), (4, 0, 0)])
def test_sound(version: tuple[int, ...]) -> None:
    """The versions with the fix are taken."""
    demand_sound(version)


@pytest.mark.parametrize("version", [(3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 2)])
async def test_unsound(version: tuple[int, ...], tmp_path: Path, database: Path) -> None:
    """Those without are refused before anything is touched, and the refusal says which are sound."""
    options = replace(SOUND, database=database, sqlite_version=version)
    with pytest.raises(SpoolUnusable, match=r"SQLite 3\.\d+\.\d can damage .* 3\.44\.6, 3\.50\.7, 3\.51\.3 or later"):
        async with opened(tmp_path / "queue", options):
            pass
    assert not (tmp_path / "queue").exists()


async def test_beside_the_programs_own(tmp_path: Path, database: Path) -> None:
    """Messages live beside the program's tables, a restart finds them by the folder alone, and its marks stay."""
    queue = tmp_path / "queue"
    async with opened(queue, replace(SOUND, database=database)) as spool:
        assert spool.database == database
        entry = await accept(spool)
        with closing(sqlite3.connect(database)) as other, other:
            other.execute("INSERT INTO message VALUES ('mine')")
        await spool.transact(lambda connection: connection.execute("INSERT INTO message VALUES ('ours')"))
    assert own(database) == [[("mine",), ("ours",)], [(7,)], [(99,)]]
    async with opened(queue, SOUND) as spool:
        assert (await spool.entries(), await spool.verify()) == ([entry], [])
        (claim,) = await spool.claim(NOON, 1)
        await finish(spool, claim)
        assert await spool.entries() == []
    with pytest.raises(SpoolUnusable, match="can damage"):
        async with opened(queue, replace(SOUND, sqlite_version=(3, 40, 1))):
            pass


async def test_a_new_database(tmp_path: Path) -> None:
    """A database that is not there is made; the folder's own may be named too, which changes nothing."""
    async with opened(tmp_path / "queue", replace(SOUND, database=tmp_path / "new.db")) as spool:
        await accept(spool)
    assert ask(tmp_path / "queue", "SELECT count(*) FROM smtprecv_message") == [(1,)]
    named = SpoolOptions(database=tmp_path / "plain" / "queue.sqlite")
    async with opened(tmp_path / "plain", named):
        pass
    assert [path.name for path in (tmp_path / "plain").glob("home.*")] == []


async def test_one_folder_for_one_database(tmp_path: Path, database: Path) -> None:
    """A second folder for the same database is refused, and so is a second database for a folder."""
    async with opened(tmp_path / "queue", replace(SOUND, database=database)) as spool:
        await accept(spool)
    with pytest.raises(SpoolUnusable, match="belong to a queue in another folder"):
        async with opened(tmp_path / "other", replace(SOUND, database=database)):
            pass
    with pytest.raises(SpoolUnusable, match=r"its messages are in .*own\.db"):
        async with opened(tmp_path / "queue", replace(SOUND, database=tmp_path / "new.db")):
            pass
    async with opened(tmp_path / "plain"):
        pass
    with pytest.raises(SpoolUnusable, match=r"its messages are in .*plain/queue\.sqlite"):
        async with opened(tmp_path / "plain", replace(SOUND, database=database)):
            pass
    async with opened(tmp_path / "queue", SOUND) as spool:
        assert len(await spool.entries()) == 1


def test_versions(database: Path) -> None:
    """Our tables go forward by their own version; a newer one is refused, and a failure changes nothing."""
    newer = (*MIGRATIONS, ("CREATE TABLE smtprecv_more (n)",))
    tables = "SELECT count(*) FROM sqlite_master WHERE name = 'smtprecv_more'"
    with closing(connect(database)) as connection:
        for _ in range(2):
            prepare_guest(connection, ".a")
        for bad in (("no SQL",), ("ROLLBACK", "no SQL")):
            with pytest.raises(sqlite3.OperationalError):
                prepare_guest(connection, ".a", (*newer, bad))
        assert connection.execute(tables).fetchone() == (0,)
        for _ in range(2):
            prepare_guest(connection, ".a", newer)
        assert connection.execute(tables).fetchone() == (1,)
        with pytest.raises(SpoolUnusable, match="newer version"):
            prepare_guest(connection, ".a")
    assert own(database) == [[], [(7,)], [(99,)]]


async def test_the_same_schema(tmp_path: Path, database: Path) -> None:
    """The tables are those of a database of the spool's own."""
    query = "SELECT name, sql FROM sqlite_master WHERE name GLOB 'smtprecv_*' AND name <> 'smtprecv_home' ORDER BY name"
    async with opened(tmp_path / "plain"), opened(tmp_path / "queue", replace(SOUND, database=database)):
        pass
    assert ask(tmp_path / "queue", query) == ask(tmp_path / "plain", query)
