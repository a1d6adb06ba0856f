"""Delivery to a program: the message on its standard input, what is known of it in its environment.

There is no shell, and what came from outside is an environment variable or one whole argument, never a part of one.
What its exit status means is a table.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

import trio

from smtprecv.deliveries._copy import Copy
from smtprecv.deliveries._per import Per, ask
from smtprecv.deliveries._program import Ended, Program
from smtprecv.deliveries._trouble import trouble
from smtprecv.delivery import Attempt
from smtprecv.errors import ConfigError, SpoolError
from smtprecv.hostname import own_hostname
from smtprecv.protocol import EnhancedStatus, Recipient, Reply
from smtprecv.spool import Entry
from smtprecv.trace import protocol_name


class _Outcome(NamedTuple):
    """What an exit status means."""

    code: int
    status: EnhancedStatus
    text: str


OUTCOMES: Final[Mapping[int, _Outcome]] = {
    0: _Outcome(250, EnhancedStatus(2, 0, 0), "delivered"),
    # These say that this message, or this recipient, will never be taken.
    64: _Outcome(554, EnhancedStatus(5, 3, 0), "the program was used wrongly"),
    65: _Outcome(554, EnhancedStatus(5, 6, 0), "the message is not as it should be"),
    66: _Outcome(554, EnhancedStatus(5, 3, 0), "the program has no input"),
    67: _Outcome(550, EnhancedStatus(5, 1, 1), "there is no such user"),
    68: _Outcome(550, EnhancedStatus(5, 1, 2), "there is no such host"),
    69: _Outcome(554, EnhancedStatus(5, 3, 0), "the service is not available"),
    70: _Outcome(554, EnhancedStatus(5, 3, 0), "the program found a fault in itself"),
    76: _Outcome(554, EnhancedStatus(5, 5, 0), "protocol error"),
    77: _Outcome(550, EnhancedStatus(5, 7, 0), "permission denied"),
    78: _Outcome(554, EnhancedStatus(5, 3, 5), "the program is not configured for it"),
    # These speak of the system, or ask for another try.
    71: _Outcome(451, EnhancedStatus(4, 3, 0), "system error"),
    72: _Outcome(451, EnhancedStatus(4, 3, 0), "a file of the system is missing"),
    73: _Outcome(452, EnhancedStatus(4, 3, 0), "a file cannot be made"),
    74: _Outcome(451, EnhancedStatus(4, 3, 0), "input or output error"),
    75: _Outcome(451, EnhancedStatus(4, 3, 0), "not now"),
}
"""What the exit statuses of sysexits.h mean. Any other one is a fault of the program, which may be mended: 451."""

_TIMED_OUT: Final = Reply(451, "the program did not end in time", EnhancedStatus(4, 3, 0))
_OPTION: Final = Reply(553, "the program could take the address for an option", EnhancedStatus(5, 1, 3))
_LINE_SIZE: Final = 200
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")
_PLACEHOLDERS: Final[Mapping[Per, frozenset[str]]] = {
    "recipient": frozenset({"recipient", "recipients", "original_recipient", "sender", "queue_id"}),
    "message": frozenset({"recipients", "sender", "queue_id"}),
}
_KEPT: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""What a program has of our environment; the rest may be secret."""


