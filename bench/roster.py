"""Who is measured, and which of them in which part: to add a receiver is to add a row here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from bench.peer import Peer, Tls
from bench.peers.exim import Exim
from bench.peers.postfix import Postfix
from bench.peers.program import Program
from bench.peers.smtprecv import Smtprecv

_ALL: Final[Sequence[Peer]] = (
    Smtprecv("smtprecv"),
    Smtprecv("workers", workers=2),
    Smtprecv("smtprecv-maildir", is_delivering=True),
    Smtprecv("smtprecv-tls", tls=Tls.IMPLICIT),
    Smtprecv("smtprecv-starttls", tls=Tls.STARTTLS),
    Program("aiosmtpd", "aiosmtpd_maildir.py", "{folder}/Maildir", needs="aiosmtpd", is_storing=True),
    Postfix("postfix"),
    Postfix("postfix-maildir", is_delivering=True),
    Exim("exim"),
    Program("floor", "trio_floor.py", "stream", needs="trio"),
    Program("floor-socket", "trio_floor.py", "socket", needs="trio"),
)
PEERS: Final[Mapping[str, Peer]] = {peer.name: peer for peer in _ALL}

PARTS: Final[Mapping[str, Sequence[str]]] = {
    "rates": ("smtprecv", "workers", "postfix", "exim", "aiosmtpd", "floor", "floor-socket"),
    "maildir": ("smtprecv-maildir", "postfix-maildir", "aiosmtpd"),
    "large": ("smtprecv", "postfix", "aiosmtpd", "floor"),
    "latency": ("smtprecv", "postfix", "aiosmtpd"),
    "memory": ("smtprecv", "smtprecv-tls", "smtprecv-starttls", "aiosmtpd", "floor", "floor-socket"),
    "micro": (),
}


def present(wanted: Sequence[str]) -> Sequence[Peer]:
    """Give those of the wanted who can run here; the others are named on standard error."""
    lacks = {name: PEERS[name].missing() for name in wanted}
    for name, lack in lacks.items():
        if lack is not None:
            print(f"without {name}: it needs {lack}", file=sys.stderr)
    return [PEERS[name] for name, lack in lacks.items() if lack is None]
