"""`smtprecv passwd` on a terminal, and many of them at once."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.served import COMMAND, until

from smtprecv.policies import PasswordFile, read_keys

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class Terminal:
    """A pseudo-terminal with the command on it; `shown` is all that a person would have seen."""

    def __init__(self, *arguments: str | Path) -> None:
        """Start the command in a session of its own, whose terminal this is."""
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.execv(COMMAND[0], [*COMMAND, *map(str, arguments)])  # noqa: S606  # nothing is read by a shell
        self.shown = ""

    def await_text(self, text: str, times: int = 1) -> None:
        """Read until a text was shown so many times; AssertionError if the command ends before that."""
        while self.shown.count(text) < times:
            assert self._read(), self.shown

    def write(self, text: str) -> None:
        """Type."""
        os.write(self._descriptor, text.encode())

    @property
    def echoes(self) -> bool:
        """True if what is typed is shown."""
        return bool(termios.tcgetattr(self._descriptor)[3] & termios.ECHO)

    def wait(self) -> int:
        """Read to the end, and give the exit status."""
        while self._read():
            pass
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return status

    def close(self) -> None:
        """End the command if it still runs."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._descriptor)

    def _read(self) -> bool:
        try:
            octets = os.read(self._descriptor, 4096)
        except OSError:  # Linux: the other end was closed
            return False
        self.shown += octets.decode()
        return bool(octets)


@contextmanager
def terminal(*arguments: str | Path) -> Iterator[Terminal]:
    """Give a terminal on which the command runs."""
    it = Terminal(*arguments)
    try:
        yield it
    finally:
        it.close()


def type_passwords(path: Path, passwords: Sequence[str]) -> tuple[int, str]:
    """Set anna's password by hand; give the exit status, and what was shown."""
    with terminal("passwd", path, "anna") as it:
        for prompt, password in zip(("Password: ", "Password again: "), passwords, strict=True):
            it.await_text(prompt)
            until(lambda: not it.echoes, "no echo")
            it.write(password)
        return it.wait(), it.shown


def test_terminal(tmp_path: Path) -> None:
    """A password is asked for twice, and never shown."""
    path = tmp_path / "users"
    assert type_passwords(path, ["s\u00e9cret\n", "s\u00e9cret\n"]) == (0, "Password: \r\nPassword again: \r\n")
    assert read_keys(path.read_bytes(), "users")["anna"].fits("s\u00e9cret")


@pytest.mark.parametrize(
    ("passwords", "reason"),
    [
        (["secret\n", "Secret\n"], "the passwords are not the same"),
        (["secret\n", "\x04"], "no password was given"),
        (["\n", "\n"], "a password has 1 to 1024 octets"),
    ],
)
def test_mistyped(tmp_path: Path, passwords: list[str], reason: str) -> None:
    """A password that was not typed twice is one line, status 2, and no file."""
    status, shown = type_passwords(tmp_path / "users", passwords)
    assert status == 2
    assert shown.splitlines()[-1] == f"smtprecv passwd: {reason}"
    assert list(tmp_path.iterdir()) == []


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends the command without a word, and leaves a terminal that echoes."""
    with terminal("passwd", tmp_path / "users", "anna") as it:
        it.await_text("Password: ")
        until(lambda: not it.echoes, "no echo")
        it.write("sec\x03")
        until(lambda: it.echoes, "echo")
        assert it.wait() == 130
        assert "Traceback" not in it.shown
    assert list(tmp_path.iterdir()) == []


def test_at_once(tmp_path: Path) -> None:
    """Of many commands at the same time none undoes another, and a server reads a whole file throughout."""
    path = tmp_path / "users"
    users = [f"user{number}" for number in range(12)]
    path.touch(0o600)

    def add(user: str) -> int:
        command = [*COMMAND, "passwd", str(path), user]
        return subprocess.run(command, input=f"secret {user}\n".encode(), check=False, timeout=60).returncode

    with ThreadPoolExecutor(6) as pool:
        added = [pool.submit(add, user) for user in users]
        while not all(each.done() for each in added):
            PasswordFile(path)
    assert [each.result() for each in added] == [0] * len(users)
    keys = read_keys(path.read_bytes(), "users")
    assert sorted(keys) == sorted(users)
    assert keys["user7"].fits("secret user7")
    assert list(tmp_path.iterdir()) == [path]
