"""Delivery to a web hook: the message as the body of an HTTP request, signed, under a key that stays the same.

What a response means is a table. Its one rule: who says 2xx has the message; what may be mended at either end is tried
again; and the receiver can tell a repeated request from a new one.
"""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urljoin, urlsplit

import trio

from smtprecv.deliveries._copy import Copy
from smtprecv.deliveries._payload import PAYLOADS, Format, Payload, facts
from smtprecv.deliveries._per import Per, ask
from smtprecv.deliveries._signature import Signer, read_secret
from smtprecv.deliveries._trouble import trouble
from smtprecv.delivery import Attempt
from smtprecv.errors import ConfigError, SpoolError
from smtprecv.hostname import own_hostname
from smtprecv.message import Later, Now, utc_now
from smtprecv.protocol import EnhancedStatus, Recipient, Reply
from smtprecv.server import Networks
from smtprecv.spool import Entry

if TYPE_CHECKING:
    from smtprecv.deliveries._http import HttpClient, HttpResponse

LATER: Final[Mapping[int, str]] = {
    401: "our credentials may be mended",
    402: "a quota may be raised",
    403: "our credentials may be mended",
    404: "the hook may not be deployed yet",
    405: "the hook may not be deployed yet",
    407: "our credentials may be mended",
    408: "time ran out",
    409: "a request with the same key is under way",
    421: "another server was meant",
    423: "it is locked",
    425: "too early",
    429: "too many requests",
}
"""The statuses 4xx that mean later, and why; all others are about this very request, and mean never."""

NEVER: Final[Mapping[int, Reply]] = {
    410: Reply(550, "the web hook is gone", EnhancedStatus(5, 1, 1)),
    413: Reply(552, "the message is too large for the web hook", EnhancedStatus(5, 3, 4)),
}
"""Those with a reply of their own."""

_LATER_IF_TOLD: Final = frozenset({413})
"""Those that mean later with a Retry-After (RFC 9110 section 15.5.14), and never without."""

_LONGEST_WAIT: Final = 86_400.0
_TEXT_SIZE: Final = 200
_PATH_SIZE: Final = 8192
"""Octets of a path that a redirect may lead to."""
_TIMED_OUT: Final = Reply(451, "the web hook took too long", EnhancedStatus(4, 4, 2))
_PUBLIC: Final = Networks()


