"""The command ``smtprecv``: receive mail, run its queue, look at it, name users.

Its one rule: whatever can be the operator's to mend is one line on standard error that names the
culprit, and an exit status: 2 for what was asked wrongly, 1 for what could not be done.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from io import TextIOWrapper
from typing import Final

from smtprecv.cli._arguments import Options, parse_arguments
from smtprecv.cli._terminal import Sparing, reason, say
from smtprecv.errors import ConfigError, SpoolError

__all__ = ["main"]

_SPARING_TIME: Final = 60.0
"""Seconds between two lines on a want of file descriptors."""

_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_PIPE_BROKEN: Final = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default those of the process, and give its exit status.

    SystemExit for ``--help``, ``--version`` and arguments that cannot be read.
    """
    _complete_standard_streams()
    complain = partial(say, "smtprecv")
    status = 0
    try:
        options = parse_arguments(argv)
        complain = partial(say, f"smtprecv {options.command}")
        # What a pass does is in its one line of output: cron mails whatever else is said.
        level = logging.INFO if options.command == "serve" else logging.WARNING
        number = None if options.worker is None else options.worker.number
        _configure_output(level, options.log.handler(options.log_name, options.log_facility, number))
        status = _run(options, sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except* KeyboardInterrupt:
        status = _INTERRUPTED
    except* BrokenPipeError:
        # Nobody reads: not an error. What is still in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _PIPE_BROKEN
    except* ConfigError as errors:
        complain(reason(errors))
        status = 2
    except* (SpoolError, OSError) as errors:
        complain(reason(errors))
        status = 1
    return status


def _run(options: Options, argv: Sequence[str]) -> int:
    """Run the command in this process, or in several; give its exit status."""
    if options.workers > 1 and options.worker is None:
        from smtprecv.cli._supervisor import supervise

        return supervise(options, argv)
    # What is imported stays to the end: to look for garbage in it is time lost, now and later.
    gc.disable()
    import trio

    command = _command(options.command)
    gc.freeze()
    gc.enable()
    return trio.run(command, options)


def _command(name: str) -> Callable[[Options], Awaitable[int]]:
    """Import a command, and none of the others."""
    match name:
        case "serve":
            from smtprecv.cli._serve import serve as command
        case "runqueue":
            from smtprecv.cli._runqueue import runqueue as command
        case "showqueue":
            from smtprecv.cli._showqueue import showqueue as command
        case "queue":
            from smtprecv.cli._queue import queue as command
        case _:
            from smtprecv.cli._passwd import passwd as command
    return command


def _complete_standard_streams() -> None:
    """Let no file of the queue become a standard stream, for others to write into, where those were closed."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  # for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115  # for as long as the process lives


def _configure_output(level: int, handler: logging.Handler) -> None:
    """Log by this handler; let no character that the terminal lacks end the command."""
    logging.basicConfig(level=level, handlers=[handler])
    # No form of ours tells these, and each record would look them up. The last is who calls: a walk up the stack, which
    # the manual of logging ("Optimization") says to leave out by this name, and types don't know.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    setattr(logging, "_srcfile", None)  # noqa: B010
    # Ten times a second, for as long as there are no file descriptors left.
    logging.getLogger("smtprecv.server.accept").addFilter(Sparing(_SPARING_TIME))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
