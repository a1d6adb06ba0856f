"""What the server says to each event of the protocol: the fixed words, the policy's, the intake's.

It knows no stream and no clock but one: the limit of a commit. Replies go back to the dialogue, which
sends them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, final

import trio

from smtprecv.errors import SpoolError, cancellation_in
from smtprecv.message import Client, Redirect
from smtprecv.protocol import (
    Auth,
    AuthResponse,
    Bdat,
    Connected,
    Connection,
    ConnectionClosed,
    Data,
    EndOfChunk,
    EndOfMailData,
    EnhancedStatus,
    Envelope,
    Event,
    Expn,
    Hello,
    Help,
    Mail,
    MailData,
    Noop,
    Quit,
    Rcpt,
    Rejected,
    Reply,
    Rset,
    StartTls,
    Vrfy,
    Xclient,
    Xforward,
)
from smtprecv.server._auth import Authentication
from smtprecv.server._hooks import RECIPIENT_OK
from smtprecv.server._intake import Incoming
from smtprecv.server._limits import Doorkeeper
from smtprecv.server._peer import in_session
from smtprecv.server._role import Service
from smtprecv.server._spread import spread
from smtprecv.server._trouble import local_error, spool_trouble
from smtprecv.server._xclient import xclient, xforward

_log: Final = logging.getLogger("smtprecv.server")

_COMMIT_TIMEOUT: Final = 300.0
"""Seconds; a client waits 10 minutes for the reply to its end of data (RFC 5321 section 4.5.3.2.6)."""

_NOT_STORED: Final = Reply(451, "cannot store mail, try again later", EnhancedStatus(4, 3, 0))
_AUTHENTICATED: Final = Reply(235, "authentication successful", EnhancedStatus(2, 7, 0))
_CHUNK_OK: Final = Reply(250, "chunk received", EnhancedStatus(2, 0, 0))
_START_MAIL: Final = Reply(354, "end data with <CR><LF>.<CR><LF>")

_Attributes: TypeAlias = tuple[tuple[str, str | None], ...]

_FIXED: Final[Mapping[type[Event], Reply]] = {
    StartTls: Reply(220, "ready to start TLS", EnhancedStatus(2, 0, 0)),
    Rset: Reply(250, "ok", EnhancedStatus(2, 0, 0)),
    Noop: Reply(250, "ok", EnhancedStatus(2, 0, 0)),
    # RFC 5321 sections 3.5.3 and 7.3: who tells nothing answers 252, which promises nothing.
    Vrfy: Reply(252, "not verified, but send some mail", EnhancedStatus(2, 1, 5)),
    Expn: Reply(502, "lists are not expanded", EnhancedStatus(5, 5, 1)),
    Quit: Reply(221, "bye", EnhancedStatus(2, 0, 0)),
}


@final
class Answers:
    """The answering half of a dialogue: one message at most is on its way in."""

    def __init__(self, connection: Connection, client: Client, service: Service, doorkeeper: Doorkeeper) -> None:
        """Answer the events of ``connection``."""
        self._connection = connection
        self._client = client
        self._service = service
        self._hooks = service.hooks
        self._doorkeeper = doorkeeper
        self._authentication = Authentication(service.hooks)
        self._forwarded: _Attributes = ()
        """What XFORWARD has said of the next message."""
        self._incoming: Incoming | None = None
        self._trouble = _NOT_STORED

    def go_on(self, connection: Connection) -> None:
        """Answer the events of ``connection``, which continues the other one inside TLS."""
        self._connection = connection

    async def answer(self, event: Event) -> Sequence[Reply]:
        """Give the replies that are due to an event: as many as the connection says, none where it asks for none.

        Whatever goes wrong on our side is 4yz and ends the message on its way in, but not the session.
        """
        try:
            return await self._answer(event)
        except SpoolError as error:
            self._trouble = spool_trouble(self.client, error)
        # Policy and intake are the user's code: whatever they raise is our fault, not the client's.
        except Exception as error:
            self._trouble = local_error(self.client, error)
        except BaseExceptionGroup as group:
            local_error(self.client, group)
            raise cancellation_in(group) from None
        await self.close()
        return (self._trouble,) * self._connection.replies_due

    async def _answer(self, event: Event) -> Sequence[Reply]:
        # What each message has comes first: a case that does not match costs its time.
        match event:
            case MailData(octets):
                await self._write(octets)
                return ()
            case Rcpt():
                return (await self._rcpt(event),)
            case Mail():
                return (await self._mail(event),)
            case Data():
                return (await self._begin(),)
            case EndOfMailData():
                return await self._end(event)
            case Hello():
                return (await self._hello(event),)
            case StartTls() | Noop() | Vrfy() | Expn() | Quit():
                return (_FIXED[type(event)],)
            case Connected():
                return (await self._greet(),)
            case Rejected(reply=reply):
                return (reply,)
            case Rset():
                await self._forget()
                return (_FIXED[Rset],)
            case Bdat():
                await self._begin_chunk()
                return ()
            case EndOfChunk():
                return (await self._end_chunk(event),)
            case Help():
                return (Reply(214, self._service.config.help_text, EnhancedStatus(2, 0, 0)),)
            case Auth() | AuthResponse():
                return (await self._authenticate(event),)
            case Xclient(attributes):
                return (await self._become(attributes),)
            case Xforward(attributes):
                return (self._forward(attributes),)
            case ConnectionClosed():  # pragma: no branch  # the union ends here, which the type checkers prove
                return ()

    @property
    def client(self) -> Client:
        """The client, as it is known now."""
        session = self._connection.session
        if self._client.session is not session:
            self._client = in_session(self._client, session)
        return self._client

    async def close(self) -> None:
        """Forget the message on its way in, if there is one. Never raises; its work is shielded."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            await incoming.abort()

    async def _forget(self) -> None:
        """End the transaction: what has come of a message is gone, and so is what XFORWARD said of it."""
        self._forwarded = ()
        if self._incoming is not None:
            await self.close()

    @property
    def _envelope(self) -> Envelope:
        envelope = self._connection.envelope
        assert envelope is not None, "the core tells of RCPT, DATA and mail data only inside a transaction"
        return envelope

    async def _greet(self) -> Reply:
        self._client = await self._hooks.look_up(self.client)
        reply = await self._hooks.connect(self.client)
        return self._service.banner if reply.is_ok else reply

    async def _hello(self, hello: Hello) -> Reply:
        reply = await self._hooks.hello(self.client, hello)
        if not reply.is_ok:
            return reply
        await self._forget()  # RFC 5321 section 4.1.4: EHLO ends a transaction as RSET does
        return Reply(250, "\n".join((self._service.config.hostname, *hello.offers)))

    async def _authenticate(self, event: Auth | AuthResponse) -> Reply:
        answer = await self._authentication.answer(self.client, event)
        if isinstance(answer, Reply):
            return answer
        self._connection.identify(answer.name)
        _log.info("%s: authenticated as %s", self.client.session_id, ascii(answer.name))
        return _AUTHENTICATED

    async def _become(self, attributes: _Attributes) -> Reply:
        """Take the client for whom XCLIENT says that it is, as if it had just connected; a refusal leaves nobody."""
        try:
            client = xclient(self.client, attributes)
        except ValueError as error:
            return _bad_attribute(error)
        reply = await self._hooks.connect(client)
        if not reply.is_ok:
            return reply
        _log.info("%s: %s is now %s", client.session_id, self._client.address, client.address)
        self._client = client
        self._connection.assume(client.session)
        return self._service.banner

    def _forward(self, attributes: _Attributes) -> Reply:
        """Remember where the next message comes from, for the record."""
        forwarded = tuple(dict((*self._forwarded, *attributes)).items())
        try:
            xforward(self.client, forwarded)
        except ValueError as error:
            return _bad_attribute(error)
        self._forwarded = forwarded
        return _FIXED[Noop]

    async def _mail(self, mail: Mail) -> Reply:
        client = self.client
        reply = await self._hooks.mail(client, mail)
        return (self._doorkeeper.transaction(client.address) or reply) if reply.is_ok else reply

    async def _rcpt(self, rcpt: Rcpt) -> Reply:
        answer = await self._hooks.rcpt(self.client, self._envelope, rcpt)
        if not isinstance(answer, Redirect):
            return answer
        self._connection.redirect(answer.forward_paths)
        return RECIPIENT_OK

    async def _begin(self) -> Reply:
        reply = await self._hooks.data(self.client, self._envelope)
        if not reply.is_ok:
            return reply
        self._incoming = await self._service.intake.begin(self.client)
        return _START_MAIL

    async def _begin_chunk(self) -> None:
        """Ask at the first chunk what DATA asks; a refusal waits for the end of the chunk (RFC 3030 section 2)."""
        if self._incoming is None:
            self._trouble = await self._begin()

    async def _end_chunk(self, end: EndOfChunk) -> Reply:
        refusal = end.defect or (self._trouble if self._incoming is None else None)
        if refusal is not None:
            await self._forget()
        return refusal or _CHUNK_OK

    async def _write(self, octets: bytes) -> None:
        """Pass the octets on; once they could not be taken, the rest of the message is dropped."""
        if self._incoming is not None:
            await self._incoming.write(octets)

    async def _end(self, end: EndOfMailData) -> Sequence[Reply]:
        try:
            if end.defect is None and self._incoming is not None:
                verdict = await self._hooks.message(self.client, self._envelope, self._incoming)
                if verdict.is_ok:
                    return await self._accept(self._incoming)
            else:
                verdict = end.defect or self._trouble
            return [verdict] * self._connection.replies_due
        finally:
            await self._forget()

    async def _accept(self, incoming: Incoming) -> Sequence[Reply]:
        client = xforward(self.client, self._forwarded) if self._forwarded else self.client
        envelope = self._envelope
        # Shielded: whoever is cut off here sends the message again, and it is there twice (RFC 1047).
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _COMMIT_TIMEOUT):
            replies = spread(await incoming.commit(client, envelope), self._connection.reply_spans)
            self._incoming = None
            for reply in dict.fromkeys(replies) if len(replies) > 1 else replies:  # the spool has one for all
                _log.info("%s: from=<%s> %s", client.session_id, envelope.reverse_path, reply)
            return replies
        return [_NOT_STORED] * self._connection.replies_due


def _bad_attribute(error: ValueError) -> Reply:
    return Reply(501, f"bad attribute: {error}", EnhancedStatus(5, 5, 4))
