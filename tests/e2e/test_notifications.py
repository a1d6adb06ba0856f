"""Reports that somebody else's mail server passes on: Postfix takes them, and changes nothing in them."""

from __future__ import annotations

import datetime as dt
import smtplib
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.e2e.peers.postfix import Postfix
from tests.e2e.served import Served
from tests.test_dsn import CASES, reported, whole

from smtprecv.dsn import Action, Notification, Outcome, Survey, notification
from smtprecv.message import Client, QueueId, SessionId
from smtprecv.protocol import (
    Body,
    EnhancedStatus,
    Envelope,
    MailParameters,
    Recipient,
    Reply,
    ReversePath,
    Session,
    parse_forward_path,
)
from smtprecv.spool import Entry, Standing

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DATE = dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
MESSAGES = (
    ("anna@example.com", "ben@example.org", b"Subject: Hello\r\n\r\nHello\r\n"),
    ("anna@example.com", "ben@example.org", "Subject: Hello\r\n\r\nGrüße\r\n".encode()),
    ("jörg@example.com", "søren@example.org", "Subject: Füße\r\n\r\nGrüße\r\n".encode()),
)


def about(number: int, sender: str, recipient: str, message: bytes) -> tuple[Notification, bytes]:
    """Give a report that brings back a message, and all of its octets."""
    standing = Standing(
        Recipient(parse_forward_path(recipient)), attempts=1, last=Reply(550, "no such user", EnhancedStatus(5, 1, 1))
    )
    entry = Entry(
        queue_id=QueueId("0123456789abcdefghij"),
        received=DATE,
        client=Client(SessionId("s"), None, None, Session(hello="mail.example.net", is_extended=True)),
        envelope=Envelope(
            ReversePath(parse_forward_path(sender).mailbox), MailParameters(smtputf8=True), (standing.recipient,)
        ),
        size=len(message),
        standings=(standing,),
        due=None,
        attempted=DATE,
    )
    survey = Survey()
    survey.add(message)
    made = notification(
        entry,
        [Outcome(standing, Action.FAILED, "mail.example.org")],
        survey.original(),
        hostname="mx.example.com",
        date=DATE,
        token=f"0123456789abcdef{number}",
        is_all=True,
    )
    return made, made.top + message + made.bottom


def test_postfix_takes_reports(served: Served, open_folder: Path) -> None:
    """Reports of plain, 8-bit and internationalized messages come through Postfix octet by octet.

    The envelope says what each of them needs (RFC 3461 section 6.1, RFC 6533 section 4.4).
    """
    reports = [about(number, *message) for number, message in enumerate(MESSAGES)]
    stored = passed_on(reports, served, open_folder)
    assert all(octets.startswith(b"Return-Path: <>\n") for octets in stored)
    sent = {octets.replace(b"\r\n", b"\n") for _, octets in reports}
    assert {octets[octets.index(b"\nDate: ") + 1 :] for octets in stored} == sent


def test_postfix_takes_what_is_said_of_each_recipient(served: Served, open_folder: Path) -> None:
    """Whatever a report says of a recipient, Postfix takes it and passes it on as it was."""
    reports = [(made, whole(made)) for made in (reported([each.outcome]) for each in CASES.values())]
    stored = passed_on(reports, served, open_folder)
    sent = sorted(octets.replace(b"\r\n", b"\n") for _, octets in reports)
    assert sorted(octets[octets.index(b"\nDate: ") + 1 :] for octets in stored) == sent


def passed_on(reports: Sequence[tuple[Notification, bytes]], served: Served, open_folder: Path) -> Sequence[bytes]:
    """Send reports through Postfix, and give what has arrived."""
    with Postfix(open_folder / "postfix", f"smtp:[{served.host}]:{served.port}") as postfix:
        with smtplib.SMTP(postfix.host, postfix.port) as client:
            for made, octets in reports:
                parameters = made.envelope.parameters
                options = ["SMTPUTF8"] * parameters.smtputf8 + ["BODY=8BITMIME"] * (
                    parameters.body is not Body.SEVEN_BIT
                )
                client.sendmail("", [str(made.envelope.recipients[0])], octets, options)
        files = served.await_files(len(reports))
        postfix.await_empty_queue()
    return [file.read_bytes() for file in files]
