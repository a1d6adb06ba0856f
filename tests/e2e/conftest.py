"""The servers that the end-to-end tests talk to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.peers.certificates import Authority, Certificate
from tests.e2e.served import Served


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Give a running server with one Maildir, which takes mail for everybody."""
    with Served(tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server that many tests use, each with a local part of its own, which has its own Maildir."""
    with Served(tmp_path_factory.mktemp("shared"), deliver="Maildir/{local_part}") as server:
        yield server


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a temporary folder that every user may enter, as other users' processes must; `tmp_path` is ours alone."""
    with tempfile.TemporaryDirectory(prefix="smtprecv-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority that the clients of a test may trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> Certificate:
    """Give a certificate for the server, under its name and its address."""
    return authority.issue("mx.example.com", "127.0.0.1")
