"""The dialogues, each readable by somebody who knows only SMTP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smtprecv.protocol import Config, Connected, Dialect, EnhancedStatus, Event, ForwardPath, Rcpt, Reply
from smtprecv.testing import play

DIALOGUES = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stat().st_size > 10000 else [])
    for path in sorted((Path(__file__).parent / "dialogues").glob("*.txt"))
]
CONFIG = Config("mx.example.com", max_message_size=65536, max_hops=2)
CONFIGS = {
    "starttls": replace(CONFIG, starttls=True, requires_tls=True),
    "requiretls": replace(CONFIG, starttls=True),
    "auth": replace(CONFIG, starttls=True, requires_auth=True, auth=("PLAIN", "LOGIN", "EXTERNAL")),
    "lmtp": replace(CONFIG, dialect=Dialect.LMTP),
    "limits": replace(CONFIG, max_transactions=2),
    "xclient": replace(CONFIG, xclient=True),
    "xforward": replace(CONFIG, xclient=True),
}
"""What a dialogue needs to be there; the others are played with CONFIG."""


def refuse_nobody(event: Event) -> Reply | None:
    """Accept all but recipients called nobody."""
    match event:
        case Rcpt(ForwardPath(mailbox)) if mailbox.local_part == "nobody":
            return Reply(550, "No such mailbox", EnhancedStatus(5, 1, 1))
        case _:
            return None


def refuse_clients(event: Event) -> Reply | None:
    """Greet with 554."""
    return Reply(554, "No mail here") if isinstance(event, Connected) else None


@pytest.mark.parametrize("path", DIALOGUES)
def test_dialogue(path: Path) -> None:
    """A dialogue goes as it is written, whole, by line and by octet."""
    answer = refuse_clients if path.stem == "refused" else refuse_nobody
    play(path.read_text(), config=CONFIGS.get(path.stem, CONFIG), answer=answer)


def test_a_dialogue_that_differs_fails() -> None:
    """A wrong reply, a missing one, and a missing event are all seen."""
    play("S: 220 mx.example.com ESMTP\n")
    for wrong in ("S: 220 mx.example.org ESMTP", "", "E: Connected\nE: Quit\nS: 220 mx.example.com ESMTP"):
        with pytest.raises(AssertionError, match="differs"):
            play(wrong)
