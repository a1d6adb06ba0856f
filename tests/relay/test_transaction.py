"""A transaction with the next hop: what is said, and what each recipient is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.relay.script import ALL, hop, play, reply, to

from smtprecv.protocol import (
    Body,
    ByMode,
    DeliverBy,
    Dialect,
    Domain,
    EnhancedStatus,
    Envelope,
    ForwardPath,
    LocalProtocolError,
    Mailbox,
    MailParameters,
    Notify,
    OriginalRecipient,
    RcptParameters,
    Recipient,
    Reply,
    Ret,
    ReversePath,
    Severity,
    Xtext,
)
from smtprecv.relay import Handover, NextHop, SessionFailed, must_inspect, transaction

BEN, CARL, DORA = "ben@example.org", "carl@example.org", "dora@example.org"
MAIL = "MAIL FROM:<anna@example.com>"
TO_BEN, TO_CARL, TO_DORA = (f"RCPT TO:<{address}>" for address in (BEN, CARL, DORA))
LOST = "451 4.4.2 lost"


@pytest.mark.parametrize(
    ("answers", "said", "outcomes"),
    [
        ({}, [MAIL, TO_BEN, TO_CARL, "DATA", "<message>"], ["250 ok", "250 ok"]),
        ({"MAIL": "550 no"}, [MAIL], ["550 no", "550 no"]),
        ({"MAIL": "421 bye"}, [MAIL], ["421 bye", "421 bye"]),
        ({TO_BEN: "550 no"}, [MAIL, TO_BEN, TO_CARL, "DATA", "<message>"], ["550 no", "250 ok"]),
        ({"RCPT": ["450 later", "550 no"]}, [MAIL, TO_BEN, TO_CARL, "RSET"], ["450 later", "550 no"]),
        ({"DATA": "554 no"}, [MAIL, TO_BEN, TO_CARL, "DATA", "RSET"], ["554 no", "554 no"]),
        ({TO_BEN: "550 no", "DATA": "451 x"}, [MAIL, TO_BEN, TO_CARL, "DATA", "RSET"], ["550 no", "451 x"]),
        ({"<message>": "552 full"}, [MAIL, TO_BEN, TO_CARL, "DATA", "<message>"], ["552 full", "552 full"]),
        ({"<message>": LOST}, [MAIL, TO_BEN, TO_CARL, "DATA", "<message>"], [LOST, LOST]),
        (
            {TO_CARL: "354 go"},
            [MAIL, TO_BEN, TO_CARL, "DATA", "<message>"],
            ["250 ok", "451 4.5.0 the next hop said 354 go"],
        ),
        ({TO_CARL: "252 perhaps"}, [MAIL, TO_BEN, TO_CARL, "DATA", "<message>"], ["250 ok", "250 ok"]),
        ({TO_BEN: "421 bye", TO_CARL: "421 bye"}, [MAIL, TO_BEN, TO_CARL, "RSET"], ["421 bye", "421 bye"]),
    ],
)
def test_one_by_one(answers: Mapping[str, str], said: Sequence[str], outcomes: Sequence[str]) -> None:
    """Commands go one by one, each recipient has the reply that is meant for it, and what came to nothing is reset."""
    found, replies = play(transaction(to(BEN, CARL), hop()), {"DATA": "354 go", **answers})
    assert (found, [str(each) for each in replies]) == (list(said), list(outcomes))


@pytest.mark.parametrize(
    ("answers", "outcomes"),
    [
        (["250 x", "250 y", "250 z"], ["250 x", "250 y", "250 z"]),
        (["250 x", "552 full", "450 later"], ["250 x", "552 full", "450 later"]),
        (["250 x", LOST, LOST], ["250 x", LOST, LOST]),
    ],
)
def test_lmtp(answers: Sequence[str], outcomes: Sequence[str]) -> None:
    """By LMTP each accepted recipient has a reply of its own behind the message, in order (RFC 2033 section 4.2)."""
    server = hop("PIPELINING", dialect=Dialect.LMTP)
    said, replies = play(transaction(to(BEN, CARL, DORA), server), {"DATA": "354 go", "<message>": answers})
    assert said == [f"{MAIL}|{TO_BEN}|{TO_CARL}|{TO_DORA}", "DATA", "<message>|<message>|<message>"]
    assert [str(each) for each in replies] == outcomes


def test_lmtp_refused() -> None:
    """By LMTP who was refused at RCPT has no reply behind the message."""
    said, replies = play(
        transaction(to(BEN, CARL, DORA), hop(dialect=Dialect.LMTP)),
        {"DATA": "354 go", TO_CARL: "550 no", "<message>": ["250 x", "250 z"]},
    )
    assert said[-1] == "<message>|<message>"
    assert [str(each) for each in replies] == ["250 x", "550 no", "250 z"]


def test_groups() -> None:
    """Where PIPELINING is offered the envelope goes in groups, none too large, DATA alone (RFC 2920 section 3.1)."""
    people = [f"{number}@example.org" for number in range(120)]
    said, replies = play(transaction(to(*people), hop("PIPELINING")), {"DATA": "354 go", "RCPT TO:<70@": "550 no"})
    assert [line.count("|") + 1 for line in said] == [50, 50, 21, 1, 1]
    assert said[3] == "DATA"
    assert [each.code for each in replies] == [550 if number == 70 else 250 for number in range(120)]


def test_refused_in_a_group() -> None:
    """A sender who is refused is the reply to all, whatever was said to the commands behind it in the group."""
    said, replies = play(transaction(to(BEN), hop("PIPELINING")), {"MAIL": "550 no", "RCPT": "503 sequence"})
    assert (said, replies) == ([f"{MAIL}|{TO_BEN}"], (Reply(550, "no"),))


@pytest.mark.parametrize("answer", ["250 ok", "334 go"])
def test_out_of_step(answer: str) -> None:
    """Anything but 354 and a refusal to DATA shows that both count other replies (RFC 5321 section 4.3.2)."""
    with pytest.raises(SessionFailed) as caught:
        play(transaction(to(BEN, CARL), hop()), {"RCPT": ["250 ok", "550 no"], "DATA": answer})
    assert caught.value.reply.severity is Severity.TRANSIENT


def test_text_is_bounded() -> None:
    """Of a long reply only the beginning is kept with each recipient."""
    _, replies = play(transaction(to(BEN), hop()), {"RCPT": "|".join(["550-" + "x" * 500] * 9 + ["550 y"])})
    assert [len(each.text) for each in replies] == [1024]


FULL = MailParameters(
    body=Body.EIGHT_BIT_MIME, smtputf8=True, ret=Ret.HDRS, envid=Xtext("a+2Bb"), priority=3, require_tls=True,
    deliver_by=DeliverBy(120, ByMode.NOTIFY, is_traced=True),
)  # fmt: skip


@pytest.mark.parametrize(
    ("given_", "offers", "line"),
    [
        (MailParameters(), ALL, f"{MAIL} SIZE=1000"),
        (MailParameters(), (), MAIL),
        (
            FULL,
            (*ALL, "REQUIRETLS"),
            f"{MAIL} SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb BY=-7;NT MT-PRIORITY=3 REQUIRETLS",
        ),
        (MailParameters(ret=Ret.FULL, priority=-9), ("SIZE",), f"{MAIL} SIZE=1000"),
        (MailParameters(body=Body.BINARY_MIME), ALL, f"{MAIL} SIZE=1000 BODY=BINARYMIME"),
    ],
)
def test_mail_line(given_: MailParameters, offers: Sequence[str], line: str) -> None:
    """What the sender gave goes on as it came, where it is offered (RFC 3461 section 5.2.1)."""
    server = hop(*offers, is_verified=True)
    said, _ = play(transaction(to(BEN, given=given_, left=-7), server), {"DATA": "354 go"})
    assert said[0].split("|")[0] == line


@pytest.mark.parametrize(
    ("wanted", "offers", "line"),
    [
        (RcptParameters(), ALL, TO_BEN),
        (RcptParameters(frozenset()), ALL, f"{TO_BEN} NOTIFY=NEVER"),
        (RcptParameters(frozenset({Notify.DELAY, Notify.SUCCESS})), ALL, f"{TO_BEN} NOTIFY=SUCCESS,DELAY"),
        (RcptParameters(frozenset({Notify.FAILURE})), (), TO_BEN),
        (
            RcptParameters(orcpt=OriginalRecipient("rfc822", Xtext("a+2Bb@x.example"))),
            ALL,
            f"{TO_BEN} ORCPT=rfc822;a+2Bb@x.example",
        ),
        # RFC 6533 section 3
        (
            RcptParameters(orcpt=OriginalRecipient("utf-8", Xtext("ö+2B@x"))),
            ALL,
            f"{TO_BEN} ORCPT=utf-8;\\x{{F6}}\\x{{2B}}@x",
        ),
    ],
)
def test_rcpt_line(wanted: RcptParameters, offers: Sequence[str], line: str) -> None:
    """NOTIFY and ORCPT go on as they came, where DSN is offered (RFC 3461 section 5.2.1)."""
    said, _ = play(transaction(to(BEN, wanted=wanted), hop(*(set(offers) - {"PIPELINING"}))), {"DATA": "354 go"})
    assert said[1] == line


def test_utf_8_orcpt() -> None:
    """With SMTPUTF8 an original recipient in UTF-8 goes on as it came (RFC 6533 section 3)."""
    wanted = RcptParameters(orcpt=OriginalRecipient("utf-8", Xtext("ö@x")))
    said, _ = play(transaction(to("jörg@example.org", wanted=wanted), hop("DSN", "SMTPUTF8")), {"DATA": "354 go"})
    assert said[:2] == [f"{MAIL} SMTPUTF8", "RCPT TO:<jörg@example.org> ORCPT=utf-8;ö@x"]


IN_TIME = DeliverBy(60, ByMode.RETURN)


@pytest.mark.parametrize(
    ("handover", "server", "status"),
    [
        # RFC 8689 section 4.2
        (to(BEN, given=MailParameters(require_tls=True)), hop(is_verified=True), "5.7.30"),
        (to(BEN, given=MailParameters(require_tls=True)), hop("REQUIRETLS"), "5.7.30"),
        # RFC 3030 section 3
        (to(BEN, given=MailParameters(body=Body.BINARY_MIME)), hop("8BITMIME", "CHUNKING"), "5.6.3"),
        (to(BEN, given=MailParameters(body=Body.BINARY_MIME)), hop("BINARYMIME"), "5.6.3"),
        # RFC 6152 section 3
        (to(BEN, given=MailParameters(body=Body.EIGHT_BIT_MIME)), hop("SMTPUTF8"), "5.6.3"),
        # RFC 6531 section 3.5
        (to(BEN, given=MailParameters(smtputf8=True)), hop("8BITMIME"), "5.6.9"),
        (to(BEN, sender="jörg@example.com", is_ascii=True), hop("8BITMIME"), "5.6.7"),
        # RFC 1870 section 6.1
        (to(BEN), hop(SIZE="999"), "5.3.4"),
        # RFC 2852 section 4
        (to(BEN, given=MailParameters(deliver_by=IN_TIME), left=50), hop(), "5.4.7"),
        (to(BEN, given=MailParameters(deliver_by=IN_TIME), left=0), hop("DELIVERBY"), "5.4.7"),
    ],
)
def test_cannot_go(handover: Handover, server: NextHop, status: str) -> None:
    """What the next hop has not got and the message can't do without is refused for good, with not a word said."""
    said, replies = play(transaction(handover, server), {})
    assert (said, [str(each.status) for each in replies]) == ([], [status])