@final
class Webhook:
    """A Delivery that posts to ``url``, https, for each pending recipient, or once for a message.

    ``format``: ``raw`` is the message (message/rfc822), with what is known beside it as JSON in the field
    ``smtprecv-envelope``; ``multipart`` is a form of ``envelope`` and ``message``; ``json`` is one object, the
    message in it as Base64. ``raw`` goes with ``per="recipient"`` only. The message has its trace fields and CRLF.
    ``secret``: signs as Standard Webhooks do (``verify_signature`` checks it). ``headers``: fields more.
    ``redirects``: how many to follow, 307 and 308 to the same origin only. ``allowed``: networks, private
    ones, loopback or others that are not public, which may be reached, and over http too; a public address never is
    over http. ``timeout``: seconds for one request; ``connect_timeout`` and ``idle_timeout`` for its parts.
    ``concurrency``: requests at one time; they share connections. ``tls``: default is to trust whom the system
    trusts. ConfigError for settings that cannot be meant, and without httpx2 (``smtprecv[webhook]``).

    Each request has an ``Idempotency-Key``, the same for the same message and recipients in every attempt. Replies:
    250 for 2xx, whatever becomes of its text; 451 for 5xx, 3xx, ``LATER``, timeouts and whatever goes wrong on the way
    (4.4.z where nobody answered); 554 for other 4xx, or as ``NEVER`` has it. ``Retry-After`` is obeyed, up to a day:
    until then nothing is sent, and the answer is ``Later``, which says for how long.
    """

    def __init__(
        self,
        url: str,
        *,
        format: Format = "raw",  # noqa: A002  # the word for it
        per: Per = "recipient",
        secret: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        redirects: int = 0,
        allowed: Networks = _PUBLIC,
        timeout: float = 60,
        connect_timeout: float = 10,
        idle_timeout: float = 30,
        concurrency: int = 10,
        tls: ssl.SSLContext | None = None,
        hostname: str | None = None,
        envelope_to: bool = False,
        now: Now = utc_now,
    ) -> None:
        """Take the settings; connect to nothing."""
        if format == "raw" and per == "message":
            msg = "a web hook that is asked per message needs multipart or json, which have room for all recipients"
            raise ConfigError(msg)
        if secret is not None:
            read_secret(secret)
        self._url: Final = url
        self._client: Final = _client(url, allowed, tls, connect_timeout, idle_timeout)
        self._format: Final[Format] = format
        self._per: Final[Per] = per
        self._secret: Final = secret
        self._headers: Final = headers
        self._redirects: Final = redirects
        self._timeout: Final = timeout
        self._slots: Final = trio.CapacityLimiter(concurrency)
        self._hostname: Final = hostname or own_hostname()
        self._envelope_to: Final = envelope_to
        self._now: Final = now
        self._quiet_until = float("-inf")

    def destination(self, entry: Entry, recipient: Recipient) -> str:
        """Name the host of the hook, with its port."""
        return self._client.authority

    async def deliver(self, attempt: Attempt) -> Sequence[Reply | Later]:
        """Post. Cancellation closes the connection; whether the request was heard is then unknown."""

        async def one(recipients: Sequence[Recipient]) -> Reply | Later:
            async with self._slots:
                wait = self._quiet_until - trio.current_time()
                if wait > 0:
                    text = f"the web hook asked to wait {wait:.0f} s more"
                    return Later(Reply(451, text, EnhancedStatus(4, 3, 2)), dt.timedelta(seconds=wait))
                return await self._post(attempt, recipients)

        async with self._client.kept():
            return await ask(self._per, attempt.recipients, one)

    async def _post(self, attempt: Attempt, recipients: Sequence[Recipient]) -> Reply | Later:
        try:
            with trio.fail_after(self._timeout):
                return self._answer(await self._response(attempt, recipients))
        except (OSError, SpoolError) as error:
            return trouble(error)
        except trio.TooSlowError:
            return _TIMED_OUT

    async def _response(self, attempt: Attempt, recipients: Sequence[Recipient]) -> HttpResponse:
        recipient = recipients[0] if self._per == "recipient" else None
        copy = Copy(attempt.entry, recipient, self._hostname, envelope_to=self._envelope_to, keeps_crlf=True)
        payload = PAYLOADS[self._format](copy, attempt.message, facts(attempt.entry, recipients))
        fields = await self._fields(payload, attempt.key(*recipients))
        response = await self._client.post(fields, payload.pieces(), None)
        url = self._url
        for _ in range(self._redirects):
            path = _redirected(url, response)
            if path is None:
                break
            url = urljoin(url, path)  # RFC 9110 section 10.2.2
            response = await self._client.post(fields, payload.pieces(), path)
        return response

    async def _fields(self, payload: Payload, key: str) -> Mapping[str, str]:
        """Measure and sign the body, and give the header fields."""
        signer = None if self._secret is None else Signer(self._secret, key, self._now())
        size = 0
        async with payload.pieces() as pieces:
            async for piece in pieces:
                size += len(piece)
                if signer is not None:
                    signer.update(piece)
        return {
            "User-Agent": "smtprecv",
            **self._headers,
            "Content-Type": payload.content_type,
            "Content-Length": str(size),
            "Idempotency-Key": key,
            **payload.fields,
            **({} if signer is None else signer.headers()),
        }

    def _answer(self, response: HttpResponse) -> Reply | Later:
        status = response.status
        said = next((line.strip()[:_TEXT_SIZE] for line in response.text.splitlines() if line.strip()), "")
        text = "".join(c if c.isprintable() else "?" for c in f"the web hook answered {status} {said}".strip())
        if 200 <= status < 300:
            return Reply(250, text, EnhancedStatus(2, 0, 0))
        wait = _wait(response.fields.get("retry-after", ""), self._now())
        is_later = status in LATER or (status in _LATER_IF_TOLD and wait > 0)
        if 400 <= status < 500 and not is_later:
            return NEVER.get(status) or Reply(554, text, EnhancedStatus(5, 3, 0))
        if wait <= 0:
            return Reply(451, text, EnhancedStatus(4, 3, 0))
        self._quiet_until = trio.current_time() + wait
        reply = Reply(451, f"{text} (again in {wait:.0f} s)", EnhancedStatus(4, 3, 2))
        return Later(reply, dt.timedelta(seconds=wait))


def _redirected(url: str, response: HttpResponse) -> str | None:
    """Give the path and query that a request is to be repeated at; None for anything else, or another origin."""
    if response.status not in (307, 308):
        return None
    try:
        here, there = urlsplit(url), urlsplit(urljoin(url, response.fields.get("location", "")))
    except ValueError:
        return None
    path = f"{there.path or '/'}{'?' if there.query else ''}{there.query}"
    is_here = (there.scheme, there.netloc) == (here.scheme, here.netloc)
    return path if is_here and path.isascii() and len(path) <= _PATH_SIZE else None


def _wait(text: str, now: dt.datetime) -> float:
    """Give the seconds of a Retry-After field (RFC 9110 section 10.2.3), a day at most; 0 for none."""
    if text.isascii() and text.isdecimal():
        return min(float(text), _LONGEST_WAIT)
    try:
        wait = (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return 0
    return min(max(wait, 0), _LONGEST_WAIT)


def _client(
    url: str, allowed: Networks, tls: ssl.SSLContext | None, connect_timeout: float, idle_timeout: float
) -> HttpClient:
    try:
        # Optional, and slow to import for those who don't ask.
        from smtprecv.deliveries._http import HttpClient, HttpSettings  # noqa: PLC0415
    except ModuleNotFoundError:
        msg = "httpx2 is not installed, and a web hook needs it: install smtprecv[webhook]"
        raise ConfigError(msg) from None
    context = tls or ssl.create_default_context()
    client = HttpClient(url, HttpSettings(allowed, context, connect_timeout, idle_timeout))
    if client.url.scheme == "http" and not allowed.networks:
        msg = f"{url!r} is not https, and no network is allowed that it might be in"
        raise ConfigError(msg)
    return client
