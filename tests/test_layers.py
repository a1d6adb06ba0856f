"""The layers of the package: a module imports only its own layer and those below."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "smtprecv"
MODULES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"_on_demand"}),
    frozenset({"protocol"}),
    frozenset({"durable", "errors", "message", "hostname", "resolver", "sasl"}),
    frozenset({"trace", "retry", "spool", "dsn", "relay"}),
    frozenset({"note", "delivery", "policy"}),
    frozenset({"control", "moving", "queue", "server", "deliveries", "policies", "testing"}),
    frozenset({"__init__"}),
    frozenset({"cli", "__main__"}),
)
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}
PURE = frozenset(
    {"_on_demand", "protocol", "retry", "trace", "dsn", "errors", "message", "sasl", "relay", "delivery", "policy"}
)
"""The parts that import nothing outside the standard library; the others may import Trio, and nothing else."""
OPTIONAL = {"resolver.py": "dns", "deliveries/_http.py": "httpx2"}
"""The modules around what is optional, and the one package that each of them imports."""


def imported(source: str) -> Iterator[str]:
    """Give the full name of each module that the source imports; for a relative import, which is not our way, dots."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom("smtprecv" | None as package, names, level):
                yield from ("." * level or f"{package}.{alias.name}" for alias in names)
            case ast.ImportFrom(str(module), _, level):
                yield "." * level or module
            case _:
                pass


def violations(part: str, source: str, optional: str | None = None) -> list[str]:
    """Give the imports that a module of this part may not have."""
    return [name for name in imported(source) if not is_allowed(part, name) and name.split(".")[0] != optional]


def is_allowed(part: str, name: str) -> bool:
    """Say whether a module of this part may import that one."""
    package, *rest = name.split(".")
    if package == "smtprecv":
        return bool(rest) and HEIGHT.get(rest[0], len(LAYERS)) <= HEIGHT[part]
    return package in sys.stdlib_module_names or (package == "trio" and part not in PURE)


@pytest.mark.parametrize("module", MODULES)
def test_layer(module: str) -> None:
    """A module imports its own layer and those below, the standard library, and Trio if it is not a pure part."""
    part = Path(module).parts[0].removesuffix(".py")
    assert violations(part, (ROOT / module).read_text(), OPTIONAL.get(module)) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("protocol", "import trio"),
        ("protocol", "from smtprecv.errors import SpoolError"),
        ("protocol", "from smtprecv import message"),
        ("spool", "import smtprecv.queue"),
        ("spool", "def f():\n    from smtprecv.server import Server"),
        ("server", "from smtprecv import Server"),
        ("queue", "import attrs"),
        ("server", "from . import _dialogue"),
    ],
)
def test_violation_is_seen(part: str, source: str) -> None:
    """Each kind of import that breaks the layers is found."""
    assert len(violations(part, source)) == 1
