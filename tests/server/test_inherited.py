"""Sockets that a service manager passes: read in this process, and by a real one."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from smtprecv.errors import ConfigError
from smtprecv.server import listen
from smtprecv.server._inherited import Passed, passed_sockets
from smtprecv.server._listen import host_in

PASSED = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
TIMEOUT = 30


@pytest.fixture(autouse=True)
def _told_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what was read of the environment, before and after."""
    for variable in PASSED:
        monkeypatch.delenv(variable, raising=False)
    passed_sockets.cache_clear()
    yield
    passed_sockets.cache_clear()


def tell(monkeypatch: pytest.MonkeyPatch, pid: str, count: str, names: str | None = None) -> None:
    """Set the variables that a service manager sets."""
    monkeypatch.setenv("LISTEN_PID", pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    if names is not None:
        monkeypatch.setenv("LISTEN_FDNAMES", names)


@pytest.mark.parametrize(
    ("count", "names", "sockets"),
    [
        ("0", "", []),
        ("1", None, [("unknown", 3)]),
        ("2", "smtp:lmtp", [("smtp", 3), ("lmtp", 4)]),
        ("2", "smtp:smtp", [("smtp", 3), ("smtp", 4)]),
        ("2", "smtp", [("smtp", 3), ("unknown", 4)]),
        ("1", "smtp:lmtp", [("smtp", 3)]),
    ],
)
def test_what_was_passed_is_read_once(
    monkeypatch: pytest.MonkeyPatch, count: str, names: str | None, sockets: list[tuple[str, int]]
) -> None:
    """Descriptors count from 3; one without a name is called unknown. The environment tells nobody else."""
    tell(monkeypatch, str(os.getpid()), count, names)

    assert list(passed_sockets()) == [Passed(*one) for one in sockets]
    assert [variable for variable in PASSED if variable in os.environ] == []
    assert list(passed_sockets()) == [Passed(*one) for one in sockets]


@pytest.mark.parametrize(
    ("pid", "count"),
    [("1", "1"), ("", "1"), ("me", ""), ("me", "-1"), ("me", "x"), ("me", "٣"), ("me", "1000000"), ("me", "1.0")],
)
def test_what_is_for_others_or_malformed_is_nothing(monkeypatch: pytest.MonkeyPatch, pid: str, count: str) -> None:
    """Variables that a parent forgot to clear tell of its sockets, not of ours."""
    tell(monkeypatch, str(os.getpid()) if pid == "me" else pid, count)

    assert list(passed_sockets()) == []
    assert "LISTEN_FDS" not in os.environ


@pytest.mark.parametrize(("address", "text"), [("systemd", "no socket$"), ("systemd:smtp", "no socket named smtp$")])
async def test_nothing_passed_is_an_os_error(address: str, text: str) -> None:
    """Started without its socket unit, the error says what is missing."""
    with pytest.raises(OSError, match=text) as caught:
        await listen(address)
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("address", ["systemd:", "systemd:a b", "systemd:a:b", f"systemd:{'x' * 256}"])
async def test_names_are_checked(address: str) -> None:
    """A name that no socket unit can have is a wrong setting."""
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        await listen(address)


@pytest.mark.parametrize("number", [0, 1])
async def test_no_descriptor_is_left_open(number: int, tmp_path: Path) -> None:
    """A descriptor that is no listening socket is an error, and no copy of it stays open."""
    with (tmp_path / "file").open("w") as file, socket.socket() as unbound:
        before = len(list(Path("/proc/self/fd").iterdir()))
        descriptor = (file.fileno(), unbound.fileno())[number]
        with pytest.raises(OSError, match=r"non-socket|not a listening socket"):
            await listen(f"fd:{descriptor}")
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1:25", "127.0.0.1"),
        ("[::1]:25", "::1"),
        ("mx.example.com:25", "mx.example.com"),
        ("fd:3", None),
        ("systemd", None),
        ("systemd:smtp", None),
        ("unix:/run/smtp,mode=660", None),
    ],
)
def test_the_host_of_an_address(address: str, host: str | None) -> None:
    """Only TCP addresses name a host."""
    assert host_in(address) == host


