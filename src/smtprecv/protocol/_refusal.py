"""What the protocol itself refuses, and with which words.

Every reply that the core ever proposes stands here, so that code and enhanced status
(RFC 5321 sections 4.2.2 and 4.5.3.1.9, RFC 5248) are chosen in one place. No reply repeats what the client sent.
"""

from __future__ import annotations

from typing import Final, final

from smtprecv.protocol._reply import EnhancedStatus, Reply


@final
class Refusal(Exception):
    """A parser's way to say no; ``reply`` is what the line is due."""

    def __init__(self, reply: Reply) -> None:
        """Refuse with ``reply``."""
        super().__init__(reply)
        self.reply = reply


def _reply(code: int, status: str, text: str) -> Reply:
    return Reply(code, text, EnhancedStatus.parse(status))


LINE_TOO_LONG: Final = _reply(500, "5.5.2", "Line too long")
BAD_OCTETS: Final = _reply(500, "5.5.2", "A command line is printable text, ended by CR LF")
UNKNOWN_COMMAND: Final = _reply(500, "5.5.2", "Command not recognized")
NOT_IMPLEMENTED: Final = _reply(502, "5.5.1", "Command not implemented")
OUT_OF_ORDER: Final = _reply(503, "5.5.1", "Bad sequence of commands")

NOT_SMTP: Final = _reply(421, "4.7.0", "This is not the protocol that is spoken here")
BDAT_SYNTAX: Final = _reply(421, "4.5.4", "Syntax: BDAT size [LAST]")

NO_ARGUMENT: Final = _reply(501, "5.5.4", "No argument is allowed here")
MISSING_ARGUMENT: Final = _reply(501, "5.5.4", "An argument is missing")
NON_ASCII_ARGUMENT: Final = _reply(501, "5.5.4", "The argument must be ASCII")
BAD_HELLO: Final = _reply(501, "5.5.4", "Give your domain or address literal")
MAIL_SYNTAX: Final = _reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
RCPT_SYNTAX: Final = _reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
AUTH_SYNTAX: Final = _reply(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
ATTRIBUTE_SYNTAX: Final = _reply(501, "5.5.4", "Bad attribute")

TLS_REQUIRED: Final = _reply(530, "5.7.0", "Must issue a STARTTLS command first")
STARTTLS_FOLLOWED: Final = _reply(503, "5.5.1", "Nothing may follow STARTTLS before its reply")
AUTH_REQUIRED: Final = _reply(530, "5.7.0", "Authentication required")
ENCRYPTION_REQUIRED: Final = _reply(538, "5.7.11", "Encryption required for requested authentication mechanism")
UNKNOWN_MECHANISM: Final = _reply(504, "5.5.4", "Unrecognized authentication type")
BAD_BASE64: Final = _reply(501, "5.5.2", "Cannot decode the base64")
AUTH_LINE_TOO_LONG: Final = _reply(500, "5.5.6", "Authentication exchange line is too long")

NON_ASCII_SENDER: Final = _reply(550, "5.6.7", "A non-ASCII address needs SMTPUTF8")
NON_ASCII_RECIPIENT: Final = _reply(553, "5.6.7", "A non-ASCII address needs SMTPUTF8")

BAD_PARAMETER: Final = _reply(501, "5.5.4", "Bad parameter")
REPEATED_PARAMETER: Final = _reply(501, "5.5.4", "A parameter is given twice")
UNKNOWN_PARAMETER: Final = _reply(555, "5.5.4", "Parameter not recognized")

TOO_MANY_TRANSACTIONS: Final = _reply(452, "4.5.3", "Too many messages in one session")
TOO_MANY_RECIPIENTS: Final = _reply(452, "4.5.3", "Too many recipients")
MESSAGE_TOO_BIG: Final = _reply(552, "5.3.4", "Message too big")
BARE_CR_OR_LF: Final = _reply(554, "5.6.0", "A line of the message does not end in CR LF")
TOO_MANY_HOPS: Final = _reply(554, "5.4.6", "Too many Received fields: mail loop")


def bad_sender(reason: str) -> Reply:
    """Refuse a reverse-path."""
    return _reply(501, "5.1.7", f"Bad sender address: {reason}")


def bad_recipient(reason: str) -> Reply:
    """Refuse a forward-path."""
    return _reply(501, "5.1.3", f"Bad recipient address: {reason}")
