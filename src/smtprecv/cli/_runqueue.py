"""``smtprecv runqueue``: one pass over what is due, or over named messages."""

from __future__ import annotations

import sys
from typing import Final

from smtprecv.cli._arguments import Options
from smtprecv.cli._terminal import say
from smtprecv.errors import ConfigError
from smtprecv.queue import run_once
from smtprecv.spool import open_spool

_NAME: Final = "smtprecv runqueue"


async def runqueue(options: Options) -> int:
    """Make one pass and print one line on it. Status 1 if a named message is not in the queue.

    SpoolError for a folder without a queue, which stays as it is.
    """
    delivery = options.delivery
    if delivery is None:
        msg = "--deliver is needed to run the queue"
        raise ConfigError(msg)
    async with open_spool(options.queue, create=False) as spool:
        report = await run_once(
            spool,
            delivery,
            options.backoff,
            ids=options.ids or None,
            bounces=options.bounces,
            destinations=options.destinations,
        )
    sys.stdout.write(f"{report.delivered} delivered, {report.deferred} deferred, {report.failed} failed\n")
    for queue_id in report.busy:
        say(_NAME, f"{queue_id} is being delivered by another process")
    for queue_id in report.missing:
        say(_NAME, f"{queue_id} is not in the queue")
    return 1 if report.missing else 0
