"""Delivery to a web hook: what is sent, what an answer means, and where it never connects."""

from __future__ import annotations

import base64
import datetime as dt
import email
import hmac
import json
import socket
import ssl
import sys
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import HTTP
from email.utils import format_datetime

import pytest
import trio
import trustme
from tests.deliveries.test_maildir import BOB, EVE, TEXT, attempt
from tests.deliveries.webserver import HANG, RESET, Answer, Web, web

from smtprecv.deliveries import Format, Webhook, _http, _webhook, verify_signature
from smtprecv.delivery import Attempt, Delivery
from smtprecv.errors import ConfigError, SpoolError
from smtprecv.message import Later
from smtprecv.protocol import Reply
from smtprecv.server import Networks

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
LOOPBACK = Networks.of("127.0.0.0/8")
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef").decode()


async def replied(delivery: Delivery, tried: Attempt) -> Sequence[Reply]:
    """Deliver, and give the answers, all of which must be replies."""
    answers = await delivery.deliver(tried)
    replies = [answer for answer in answers if isinstance(answer, Reply)]
    assert len(replies) == len(answers)
    return replies


def hook(server: Web, *, redirects: int = 0, timeout: float = 20, concurrency: int = 10) -> Webhook:
    """Give a delivery to a server of ours."""
    return Webhook(
        server.url(),
        secret=SECRET,
        redirects=redirects,
        allowed=LOOPBACK,
        timeout=timeout,
        concurrency=concurrency,
        hostname="mx.example.com",
        now=lambda: NOW,
    )


async def test_raw() -> None:
    """The message is the body, below its trace fields and with CRLF; what is known beside it is a field."""
    work = attempt()
    with web(Answer(200, text="taken\nas 7")) as server:
        replies = await hook(server).deliver(work)
    assert [str(reply) for reply in replies] == ["250 2.0.0 the web hook answered 200 taken"]
    [request] = server.requests
    assert request.path == "/hook?x=1"
    assert request.body.startswith(b"Return-Path: <>\r\nDelivered-To: bob@example.com\r\nReceived: ")
    assert request.body.endswith(b"\r\n" + TEXT)
    known = json.loads(request.fields["smtprecv-envelope"])
    assert known["recipients"] == [{"address": "bob@example.com", "original": "bob@example.com"}]
    assert (known["queue_id"], known["sender"], known["client"]["address"]) == (work.queue_id, "", "192.0.2.1")
    assert request.fields["content-type"] == "message/rfc822"
    assert request.fields["host"] == f"127.0.0.1:{server.port}"
    assert request.fields["idempotency-key"].startswith(work.queue_id)


async def test_json() -> None:
    """One object, with the message as Base64; per message all recipients stand in it, and its copy names none."""
    with web() as server:
        delivery = Webhook(server.url(), format="json", per="message", allowed=LOOPBACK, headers={"Authorization": "x"})
        replies = await replied(delivery, attempt(b"\0\xff", b"abc", recipients=(BOB, EVE)))
    assert [reply.code for reply in replies] == [250, 250]
    [request] = server.requests
    known = json.loads(request.body)
    message = base64.b64decode(known["message"], validate=True)
    assert message.endswith(b"\r\n\0\xffabc")
    assert b"bob" not in message
    assert [to["address"] for to in known["recipients"]] == ["bob@example.com", "eve@example.com"]
    assert request.fields["authorization"] == "x"
    assert "webhook-signature" not in request.fields


async def test_multipart() -> None:
    """A form of two parts, as others read it; the message is as it was."""
    with web() as server:
        await Webhook(server.url(), format="multipart", allowed=LOOPBACK).deliver(attempt())
    [request] = server.requests
    head = f"Content-Type: {request.fields['content-type']}\r\n\r\n".encode()
    form = email.message_from_bytes(head + request.body, policy=HTTP)
    assert isinstance(form, EmailMessage)
    envelope, message = form.iter_parts()
    assert json.loads(envelope.get_content())["recipients"][0]["address"] == "bob@example.com"
    assert envelope.get_param("name", header="content-disposition") == "envelope"
    assert request.body.partition(b"message/rfc822\r\n\r\n")[2].partition(TEXT)[2].startswith(b"\r\n--")
    assert message.get_content_type() == "message/rfc822"


