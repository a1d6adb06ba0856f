"""Delivery status notifications: who is told of what, and what the report says to people, programs and MIME readers."""

from __future__ import annotations

import base64
import datetime as dt
import email
import email.policy
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from email.headerregistry import BaseHeader
from email.message import EmailMessage, Message
from ipaddress import IPv4Address
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.dsn import (
    Action,
    Notification,
    NotifyPolicy,
    Original,
    Outcome,
    Survey,
    delayed,
    notification,
    reportable,
    returns_all,
    settled,
    wanted,
)
from smtprecv.message import Client, QueueId, Redirect, SessionId
from smtprecv.protocol import (
    AddressLiteral,
    Body,
    ByMode,
    DeliverBy,
    Domain,
    EnhancedStatus,
    Envelope,
    ForwardPath,
    Mailbox,
    MailParameters,
    Notify,
    OriginalRecipient,
    RcptParameters,
    Recipient,
    Reply,
    Ret,
    ReversePath,
    Session,
    Xtext,
    parse_forward_path,
)
from smtprecv.spool import Entry, Standing, Status

DATE = dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
UNIQUE = "0123456789abcdefABCDEF"
HOST = "mx.example.com"
ALICE = ReversePath(Mailbox("alice", Domain("example.net")))
BOB = parse_forward_path("bob@example.com")
CAROL = parse_forward_path("carol@example.com")
DAN = parse_forward_path("dan@secret.example")
GOOD = Reply(250, "there it is", EnhancedStatus(2, 0, 0))
LATER = Reply(450, "mailbox busy", EnhancedStatus(4, 2, 1))
NEVER = Reply(550, "no such user", EnhancedStatus(5, 1, 1))
MESSAGE = b"Subject: hello\r\nTo: bob@example.com\r\n\r\nHello, Bob.\r\n"
HEADER = b"Subject: hello\r\nTo: bob@example.com\r\n"
PLAIN = Original(HEADER, is_ascii=True, is_lines=True)
ALL_NOTIFY = frozenset(Notify)


def entry_of(*recipients: Recipient, parameters: MailParameters | None = None, sender: ReversePath = ALICE) -> Entry:
    """Give an entry for these recipients, all of them pending."""
    session = Session(hello="mail.example.net", is_extended=True)
    return Entry(
        queue_id=QueueId("0123456789abcdefghij"),
        received=DATE - dt.timedelta(days=1),
        client=Client(SessionId("s"), IPv4Address("192.0.2.1"), 40000, session),
        envelope=Envelope(sender, parameters or MailParameters(), recipients),
        size=len(MESSAGE),
        standings=tuple(Standing(recipient) for recipient in recipients),
        due=DATE,
        attempted=DATE - dt.timedelta(minutes=1),
    )


def notifying(*notify: Notify, path: ForwardPath = BOB) -> Recipient:
    """Give a recipient of whom the sender wants to know this."""
    return Recipient(path, parameters=RcptParameters(notify=frozenset(notify)))


def reported(
    outcomes: Sequence[Outcome], entry: Entry | None = None, original: Original = PLAIN, *, is_all: bool = False
) -> Notification:
    """Report these outcomes."""
    about = entry or entry_of(*(outcome.standing.recipient for outcome in outcomes))
    return notification(about, outcomes, original, hostname=HOST, date=DATE, token=UNIQUE, is_all=is_all)


def whole(made: Notification, message: bytes = MESSAGE) -> bytes:
    """Give the octets of a report."""
    return made.top + message * made.has_original + made.bottom


def parsed(octets: bytes) -> EmailMessage[BaseHeader, object]:
    """Read a message with Python's `email`, which finds no defect in it or in any of its parts."""
    message = email.message_from_bytes(octets, policy=email.policy.SMTP)
    parts = list(message.walk())
    assert [defect for part in parts for defect in part.defects] == []
    assert [value.defects for part in parts for value in part.values() if value.defects] == []
    return message


def sections(octets: bytes) -> list[bytes]:
    """Give the contents of the three parts, still encoded."""
    _, *parts, end = octets.split(f"\r\n--report-{UNIQUE}".encode())
    assert end == b"--\r\n"
    return [part.partition(b"\r\n\r\n")[2] for part in parts]