@pytest.mark.parametrize(
    ("handover", "server"),
    [
        (to(BEN, given=MailParameters(require_tls=True)), hop("REQUIRETLS", is_verified=True)),
        (to(BEN, given=MailParameters(require_tls=True)), NextHop(Dialect.LMTP, is_local=True)),
        (to(BEN, given=MailParameters(body=Body.EIGHT_BIT_MIME, smtputf8=True), is_ascii=True), hop()),
        (to(BEN), hop(SIZE="1000")),
        (to(BEN), hop(SIZE="0")),
        (to(BEN), hop(SIZE="many")),
        (to(BEN, given=MailParameters(deliver_by=IN_TIME), left=50), hop("DELIVERBY")),
        (to(BEN, given=MailParameters(deliver_by=IN_TIME), left=50), hop(dialect=Dialect.LMTP)),
        (to(BEN, given=MailParameters(deliver_by=DeliverBy(60, ByMode.NOTIFY)), left=-50), hop()),
    ],
)
def test_can_go(handover: Handover, server: NextHop) -> None:
    """What was declared and is not needed, or has no limit, stands in nobody's way."""
    _, replies = play(transaction(handover, server), {"DATA": "354 go"})
    assert replies == (Reply(250, "ok"),)


def test_utf_8_recipient() -> None:
    """A recipient who can't be named there is refused; the others have the message (RFC 6531 section 3.5)."""
    said, replies = play(transaction(to("jörg@example.org", BEN), hop()), {"DATA": "354 go"})
    assert said == [MAIL, TO_BEN, "DATA", "<message>"]
    assert [str(each)[:9] for each in replies] == ["553 5.6.7", "250 ok"]
    said, replies = play(transaction(to("jörg@example.org"), hop()), {})
    assert (said, [each.code for each in replies]) == ([], [553])