async def test_signature() -> None:
    """Whoever has the secret can tell that we sent this, and when; another body, secret or time is found out."""
    with web() as server:
        await hook(server).deliver(attempt())
    [request] = server.requests
    fields, body = request.fields, request.body
    assert verify_signature(SECRET, fields, body, NOW)
    assert verify_signature("0123456789abcdef", {name.title(): value for name, value in fields.items()}, body, NOW)
    assert not verify_signature(SECRET, fields, body + b"x", NOW)
    assert not verify_signature(SECRET.swapcase().replace("WHSEC", "whsec"), fields, body, NOW)
    assert not verify_signature(SECRET, fields, body, NOW + dt.timedelta(minutes=6))
    assert not verify_signature(SECRET, fields, body, NOW - dt.timedelta(minutes=6))
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        assert not verify_signature(SECRET, {**fields, name: "9" * 30}, body, NOW)
        assert not verify_signature(SECRET, {key: fields[key] for key in fields if key != name}, body, NOW)


def test_signature_is_the_standard_one() -> None:
    """A signature is that of Standard Webhooks: HMAC-SHA256 of id, time and body with dots between them, as Base64."""
    mac = hmac.digest(base64.b64decode(SECRET.removeprefix("whsec_")), b'msg_1.1614265330.{"test": 1}', "sha256")
    fields = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1614265330",
        "webhook-signature": f"v1,other v1a,x v1,{base64.b64encode(mac).decode()}",
    }
    assert verify_signature(SECRET, fields, b'{"test": 1}', dt.datetime.fromtimestamp(1614265330, dt.UTC))


async def test_key() -> None:
    """A repeated request has the same key, and another recipient or message another one."""
    with web() as server:
        for recipients in ((BOB, EVE), (BOB,)):
            await hook(server).deliver(attempt(recipients=recipients))
    keys = [request.fields["idempotency-key"] for request in server.requests]
    assert (len(set(keys)), keys[0]) == (2, keys[2])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(204), "250 2.0.0 the web hook answered 204"),
        (Answer(302, {"Location": "/x"}), "451 4.3.0 the web hook answered 302"),
        (Answer(307, {"Location": "/x"}), "451 4.3.0 the web hook answered 307"),
        (Answer(400, text="\x1b[31mno"), "554 5.3.0 the web hook answered 400 ?[31mno"),
        (Answer(401), "451 4.3.0 the web hook answered 401"),
        (Answer(404), "451 4.3.0 the web hook answered 404"),
        (Answer(410), "550 5.1.1 the web hook is gone"),
        (Answer(413), "552 5.3.4 the message is too large for the web hook"),
        (Answer(422), "554 5.3.0 the web hook answered 422"),
        (Answer(425), "451 4.3.0 the web hook answered 425"),
        (Answer(500, text="x" * 10_000), "451 4.3.0 the web hook answered 500 " + "x" * 200),
        (Answer(503), "451 4.3.0 the web hook answered 503"),
        (RESET, "451 4.4.1 "),
    ],
)
async def test_answers(answer: Answer, expected: str) -> None:
    """What a status means, by the table; the first line of the text is told, made safe and short."""
    with web(answer) as server:
        [reply] = await replied(hook(server), attempt())
    assert str(reply).startswith(expected)
    assert answer == RESET or str(reply) == expected


@pytest.mark.parametrize("value", ["120", format_datetime(NOW + dt.timedelta(seconds=120), usegmt=True)])
async def test_retry_after(value: str) -> None:
    """Until the time that was asked for has come, nothing is sent; then it is."""
    with web(Answer(429, {"Retry-After": value})) as server:
        delivery = hook(server)
        [later] = await delivery.deliver(attempt())
        assert isinstance(later, Later)
        assert str(later.reply) == "451 4.3.2 the web hook answered 429 (again in 120 s)"
        assert later.after == dt.timedelta(seconds=120)
        [later] = await delivery.deliver(attempt())
        assert isinstance(later, Later)
        assert str(later.reply) == "451 4.3.2 the web hook asked to wait 120 s more"
        assert dt.timedelta(seconds=119) < later.after < dt.timedelta(seconds=120)
        assert len(server.requests) == 1
        delivery._quiet_until -= 120
        [reply] = await replied(delivery, attempt())
        assert reply.code == 250


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("0", 0), ("", 0), ("-1", 0), ("soon", 0), ("9" * 400, 86_400), ("Sun, 01 Mar 2020 00:00:00 GMT", 0),
     ("Sun, 01 Mar 2026 00:01:00", 0), (f"1 Jan 2030 00:00:00 +{'9' * 19}", 0)],
)  # fmt: skip
def test_wait(text: str, seconds: float) -> None:
    """Retry-After is a number or a date (RFC 9110 section 10.2.3), at most a day; nonsense is none."""
    assert _webhook._wait(text, NOW) == seconds


