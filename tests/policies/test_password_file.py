"""The password file as a policy: who is let in, what a stranger can find out, and how it follows the file."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from smtprecv.errors import ConfigError
from smtprecv.message import Client, SessionId
from smtprecv.policies import PasswordFile, on_authenticate, with_keys
from smtprecv.policy import AuthPolicy, ScramPolicy
from smtprecv.protocol import Reply
from smtprecv.sasl import CREDENTIALS_INVALID, External, Identity, Password, ScramKeys

CLIENT = Client(SessionId("s"), None, None)
KEYS = ScramKeys.derive("secret", salt=b"salt" * 3, iterations=4096)


def write(path: Path, *users: str, keys: ScramKeys = KEYS) -> PasswordFile:
    """Write a file of users who all have one password, and open it."""
    path.touch(0o600)
    octets = b"# staff\n"
    for user in users:
        octets = with_keys(octets, user, keys)
    path.write_bytes(octets)
    return PasswordFile(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a password file."""
    return tmp_path / "users"


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (Password("anna", "secret"), Identity("anna")),
        (Password("anna", "secret", "anna"), Identity("anna")),
        (Password("anna", "secret", "ben"), CREDENTIALS_INVALID),
        (Password("anna", "Secret"), CREDENTIALS_INVALID),
        (Password("anna", "\x07"), CREDENTIALS_INVALID),
        (Password("Anna", "secret"), CREDENTIALS_INVALID),
        (Password("carl", "secret"), CREDENTIALS_INVALID),
        (External("anna"), CREDENTIALS_INVALID),
        (External("anna", "anna"), CREDENTIALS_INVALID),
    ],
)
async def test_authenticate(path: Path, credentials: Password | External, expected: Identity | Reply) -> None:
    """Who has the password is let in, as himself; everybody else is told one and the same."""
    assert await write(path, "anna", "ben").authenticate(CLIENT, credentials) == expected


async def test_scram_keys(path: Path) -> None:
    """A user has the keys of the file; who is not there has some that look alike, here and wherever the file is."""
    policy = write(path, "anna", "ben")
    assert await policy.scram_keys(CLIENT, "anna") == KEYS
    nobody = await policy.scram_keys(CLIENT, "carl")
    assert (nobody.iterations, len(nobody.salt)) == (KEYS.iterations, len(KEYS.salt))
    assert nobody not in {KEYS, await policy.scram_keys(CLIENT, "dora")}
    assert nobody == await PasswordFile(path).scram_keys(CLIENT, "carl")


async def test_nobody_looks_like_most(path: Path) -> None:
    """Where the lines differ, who is not there looks like most users; in an empty file like a new one."""
    write(path, "anna", "ben")
    path.write_bytes(with_keys(path.read_bytes(), "carl", ScramKeys.of_nobody("carl", secret=b"")))
    assert (await PasswordFile(path).scram_keys(CLIENT, "dora")).iterations == KEYS.iterations
    nobody = await write(path).scram_keys(CLIENT, "dora")
    assert (nobody.iterations, len(nobody.salt)) == (65_536, 16)


