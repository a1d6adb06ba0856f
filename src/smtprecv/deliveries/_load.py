"""A delivery of the user's own, found by ``module:name``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final, TypeGuard

from smtprecv.delivery import Delivery
from smtprecv.errors import ConfigError

_FORM: Final = "write MODULE:NAME"


def load_delivery(text: str) -> Delivery:
    """Import the module, and give the delivery of this name: the object itself, or what a class or function makes.

    A class or a function is called without arguments. ConfigError if there is no such module or name, if what is
    there is no delivery, or if the module or the call raises; the text says which.
    """
    module_name, colon, name = text.partition(":")
    if not colon or not name or not all(part.isidentifier() for part in module_name.split(".")):
        msg = f"python {text!r}: {_FORM}"
        raise ConfigError(msg)
    # What runs here is the user's code, and may raise whatever it likes.
    try:
        found: object = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
        made = found() if _is_factory(found) else found
    except Exception as error:
        msg = f"python {text!r}: {type(error).__name__}: {error}"
        raise ConfigError(msg) from error
    if not isinstance(made, Delivery):
        msg = f"python {text!r} is no delivery: {type(made).__name__} has no method deliver"
        raise ConfigError(msg)
    return made


def _is_factory(found: object) -> TypeGuard[Callable[[], object]]:
    """Say whether this makes deliveries, and is none: a class has all the methods of its objects."""
    return isinstance(found, type) or (callable(found) and not isinstance(found, Delivery))