def test_binary() -> None:
    """A binary message goes in chunks, without DATA (RFC 3030 section 3)."""
    said, _ = play(transaction(to(BEN, given=MailParameters(body=Body.BINARY_MIME)), hop(*ALL)), {})
    assert said[1:] == ["<message>"]


@pytest.mark.parametrize(
    ("given_", "offers", "must"),
    [
        (MailParameters(), (), False),
        (MailParameters(body=Body.EIGHT_BIT_MIME), (), True),
        (MailParameters(body=Body.EIGHT_BIT_MIME), ("8BITMIME",), False),
        (MailParameters(smtputf8=True), ("8BITMIME",), True),
        (MailParameters(smtputf8=True), ("SMTPUTF8",), False),
    ],
)
def test_must_inspect(given_: MailParameters, offers: Sequence[str], *, must: bool) -> None:
    """Whether the message is ASCII is of interest only where more was declared than is offered."""
    assert must_inspect(to(BEN, given=given_).envelope, hop(*offers)) is must


@pytest.mark.parametrize(
    ("server", "status"),
    [(hop(), EnhancedStatus(2, 1, 9)), (hop("DSN"), None), (hop(dialect=Dialect.LMTP), None)],
)
def test_relayed(server: NextHop, status: EnhancedStatus | None) -> None:
    """Who wants to hear of a success hears of the relaying if the next hop won't tell (RFC 3461 section 5.2.2)."""
    wanted = RcptParameters(frozenset({Notify.SUCCESS}))
    _, replies = play(transaction(to(BEN, wanted=wanted), server), {"DATA": "354 go"})
    assert replies == (Reply(250, "ok", status),)


