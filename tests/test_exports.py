"""What is public: the names that `smtprecv` exports, and its namespaces.

Those are `control`, `moving`, `protocol`, `sasl`, `testing`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
from types import ModuleType

import pytest

import smtprecv

NAMESPACES = (
    "smtprecv",
    "smtprecv.control",
    "smtprecv.moving",
    "smtprecv.protocol",
    "smtprecv.sasl",
    "smtprecv.testing",
)
PROGRAM = "smtprecv.cli"
"""The command: its users type, they do not import."""

BETWEEN_LAYERS = {
    "smtprecv.dsn.Action",
    "smtprecv.dsn.Original",
    "smtprecv.dsn.Outcome",
    "smtprecv.dsn.Notification",
    "smtprecv.dsn.Survey",
    "smtprecv.dsn.delayed",
    "smtprecv.dsn.notification",
    "smtprecv.dsn.reportable",
    "smtprecv.dsn.returns_all",
    "smtprecv.dsn.settled",
    "smtprecv.dsn.wanted",
    "smtprecv.delivery.running",
    "smtprecv.durable.sync",
    "smtprecv.errors.cancellation_in",
    "smtprecv.errors.is_group",
    "smtprecv.note.Notebook",
    "smtprecv.policies.read_keys",
    "smtprecv.policies.read_user",
    "smtprecv.policies.with_keys",
    "smtprecv.policies.without_user",
    "smtprecv.relay.NOT_A_REPLY",
    "smtprecv.relay.OUT_OF_STEP",
    "smtprecv.relay.REFUSALS",
    "smtprecv.relay.BareLineEnd",
    "smtprecv.relay.Compute",
    "smtprecv.relay.DotStuffer",
    "smtprecv.relay.Handover",
    "smtprecv.relay.Handshake",
    "smtprecv.relay.NextHop",
    "smtprecv.relay.Phase",
    "smtprecv.relay.ReplyReader",
    "smtprecv.relay.Say",
    "smtprecv.relay.SendMail",
    "smtprecv.relay.SessionFailed",
    "smtprecv.relay.Step",
    "smtprecv.relay.Terms",
    "smtprecv.relay.bdat",
    "smtprecv.relay.must_inspect",
    "smtprecv.relay.opening",
    "smtprecv.relay.transaction",
    "smtprecv.resolver.Answer",
    "smtprecv.resolver.Resolver",
    "smtprecv.retry.fraction",
    "smtprecv.server.INHERITED",
    "smtprecv.server.host_in",
    "smtprecv.server.parse_address",
    "smtprecv.server.parse_network",
    "smtprecv.spool.Document",
    "smtprecv.spool.PassingBody",
    "smtprecv.spool.Scratch",
    "smtprecv.spool.document_text",
    "smtprecv.spool.read_document",
    "smtprecv.trace.delivered_to_field",
    "smtprecv.trace.divider",
    "smtprecv.trace.envelope_to_field",
    "smtprecv.trace.line_safe",
    "smtprecv.trace.protocol_name",
    "smtprecv.trace.received_field",
    "smtprecv.trace.return_path_field",
    "smtprecv.trace.trace_fields",
    "smtprecv.trace.word",
}
"""What one layer shows to those above it, and not to users: how addresses and networks are read from the command line,
how password files are written, how deliveries write trace fields, what they say to the next hop and when they are run,
how a group of exceptions is told apart, how the DNS is asked, where octets are that
pass without a queue, how an entry is written outside of one."""

MODULES = [
    module.name
    for module in pkgutil.walk_packages(smtprecv.__path__, "smtprecv.")
    if not module.name.endswith(".__main__")
]
PUBLIC_MODULES = [name for name in MODULES if "._" not in name and not name.startswith(PROGRAM)]


def exports(name: str) -> list[str]:
    """Give the public names of a module: a package's `__all__`, or what the module defines without an underscore."""
    module = importlib.import_module(name)
    return list(module.__all__) if hasattr(module, "__path__") else defined(module)


def defined(module: ModuleType) -> list[str]:
    """Give the names without an underscore that the module itself assigns or defines at its top."""
    names: list[str] = []
    for node in ast.parse(inspect.getsource(module)).body:
        match node:
            case ast.ClassDef(name) | ast.FunctionDef(name) | ast.AsyncFunctionDef(name):
                names.append(name)
            case ast.AnnAssign(ast.Name(name)) | ast.Assign([ast.Name(name)]):
                names.append(name)
            case _:
                pass
    return [name for name in names if not name.startswith("_")]


def documented_values() -> set[str]:
    """Give the names of all values in the package that a docstring follows."""
    names: set[str] = set()
    for module in MODULES:
        body = ast.parse(inspect.getsource(importlib.import_module(module))).body
        for node, following in itertools.pairwise(body):
            match node, following:
                case ast.AnnAssign(ast.Name(name)) | ast.Assign([ast.Name(name)]), ast.Expr(ast.Constant(str())):
                    names.add(name)
                case _:
                    pass
    return names


@pytest.mark.parametrize("name", NAMESPACES)
def test_exports(name: str) -> None:
    """Each name that a namespace exports exists, stands there once, and is documented."""
    module = importlib.import_module(name)
    names = exports(name)
    values = documented_values()
    assert names == list(dict.fromkeys(names))
    assert [n for n in names if not hasattr(module, n)] == []
    undocumented = [n for n in names if n not in values and not describes_itself(getattr(module, n))]
    assert undocumented == []


@pytest.mark.parametrize("name", ["smtprecv", "smtprecv.protocol"])
def test_names_on_demand(name: str) -> None:
    """What type checkers see imported is what a program gets that asks for the name, and no other name is there."""
    package = importlib.import_module(name)
    seen: dict[str, object] = {}
    for node in ast.walk(ast.parse(inspect.getsource(package))):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith(name):
            home = importlib.import_module(node.module)
            seen |= {alias.name: getattr(home, alias.name) for alias in node.names}
    seen.pop("on_demand", None)
    assert sorted(seen) == sorted(exports(name))
    assert [each for each, value in seen.items() if getattr(package, each) is not value] == []
    assert set(exports(name)) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'Sever'"):
        getattr(package, "Sever")  # noqa: B009  # no name that type checkers know


def describes_itself(value: object) -> bool:
    """Say whether a class, function or module has a docstring of its own."""
    return (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)) and bool(value.__doc__)


def test_nothing_public_outside() -> None:
    """What a module shows without an underscore is exported by one of the namespaces, but for these few."""
    public = {name for namespace in NAMESPACES for name in exports(namespace)}
    outside = {f"{module}.{name}" for module in PUBLIC_MODULES for name in exports(module) if name not in public}
    assert outside == BETWEEN_LAYERS
