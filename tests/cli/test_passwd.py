"""``smtprecv passwd``: a user's line in a password file, from a pipe."""

from __future__ import annotations

import fcntl
import io
import os
import stat
import sys
from pathlib import Path
from typing import Protocol

import pytest

from smtprecv.cli import main
from smtprecv.policies import read_keys, with_keys
from smtprecv.sasl import ITERATIONS, SALT_SIZE, ScramKeys

OLD = ScramKeys(b"salt", 4096, b"S" * 32, b"V" * 32)


class Run(Protocol):
    """Runs the command over the file of the test."""

    def __call__(self, *arguments: str, stdin: bytes = b"secret\n") -> int: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a password file in a folder of its own."""
    folder = tmp_path / "etc"
    folder.mkdir()
    return folder / "users"


@pytest.fixture
def run(path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give the command over that file, with so many octets of standard input."""

    def run(*arguments: str, stdin: bytes = b"secret\n") -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "ascii"))
        return main(["passwd", str(path), *arguments])

    return run


def fits(path: Path, user: str, password: str) -> bool:
    """Say whether a file has this password for a user."""
    return read_keys(path.read_bytes(), "users")[user].fits(password)


def test_create(path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is made, for its owner alone; what is in it is salted and of full strength."""
    assert run("anna") == 0
    assert capsys.readouterr() == ("", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"secret" not in path.read_bytes()
    keys = read_keys(path.read_bytes(), "users")["anna"]
    assert (keys.iterations, len(keys.salt)) == (ITERATIONS, SALT_SIZE)
    assert keys.fits("secret")


@pytest.mark.parametrize(
    ("stdin", "password"),
    [(b"secret", "secret"), (b"secret\r\nmore\n", "secret"), (b" a b \n", " a b "), (b"\xc3\xa9\n", "\u00e9")],
)
def test_first_line(path: Path, run: Run, stdin: bytes, password: str) -> None:
    """The password is the first line of standard input, in UTF-8, without its end."""
    assert run("anna", stdin=stdin) == 0
    assert fits(path, "anna", password)


def test_replace(path: Path, run: Run) -> None:
    """The user's line is replaced where it stands; comments, order and others stay, and so do owner and mode."""
    path.write_bytes(b"# staff\n" + with_keys(with_keys(b"", "anna", OLD), "ben", OLD) + b"# end\n")
    path.chmod(0o640)
    before = path.read_bytes().split(b"\n")
    assert run("anna") == 0
    after = path.read_bytes().split(b"\n")
    assert [index for index, line in enumerate(after) if line != before[index]] == [1]
    assert fits(path, "anna", "secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert run("carl") == 0
    assert path.read_bytes().startswith(b"\n".join(after) + b"carl:")
    assert list(path.parent.iterdir()) == [path]


def test_owner(path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may set a password in a server's file: the new file is the server's, as the old one was."""
    path.write_bytes(with_keys(b"", "ben", OLD))
    inode, fstat = path.stat().st_ino, os.fstat
    owners: list[tuple[int, int]] = []

    def of_another(descriptor: int) -> os.stat_result:
        mode, number, device, links, uid, gid, *rest = fstat(descriptor)
        is_old = number == inode
        return os.stat_result((mode, number, device, links, uid + is_old, gid, *rest))

    def chown(name: str, uid: int, gid: int) -> None:
        assert Path(name).parent == path.parent
        owners.append((uid, gid))

    monkeypatch.setattr(os, "fstat", of_another)
    monkeypatch.setattr(os, "chown", chown)
    assert run("anna") == 0
    assert owners == [(os.geteuid() + 1, path.stat().st_gid)]


def test_a_reader_has_the_old_file_or_the_new_one(path: Path, run: Run) -> None:
    """The new file takes the place of the old one in one step: who has that open reads it to its end as it was."""
    before = with_keys(b"", "ben", OLD)
    path.write_bytes(before)
    with path.open("rb") as file:
        assert run("anna") == 0
        assert file.read() == before
    assert fits(path, "anna", "secret")


def test_fresh_salt(path: Path, run: Run) -> None:
    """The same password set twice is not the same line."""
    run("anna")
    first = path.read_bytes()
    run("anna")
    assert path.read_bytes() != first


def test_name_is_prepared(path: Path, run: Run) -> None:
    """The name of a user is prepared, so that he is found however a client writes him."""
    assert run("zoe\u0308") == 0
    assert list(read_keys(path.read_bytes(), "users")) == ["zo\u00eb"]


def test_link(path: Path, run: Run, tmp_path: Path) -> None:
    """What a symbolic link points to is replaced, not the link."""
    target = tmp_path / "real"
    path.symlink_to(target)
    assert run("anna") == 0
    assert path.is_symlink()
    assert fits(target, "anna", "secret")


def test_delete(path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A user can be deleted; one who is not there is status 1, and nothing changes."""
    path.write_bytes(b"# staff\n" + with_keys(with_keys(b"", "anna", OLD), "ben", OLD))
    assert run("anna", "--delete") == 0
    assert path.read_bytes() == b"# staff\n" + with_keys(b"", "ben", OLD)
    before = path.stat()
    assert run("anna", "--delete") == 1
    assert capsys.readouterr() == ("", f"smtprecv passwd: anna is not in {path}\n")
    assert os.path.samestat(path.stat(), before)


@pytest.mark.parametrize(
    ("stdin", "reason"),
    [
        (b"", "a password has 1 to 1024 octets"),
        (b"\n", "a password has 1 to 1024 octets"),
        (b"\xc2\xad\n", "a password has 1 to 1024 octets"),
        (b"x" * 1025, "a password has 1 to 1024 octets"),
        (b"\xff\n", "the password is not text in this encoding"),
        (b"a\0b\n", "the password: there is a character"),
        ("\U0001f600\n".encode(), "the password: there is a character"),
    ],
)
def test_bad_password(path: Path, run: Run, stdin: bytes, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A password that could not be used is status 2 and one line; nothing is made."""
    assert run("anna", stdin=stdin) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"smtprecv passwd: {reason}")
    assert not path.exists()


def test_no_standard_input(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed standard input is no password."""
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["passwd", str(path), "anna"]) == 2
    assert capsys.readouterr().err == "smtprecv passwd: a password has 1 to 1024 octets\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a:b"], "USER: the name of a user has no colon"),
        (["#a"], "USER: the name of a user has no colon, does not begin with #"),
        (["a\nb"], "USER: there is a character"),
        ([""], "USER: a name is printable text"),
        ([], "USER"),
        (["anna", "--queue", "q"], "--queue"),
    ],
)
def test_wrong(path: Path, run: Run, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that cannot stand in the file is status 2 and one line; there is no queue here."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert reason in err
    assert err.count("\n") == 1
    assert not path.exists()


def test_broken_file(path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with a line that is none is left as it is, and the line is named; the user's own is mended."""
    path.write_text("ben:secret\n")
    assert run("anna") == 2
    assert capsys.readouterr().err.startswith(f"smtprecv passwd: {path}:1: is not user:")
    assert path.read_text() == "ben:secret\n"
    assert run("ben") == 0
    assert fits(path, "ben", "secret")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("arguments", [["anna"], ["anna", "--delete"]])
def test_no_file(path: Path, run: Run, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is no regular file, or cannot be opened, is one line, and stays as it is."""
    path.mkdir()
    assert run(*arguments) == 1
    assert capsys.readouterr().err == f"smtprecv passwd: {path}: Is a directory\n"
    path.rmdir()
    os.mkfifo(path)
    assert run(*arguments) == 2
    assert capsys.readouterr().err == f"smtprecv passwd: {path} is not a regular file\n"
    assert path.is_fifo()


def test_delete_from_nothing(path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """To delete makes no file."""
    assert run("anna", "--delete") == 1
    assert capsys.readouterr().err == f"smtprecv passwd: {path}: No such file or directory\n"
    assert not path.exists()


def test_no_room(path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the new file cannot be written, the old one stays, and nothing lies beside it."""
    path.write_bytes(with_keys(b"", "ben", OLD))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run("anna") == 1
    assert capsys.readouterr().err == "smtprecv passwd: No space left on device\n"
    assert path.read_bytes() == with_keys(b"", "ben", OLD)
    assert list(path.parent.iterdir()) == [path]


def test_replaced_while_waiting(path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gets the lock of a file that another command has replaced begins anew with that one's."""
    path.touch()
    locks: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        locks.append(operation)
        if len(locks) == 1:  # as if it had waited for the command that writes this
            other = path.with_name("other")
            other.write_bytes(with_keys(b"", "ben", OLD))
            other.replace(path)
        if len(locks) == 2:
            path.unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    assert run("anna") == 0
    assert locks == [fcntl.LOCK_EX] * 3
    assert list(read_keys(path.read_bytes(), "users")) == ["anna"]