def groups(octets: bytes) -> list[Message[str, str]]:
    """Give the groups of fields in the part that programs read, just as they are, folds taken out."""
    fields = sections(octets)[1].removesuffix(b"\r\n").split(b"\r\n\r\n")
    return [email.message_from_string(group.replace(b"\r\n ", b" ").decode() + "\r\n\r\n") for group in fields]


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        (None, {Action.FAILED, Action.DELAYED}),
        ((), set[Action]()),
        ((Notify.FAILURE,), {Action.FAILED}),
        ((Notify.DELAY,), {Action.DELAYED}),
        ((Notify.SUCCESS,), {Action.DELIVERED, Action.RELAYED, Action.EXPANDED}),
        ((Notify.SUCCESS, Notify.FAILURE), set(Action) - {Action.DELAYED}),
        (tuple(Notify), set(Action)),
    ],
)
def test_wanted(notify: tuple[Notify, ...] | None, told: set[Action]) -> None:
    """NOTIFY says what a sender is told of; without it that is failure and delay, with NEVER nothing.

    RFC 3461 sections 4.1, 5.2.5 and 5.2.6.
    """
    parameters = RcptParameters(notify=None if notify is None else frozenset(notify))
    assert {action for action in Action if wanted(parameters, action)} == told


def test_what_is_unasked_is_policy() -> None:
    """Without NOTIFY, a delay need not be reported."""
    policy = NotifyPolicy(unasked=frozenset({Notify.FAILURE}))
    assert wanted(RcptParameters(), Action.DELAYED)
    assert not wanted(RcptParameters(), Action.DELAYED, policy)


def test_never_to_the_null_reverse_path() -> None:
    """What came from the null reverse-path, as a report does, is never reported (RFC 5321 section 4.5.5)."""
    recipient = notifying(*Notify)
    outcomes = [Outcome(Standing(recipient), action) for action in Action]
    assert len(reportable(entry_of(recipient), outcomes)) == len(Action)
    nobody = entry_of(recipient, sender=ReversePath(None))
    assert reportable(nobody, outcomes) == ()
    with pytest.raises(ValueError, match="somebody to tell"):
        reported(outcomes, nobody)


def told(before: Entry, *replies: Reply | Redirect, success: Action | None = Action.DELIVERED) -> list[tuple[str, str]]:
    """Give whom a report after one attempt names, and its actions."""
    outcomes = settled(before, before.after(replies, DATE), success)
    return [(str(outcome.forward_path), outcome.action.value) for outcome in outcomes]


@pytest.mark.parametrize(
    ("reply", "success", "expected"),
    [
        (NEVER, Action.DELIVERED, [("bob@example.com", "failed")]),
        (LATER, Action.DELIVERED, []),
        (GOOD, Action.DELIVERED, [("bob@example.com", "delivered")]),
        (GOOD, Action.RELAYED, [("bob@example.com", "relayed")]),
        (GOOD, None, []),
        (NEVER, None, [("bob@example.com", "failed")]),
    ],
)
def test_settled(reply: Reply, success: Action | None, expected: list[tuple[str, str]]) -> None:
    """A recipient is reported when he has ended; not as served if the next hop itself reports that.

    RFC 3461 sections 5.2.2 and 5.2.3.
    """
    assert told(entry_of(notifying(*Notify)), reply, success=success) == expected


def test_one_report_for_several_recipients() -> None:
    """Whoever ends in one attempt is in one report, in order; who wants nothing, or ended before, is not."""
    recipients = [BOB, CAROL, parse_forward_path("x@example.com"), parse_forward_path("y@example.com")]
    entry = entry_of(
        Recipient(recipients[0]),
        Recipient(recipients[1]),
        notifying(path=recipients[2]),
        notifying(*Notify, path=recipients[3]),
    )
    first = entry.after([LATER, NEVER, NEVER, GOOD], DATE)
    assert told(entry, LATER, NEVER, NEVER, GOOD) == [
        ("carol@example.com", "failed"),
        ("y@example.com", "delivered"),
    ]
    assert told(first, NEVER) == [("bob@example.com", "failed")]


def test_given_up_is_failed() -> None:
    """A recipient that is given up is reported with the reply that it had last."""
    entry = entry_of(Recipient(BOB)).after([LATER], DATE)
    [outcome] = settled(entry, entry.given_up())
    assert (outcome.action, outcome.standing.last) == (Action.FAILED, LATER)