def test_control_character() -> None:
    """No address, whoever made it, ends a line and begins another command."""
    path = ForwardPath(Mailbox("a\r\nRSET", Domain("example.org")))
    envelope = Envelope(ReversePath(None), recipients=(Recipient(path),))
    with pytest.raises(LocalProtocolError):
        play(transaction(Handover(envelope, envelope.recipients, 1), hop()), {})


CODES = st.sampled_from(["250 x", "251 x", "354 x", "334 x", "421 x", "450 x", "550 x", "552 5.2.2 x", LOST])


@given(
    dialect=st.sampled_from(Dialect), in_groups=st.booleans(), people=st.integers(1, 5), mail=CODES, data=CODES,
    rcpt=st.lists(CODES, min_size=5, max_size=5), end=st.lists(CODES, min_size=5, max_size=5),
)  # fmt: skip
def test_any_answers(
    dialect: Dialect,
    people: int,
    mail: str,
    rcpt: list[str],
    data: str,
    end: list[str],
    *,
    in_groups: bool,
) -> None:
    """Whatever is answered: a reply for each, never 3yz, and 2yz for who was accepted and whose message was taken."""
    answers = {"MAIL": mail, "RCPT": rcpt, "DATA": data, "<message>": end}
    server = hop(*(["PIPELINING"] if in_groups else []), dialect=dialect)
    exchange = transaction(to(*(f"{number}@example.org" for number in range(people))), server)
    try:
        said, replies = play(exchange, answers)
    except SessionFailed:
        assert data[0] in "23"
        return
    accepted = [reply(each).is_ok for each in rcpt[:people]]
    ends = iter(end if dialect is Dialect.LMTP else [end[0]] * people)
    taken = [is_accepted and reply(next(ends)).is_ok for is_accepted in accepted]
    reached = said[-1].startswith("<message>")
    assert len(replies) == people
    assert all(each.severity is not Severity.INTERMEDIATE for each in replies)
    assert [each.is_ok for each in replies] == [reached and is_taken for is_taken in taken]
