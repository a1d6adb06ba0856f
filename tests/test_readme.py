"""The README keeps its word: its commands are the ones that are run, and its program works as printed."""

from __future__ import annotations

import re
import smtplib
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str) -> str:
    """Give the README's only block in this language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return str(text)


def free_port() -> int:
    """Give a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_listener(process: subprocess.Popen[str], port: int) -> None:
    """Return when the process accepts connections."""
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail(f"nothing listens on {port}")


def test_commands() -> None:
    """Two commands set the project up: the first runs the main job, the second, which .ci/run runs too, the tests."""
    main_job, tests = block("sh").splitlines()
    assert main_job.startswith("python -m pip install . && smtprecv serve ")
    assert tests in (ROOT / ".ci" / "run").read_text().splitlines()


def test_links() -> None:
    """Every file that a document of the project links to is there."""
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    links = [
        document.parent / target
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    ]
    assert [str(link) for link in links if not link.exists()] == []


@pytest.mark.slow
@pytest.mark.e2e
def test_program(tmp_path: Path) -> None:
    """The dozen lines, run as printed, hand a message to `deliver` and need nothing else."""
    program = tmp_path / "receive.py"
    program.write_text(block("python"))
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-u", program, f"127.0.0.1:{port}"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_for_listener(process, port)
            with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                client.sendmail("anna@example.com", ["ben@example.org"], "Subject: lunch\r\n\r\nat one?\r\n")
            assert process.stdout is not None
            assert process.stdout.readline() == "anna@example.com b'Subject: lunch\\r\\n\\r\\nat one?\\r\\n'\n"
        finally:
            process.terminate()
