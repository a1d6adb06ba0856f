"""Names of a package that cost nothing until they are asked for (PEP 562).

Its one rule: what type checkers see imported is just what a program gets, and no other name is there; so a package
shows them its imports under TYPE_CHECKING, and hides its ``__getattr__`` from them, which would take any name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from importlib import import_module


def on_demand(
    package: str, names: Sequence[str], homes: Sequence[str], namespaces: Collection[str] = ()
) -> tuple[Callable[[str], object], Callable[[], Sequence[str]]]:
    """Give ``__getattr__`` and ``__dir__`` for a package of these names.

    A name is in the first of the modules ``homes`` that has it, the cheapest first, or is one of the modules
    ``namespaces``. It is looked for once.
    """

    def get_attribute(name: str) -> object:
        if name not in names:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        if name in namespaces:
            return import_module(f"{package}.{name}")
        modules = (import_module(f"{package}.{home}") for home in homes)
        found: object = next(getattr(module, name) for module in modules if hasattr(module, name))
        setattr(sys.modules[package], name, found)
        return found

    def get_names() -> Sequence[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return get_attribute, get_names
