"""The words of what delivers: where mail goes, when again, and where the log of that goes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from smtprecv.cli._log import FACILITIES, read_log_name, read_log_target
from smtprecv.cli._queue_arguments import SILENT, add_ids, add_queue
from smtprecv.cli._routes import AddRoutes, read_routes
from smtprecv.cli._scheme import FORMS, read_delivery
from smtprecv.cli._values import read_duration, read_host, read_number, value
from smtprecv.hostname import own_hostname
from smtprecv.queue import DestinationLimits


def add_runqueue(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``smtprecv runqueue``."""
    add_queue(parser)
    add_delivery(parser, is_required=True)
    add_log(parser)
    add_ids(parser, "try this message, due or not, its failed recipients too; by default all that are due")


def add_showqueue(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``smtprecv showqueue``."""
    add_queue(parser)
    parser.set_defaults(**SILENT)
    parser.add_argument("--json", action="store_true", help="write one object a line")
    parser.epilog = (
        "The keys of an object are id, size, arrival, sender, body, smtputf8, ret, envid, deliver_by, priority, "
        "require_tls, auth, client, last_attempt, next_attempt, held, warned, report_of, error, note_size and "
        "recipients; those of a "
        "client are address, "
        "port, host, ident, dialect, hello, tls (version, cipher, bits, client_name) and identity; those of a "
        "recipient are address, original, notify, orcpt, status, attempts, last_reply and next_attempt. What was not "
        "given is null; envid and orcpt are as the client wrote them, and notify is empty for NEVER."
    )
    _add_where(parser, "also ask there who has a message already, though that is not recorded yet", is_required=False)
    add_ids(parser, "show this message; by default all")


def add_log(parser: argparse.ArgumentParser) -> None:
    """Add where the log goes."""
    add = parser.add_argument_group("the log").add_argument
    add("--log", metavar="text|json|syslog|journal", type=value(read_log_target), default="text",
        help="text or json on standard error, or the daemon that does the logging here; syslog:PATH and "
        "journal:PATH name another socket; default %(default)s")  # fmt: skip
    add("--log-name", metavar="NAME", type=value(read_log_name), default="smtprecv",
        help="what this program is called in the log of a daemon, default %(default)s")  # fmt: skip
    add("--log-facility", metavar="NAME", choices=FACILITIES, default="mail",
        help="the syslog facility, default %(default)s")  # fmt: skip


def add_delivery(parser: argparse.ArgumentParser, *, is_required: bool) -> None:
    """Add where mail goes, and what is done with what cannot go there."""
    text = "{domain}, {local_part} and {address} in the PATH of a Maildir are the recipient's"
    _add_where(parser, f"where mail goes; {text}", is_required=is_required)
    add = parser.add_argument
    add("--bounce", metavar="DELIVERY", type=value(read_delivery),
        help="tell senders what became of their mail; the reports go there, in any form that --deliver has; "
        "without it nobody is told, and who has failed stays in the queue")  # fmt: skip
    add("--envelope-to", action="store_true",
        help="add an X-Envelope-To field to each copy; it tells for whom the copy is, of blind copies too")  # fmt: skip
    for name, default, what in _DURATIONS:
        add(
            f"--{name}",
            metavar="DURATION",
            type=value(read_duration),
            default=default,
            help=f"{what}, default {default}",
        )
    for name, number, what in _DESTINATION_NUMBERS:
        add(f"--{name}", metavar="N", type=value(read_number(1)), default=number, help=f"{what}, default %(default)s")


def _add_where(parser: argparse.ArgumentParser, text: str, *, is_required: bool) -> None:
    add = parser.add_argument
    add("--deliver", required=is_required, metavar="[TO=]DELIVERY", type=value(read_routes), action=AddRoutes,
        help=f"{text}: {FORMS}; may be repeated, TO is a DOMAIN, .DOMAIN or ADDRESS whose mail goes there")  # fmt: skip
    add("--hostname", metavar="NAME", type=value(read_host), default=own_hostname(),
        help="this receiver's own name, default %(default)s")  # fmt: skip


_DURATIONS: Final[Sequence[tuple[str, str, str]]] = (
    ("retry-first", "5m", "the wait after the first failure; each next one is twice as long"),
    ("retry-max", "4h", "the longest wait"),
    ("give-up", "5d", "the age past which a message is not tried again"),
    ("warn-after", "4h", "the age from which on its sender is warned that it is late, with --bounce"),
    ("destination-pause", "30s", "the first pause of a destination that is not well; each next one is twice as long"),
    ("destination-pause-max", "15m", "the longest pause"),
)

_DESTINATIONS: Final = DestinationLimits()
_DESTINATION_NUMBERS: Final[Sequence[tuple[str, int, str]]] = (
    (
        "destination-concurrency",
        _DESTINATIONS.concurrency,
        "attempts at one time at one next hop or web hook",
    ),
    ("destination-failures", _DESTINATIONS.failures, "failures in a row after which a destination has a pause"),
)