@pytest.mark.parametrize("address", ["", "systemd:", "unix:smtp", "fd:x", "host", "unix:/run/smtp,mode=x"])
def test_what_cannot_be_read_has_no_host(address: str) -> None:
    """A wrong address is found out before anything is opened."""
    with pytest.raises(ConfigError):
        host_in(address)


PROGRAM = """
import os, subprocess, sys
import trio
from smtprecv import ConfigError, Server, address_of, listen
from tests.server.harness import CONFIG, Memory

async def main():
    listeners = []
    for address in sys.argv[1:]:
        listeners += await listen(address)
    child = "import os; print(sorted(os.listdir('/proc/self/fd')), [k for k in os.environ if k.startswith('LISTEN_')])"
    # The last one is that of the listing itself.
    print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, close_fds=False).stdout, end="")
    server = Server(Memory(), config=CONFIG, max_messages=2)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        print(*map(address_of, listeners), flush=True)

try:
    trio.run(main)
except OSError as error:
    sys.exit(error.strerror)
"""
LAUNCHER = """
import os, sys
numbers = [int(number) for number in sys.argv[1].split(",")]
for place, number in enumerate(numbers):
    os.dup2(number, 100 + place)
for place in range(len(numbers)):
    os.dup2(100 + place, 3 + place)
    os.close(100 + place)
os.closerange(3 + len(numbers), 100)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""
"""What a service manager does between fork and exec."""

DIALOGUE = b"".join(
    line + b"\r\n"
    for line in (
        b"EHLO client.example",
        b"MAIL FROM:<a@client.example>",
        b"RCPT TO:<b@mx.example>",
        b"DATA",
        b"hello",
        b".",
        b"QUIT",
    )
)


def send(client: socket.socket) -> None:
    """Send a message, and see that it is accepted."""
    client.settimeout(TIMEOUT)
    client.sendall(DIALOGUE)
    with client.makefile("rb") as lines:
        assert b"queued as" in lines.read()


@pytest.mark.e2e
@pytest.mark.parametrize("addresses", [("systemd",), ("systemd:tcp", "systemd:unix")])
def test_passed_sockets_are_served(tmp_path: Path, addresses: tuple[str, ...]) -> None:
    """A process that a service manager starts serves its sockets, all or by name, and no child of it has them."""
    path = tmp_path / "smtp"
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(path))
        unix.listen()
        numbers = [tcp.fileno(), unix.fileno()]
        arguments = [sys.executable, "-c", LAUNCHER, ",".join(map(str, numbers)), "tcp:unix", "-c", PROGRAM, *addresses]
        process = stack.enter_context(
            subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, pass_fds=numbers, env=environment())
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "['0', '1', '2', '3'] []\n"
        assert process.stdout.readline() == f"127.0.0.1:{tcp.getsockname()[1]} {path}\n"
        with socket.create_connection(tcp.getsockname()) as client:
            send(client)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            send(client)
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        assert path.is_socket()


@pytest.mark.e2e
def test_variables_for_another_process_are_not_believed() -> None:
    """A child that was started with the variables of its parent has been passed nothing."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, "systemd:tcp"],
        env=environment() | {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "tcp"},
        capture_output=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert (ended.returncode, ended.stderr) == (1, b"the service manager has passed no socket named tcp\n")


@pytest.mark.e2e
def test_a_killed_server_leaves_a_socket_that_the_next_one_takes(tmp_path: Path) -> None:
    """After kill -9 the next server replaces the file, a second one beside it is refused, and the end removes it."""
    path = tmp_path / "smtp"
    arguments = [sys.executable, "-c", PROGRAM, f"unix:{path},mode=0666"]

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment())
        assert process.stdout is not None
        process.stdout.readline()
        assert process.stdout.readline() == f"{path}\n"
        return process

    with start() as first:
        first.send_signal(signal.SIGKILL)
    assert path.is_socket()
    with start() as second:
        refused = subprocess.run(
            arguments, env=environment(), capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
        assert (refused.returncode, refused.stderr) == (1, "Address already in use\n")
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                send(client)
        second.communicate(timeout=TIMEOUT)
        assert second.returncode == 0
    assert not path.exists()


def environment() -> dict[str, str]:
    """Give an environment in which the programs find the tests."""
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
