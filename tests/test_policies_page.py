"""The policies that docs/policies.md prints do what the page says of them."""

from __future__ import annotations

import re
import runpy
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.server.harness import CONFIG, Memory, dialogue

from smtprecv import Policy

PAGE = Path(__file__).parents[1] / "docs" / "policies.md"
PROGRAMS = dict(re.findall(r"^## ([^\n]+)\n[^#]*?^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))


def encoded(octets: bytes) -> str:
    """Give the beginning of some octets in base64 that what comes behind them cannot change."""
    return b64encode(octets[: len(octets) // 3 * 3]).decode()


def plain(user: str, password: str, authorization: str = "") -> str:
    """Give the response of AUTH PLAIN."""
    return b64encode(f"{authorization}\0{user}\0{password}".encode()).decode()


HELLO, MAIL, RCPT = "EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<anna@example.com>"

DIALOGUES: dict[str, Sequence[tuple[str, str]]] = {
    "A class with one method": [
        (HELLO, "250"),
        (MAIL, "250"),
        ("RCPT TO:<bad@example.com>", "500 5.0.0 relaying denied"),
        (RCPT, "250 2.0.0 ok"),
    ],
    "A function": [(HELLO, "250"), ("MAIL FROM:<>", "550 5.0.0 no bounces here"), (MAIL, "250 2.0.0 ok")],
    "Several as one": [
        ("EHLO [192.0.2.1]", "550 tell me your name"),
        (HELLO, "250"),
        (MAIL, "250"),
        ("RCPT TO:<anna@example.org>", "550 5.7.1 relaying denied"),
        (RCPT, "250"),
    ],
    "Who the client is": [
        (HELLO, "250"),
        (f"AUTH PLAIN {plain('printer', 'wrong')}", "535 5.7.8"),
        (f"AUTH PLAIN {plain('nobody', 'a long random token')}", "535 5.7.8"),
        (f"AUTH PLAIN {plain('printer', 'a long random token', 'anna')}", "535 5.7.8"),
        (f"AUTH PLAIN {plain('printer', 'a long random token')}", "235"),
        (MAIL, "250"),
    ],
    "Keys in the place of passwords": [
        (HELLO, "250"),
        (f"AUTH SCRAM-SHA-256 {b64encode(b'n,,n=anna,r=nonce').decode()}", f"334 {encoded(b'r=nonce')}"),
        ("*", "501"),
        (f"AUTH SCRAM-SHA-256 {b64encode(b'n,,n=nobody,r=nonce').decode()}", f"334 {encoded(b'r=nonce')}"),
        ("*", "501"),
        (MAIL, "250"),
    ],
    "Mail that goes elsewhere": [
        (HELLO, "250"),
        (MAIL, "250"),
        ("RCPT TO:<staff@example.com>", "250"),
        ("RCPT TO:<carla@example.com>", "250"),
        ("DATA", "354"),
        (".", "250 2.0.0 queued as 1"),
    ],
    "The whole message": [
        (HELLO, "250"),
        *[(MAIL, "250"), (RCPT, "250"), ("DATA", "354"), ("an ERROR\r\n.", "554 5.0.0 no thanks")],
        *[(MAIL, "250"), (RCPT, "250"), ("DATA", "354"), (".", "250 2.0.0 queued as 1")],
    ],
    "Lists of bad clients": [
        (HELLO, "250"),
        (MAIL, "250"),
        ("RCPT TO:<anna@example.org>", "550 5.7.1 relaying denied"),
        (RCPT, "250"),
    ],
}
RECIPIENTS = {
    "Mail that goes elsewhere": ["anna@example.com", "ben@example.com", "carla@example.com"],
    "The whole message": ["anna@example.com"],
}


def test_every_program_is_tried() -> None:
    """What the page prints is what is run here."""
    assert PAGE.read_text().count("```python") == len(PROGRAMS)
    assert list(PROGRAMS) == list(DIALOGUES)


@pytest.mark.parametrize("title", DIALOGUES)
async def test_program(title: str, tmp_path: Path) -> None:
    """A policy, run as printed, answers as the page says."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[title])
    policy: Policy = runpy.run_path(str(program))["policy"]
    intake = Memory()
    async with dialogue(intake, policy, config=replace(CONFIG, auth_without_tls=True)) as (peer, _):
        for line, reply in DIALOGUES[title]:
            assert (await peer.ask(line)).startswith(reply)

    recipients = [str(recipient) for _, envelope, _ in intake.taken for recipient in envelope.recipients]
    assert recipients == RECIPIENTS.get(title, [])