@final
class Command:
    """A Delivery that runs a program: for each pending recipient, or once for a message.

    ``argv``: the program and its arguments. An argument that is ``{recipient}``, ``{original_recipient}``, ``{sender}``
    or ``{queue_id}`` is replaced as a whole, and ``{recipients}`` by one argument for each; ConfigError for a
    placeholder that is unknown, stands within an argument, or, as ``{recipient}``, does not go together with ``per``.
    ``timeout``: seconds for one run; then SIGTERM, and 2 s later SIGKILL, to its process group. ``concurrency``: runs
    at one time. ``folder``: where it runs. ``environment``: variables more. ``keeps_crlf``: the lines end with
    CRLF, not LF. The program has the user and the rights of this process.

    The environment has SENDER, QUEUE_ID, DELIVERY_ID (the same for the same message and recipients in every attempt),
    RECIPIENTS (one a line), RECIPIENT and ORIGINAL_RECIPIENT (``per="recipient"`` only), and, where it is known,
    CLIENT_ADDRESS, CLIENT_HOSTNAME, CLIENT_HELO, CLIENT_PROTOCOL, SASL_USERNAME; of ours, PATH, HOME, USER, LOGNAME,
    SHELL, LANG, LC_ALL, TZ, TMPDIR.

    Replies: by ``OUTCOMES``; 451 for any other status, for a signal, for the timeout and for a program that cannot be
    started; 553 5.1.3 for an address that it could take for an option. The last line of its output is in the text.
    """

    def __init__(
        self,
        *argv: str,
        per: Per = "recipient",
        timeout: float = 300,
        concurrency: int = 4,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        hostname: str | None = None,
        envelope_to: bool = False,
        keeps_crlf: bool = False,
    ) -> None:
        """Take the settings; start nothing."""
        _check(argv, per)
        self._argv: Final = argv
        self._per: Final[Per] = per
        self._timeout: Final = timeout
        self._slots: Final = trio.CapacityLimiter(concurrency)
        self._folder: Final = folder
        self._environment: Final = environment or {}
        self._hostname: Final = hostname or own_hostname()
        self._envelope_to: Final = envelope_to
        self._keeps_crlf: Final = keeps_crlf

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Run the program. Cancellation ends it, with its process group, before it has seen the end of its input."""

        async def one(recipients: Sequence[Recipient]) -> Reply:
            async with self._slots:
                return await self._run(attempt, recipients)

        return await ask(self._per, attempt.recipients, one)

    async def _run(self, attempt: Attempt, recipients: Sequence[Recipient]) -> Reply:
        entry = attempt.entry
        words = _words(entry, recipients)
        argv: list[str] = []
        for argument in self._argv:
            name = _PLACEHOLDER.fullmatch(argument)
            if name is None:
                argv.append(argument)
                continue
            argv += words[name[1]]
            if any(word.startswith("-") for word in words[name[1]]):
                return _OPTION
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment = {**kept, **_variables(entry, recipients, self._per), **self._environment}
        recipient = recipients[0] if self._per == "recipient" else None
        copy = Copy(entry, recipient, self._hostname, envelope_to=self._envelope_to, keeps_crlf=self._keeps_crlf)
        program = Program(argv, environment, self._folder)
        try:
            with trio.fail_after(self._timeout):
                return _reply(await program.run(copy.pieces(attempt.message)))
        except (OSError, SpoolError) as error:
            return trouble(error)
        except trio.TooSlowError:
            return _TIMED_OUT


def _check(argv: Sequence[str], per: Per) -> None:
    if not argv or not argv[0]:
        msg = "a command needs a program"
        raise ConfigError(msg)
    for argument in argv:
        for name in _PLACEHOLDER.findall(argument):
            if name not in _PLACEHOLDERS[per]:
                known = ", ".join(f"{{{each}}}" for each in sorted(_PLACEHOLDERS[per]))
                msg = f"command argument {argument!r}: {{{name}}} is unknown where it runs per {per}, there are {known}"
                raise ConfigError(msg)
            if argument != f"{{{name}}}":
                msg = f"command argument {argument!r}: {{{name}}} must be the whole argument"
                raise ConfigError(msg)


def _words(entry: Entry, recipients: Sequence[Recipient]) -> Mapping[str, Sequence[str]]:
    """Give what stands in the place of each placeholder."""
    [first, *_] = recipients
    mailbox = entry.envelope.reverse_path.mailbox
    return {
        "recipient": [str(first)],
        "recipients": [str(recipient) for recipient in recipients],
        "original_recipient": [str(first.original or first)],
        "sender": ["" if mailbox is None else str(mailbox)],
        "queue_id": [entry.queue_id],
    }


def _variables(entry: Entry, recipients: Sequence[Recipient], per: Per) -> Mapping[str, str]:
    """Give what the program is told in its environment."""
    words, client = _words(entry, recipients), entry.client
    named = {name.upper(): "\n".join(words[name]) for name in _PLACEHOLDERS[per]}
    known = {
        "CLIENT_ADDRESS": client.address,
        "CLIENT_HOSTNAME": client.host,
        "CLIENT_HELO": client.session.hello,
        "CLIENT_PROTOCOL": protocol_name(entry),
        "SASL_USERNAME": client.session.identity,
    }
    told = {name: _printable(str(value)) for name, value in known.items() if value is not None}
    return {**named, "DELIVERY_ID": entry.key(*recipients), **told}


def _reply(ended: Ended) -> Reply:
    lines = [line.strip() for line in ended.output.decode(errors="replace").splitlines()]
    said = next((line[:_LINE_SIZE] for line in reversed(lines) if line), "")
    outcome = OUTCOMES.get(ended.status) or _Outcome(451, EnhancedStatus(4, 3, 0), _unknown(ended.status))
    text = f"{outcome.text}: {said}" if said else outcome.text
    return Reply(outcome.code, _printable(text), outcome.status)


def _unknown(status: int) -> str:
    if status >= 0:
        return f"the program ended with status {status}"
    try:
        return f"the program was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"the program was killed by signal {-status}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
