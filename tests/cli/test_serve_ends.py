"""``smtprecv serve`` to an end that was set, and over sockets that somebody else opened."""

from __future__ import annotations

import smtplib
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

TIMEOUT = 60
DIALOGUE = (
    b"EHLO x.example\r\nMAIL FROM:<alice@example.net>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n"
)


def command(tmp_path: Path, *arguments: str) -> list[str]:
    """Give the command line of a server."""
    return [
        *(sys.executable, "-m", "smtprecv", "serve", "--queue", str(tmp_path / "q"), "--hostname", "mx.example.com"),
        *("--deliver", f"maildir:{tmp_path}/m", *arguments),
    ]


def delivered(tmp_path: Path) -> list[bytes]:
    """Give the messages in the Maildir."""
    return [path.read_bytes() for path in (tmp_path / "m" / "new").iterdir()]


def send(port: int) -> None:
    """Send a message that is accepted."""
    with smtplib.SMTP("127.0.0.1", port, timeout=TIMEOUT) as client:
        client.sendmail("alice@example.net", ["bob@example.com"], "Subject: x\n\nhello\n")


def codes(octets: bytes) -> list[bytes]:
    """Give the codes of the replies."""
    return [line[:3] for line in octets.splitlines() if line[3:4] == b" "]


def test_messages(tmp_path: Path) -> None:
    """After so many messages the server ends with status 0, and they are delivered."""
    arguments = command(tmp_path, "--listen", "127.0.0.1:0", "--messages", "2")
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(":")[2])
        for _ in range(2):
            send(port)
        _, log = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, log
    assert len(delivered(tmp_path)) == 2


def test_pipes(tmp_path: Path) -> None:
    """One session over two pipes; what it brought is delivered when the process has ended."""
    ended = subprocess.run(
        command(tmp_path, "--stdio"), input=DIALOGUE, capture_output=True, check=False, timeout=TIMEOUT
    )
    assert ended.returncode == 0, ended.stderr
    assert codes(ended.stdout) == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
    assert len(delivered(tmp_path)) == 1


def test_a_file(tmp_path: Path) -> None:
    """A dialogue may stand in a file; its end is the end of the session."""
    (tmp_path / "in").write_bytes(DIALOGUE.removesuffix(b"QUIT\r\n"))
    with (tmp_path / "in").open("rb") as lines, (tmp_path / "out").open("wb") as out:
        ended = subprocess.run(command(tmp_path, "--stdio"), stdin=lines, stdout=out, check=False, timeout=TIMEOUT)
    assert ended.returncode == 0
    assert codes((tmp_path / "out").read_bytes())[-1] == b"250"
    assert len(delivered(tmp_path)) == 1


def over_socket(tmp_path: Path, arguments: Sequence[str]) -> tuple[int, bytes]:
    """Give a connected socket as all three standard streams, as inetd does; give status and what came back."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=TIMEOUT) as client,
    ):
        ours, _ = listener.accept()
        with ours:
            number = ours.fileno()
            process = subprocess.Popen(command(tmp_path, *arguments), stdin=number, stdout=number, stderr=number)
        client.sendall(DIALOGUE)
        with client.makefile("rb") as lines:
            heard = lines.read()
        return process.wait(TIMEOUT), heard


def test_inetd(tmp_path: Path) -> None:
    """The client is the socket's, and no line of the log comes to it."""
    status, heard = over_socket(tmp_path, ["--stdio"])
    assert status == 0
    assert codes(heard) == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
    assert b"from=" not in heard
    [message] = delivered(tmp_path)
    assert b"([127.0.0.1])" in message


def test_inherited_listener(tmp_path: Path) -> None:
    """A listening socket that was inherited is served, and says where it listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        arguments = command(tmp_path, "--listen", f"fd:{number}", "--messages", "1")
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, pass_fds=[number]) as process:
            assert process.stderr is not None
            port = listener.getsockname()[1]
            assert process.stderr.readline().endswith(f"listening on 127.0.0.1:{port}\n")
            send(port)
            _, log = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, log
    assert len(delivered(tmp_path)) == 1


def test_inherited_unix_listener(tmp_path: Path) -> None:
    """A Unix socket serves as well; its clients have no address."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        number = listener.fileno()
        arguments = command(tmp_path, "--listen", f"fd:{number}", "--messages", "1", "--ident", "--reverse-dns")
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, pass_fds=[number]) as process:
            assert process.stderr is not None
            assert process.stderr.readline().endswith(f"listening on {path}\n")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(DIALOGUE)
                with client.makefile("rb") as lines:
                    assert b"queued as" in lines.read()
            process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_no_connection(tmp_path: Path, kind: socket.SocketKind) -> None:
    """A socket that is no client's is status 1 and one line, and no silent success that an inetd repeats for ever."""
    with socket.socket(socket.AF_INET, kind) as given:
        given.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            given.listen()
        number = given.fileno()
        arguments = command(tmp_path, "--stdio")
        ended = subprocess.run(
            arguments, stdin=number, stdout=number, stderr=subprocess.PIPE, check=False, timeout=TIMEOUT
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"smtprecv serve: standard input is not a client's connection")
    assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize("number", ["0", "57"])
def test_no_listener(tmp_path: Path, number: str) -> None:
    """A descriptor that is no listening socket is status 1 and one line."""
    arguments = command(tmp_path, "--listen", f"fd:{number}")
    ended = subprocess.run(arguments, input=b"", capture_output=True, check=False, timeout=TIMEOUT)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"smtprecv serve: cannot listen on fd:" + number.encode())
    assert ended.stderr.count(b"\n") == 1


def test_no_open_relay_by_an_inherited_socket(tmp_path: Path) -> None:
    """Sockets of others that the world can reach want to be told what to take, like one's own."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        number = listener.fileno()
        arguments = command(tmp_path, "--listen", f"fd:{number}")
        ended = subprocess.run(arguments, capture_output=True, check=False, timeout=TIMEOUT, pass_fds=[number])
    assert ended.returncode == 2
    assert b"the socket that was inherited is not loopback" in ended.stderr
    assert not (tmp_path / "q").exists()
