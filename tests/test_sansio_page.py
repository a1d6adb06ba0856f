"""The shell that docs/sansio.md prints is whole: it is run as printed, and clients talk to it."""

from __future__ import annotations

import re
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.test_readme import free_port, wait_for_listener

PAGE = Path(__file__).parents[1] / "docs" / "sansio.md"
(PROGRAM,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)

GROUP = (
    b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<nobody>\r\n"
    b"DATA\r\none\r\n..\r\n.\r\n"
    b"VRFY c\r\nHELP\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\ntwo\nthree\r\n.\r\nQUIT\r\n"
)
CODES = [220, 250, 250, 250, 501, 354, 250, 252, 214, 250, 250, 354, 554, 221]


class Shell:
    """The program, running, and the port it listens on."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._process = process

    def printed(self) -> str:
        """Give the next line that the program prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Run the program as printed."""
    program = tmp_path / "shell.py"
    program.write_text(PROGRAM)
    port = free_port()
    with subprocess.Popen([sys.executable, program, str(port)], stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for_listener(process, port)
            yield Shell(process, port)
        finally:
            process.terminate()


def test_forty_lines() -> None:
    """The program is as short as the page says."""
    assert len(PROGRAM.splitlines()) <= 40


@pytest.mark.slow
@pytest.mark.e2e
def test_a_client(shell: Shell) -> None:
    """Messages of Python's own client are printed whole, two in one session, and QUIT is answered."""
    with smtplib.SMTP("127.0.0.1", shell.port, timeout=30) as client:
        for text in ("Subject: lunch\r\n\r\nat one?\r\n", ".two\r\n..three\r\n"):
            assert client.sendmail("anna@example.com", ["ben@example.org"], text) == {}
            assert shell.printed() == f"{text.encode()!r}\n"
        assert client.quit()[0] == 221


@pytest.mark.slow
@pytest.mark.e2e
def test_a_pipelined_group(shell: Shell) -> None:
    """All at once, a bare LF in the second message: each command has its reply, in order, and then comes the end."""
    with socket.create_connection(("127.0.0.1", shell.port), timeout=30) as client, client.makefile("rb") as replies:
        client.sendall(GROUP)
        assert [int(line[:3]) for line in replies if line[3:4] == b" "] == CODES
    assert shell.printed() == "b'one\\r\\n.\\r\\n'\n"
    assert shell.printed().startswith("554 ")


@pytest.mark.slow
@pytest.mark.e2e
def test_chunks(shell: Shell) -> None:
    """Chunks become one message; those of a transaction that was given up, or refused, are in no other."""
    envelope = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
    with socket.create_connection(("127.0.0.1", shell.port), timeout=30) as client, client.makefile("rb") as replies:
        client.sendall(b"EHLO client.example\r\n" + envelope + b"BDAT 3\r\noneBDAT 5 LAST\r\n two\n")
        client.sendall(envelope + b"BDAT 3\r\n\n..BDAT 4 LAST\r\nfour" + envelope + b"BDAT 5\r\nthreeRSET\r\n")
        client.sendall(envelope + b"BDAT 3\r\noneBDAT 5 LAST\r\n\r\ntwoQUIT\r\n")
        codes = [int(line[:3]) for line in replies if line[3:4] == b" "]
    assert codes == [220, 250, *[250, 250, 250, 554], *[250, 250, 554, 503], *[250] * 4, *[250] * 4, 221]
    assert shell.printed().startswith("554 ")
    assert shell.printed() == "b'one\\r\\ntwo'\n"


@pytest.mark.slow
@pytest.mark.e2e
def test_two_clients(shell: Shell) -> None:
    """Half a command after a whole one holds back no reply, and a client that says nothing no other client."""
    with (
        socket.create_connection(("127.0.0.1", shell.port), timeout=30),
        socket.create_connection(("127.0.0.1", shell.port), timeout=30) as client,
        client.makefile("rb") as replies,
    ):
        client.sendall(b"HELO client.example\r\nMAIL FROM:<>\r\nRCP")
        assert [replies.readline()[:4] for _ in range(3)] == [b"220 ", b"250 ", b"250 "]
