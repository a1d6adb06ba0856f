"""``--deliver``, which may be given several times: at most once for all recipients, and for domains and addresses.

Its one rule: addresses go before domains, and domains before what is for all, wherever they stand on the line.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import final

from smtprecv.cli._scheme import MakeDelivery, read_delivery
from smtprecv.deliveries import Route, Router
from smtprecv.delivery import Delivery
from smtprecv.errors import ConfigError


@final
@dataclass(frozen=True, slots=True)
class Routes:
    """Deliveries, each with whom it is for: a domain, ``.domain`` or an address; None for all. A MakeDelivery."""

    routes: tuple[tuple[str | None, MakeDelivery], ...]

    def __call__(self, *, hostname: str, envelope_to: bool = False) -> Delivery:
        """Make the only delivery that is for all, or a router."""
        made = [(to, make(hostname=hostname, envelope_to=envelope_to)) for to, make in self.routes]
        (first, delivery), *others = made
        if first is None and not others:
            return delivery
        made.sort(key=lambda each: (each[0] is None, "@" not in (each[0] or "")))
        return Router(*[Route(each) if to is None else Route(each, to) for to, each in made])

    def plus(self, other: Routes) -> Routes:
        """Give both; ConfigError if two are for the same."""
        routes = (*self.routes, *other.routes)
        names = [to for to, _ in routes]
        for name in names:
            if names.count(name) > 1:
                whom = "all recipients" if name is None else name
                msg = f"there are two deliveries for {whom}; write one of them DOMAIN=…, .DOMAIN=… or ADDRESS=…"
                raise ConfigError(msg)
        return Routes(routes)


def read_routes(text: str) -> Routes:
    """Read one ``[TO=]DELIVERY``; ConfigError or ValueError for anything else."""
    to, equals, rest = text.partition("=")
    # A delivery has a colon before any equals sign, and so has no domain; an IPv6 literal has brackets.
    if not equals or (":" in to and not to.endswith("]")):
        return Routes(((None, read_delivery(text)),))
    make = read_delivery(rest)
    Route(make(hostname="localhost"), to)
    return Routes(((to.lower(), make),))


@final
class AddRoutes(argparse.Action):
    """Puts together what is given several times."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Add one."""
        before: object = getattr(namespace, self.dest)
        if isinstance(before, Routes) and isinstance(values, Routes):
            try:
                values = before.plus(values)
            except ConfigError as error:
                raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, values)
