"""The rules of the source that no linter knows: its sizes, its few escapes, its three nets."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "smtprecv"
MODULES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))

MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 40

NETS = {
    "deliveries/_load.py": 1,
    "deliveries/_router.py": 1,
    "note.py": 1,
    "queue/_attempts.py": 2,
    "queue/_bounces.py": 1,
    "queue/_schedule.py": 1,
    "server/_answers.py": 1,
    "server/_dialogue.py": 1,
    "server/_direct.py": 1,
    "spool/_work.py": 1,
    "spool/_jobs.py": 2,
    "spool/_writer.py": 1,
    "testing/_delivery.py": 1,
}
"""Where `except Exception` stands, and how often: around what is the user's (the note, the delivery attempt, its
destination, the retry policy, the answer of a delivery to who reports, the policy hook or intake, the function in a
transaction of the spool), a dialogue, one member of a group commit (it must not fail the others), one step behind a
COMMIT, a delivery that is held to its contract, one route of several, a module that is loaded."""


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Give each function of a module."""
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function from `def` to its end, the docstring not counted."""
    docstring = ast.get_docstring(function, clean=False)
    size = (function.end_lineno or function.lineno) - function.lineno + 1
    return size if docstring is None else size - len(docstring.split("\n"))


@pytest.mark.parametrize("module", MODULES)
def test_size(module: str) -> None:
    """A module has at most 350 lines, a function at most 40 beside its docstring."""
    source = (ROOT / module).read_text()
    assert source.count("\n") <= MAX_MODULE_LINES
    assert [f.name for f in functions(ast.parse(source)) if code_lines(f) > MAX_FUNCTION_LINES] == []


@pytest.mark.parametrize("module", MODULES)
def test_no_escape_from_the_types(module: str) -> None:
    """Nothing in the source is `Any`, cast, or hidden from a type checker."""
    source = (ROOT / module).read_text()
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    comments = [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
    assert names & {"Any", "cast"} == set()
    assert [comment for comment in comments if "type: ignore" in comment or "pyright: " in comment] == []


def test_nets() -> None:
    """`except Exception` stands where NETS says, a bare `except` nowhere."""
    caught = [
        (module, "nothing" if node.type is None else ast.unparse(node.type))
        for module in MODULES
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.ExceptHandler)
    ]
    nets = [module for module, kind in caught if kind == "Exception"]
    assert {module: nets.count(module) for module in nets} == NETS
    assert [module for module, kind in caught if kind == "nothing"] == []
