"""Every seed, and every input that once failed, is held to its target's oracle again."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import fuzz_connection

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"


@pytest.mark.parametrize("path", sorted((CORPUS / "connection").iterdir()), ids=lambda path: path.name)
def test_connection(path: Path) -> None:
    """Nothing raises, memory is bounded, and the reads do not matter."""
    fuzz_connection.check(path.read_bytes())


def test_the_oracle_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core whose answer depends on the reads is found out."""
    monkeypatch.setattr(fuzz_connection, "cut", lambda octets, size: [octets[: size + 9]])
    with pytest.raises(AssertionError):
        fuzz_connection.check(b"\x00\x40\x00NOOP\r\nNOOP\r\n")