async def test_redirects() -> None:
    """Redirects are followed where that is allowed, as often as that, to the same origin, with the same body."""
    moved = Answer(308, {"Location": "/there?y=2"})
    with web(moved, moved, moved) as server:
        [reply] = await replied(hook(server, redirects=2), attempt())
        assert str(reply) == "451 4.3.0 the web hook answered 308"
        assert [request.path for request in server.requests] == ["/hook?x=1", "/there?y=2", "/there?y=2"]
        assert len({request.body for request in server.requests}) == 1
    here = Answer(307, {"Location": "down/here"}), Answer(307, {"Location": "deeper"})
    with web(*here) as server:
        await hook(server, redirects=2).deliver(attempt())
        # RFC 9110 section 10.2.2: relative to where the request went.
        assert [request.path for request in server.requests] == ["/hook?x=1", "/down/here", "/down/deeper"]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2/", "//other.example/", "https://127.0.0.1/", "https://[", "//[x]/", "/\u00ff",
        "/" + "a" * 65_000,
    ],
)  # fmt: skip
async def test_redirects_to_nowhere(location: str) -> None:
    """A redirect to another origin, or to what is no URL or an endless one, is a status like others."""
    with web(Answer(307, {"Location": location})) as server:
        [reply] = await replied(hook(server, redirects=2), attempt())
    assert (str(reply), len(server.requests)) == ("451 4.3.0 the web hook answered 307", 1)


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_the_status_says_it_all(connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has said 2xx has the message: a text that is cut off, or never comes to its end, changes nothing."""
    monkeypatch.setattr(_http, "_TEXT_SECONDS", 0.05)
    with web(Answer(200, {"Content-Length": "100", "Connection": connection}, "taken")) as server:
        [reply] = await replied(hook(server), attempt())
        assert (str(reply), len(server.requests)) == ("250 2.0.0 the web hook answered 200 taken", 1)


async def test_too_large_for_now() -> None:
    """A 413 with Retry-After means later (RFC 9110 section 15.5.14)."""
    with web(Answer(413, {"Retry-After": "60"})) as server:
        [later] = await hook(server).deliver(attempt())
    assert isinstance(later, Later)
    assert later.after == dt.timedelta(seconds=60)


async def test_timeouts() -> None:
    """A hook that hangs is 451 when its time is over."""
    with web(HANG, HANG) as server:
        [reply] = await replied(hook(server, timeout=0.1), attempt())
        assert str(reply) == "451 4.4.2 the web hook took too long"
        [reply] = await replied(Webhook(server.url(), allowed=LOOPBACK, idle_timeout=0.1), attempt())
        assert str(reply) == "451 4.4.1 ReadTimeout"


async def test_connections_are_shared() -> None:
    """Requests of one time share connections, and none stays open when nothing is under way."""
    with web() as server:
        delivery = hook(server, concurrency=2)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(delivery.deliver, attempt(recipients=(BOB, EVE)))
        assert (len(server.requests), server.connections <= 2) == (20, True)
        assert delivery._client._client is None


async def test_cancelled() -> None:
    """Cancellation closes the connection, and the next attempt has another one."""
    with web(HANG) as server:
        delivery = hook(server)
        with trio.move_on_after(0.1) as scope:
            await delivery.deliver(attempt())
        assert scope.cancelled_caught
        assert delivery._client._client is None
        [reply] = await replied(delivery, attempt())
        assert (reply.code, len(server.taken)) == (250, 1)


async def test_a_message_that_cannot_be_read() -> None:
    """When the queue fails in the middle, nothing is taken."""
    with web() as server:
        [reply] = await replied(hook(server), attempt(b"x", SpoolError("cannot read it")))
        assert str(reply) == "451 4.3.0 cannot read it"
    assert server.requests == []


# ---------------------------------------------------------------- where it connects


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: Sequence[str]) -> None:
    """Let every name mean these addresses, the next ones at the next question; the last ones stay."""
    left = list(answers)

    async def getaddrinfo(host: str, port: int, **_: object) -> object:
        addresses = left.pop(0) if len(left) > 1 else left[0]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(families[":" in each], socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "fe80::1", "fd00:ec2::254",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "0.0.0.0", "100.64.0.1", "224.0.0.1", "::",
        "255.255.255.255", "2002:7f00:1::", "ff02::1", "::7f00:1", "::ffff:0:a00:1", "fec0::1",
    ],
)  # fmt: skip
async def test_no_private_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to an address which is not public is not connected to: 451 that says so."""
    resolving(monkeypatch, [address])
    [reply] = await replied(Webhook("https://hook.example/"), attempt())
    assert (reply.code, "which is not a public address" in reply.text) == (451, True)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_no_other_spelling(host: str) -> None:
    """Whatever loopback is called, it is what it resolves to."""
    [reply] = await replied(Webhook(f"https://{host}:1/"), attempt())
    assert (reply.code, "which is not a public address" in reply.text) == (451, True)


async def test_http_is_for_allowed_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS no public address is connected to."""
    resolving(monkeypatch, ["192.0.2.1"], ["8.8.8.8"])
    for _ in range(2):
        [reply] = await replied(Webhook("http://hook.example/", allowed=LOOPBACK), attempt())
        assert "which is not a public address" in reply.text


async def test_what_was_checked_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means another address a moment later is resolved once: no rebinding in between."""
    resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.99"])
    with web() as server:
        delivery = Webhook(server.url(host="hook.example"), allowed=Networks.of("127.0.0.1"))
        [reply] = await replied(delivery, attempt())
        assert (reply.code, server.requests[0].fields["host"]) == (250, f"hook.example:{server.port}")
        [reply] = await replied(delivery, attempt())
        assert (reply.code, len(server.requests)) == (451, 1)


async def test_next_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one address does not answer, the next one is asked."""
    resolving(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    with web() as server:
        [reply] = await replied(Webhook(server.url(host="hook.example"), allowed=LOOPBACK), attempt())
        assert reply.code == 250


async def test_no_such_name_and_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that cannot be resolved, or a host that refuses, is 451."""
    with web() as server:
        url = server.url()
    [reply] = await replied(Webhook(url, allowed=LOOPBACK), attempt())
    assert reply.code == 451
    resolving(monkeypatch, [])
    [reply] = await replied(Webhook("https://none.example/"), attempt())
    assert (reply.code, "none.example cannot be resolved" in reply.text) == (451, True)


@pytest.mark.parametrize(("name", "code"), [("hook.example", 250), ("other.example", 451)])
async def test_tls(name: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS is verified against the name, not the address; a certificate for another name is 451."""
    authority = trustme.CA()
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(ours)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)
    resolving(monkeypatch, ["127.0.0.1"])
    with web(tls=ours) as server:
        url = server.url(scheme="https", host="hook.example")
        [reply] = await replied(Webhook(url, allowed=LOOPBACK, tls=theirs), attempt())
        assert (reply.code, len(server.requests)) == (code, int(code == 250))
        [reply] = await replied(Webhook(url, allowed=LOOPBACK), attempt())
        assert reply.code == 451


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("url", "format_", "text"),
    [
        ("ftp://x/", "raw", "is not https://HOST"),
        ("https:///x", "raw", "is not https://HOST"),
        ("https://a:b@x/", "raw", "without a user"),
        ("https://x:99999/", "raw", "is not https://HOST"),
        ("https://x:y/", "raw", "is not a URL"),
        ("http://x/", "raw", "is not https, and no network is allowed"),
    ],
)
def test_wrong(url: str, format_: Format, text: str) -> None:
    """What cannot be meant is a ConfigError that says why."""
    with pytest.raises(ConfigError, match=text):
        Webhook(url, format=format_)


@pytest.mark.parametrize("secret", ["short", "whsec_short", "whsec_!!!!"])
def test_wrong_secret(secret: str) -> None:
    """A secret that would protect nothing is refused."""
    with pytest.raises(ConfigError, match="a secret"):
        Webhook("https://x/", secret=secret)


def test_raw_has_no_room() -> None:
    """All recipients of a message do not fit into a header field."""
    with pytest.raises(ConfigError, match="multipart or json"):
        Webhook("https://x/", per="message")
    assert isinstance(Webhook("https://x/", format="json", per="message"), Delivery)


def test_without_httpx2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra it says what to install."""
    monkeypatch.delitem(sys.modules, "smtprecv.deliveries._http", raising=False)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigError, match=r"smtprecv\[webhook\]"):
        Webhook("https://x/")
