"""Delivery into mbox files (mboxrd): appended under the locks of local programs, whole or not at all.

The message is written beside the mailbox first, so that the mailbox is locked for one append alone, and never while the
queue is read. Nobody waits for a lock in a thread: it is asked for again, on Trio's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, final

import trio

from smtprecv.deliveries._copy import Copy
from smtprecv.deliveries._dotlock import MailboxLocked
from smtprecv.deliveries._folder import FolderTemplate
from smtprecv.deliveries._mailfile import make_folders
from smtprecv.deliveries._mboxfile import SPARE_SIZE, MboxDraft, holds
from smtprecv.deliveries._mboxrd import FromQuoter, separator
from smtprecv.deliveries._per import ask
from smtprecv.deliveries._trouble import trouble
from smtprecv.delivery import Attempt
from smtprecv.errors import SpoolError
from smtprecv.hostname import own_hostname
from smtprecv.protocol import EnhancedStatus, Recipient, Reply
from smtprecv.spool import Entry, RunInThread

_T = TypeVar("_T")

_BATCH_SIZE: Final = 1024 * 1024
_LOCK_PAUSE: Final = 0.1
_DELIVERED: Final = Reply(250, "delivered", EnhancedStatus(2, 0, 0))
_LOCKED: Final = Reply(450, "the mailbox is locked", EnhancedStatus(4, 2, 0))


@final
class Mbox:
    """A Delivery into the mbox file of each recipient, which is made when its first message comes.

    ``template``: the path of the files, with placeholders as a Maildir's (ConfigError for a bad one). ``hostname``
    and ``envelope_to``: as for Maildir. ``lock_timeout``: seconds to wait for a mailbox that somebody has locked
    (``NAME.lock``, flock or fcntl). The folder must let us make files beside the mailbox. New files get the mode
    0600, new folders 0700. Line ends are stored as LF, and the octets of BODY=BINARYMIME unchanged, but for the ``>``
    before From lines and the line end and the empty line at the end.

    Replies: 250 2.0.0 when the message is on disk; 450 4.2.0 for a mailbox that stays locked; those of Maildir for a
    full disk and other errors, among them a mailbox that is a symbolic link or has several names. After any of
    them the file is as it was, and after SIGKILL or a power cut it is when we open it next.
    """

    def __init__(
        self,
        template: str | Path,
        *,
        hostname: str | None = None,
        envelope_to: bool = False,
        lock_timeout: float = 30,
        run_in_thread: RunInThread | None = None,
    ) -> None:
        """Take the settings; touch no file."""
        self._template: Final = FolderTemplate(template, SPARE_SIZE)
        self._hostname: Final = hostname or own_hostname()
        self._envelope_to: Final = envelope_to
        self._lock_timeout: Final = lock_timeout
        self._run: Final[RunInThread] = run_in_thread or _run_in_thread

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Append one copy for each pending recipient; one for those that the envelope has twice.

        Cancellation ends it between two steps; an append that has begun comes to its end.
        """

        async def one(recipients: Sequence[Recipient]) -> Reply:
            return await self._answer(attempt, recipients[0])

        return await ask("recipient", attempt.recipients, one)

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        """Look for the first lines of the copy: they name the message and the recipient, and nobody can forge them.

        It reads the whole mailbox. A copy that was deleted, filed elsewhere, or written under another hostname is not
        found. OSError if the mailbox cannot be read, TooSlowError if it stays locked.
        """
        start = separator(entry) + self._copy(entry, recipient).trace
        return await self._when_unlocked(partial(holds, self._mailbox(recipient), start))

    async def _answer(self, attempt: Attempt, recipient: Recipient) -> Reply:
        draft = MboxDraft(self._mailbox(recipient), attempt.key(recipient))
        try:
            await self._write(draft, attempt, recipient)
            await self._when_unlocked(draft.append)
        except (OSError, SpoolError) as error:
            return trouble(error)
        except trio.TooSlowError:
            return _LOCKED
        finally:
            if draft.is_open:
                with trio.CancelScope(shield=True):
                    await self._run(draft.discard)
        return _DELIVERED

    async def _write(self, draft: MboxDraft, attempt: Attempt, recipient: Recipient) -> None:
        """Write the draft, with as many hops into a thread as the message has batches."""
        folder = draft.path.parent
        await self._run(partial(make_folders, [*reversed(folder.parents), folder], self._template.prefix))
        quoter = FromQuoter()
        batch = [separator(attempt.entry)]
        batch_size = 0
        async with self._copy(attempt.entry, recipient).pieces(attempt.message) as pieces:
            async for piece in pieces:
                batch.append(quoter.convert(piece))
                batch_size += len(piece)
                if batch_size >= _BATCH_SIZE:
                    await self._run(partial(draft.write, batch))
                    batch, batch_size = [], 0
        await self._run(partial(draft.write, [*batch, quoter.rest()]))

    async def _when_unlocked(self, work: Callable[[], _T]) -> _T:
        """Do what needs the lock as soon as it is free; TooSlowError if that is not in time."""
        with trio.fail_after(self._lock_timeout):
            while True:
                try:
                    return await self._run(work)
                except MailboxLocked:
                    await trio.sleep(_LOCK_PAUSE)

    def _copy(self, entry: Entry, recipient: Recipient) -> Copy:
        return Copy(entry, recipient, self._hostname, envelope_to=self._envelope_to)

    def _mailbox(self, recipient: Recipient) -> Path:
        path = self._template.folder(recipient.forward_path.mailbox)
        # The mailbox of bob.lock must not be the lock of bob's; no other name has this escape.
        return path.with_name(f"{path.name[:-1]}%6B") if path.name.endswith(".lock") else path


async def _run_in_thread(function: Callable[[], _T]) -> _T:
    return await trio.to_thread.run_sync(function)
