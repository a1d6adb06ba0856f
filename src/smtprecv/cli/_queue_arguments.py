"""The words of ``smtprecv queue``: a verb, which messages, and how to do it.

Its one rule: what changes mail wants to be told which; the whole queue is ``ALL``, and never a slip of the finger.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from smtprecv.cli._log import LogTarget
from smtprecv.cli._values import read_duration, read_host, read_number, read_path, read_queue_id, value
from smtprecv.protocol import parse_forward_path

_Add: TypeAlias = Callable[[argparse.ArgumentParser], None]

SILENT: Final[Mapping[str, object]] = {"log": LogTarget(), "log_name": "smtprecv", "log_facility": "mail"}
"""What a command has that writes no log."""
ALL: Final = "ALL"
"""What stands for every message."""

_STATUSES: Final = ("pending", "failed", "delivered", "held")


def add_queue(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the queue."""
    parser.add_argument("--queue", required=True, metavar="DIR", type=value(read_path), help="the queue's folder")


def add_ids(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the ids of messages."""
    parser.add_argument("ids", nargs="*", metavar="ID", type=value(read_queue_id), help=text)


def add_queue_command(parser: argparse.ArgumentParser) -> None:
    """Add the verbs, each with its own arguments."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in _VERBS.items():
        verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        verb.set_defaults(**SILENT)
        add_queue(verb)
        for add in _ARGUMENTS[name]:
            add(verb)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("which messages: those that pass every filter").add_argument
    add("--sender", dest="senders", action="append", default=[], metavar="ADDRESS", type=value(_read_sender),
        help="from there; <> is the null reverse-path")  # fmt: skip
    add("--older-than", metavar="DURATION", type=value(read_duration), help="that have been there for so long")
    add("--recipient", dest="recipients", action="append", default=[], metavar="ADDRESS", type=value(_read_address),
        help="for this recipient")  # fmt: skip
    add("--domain", dest="domains", action="append", default=[], metavar="DOMAIN", type=value(read_host),
        help="for a recipient in this domain")  # fmt: skip
    add("--status", dest="statuses", action="append", default=[], choices=_STATUSES,
        help="with a recipient that is so, or held")  # fmt: skip
    parser.epilog = (
        "A filter that is repeated is passed by what fits one of its values. What is chosen by recipient, domain or "
        "status is these recipients of a message: retry, redirect and remove leave its others as they are."
    )


def _add_which(parser: argparse.ArgumentParser) -> None:
    _add_filters(parser)
    add_ids(parser, f"this message; {ALL} for every message")


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", metavar="N", type=value(read_number(1)), help="stop after so many messages")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="write one object a line")


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="change nothing; say what would be done")


def _add_to(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", action="append", required=True, metavar="ADDRESS", type=value(_read_address),
        help="where the message goes instead; may be repeated")  # fmt: skip


def _add_export(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--to", dest="folder", required=True, metavar="FOLDER", type=value(read_path),
        help="where the files go; made where it is not there")  # fmt: skip
    add("--remove", action="store_true", help="take the messages out of the queue when their files are on disk")
    _add_which(parser)
    parser.epilog = (
        "Each message becomes two files, ID.eml with its octets and ID.json with everything else; no file is written "
        "over. Without --remove it is a copy: deliver both, and everybody gets the message twice. A filter that fits "
        "one recipient chooses the message with all of them."
    )


def _add_import(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", type=value(read_path), help="ID.json beside its ID.eml, or a folder")
    add("--hold", action="store_true", help="let the messages wait until they are released")
    add("--remove", action="store_true", help="remove the files of what is in the queue now")
    parser.epilog = (
        "A message keeps its id, its recipients' standings and its times; one that is in the queue already is left as "
        "it is, with its files. The queue is made where it is not there."
    )


def _add_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs=1, metavar="ID", type=value(read_queue_id), help="the message")


def _add_listed(parser: argparse.ArgumentParser) -> None:
    _add_filters(parser)
    add_ids(parser, "this message; by default all")


def _read_address(text: str) -> str:
    return str(parse_forward_path(text))


def _read_sender(text: str) -> str:
    return "" if text == "<>" else _read_address(text)


_VERBS: Final[Mapping[str, str]] = {
    "list": "list messages, with each recipient's standing",
    "show": "show all that is known of a message",
    "cat": "write the octets of a message to standard output",
    "verify": "look for faults in the whole queue; status 1 if there are any",
    "hold": "let messages wait until they are released",
    "release": "end the hold of messages",
    "retry": "make what failed or waits due now; what is held must be released first",
    "redirect": "send messages elsewhere, for the recipients that do not have them yet",
    "remove": "remove messages that were not delivered; no sender is told",
    "flush": "make what waits due now",
    "export": "write messages to files; without --remove they stay in the queue, and the files are copies",
    "import": "take messages in from files",
}
_STEERING: Final = (_add_limit, _add_dry_run, _add_json, _add_which)
_ARGUMENTS: Final[Mapping[str, Sequence[_Add]]] = {
    "list": (_add_limit, _add_json, _add_listed),
    "show": (_add_json, _add_one),
    "cat": (_add_one,),
    "verify": (),
    "hold": _STEERING,
    "release": _STEERING,
    "retry": _STEERING,
    "redirect": (_add_to, *_STEERING),
    "remove": _STEERING,
    "flush": _STEERING,
    "export": (_add_limit, _add_dry_run, _add_json, _add_export),
    "import": (_add_dry_run, _add_json, _add_import),
}
