"""Every seed, and every input that once failed, is held to its target's oracle again."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import fuzz_connection, fuzz_proxy

from smtprecv.server._proxy import octets_missing

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"


@pytest.mark.parametrize("path", sorted((CORPUS / "connection").iterdir()), ids=lambda path: path.name)
def test_connection(path: Path) -> None:
    """Nothing raises, memory is bounded, and the reads do not matter."""
    fuzz_connection.check(path.read_bytes())


@pytest.mark.parametrize("path", sorted((CORPUS / "proxy").iterdir()), ids=lambda path: path.name)
def test_proxy(path: Path) -> None:
    """No header asks for what is behind it, and the reads do not matter."""
    fuzz_proxy.check(path.read_bytes())


def test_the_oracle_for_proxy_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that asks for more than the header has is found out."""
    missing = octets_missing
    monkeypatch.setattr(fuzz_proxy, "octets_missing", lambda header: missing(header) and missing(header) + 1)
    with pytest.raises(AssertionError):
        fuzz_proxy.check(b"\xff" + b"PROXY UNKNOWN\r\n" + b"EHLO client.example\r\n")


def test_the_oracle_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core whose answer depends on the reads is found out."""
    monkeypatch.setattr(fuzz_connection, "cut", lambda octets, size: [octets[: size + 9]])
    with pytest.raises(AssertionError):
        fuzz_connection.check(b"\x00\x40\x00NOOP\r\nNOOP\r\n")
