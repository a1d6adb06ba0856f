"""The body of a web hook's request, in each of its forms, streamed.

Its one rule: a body can be given several times and is the same each time, for it is measured and signed before it
is sent. Nothing but the message has a size of its own, so a body is a head, the message (perhaps as Base64), a tail.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, final

from smtprecv.deliveries._copy import Copy
from smtprecv.message import Message
from smtprecv.protocol import Recipient
from smtprecv.spool import Entry
from smtprecv.trace import protocol_name

Format: TypeAlias = Literal["raw", "multipart", "json"]
"""How a Webhook writes its requests: the message alone, a form with two parts, or one JSON object."""


@final
@dataclass(frozen=True, slots=True)
class Payload:
    """The body of one request, its type, and the header fields that go with it."""

    copy: Copy
    message: Message
    content_type: str
    head: bytes = b""
    tail: bytes = b""
    is_base64: bool = False
    fields: Mapping[str, str] = field(default_factory=dict[str, str])

    @asynccontextmanager
    async def pieces(self) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Give the octets."""
        async with self.copy.pieces(self.message) as pieces, aclosing(self._around(pieces)) as around:
            yield around

    async def _around(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        yield self.head
        held = b""
        async for piece in pieces:
            if not self.is_base64:
                yield piece
                continue
            octets = held + piece
            whole = len(octets) - len(octets) % 3
            held = octets[whole:]
            yield base64.b64encode(octets[:whole])
        yield base64.b64encode(held) + self.tail


def facts(entry: Entry, recipients: Sequence[Recipient]) -> Mapping[str, object]:
    """Give what is known of a message beside its octets, as JSON has it."""
    mailbox, client = entry.envelope.reverse_path.mailbox, entry.client
    return {
        "queue_id": entry.queue_id,
        "received": entry.received.isoformat(),
        "sender": "" if mailbox is None else str(mailbox),
        "recipients": [{"address": str(to), "original": str(to.original or to)} for to in dict.fromkeys(recipients)],
        "body": entry.envelope.parameters.body.value,
        "smtputf8": entry.envelope.parameters.smtputf8,
        "client": {
            "address": None if client.address is None else str(client.address),
            "host": client.host,
            "hello": client.session.hello,
            "protocol": protocol_name(entry),
            "identity": client.session.identity,
        },
    }


def _raw(copy: Copy, message: Message, known: Mapping[str, object]) -> Payload:
    return Payload(copy, message, "message/rfc822", fields={"smtprecv-envelope": json.dumps(known)})


def _json(copy: Copy, message: Message, known: Mapping[str, object]) -> Payload:
    head = json.dumps(known).encode().removesuffix(b"}") + b', "message": "'
    return Payload(copy, message, "application/json", head, b'"}', is_base64=True)


def _multipart(copy: Copy, message: Message, known: Mapping[str, object]) -> Payload:
    # Whoever sends mail knows no queue id before its end, and so no boundary that could end a part.
    boundary = hashlib.sha256(f"boundary {copy.entry.queue_id} {copy.recipient}".encode()).hexdigest()
    head = (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="envelope"\r\nContent-Type: application/json\r\n\r\n'
        f"{json.dumps(known)}\r\n"
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="message"; filename="message.eml"\r\n'
        "Content-Type: message/rfc822\r\n\r\n"
    )
    content_type = f"multipart/form-data; boundary={boundary}"
    return Payload(copy, message, content_type, head.encode(), f"\r\n--{boundary}--\r\n".encode())


PAYLOADS: Final[Mapping[Format, Callable[[Copy, Message, Mapping[str, object]], Payload]]] = {
    "raw": _raw,
    "multipart": _multipart,
    "json": _json,
}