def test_redirected_recipients_have_their_own_name() -> None:
    """A sender knows a recipient by the name in its RCPT alone, and is told once however many stand behind it.

    RFC 3461 section 5.2.7.3.
    """
    entry = entry_of(notifying(*Notify))
    single = entry.after([Redirect((DAN,))], DATE)
    several = entry.after([Redirect((DAN, CAROL))], DATE)
    assert settled(entry, several) == ()
    assert told(single, GOOD) == [("bob@example.com", "delivered")]
    assert told(several, GOOD, LATER) == []
    assert told(several.after([GOOD, LATER], DATE), GOOD) == [("bob@example.com", "expanded")]
    assert told(several.after([GOOD, LATER], DATE), GOOD, success=None) == []
    assert told(several, NEVER, NEVER) == [("bob@example.com", "failed")]
    assert told(several, NEVER, GOOD) == [("bob@example.com", "failed")]
    assert told(several.after([NEVER, LATER], DATE), GOOD) == []


def test_delayed() -> None:
    """A warning names those who wait and whose sender wants that, with the time at which they are given up."""
    entry = entry_of(Recipient(BOB), notifying(Notify.FAILURE, path=CAROL), notifying(Notify.DELAY, path=DAN))
    until = DATE + dt.timedelta(days=4)
    outcomes = delayed(entry.after([LATER, LATER, GOOD], DATE), until)
    assert [(str(o.forward_path), o.action, o.retried_until) for o in outcomes] == [
        ("bob@example.com", Action.DELAYED, until)
    ]


FAILED = frozenset({Action.FAILED})


@pytest.mark.parametrize(
    ("ret", "actions", "size", "require_tls", "expected"),
    [
        (Ret.FULL, {Action.FAILED}, 10 * 1024 * 1024, False, True),
        (Ret.FULL, {Action.FAILED}, 10 * 1024 * 1024 + 1, False, False),
        (Ret.HDRS, {Action.FAILED}, 0, False, False),
        (None, {Action.FAILED}, 64 * 1024, False, True),
        (None, {Action.FAILED}, 64 * 1024 + 1, False, False),
        (Ret.FULL, {Action.FAILED, Action.DELIVERED}, 1, False, True),
        (Ret.FULL, {Action.DELAYED}, 1, False, False),
        (Ret.FULL, {Action.DELIVERED}, 1, False, False),
        (Ret.FULL, {Action.FAILED}, 1, True, False),
    ],
)
def test_returns_all(ret: Ret | None, actions: set[Action], size: int, *, require_tls: bool, expected: bool) -> None:
    """RET=FULL brings a message back that failed, up to a size; nothing else does, but for a small one without RET.

    RFC 3461 sections 4.3 and 6.2, RFC 8689 section 5.
    """
    assert returns_all(MailParameters(ret=ret, require_tls=require_tls), actions, size) is expected


def surveyed(message: bytes, step: int | None = None) -> Original:
    """Survey a message in pieces of so many octets."""
    survey = Survey()
    for start in range(0, len(message), step or max(1, len(message))):
        survey.add(message[start : start + (step or len(message))])
    return survey.original()


LONG = b"x" * 998
ODD = [b"a\rb\r\n", b"a\nb\r\n", b"a\0b\r\n", LONG + b"x\r\n", LONG + b"x", b"a\r", b"a\n", b"a\0"]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 999, 1000, None])
@pytest.mark.parametrize(
    ("message", "header", "is_ascii", "is_lines"),
    [
        (MESSAGE, HEADER, True, True),
        (b"", b"", True, True),
        (b"\r\nbody\r\n", b"", True, True),
        (b"\r\n\r\nbody", b"", True, True),
        (b"A: b", b"A: b\r\n", True, True),
        (b"A: b\r\n", b"A: b\r\n", True, True),
        (b"A: b\r\n\r\n", b"A: b\r\n", True, True),
        (b"A: b\r\n\r\n\xfc\r\n", b"A: b\r\n", False, True),
        (b"A: b\r\n\r\n" + LONG + b"\r\n" + LONG, b"A: b\r\n", True, True),
        *((b"A: b\r\n\r\n" + odd, b"A: b\r\n", True, False) for odd in ODD),
        *((b"A: b\r\n\r\n" + odd + b"c\r\n", b"A: b\r\n", True, False) for odd in ODD),
    ],
)
def test_survey(message: bytes, header: bytes, *, is_ascii: bool, is_lines: bool, step: int | None) -> None:
    """However a message is cut, its header is found, and whether MIME can hold it unencoded (RFC 2045 section 2.8)."""
    assert surveyed(message, step) == Original(header, is_ascii, is_lines)


