"""Delivery into Maildirs: one file for each recipient, whole and on disk, or not there at all.

A file is written under tmp/, fsynced, renamed into new/, and new/ is fsynced; only then is the
answer 250. Its name follows from the message and the recipient, the same in every attempt:
what is done twice is there once, and ``is_delivered`` finds it again. All work on files is done
in threads, and for all that waits at one moment in one hop (``_placing``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar, final

import trio

from smtprecv.deliveries._copy import Copy
from smtprecv.deliveries._folder import FolderTemplate
from smtprecv.deliveries._mailfile import MailFile, is_placed, prepare
from smtprecv.deliveries._placing import GROUP_SIZE, Placing
from smtprecv.deliveries._trouble import trouble
from smtprecv.delivery import Attempt
from smtprecv.errors import SpoolError
from smtprecv.hostname import own_hostname
from smtprecv.protocol import EnhancedStatus, Recipient, Reply
from smtprecv.spool import Entry, RunInThread

_T = TypeVar("_T")

_SMALL_SIZE: Final = 64 * 1024
"""Octets of a message up to which it is read in one piece."""
_BATCH_SIZE: Final = 1024 * 1024
_HOST_SIZE: Final = 128
_PREPARED_SIZE: Final = 10_000
_DELIVERED: Final = Reply(250, "delivered", EnhancedStatus(2, 0, 0))


class _Place(NamedTuple):
    """Where a copy belongs, the same in every attempt."""

    folder: str
    name: str


@final
class Maildir:
    """A Delivery into the Maildir of each recipient, which is made when its first message comes.

    ``template``: the path of the Maildirs, with placeholders as in FolderTemplate (ConfigError for a bad one).
    ``hostname``: the receiver's name in Received fields and file names. Folders get the
    mode 0700, files 0600. Each CRLF is stored as LF, below Return-Path, Delivered-To and Received, and a last line
    without CRLF as it is; the octets of BODY=BINARYMIME (RFC 3030 section 3) are unchanged, below fields with CRLF.
    ``envelope_to``: an X-Envelope-To field too, with the one recipient whose copy it is. Whoever forwards or
    exports such a copy shows who had it, a recipient of a blind copy (Bcc) among them.

    Replies: 250 2.0.0 when file and folder are on disk; 452 4.3.1 for a full disk, 452 4.2.2 for a
    quota, 451 4.3.0 for every other error of the system, each for its recipient alone. A cancelled
    attempt leaves nothing behind but what it had finished. A recipient whose address stands in
    the envelope twice gets one file. Deliveries that wait at the same moment share threads and fsyncs, and nothing
    else: each has its own outcome, and one that is cancelled is waited for once its group has begun.
    """

    def __init__(
        self,
        template: str | Path,
        *,
        hostname: str | None = None,
        envelope_to: bool = False,
        run_in_thread: RunInThread | None = None,
    ) -> None:
        """Take the settings; touch no file."""
        self._template: Final = FolderTemplate(template)
        self._hostname: Final = hostname or own_hostname()
        self._name_suffix: Final = _escaped_host(self._hostname)
        self._envelope_to: Final = envelope_to
        self._run: Final[RunInThread] = run_in_thread or _run_in_thread
        self._placing: Final = Placing(self._run)
        self._prepared: Final[set[str]] = set()

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Write one file for each pending recipient, as many together as 1 MiB of memory holds."""
        recipients = attempt.recipients
        count = min(max(1, _BATCH_SIZE // (attempt.message.size + 1)), GROUP_SIZE)
        replies: list[Reply] = []
        for start in range(0, len(recipients), count):
            replies += await self._answers(attempt, recipients[start : start + count])
        return replies

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        """Look for the file under new/ and, whatever a mail reader made of its name, under cur/.

        A file that was deleted or filed elsewhere is not found. OSError if a folder cannot be read.
        """
        folder, name = self._place(entry, recipient)
        return await self._run(partial(is_placed, Path(folder), name, _name_prefix(entry, recipient)))

    async def _answers(self, attempt: Attempt, recipients: Sequence[Recipient]) -> Sequence[Reply]:
        places = [self._place(attempt.entry, recipient) for recipient in recipients]
        copies = dict(zip(places, recipients, strict=True))
        outcomes = await self._placed(attempt, copies)
        missing = {place: copies[place] for place in copies if isinstance(outcomes[place], FileNotFoundError)}
        if missing:
            # Somebody has removed the Maildir that was there before: it is made anew.
            self._prepared.difference_update(place.folder for place in missing)
            outcomes |= await self._placed(attempt, missing)
        self._prepared.difference_update(place.folder for place in copies if isinstance(outcomes[place], OSError))
        return [_DELIVERED if error is None else trouble(error) for error in map(outcomes.__getitem__, places)]

    async def _placed(
        self, attempt: Attempt, copies: Mapping[_Place, Recipient]
    ) -> dict[_Place, OSError | SpoolError | None]:
        """Place the files of these recipients in one group; give for each what kept it away."""
        outcomes: dict[_Place, OSError | SpoolError | None] = {}
        files = {place: MailFile(*place) for place in copies}
        try:
            for place, recipient in copies.items():
                try:
                    if place.folder not in self._prepared:
                        await self._prepare(place.folder)
                    await self._load(attempt, recipient, files[place])
                except (OSError, SpoolError) as error:
                    outcomes[place] = error
            ready = [place for place in copies if place not in outcomes]
            outcomes |= zip(ready, await self._placing.place([files[place] for place in ready]), strict=True)
        finally:
            for file in files.values():
                if file.is_begun:
                    with trio.CancelScope(shield=True):
                        await self._run(file.discard)
        return outcomes

    async def _prepare(self, folder: str) -> None:
        await self._run(partial(prepare, Path(folder), self._template.prefix))
        if len(self._prepared) >= _PREPARED_SIZE:
            self._prepared.clear()
        self._prepared.add(folder)

    async def _load(self, attempt: Attempt, recipient: Recipient, file: MailFile) -> None:
        """Give a file its octets: up to a batch in memory, a large one on disk, so that no group waits for it."""
        copy = Copy(attempt.entry, recipient, self._hostname, envelope_to=self._envelope_to)
        if attempt.message.size <= _SMALL_SIZE:
            octets = await attempt.message.bytes()
            file.hold(copy.top(octets))
            file.hold(copy.below(octets))
            return
        async with copy.pieces(attempt.message) as pieces:
            async for piece in pieces:
                file.hold(piece)
                if file.held_size >= _BATCH_SIZE:
                    await self._run(file.write)
        if file.is_begun:
            await self._run(file.finish)

    def _place(self, entry: Entry, recipient: Recipient) -> _Place:
        folder = self._template.path(recipient.forward_path.mailbox)
        return _Place(folder, _name_prefix(entry, recipient) + self._name_suffix)


def _name_prefix(entry: Entry, recipient: Recipient) -> str:
    """Name the delivery: when the message came, which it is, and whose copy, with no reference to the attempt."""
    return f"{int(entry.received.timestamp())}.{entry.key(recipient)}."


def _escaped_host(hostname: str) -> str:
    return hostname[:_HOST_SIZE].replace("/", "\\057").replace(":", "\\072")


async def _run_in_thread(function: Callable[[], _T]) -> _T:
    return await trio.to_thread.run_sync(function)