async def test_nobody_costs_as_much(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password is hashed as often for a user who is not there."""
    hashed: list[int] = []

    def fits(keys: ScramKeys, password: str) -> bool:
        hashed.append(keys.iterations)
        return False

    policy = write(path, "anna")
    monkeypatch.setattr(ScramKeys, "fits", fits)
    for user in ("anna", "carl"):
        await policy.authenticate(CLIENT, Password(user, "secret"))
    assert hashed == [4096, 4096]


async def test_flood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of logins hashes in two threads only, while keys and other work in threads go on."""
    policy = write(path, "anna")
    go_on = threading.Event()
    begun: list[int] = []

    def fits(keys: ScramKeys, password: str) -> bool:
        begun.append(1)
        assert go_on.wait(30)
        return False

    monkeypatch.setattr(ScramKeys, "fits", fits)
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(policy.authenticate, CLIENT, Password("anna", "x"))
        while policy._hashing.statistics().tasks_waiting < 58:
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert await policy.scram_keys(CLIENT, "anna") == KEYS
        assert len(begun) <= 2
        go_on.set()
    assert len(begun) == 60


async def test_cancelled_while_it_waits(path: Path) -> None:
    """A login that waits for its turn can be cancelled."""
    policy = write(path, "anna")
    policy._hashing.total_tokens = 1
    async with policy._hashing:
        with trio.move_on_after(0) as scope:
            await policy.authenticate(CLIENT, Password("anna", "secret"))
    assert scope.cancelled_caught


async def test_changed(path: Path) -> None:
    """A file that was replaced, or written in place, is read again at the next login."""
    policy = write(path, "anna")
    write(path, "anna", "ben")
    assert await policy.authenticate(CLIENT, Password("ben", "secret")) == Identity("ben")
    fresh = path.with_name("fresh")
    write(fresh, "carl")
    fresh.replace(path)
    assert await policy.authenticate(CLIENT, Password("ben", "secret")) == CREDENTIALS_INVALID
    assert await policy.authenticate(CLIENT, Password("carl", "secret")) == Identity("carl")


async def test_unchanged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has not changed is not read again."""
    policy = write(path, "anna")
    monkeypatch.setattr("smtprecv.policies._password_file._read", None)
    assert await policy.scram_keys(CLIENT, "anna") == KEYS


async def test_broken(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that broke, or went, is one line in the log; the users stay until there is a sound one."""
    policy = write(path, "anna")
    anna = Password("anna", "secret")
    path.write_text("anna:{PLAIN}secret\n")
    assert [await policy.authenticate(CLIENT, anna) for _ in range(3)] == [Identity("anna")] * 3
    path.unlink()
    assert [await policy.authenticate(CLIENT, anna) for _ in range(3)] == [Identity("anna")] * 3
    bad_line, not_there = caplog.messages
    assert bad_line.startswith(f"the users stay as they were: {path}:1: is not user:")
    assert "secret" not in bad_line
    assert not_there.startswith("the users stay as they were: ")
    assert str(path) in not_there
    caplog.clear()
    write(path, "ben")
    assert await policy.authenticate(CLIENT, anna) == CREDENTIALS_INVALID
    assert await policy.authenticate(CLIENT, Password("ben", "secret")) == Identity("ben")
    assert caplog.messages == []
    path.unlink()
    await policy.authenticate(CLIENT, anna)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1), (0o620, 1)])
async def test_mode(path: Path, mode: int, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    """A file that others may read or write is one warning, not one for each login."""
    write(path, "anna")
    path.chmod(mode)
    policy = PasswordFile(path)
    for _ in range(3):
        await policy.scram_keys(CLIENT, "anna")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warnings


def test_start(path: Path) -> None:
    """A policy without its file, or with a broken one, cannot be made."""
    with pytest.raises(FileNotFoundError):
        PasswordFile(path)
    path.write_text("anna:x\n")
    with pytest.raises(ConfigError, match=r"users:1: is not user:"):
        PasswordFile(path)


async def test_relative(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means what it meant when it was given."""
    write(path, "anna")
    monkeypatch.chdir(path.parent)
    policy = PasswordFile("users")
    monkeypatch.chdir("/")
    path.write_bytes(b"")
    assert await policy.scram_keys(CLIENT, "anna") != KEYS


def test_is_a_policy(path: Path) -> None:
    """It decides over AUTH, with a password and with keys."""
    policy = write(path)
    assert isinstance(policy, AuthPolicy)
    assert isinstance(policy, ScramPolicy)


async def test_function() -> None:
    """A function can decide who a client is."""

    async def only_anna(client: Client, credentials: Password | External) -> Identity | Reply:
        is_anna = credentials == Password("anna", "secret")
        return Identity(f"anna in {client.session_id}") if is_anna else CREDENTIALS_INVALID

    policy = on_authenticate(only_anna)
    assert isinstance(policy, AuthPolicy)
    assert not isinstance(policy, ScramPolicy)
    assert await policy.authenticate(CLIENT, Password("anna", "secret")) == Identity("anna in s")
    assert await policy.authenticate(CLIENT, External("anna")) == CREDENTIALS_INVALID
