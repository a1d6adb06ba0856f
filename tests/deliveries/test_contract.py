"""Every delivery of ours passes the contract suite that every delivery must pass."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.deliveries.webserver import Web, web

from smtprecv.deliveries import Command, Format, Maildir, Mbox, Per, Webhook
from smtprecv.delivery import Delivery
from smtprecv.server import Networks
from smtprecv.testing import Copies, OpenDelivery
from smtprecv.testing._delivery import CHECKS, Place

Kind = Callable[[Path], tuple[OpenDelivery, Copies]]
Check = Callable[[Place], Awaitable[None]]


def maildirs(folder: Path) -> tuple[OpenDelivery, Copies]:
    """Deliver into Maildirs."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Delivery, None]:
        yield Maildir(folder / "{domain}" / "{local_part}")

    async def copies() -> Sequence[bytes]:
        return [path.read_bytes() for path in folder.glob("*/*/new/*")]

    return opened, copies


def mboxes(folder: Path) -> tuple[OpenDelivery, Copies]:
    """Deliver into mbox files, which are read as mboxrd: no line but a separator begins with From."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Delivery, None]:
        yield Mbox(folder / "{local_part}")

    async def copies() -> Sequence[bytes]:
        found: list[bytes] = []
        for path in folder.glob("[a-zA-Z]*"):
            _, *messages = re.split(rb"^From .*\n", path.read_bytes(), flags=re.MULTILINE)
            found += [re.sub(rb"^>(>*From )", rb"\1", message, flags=re.MULTILINE) for message in messages]
        return found

    return opened, copies


def commands(per: Per, folder: Path) -> tuple[OpenDelivery, Copies]:
    """Deliver to a shell script that takes its input whole, and says so by its name."""
    script = 'cat > "$FOLDER/.$$" && mv "$FOLDER/.$$" "$FOLDER/$DELIVERY_ID"'

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Delivery, None]:
        yield Command("/bin/sh", "-c", script, per=per, environment={"FOLDER": str(folder)})

    async def copies() -> Sequence[bytes]:
        return [path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")]

    return opened, copies


def hooks(format_: Format, folder: Path) -> tuple[OpenDelivery, Copies]:
    """Deliver to a web server."""
    servers: list[Web] = []

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Delivery, None]:
        with web() as server:
            servers.append(server)
            per: Per = "message" if format_ == "json" else "recipient"
            yield Webhook(server.url(), format=format_, per=per, allowed=Networks.of("127.0.0.1"))

    async def copies() -> Sequence[bytes]:
        bodies = [body for server in servers for body in server.taken.values()]
        return [base64.b64decode(json.loads(body)["message"]) if format_ == "json" else body for body in bodies]

    return opened, copies


KINDS: Mapping[str, Kind] = {
    "maildir": maildirs,
    "mbox": mboxes,
    "command": partial(commands, "recipient"),
    "command per message": partial(commands, "message"),
    "webhook": partial(hooks, "raw"),
    "webhook multipart": partial(hooks, "multipart"),
    "webhook json per message": partial(hooks, "json"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", CHECKS)
async def test_each_promise(check: Check, kind: str, tmp_path: Path) -> None:
    """The delivery keeps each promise of the Protocol."""
    open_delivery, copies = KINDS[kind](tmp_path)
    async with open_delivery() as delivery:
        await check(Place(delivery, copies))
