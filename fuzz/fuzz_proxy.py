"""Fuzz the PROXY protocol: any octets, in any reads.

The oracle: nothing but ProxyError is raised; a header never asks for an octet behind its end, nor for more than 65,551;
and the same octets, read one by one, mean the same. `python fuzz/fuzz_proxy.py fuzz/corpus/proxy` runs it with atheris;
tests/test_fuzz_corpus.py replays the corpus without.

An input is two parts: one octet says how much a read may give, the rest is what the proxy and its client send.
"""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple

from smtprecv.server._proxy import Proxied, ProxyError, octets_missing, parse_header

MAX_SIZE = 16 + 65535


class Taken(NamedTuple):
    """What a header says, and its size."""

    proxied: Proxied | None
    size: int


def drive(octets: bytes, size: int) -> Taken | None:
    """Read a header in pieces of at most this size; None for what is none."""
    header = bytearray()
    try:
        while missing := octets_missing(header):
            assert 0 < len(header) + missing <= MAX_SIZE
            piece = octets[len(header) : len(header) + min(missing, size)]
            if not piece:
                return None
            header += piece
        return Taken(parse_header(bytes(header)), len(header))
    except ProxyError:
        return None


def check(data: bytes) -> None:
    """Hold one input to the oracle."""
    size, octets = (data[:1] or b"\0")[0] + 1, data[1:]
    taken = drive(octets, size)
    assert taken == drive(octets, 1)
    if taken is None:
        return
    # What is whole stands by itself, and no part of it does.
    header = octets[: taken.size]
    assert drive(header, MAX_SIZE) == taken
    assert drive(header[:-1], MAX_SIZE) is None


def main() -> None:
    """Run under atheris, with libFuzzer's arguments."""
    import atheris  # noqa: PLC0415 - the tests replay the corpus where atheris is not installed

    # What is imported above is not instrumented: import it again, so that it is.
    for name in [name for name in sys.modules if name.startswith("smtprecv.")]:
        del sys.modules[name]
    with atheris.instrument_imports(include=["smtprecv"]):
        target = importlib.import_module("fuzz_proxy")
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