@pytest.mark.parametrize("step", [1000, 100_000, None])
def test_a_survey_keeps_little(step: int | None) -> None:
    """A header without an end is cut behind a line; one line without an end leaves nothing."""
    line = b"A: " + b"x" * 95 + b"\r\n"
    cut = surveyed(line * 2000, step).header
    assert cut == surveyed(line * 1000 + b"\r\n" + line * 1000, step).header
    assert 64 * 1024 - len(line) < len(cut) <= 64 * 1024
    assert cut == line * (len(cut) // len(line))
    assert surveyed(b"x" * 200_000, step).header == b""


def test_a_survey_holds_no_line_without_an_end() -> None:
    """Whatever passes, little of it is in memory."""
    survey = Survey()
    tracemalloc.start()
    try:
        for _ in range(300):
            survey.add(b"x" * 10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300_000


def test_a_survey_says_when_it_has_the_header() -> None:
    """The rest of a message need not be read for its header."""
    survey = Survey()
    known: list[bool] = []
    for chunk in (MESSAGE[: len(HEADER) + 1], b"\n"):
        survey.add(chunk)
        known.append(survey.has_header)
    assert known == [False, True]
    assert survey.original().header == HEADER


class Case(NamedTuple):
    """One recipient, what was done for it, and what the report must say."""

    outcome: Outcome
    final: str
    status: str
    others: dict[str, str | None]


def case(
    reply: Reply | None, action: Action, status: str, recipient: Recipient | None = None, **others: str | None
) -> Case:
    """Give a case; of the other fields, named with underscores, None must be missing."""
    who = recipient or Recipient(BOB)
    fields = {name.replace("_", "-"): text for name, text in others.items()}
    remote = fields.pop("remote", "mail.example.org")
    known_as = who.original or who.forward_path
    return Case(Outcome(Standing(who, last=reply), action, remote, DATE), str(known_as), status, fields)


def with_orcpt(value: str, path: ForwardPath = BOB) -> Recipient:
    """Give a recipient with an ORCPT."""
    address_type, _, address = value.partition(";")
    xtext = Xtext.read(address, is_utf8=True)
    return Recipient(path, parameters=RcptParameters(orcpt=OriginalRecipient(address_type, xtext)))


UMLAUT = ForwardPath(Mailbox("j\u00f6rg", Domain("xn--bcher-kva.example")))
QUOTED = ForwardPath(Mailbox('a "b" \\c', AddressLiteral(IPv4Address("192.0.2.7"))))

CASES = {
    "failed": case(
        NEVER,
        Action.FAILED,
        "5.1.1",
        Diagnostic_Code="smtp; 550 5.1.1 no such user",
        Remote_MTA="dns; mail.example.org",
        Last_Attempt_Date="Tue, 03 Feb 2026 04:04:06 +0000",
        Will_Retry_Until=None,
        Original_Recipient=None,
    ),
    "no status in the reply": case(Reply(554, "no"), Action.FAILED, "5.0.0", Diagnostic_Code="smtp; 554 no"),
    "given up": case(LATER, Action.FAILED, "4.2.1", Diagnostic_Code="smtp; 450 4.2.1 mailbox busy"),
    "given up without a status": case(Reply(451, "x"), Action.FAILED, "4.0.0"),
    "failed without a reply": case(None, Action.FAILED, "5.0.0", Diagnostic_Code=None),
    "our own reply": case(NEVER, Action.FAILED, "5.1.1", remote=None, Remote_MTA=None),
    "delayed": case(
        LATER,
        Action.DELAYED,
        "4.2.1",
        Will_Retry_Until="Tue, 03 Feb 2026 04:05:06 +0000",
        Diagnostic_Code="smtp; 450 4.2.1 mailbox busy",
    ),
    "delayed without a reply": case(None, Action.DELAYED, "4.0.0", Diagnostic_Code=None),
    "delivered": case(GOOD, Action.DELIVERED, "2.0.0", Will_Retry_Until=None),
    "delivered, found out later": case(LATER, Action.DELIVERED, "2.0.0", Diagnostic_Code=None),
    "relayed": case(GOOD, Action.RELAYED, "2.0.0", Remote_MTA="dns; mail.example.org"),
    "expanded": case(GOOD, Action.EXPANDED, "2.0.0"),
    "a status that is none": case(Reply(550, "x", EnhancedStatus(5, 1000, 1)), Action.FAILED, "5.0.0"),
    "a reply of several lines": case(
        Reply(550, "one\ntwo\r\n\tthree"), Action.FAILED, "5.0.0", Diagnostic_Code="smtp; 550 one two three"
    ),
    "a long reply": case(
        Reply(550, "word " * 200), Action.FAILED, "5.0.0", Diagnostic_Code="smtp; 550 " + " ".join(["word"] * 100)
    ),
    "a reply of one long word": case(
        Reply(550, "x" * 600), Action.FAILED, "5.0.0", Diagnostic_Code=f"smtp; 550 {'x' * 500}"
    ),
    "a reply with an encoded-word": case(
        Reply(550, "=?utf-8?q?a=0D=0AX:?="), Action.FAILED, "5.0.0",
        Diagnostic_Code="smtp; 550 = ?utf-8?q?a=0D=0AX:?=",
    ),
    "a reply in UTF-8": case(Reply(550, "\u00fc"), Action.FAILED, "5.0.0", Diagnostic_Code="smtp; 550 ?"),
    "a quoted local part": case(NEVER, Action.FAILED, "5.1.1", Recipient(QUOTED)),
    "an internationalized address": case(NEVER, Action.FAILED, "5.1.1", Recipient(UMLAUT)),
    "an ORCPT": case(
        NEVER, Action.FAILED, "5.1.1", with_orcpt("rfc822;B+2BOB+3D@Example.COM"),
        Original_Recipient="rfc822; B+OB=@Example.COM",
    ),
    "an ORCPT of another type": case(
        NEVER, Action.FAILED, "5.1.1", with_orcpt("X400;/S=bob+20b/".replace("=", "+3D")),
        Original_Recipient="X400; /S=bob b/",
    ),
    "an ORCPT in UTF-8, for an ASCII address": case(
        NEVER, Action.FAILED, "5.1.1", with_orcpt("utf-8;j\u00f6rg\\x{E9}@example.com"),
        Original_Recipient="utf-8; j\\x{F6}rg\\x{E9}@example.com",
    ),
    "an ORCPT in UTF-8, for an internationalized address": case(
        NEVER, Action.FAILED, "5.1.1", with_orcpt("utf-8;j\\x{F6}rg@example.com", UMLAUT),
        Original_Recipient="utf-8; j\u00f6rg@example.com",
    ),
    "an ORCPT that says less than it is": case(
        NEVER, Action.FAILED, "5.1.1", with_orcpt("rfc822;j+C3+B6rg@example.com"),
        Original_Recipient="utf-8; j\\x{F6}rg@example.com",
    ),
    "redirected": case(
        Reply(550, "dan@secret.example unknown"), Action.FAILED, "5.0.0", Recipient(DAN, BOB),
        Diagnostic_Code="smtp; 550", Remote_MTA=None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("made", CASES.values(), ids=CASES.keys())
def test_report(made: Case) -> None:
    """Python's `email` reads a report without a defect, and finds the recipient, the action and the status in it.

    RFC 3464 sections 2.3 and 2.3.3, RFC 3461 section 6.3, RFC 6533 sections 3 and 4.1.
    """
    octets = whole(reported([made.outcome]))
    message = parsed(octets)
    text, machine, _ = message.iter_parts()
    is_ascii = made.final.isascii()
    assert machine.get_content_type() == f"message/{'' if is_ascii else 'global-'}delivery-status"
    assert f"<{made.final}>" in text.get_content()
    diagnostic = made.others.get("Diagnostic-Code") or ""
    assert diagnostic.removeprefix("smtp; ") in " ".join(text.get_content().split())
    _, fields = groups(octets)
    if is_ascii:
        # What Python's own reader of this type makes of the part.
        _, fields = machine.iter_parts()
    said = {name: fields[name] for name in ("Final-Recipient", "Action", "Status", *made.others)}
    assert said == {
        "Final-Recipient": f"{'rfc822' if is_ascii else 'utf-8'}; {made.final}",
        "Action": made.outcome.action.value,
        "Status": made.status,
        **made.others,
    }


def test_message_fields() -> None:
    """The report names its maker, the sender's ENVID as it was before its encoding, who brought the message, and when.

    RFC 3464 section 2.2, RFC 3461 sections 4.4 and 6.3, RFC 2852.
    """
    by = DeliverBy(3600, ByMode.NOTIFY)
    entry = entry_of(Recipient(BOB), parameters=MailParameters(envid=Xtext.read("Q+2B1+20x"), deliver_by=by))
    made = notification(
        entry, [Outcome(entry.standings[0], Action.FAILED)], PLAIN, hostname=HOST, date=DATE, token=UNIQUE, is_all=False
    )
    assert dict(groups(whole(made))[0].items()) == {
        "Original-Envelope-Id": "Q+1 x",
        "Reporting-MTA": "dns; mx.example.com",
        "Received-From-MTA": "dns; mail.example.net ([192.0.2.1])",
        "Arrival-Date": "Mon, 02 Feb 2026 04:05:06 +0000",
        "Deliver-By-Date": "Mon, 02 Feb 2026 05:05:06 +0000",
    }


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("mx.example.com", "dns; mx.example.com"),
        ("localhost", "x-local-hostname; localhost"),
        ("[192.0.2.1]", "x-local-hostname; [192.0.2.1]"),
    ],
)
def test_reporting_mta(hostname: str, expected: str) -> None:
    """A name that is not fully qualified is not called one of the DNS (RFC 3461 section 6.3)."""
    entry = entry_of(Recipient(BOB))
    entry = replace(entry, client=replace(entry.client, session=Session(), address=None), attempted=None)
    outcomes = [Outcome(entry.standings[0], Action.FAILED)]
    octets = whole(notification(entry, outcomes, PLAIN, hostname=hostname, date=DATE, token=UNIQUE, is_all=False))
    about, recipient = groups(octets)
    assert about["Reporting-MTA"] == expected
    assert (about["Received-From-MTA"], recipient["Last-Attempt-Date"]) == (None, None)
    assert parsed(octets)["From"] == f"Mail Delivery System <postmaster@{hostname}>"


def test_the_head_of_a_report() -> None:
    """A report goes from the postmaster to the reverse-path, and says that a program wrote it.

    RFC 3464 section 2, RFC 6522 section 3, RFC 3834.
    """
    message = parsed(whole(reported([Outcome(Standing(Recipient(BOB), last=NEVER), Action.FAILED)])))
    assert dict(message.items()) == {
        "Date": "Tue, 03 Feb 2026 04:05:06 +0000",
        "From": "Mail Delivery System <postmaster@mx.example.com>",
        "To": "alice@example.net",
        "Subject": "Your message could not be delivered",
        "Message-ID": f"<{UNIQUE}@mx.example.com>",
        "Auto-Submitted": "auto-replied",
        "MIME-Version": "1.0",
        "Content-Type": f'multipart/report; report-type="delivery-status"; boundary="report-{UNIQUE}"',
        "Content-Transfer-Encoding": "7bit",
    }


def test_the_text_for_people() -> None:
    """What was done for whom, who said what, and what happens next, on lines that are not long."""
    outcomes = [
        Outcome(Standing(Recipient(CAROL), last=LATER), Action.DELAYED, None, DATE),
        Outcome(Standing(Recipient(BOB), last=NEVER), Action.FAILED, "mail.example.org"),
        Outcome(Standing(Recipient(DAN), last=None), Action.FAILED),
    ]
    assert sections(whole(reported(outcomes)))[0].decode() == (
        "This is the mail system at mx.example.com.\r\n\r\n"
        "Your message could not be delivered to:\r\n\r\n"
        "    <bob@example.com>\r\n"
        "        mail.example.org answered: 550 5.1.1 no such user\r\n\r\n"
        "    <dan@secret.example>\r\n\r\n"
        "It is not tried again.\r\n\r\n"
        "Your message could not be delivered so far to:\r\n\r\n"
        "    <carol@example.com>\r\n"
        "        The answer was: 450 4.2.1 mailbox busy\r\n\r\n"
        "This is a warning only. You do not need to send your message again: it\r\n"
        "is still tried until Tue, 03 Feb 2026 04:05:06 +0000.\r\n\r\n"
        "The header of your message is attached. Here it had the name\r\n"
        "0123456789abcdefghij in the queue.\r\n"
    )


RAW = b"Subject: \xfc\r\n"
UTF8 = "Subject: ü\r\n".encode()


@pytest.mark.parametrize(
    ("message", "smtputf8", "is_all", "content_type", "encoding"),
    [
        (MESSAGE, False, True, "message/rfc822", "7bit"),
        (MESSAGE, True, True, "message/rfc822", "7bit"),
        (HEADER + b"\r\n\xfc\r\n", False, True, "message/rfc822", "8bit"),
        (RAW + b"\r\nx", True, True, "message/rfc822", "8bit"),
        (UTF8 + b"\r\nx", True, True, "message/global", "8bit"),
        (HEADER + b"\r\nx\0", False, True, "text/rfc822-headers", "7bit"),
        (MESSAGE, False, False, "text/rfc822-headers", "7bit"),
        (HEADER + b"\r\n\xfc\0", False, False, "text/rfc822-headers", "7bit"),
        (UTF8 + b"\r\nx", True, False, "message/global-headers", "8bit"),
        (UTF8 + b"\r\nx", False, False, "text/rfc822-headers", "base64"),
        (RAW + b"\r\nx", True, False, "text/rfc822-headers", "base64"),
        (b"A: \0\r\n\r\nx", False, True, "text/rfc822-headers", "base64"),
        (b"A: " + LONG + b"\r\n\r\nx", False, False, "text/rfc822-headers", "base64"),
        (b"\r\nx", False, False, "text/rfc822-headers", "7bit"),
        (b"", False, True, "message/rfc822", "7bit"),
    ],
)
def test_what_comes_back(message: bytes, content_type: str, encoding: str, *, smtputf8: bool, is_all: bool) -> None:
    """The message comes back unchanged in a part of the type that is its own, or its header does.

    RFC 6522 section 4, RFC 6533 section 4.3, RFC 2046 section 5.2.1, RFC 2045 section 6.4.
    """
    entry = entry_of(Recipient(BOB), parameters=MailParameters(smtputf8=smtputf8))
    outcomes = [Outcome(entry.standings[0], Action.FAILED)]
    original = surveyed(message)
    made = notification(entry, outcomes, original, hostname=HOST, date=DATE, token=UNIQUE, is_all=is_all)
    octets = whole(made, message)
    returned = list(parsed(octets).iter_parts())[2]
    assert (returned.get_content_type(), returned["Content-Transfer-Encoding"]) == (content_type, encoding)
    content = sections(octets)[2]
    returned_octets = base64.b64decode(content) if encoding == "base64" else content
    assert returned_octets == (message if made.has_original else original.header)
    body = Body.EIGHT_BIT_MIME if encoding == "8bit" else Body.SEVEN_BIT
    parameters = made.envelope.parameters
    assert (parameters.body, parameters.smtputf8) == (body, "global" in content_type)
    assert parsed(octets)["Content-Transfer-Encoding"] == ("8bit" if encoding == "8bit" else "7bit")


def test_the_envelope_of_a_report() -> None:
    """A report goes from the null reverse-path to the original's, with no RET, and by TLS if the message had to.

    RFC 3461 section 6.1, RFC 5321 section 4.5.5, RFC 8689 section 5.
    """
    entry = entry_of(Recipient(BOB), parameters=MailParameters(ret=Ret.FULL, require_tls=True, priority=3))
    made = reported([Outcome(entry.standings[0], Action.FAILED)], entry)
    path = ForwardPath(Mailbox("alice", Domain("example.net")))
    assert made.envelope == Envelope(ReversePath(None), MailParameters(require_tls=True), (Recipient(path),))


def test_a_report_to_an_internationalized_address() -> None:
    """A report needs SMTPUTF8 where it names such an address, its sender's too (RFC 6531 section 3.4)."""
    entry = entry_of(Recipient(BOB), sender=ReversePath(UMLAUT.mailbox))
    made = reported([Outcome(entry.standings[0], Action.FAILED)], entry)
    assert (made.envelope.parameters.smtputf8, made.envelope.parameters.body) == (True, Body.EIGHT_BIT_MIME)
    assert f"\r\nTo: <{UMLAUT}>\r\n".encode() in made.top
    about = reported([Outcome(Standing(Recipient(UMLAUT)), Action.FAILED)])
    assert (about.envelope.parameters.smtputf8, about.envelope.parameters.body) == (True, Body.EIGHT_BIT_MIME)


@pytest.mark.parametrize("token", ["", "short", "a" * 61, "0123456789abcdef-", "0123456789abcdef\n"])
def test_a_token_is_letters_and_digits(token: str) -> None:
    """A token that could not divide parts, or could be guessed, is refused; so is a report of nothing."""
    entry = entry_of(Recipient(BOB))
    outcomes = [Outcome(entry.standings[0], Action.FAILED)]
    with pytest.raises(ValueError, match="token"):
        notification(entry, outcomes, PLAIN, hostname=HOST, date=DATE, token=token, is_all=False)
    with pytest.raises(ValueError, match="something to tell"):
        notification(entry, [], PLAIN, hostname=HOST, date=DATE, token=UNIQUE, is_all=False)


HOSTILE = (
    st.text() | st.text(f'()<>[]\\"\r\n\t :;,@\x00\x85\u2028x=?-{UNIQUE}') | st.just(f"\r\n--report-{UNIQUE}--\r\n")
)
HOSTS = HOSTILE.map(Domain) | st.ip_addresses().map(AddressLiteral)
PATHS = st.builds(ForwardPath, st.builds(Mailbox, HOSTILE, HOSTS))
XTEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1).map(Xtext.of)
RCPT = st.builds(
    RcptParameters, orcpt=st.none() | st.builds(OriginalRecipient, st.sampled_from(["utf-8", "a"]), XTEXTS)
)
RECIPIENTS = st.builds(Recipient, PATHS, st.none() | PATHS, RCPT)
REPLIES = st.none() | st.builds(Reply, st.integers(200, 599), HOSTILE)
OUTCOMES = st.builds(
    Outcome, st.builds(Standing, RECIPIENTS, last=REPLIES), st.sampled_from(Action), st.none() | HOSTILE
)
MESSAGE_NAMES = {"Original-Envelope-Id", "Reporting-MTA", "Received-From-MTA", "Arrival-Date"}
RECIPIENT_NAMES = [
    "Original-Recipient",
    "Final-Recipient",
    "Action",
    "Status",
    "Remote-MTA",
    "Diagnostic-Code",
    "Last-Attempt-Date",
    "Final-Log-ID",
]


@pytest.mark.slow
@given(
    outcomes=st.lists(OUTCOMES, min_size=1, max_size=3),
    hello=HOSTILE,
    envid=st.none() | XTEXTS,
    sender=PATHS,
    header=st.binary() | HOSTILE.map(lambda text: text.encode("utf-8", "replace")),
    smtputf8=st.booleans(),
)
def test_nothing_is_injected(
    outcomes: list[Outcome], hello: str, envid: Xtext | None, sender: ForwardPath, header: bytes, *, smtputf8: bool
) -> None:
    """Whatever peers say, a report has three parts and the fields that are ours, in lines that mail can have.

    RFC 5322 section 2.1.1.
    """
    parameters = MailParameters(envid=envid, smtputf8=smtputf8)
    entry = entry_of(parameters=parameters, sender=ReversePath(sender.mailbox))
    entry = replace(entry, client=replace(entry.client, session=Session(hello)))
    original = surveyed(header.replace(UNIQUE.encode(), b""))
    made = notification(entry, outcomes, original, hostname=HOST, date=DATE, token=UNIQUE, is_all=False)
    octets = whole(made)
    assert len(sections(octets)) == 3
    lines = octets.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert not any(line.strip(b"\r\n\0") != line or b"\r" in line or b"\n" in line for line in lines)
    # The original's own octets aside, every character can be shown, and is ASCII where nothing says otherwise.
    ours = made.top.rpartition(b"\r\n--")[0]
    assert ours.decode().replace("\r\n", "").replace("\t", "").isprintable()
    assert made.envelope.parameters.body is Body.EIGHT_BIT_MIME or octets.isascii()
    about, *recipients = groups(octets)
    assert set(about.keys()) == MESSAGE_NAMES - ({"Original-Envelope-Id"} if envid is None else set())
    assert len(recipients) == len(outcomes)
    for fields, outcome in zip(recipients, outcomes, strict=True):
        assert list(fields.keys()) == [name for name in RECIPIENT_NAMES if name in fields]
        assert (fields["Action"], fields["Status"].count(".")) == (outcome.action.value, 2)
    assert len(email.message_from_bytes(octets, policy=email.policy.compat32).keys()) == 9


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64), XTEXTS)
def test_addresses_and_envids_come_back_exactly(local_part: str, envid: Xtext) -> None:
    """An address and an ENVID stand in a report just as they were given (RFC 3464 section 2.3.2)."""
    path = ForwardPath(Mailbox(local_part, Domain("example.com")))
    entry = entry_of(Recipient(path), parameters=MailParameters(envid=envid))
    about, recipient = groups(whole(reported([Outcome(entry.standings[0], Action.FAILED)], entry)))
    assert recipient["Final-Recipient"] == f"rfc822; {path}"
    assert about["Original-Envelope-Id"].strip() == str(envid).strip()


@pytest.mark.parametrize("character", ["a", "\u00fc", "\U0001f600"])
def test_no_line_is_too_long(character: str) -> None:
    """An address longer than any path is cut, between characters (RFC 5322 section 2.1.1)."""
    path = ForwardPath(Mailbox(character * 3000, Domain("example.com")))
    octets = whole(reported([Outcome(Standing(Recipient(path)), Action.FAILED)]))
    assert 800 < max(map(len, octets.split(b"\r\n"))) <= 998
    assert set(groups(octets)[1]["Final-Recipient"].split("; ")[1]) == {character}


def test_what_has_ended_counts_only_once() -> None:
    """A standing that is the same before and after is not reported again."""
    entry = entry_of(notifying(*Notify)).after([GOOD], DATE)
    assert entry.standings[0].status is Status.DELIVERED
    assert settled(entry, replace(entry, attempted=DATE)) == ()
