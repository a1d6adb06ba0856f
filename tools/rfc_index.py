"""Write docs/rfc.md: what the RFCs require, which module does it, which test proves it, and what is not done.

A comment or docstring in src/ that cites `RFC 5321 section 4.5.2`, or several sections of one RFC in the plural, says
where a requirement is met; a test's docstring or a dialogue that cites it says where that is proved; docs/rfc.toml
has the requirement's words, and the status of what is not done. The rule: none of the three may lack what another
has. `python tools/rfc_index.py` rewrites the page, or names each row that lacks something and ends with status 1.

An RFC that is named without a section is a mention, not a citation.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "rfc.md"
TABLE: Final = ROOT / "docs" / "rfc.toml"
SOURCE: Final = ROOT / "src" / "smtprecv"
TESTS: Final = ROOT / "tests"

HEAD = """\
# The RFCs, section by section

<!-- Written by tools/rfc_index.py from the citations in src/ and tests/ and from docs/rfc.toml. -->

What is asked of a receiver, in our words; the modules (in `src/smtprecv`) that say they do it; the tests (in `tests`)
that prove it. For a section that is not listed here nothing is claimed.
"""
TABLE_HEAD = """\
| section | requirement | module | test | status |
|---|---|---|---|---|
"""

_NUMBER: Final = r"\d+(?:\.\d+)*"
CITATION: Final = re.compile(rf"\bRFC (\d+) (?:section ({_NUMBER})|sections ({_NUMBER}(?:(?:,? and|,) {_NUMBER})+))")
NEAR_MISS: Final = re.compile(r"\b[Ss]ect(?:ion|\.)s? ?\d[\d.]*|§ ?\d[\d.]*|\bRFC-?\d+")
STATUS: Final = re.compile(r"(?:partly|no), .+")


class Section(NamedTuple):
    """A section of an RFC."""

    rfc: int
    number: str

    def __str__(self) -> str:
        """Give it as it is cited."""
        return f"RFC {self.rfc} section {self.number}"


class Requirement(NamedTuple):
    """What a section asks, and "yes", "partly, why" or "no, why"."""

    words: str
    status: str


class Prose(NamedTuple):
    """A run of comment lines, or a docstring: the line it begins on, and its words with single blanks between."""

    line: int
    words: str


Places: TypeAlias = Mapping[Section, list[str]]
Requirements: TypeAlias = Mapping[Section, Requirement]


class Index(NamedTuple):
    """All that the page is made of, and the citations in a form that is not known."""

    titles: Mapping[int, str]
    requirements: Requirements
    modules: Places
    tests: Places
    near_misses: list[str]


def prose(source: str) -> Iterator[Prose]:
    """Give what a module says to people: its docstrings, those of attributes included, and its comments."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text)), lineno=line):
                yield Prose(line, " ".join(text.split()))
            case _:
                pass
    begin, end, words = 0, 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if line != end + 1:
                yield Prose(begin, " ".join(words))
                begin, words = line, []
            end = line
            words += token.string.lstrip("#").split()
    yield Prose(begin, " ".join(words))


def citations(words: str) -> Iterator[Section]:
    """Give the sections that a piece of prose cites."""
    for rfc, one, several in CITATION.findall(words):
        yield from (Section(int(rfc), number) for number in re.findall(_NUMBER, one or several))


def near_misses(path: Path, piece: Prose) -> list[str]:
    """Name what looks like a citation and is none."""
    found = NEAR_MISS.findall(CITATION.sub("", piece.words))
    return [f"{path.relative_to(ROOT)}:{piece.line}: {miss!r} is no citation" for miss in found]


def tests_by_line(source: str) -> dict[int, str]:
    """Say of each line within a test function which test that is."""
    return {
        line: node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def read_citations() -> tuple[Places, Places, list[str]]:
    """Find the modules and the tests that cite each section, and the near misses.

    What stands in a test module outside its tests proves nothing, and is no citation.
    """
    modules, tests = defaultdict[Section, list[str]](list), defaultdict[Section, list[str]](list)
    missed: list[str] = []
    for path in sorted(SOURCE.rglob("*.py")):
        for piece in prose(path.read_text()):
            missed += near_misses(path, piece)
            _add(modules, piece.words, str(path.relative_to(SOURCE)))
    for path in sorted(TESTS.rglob("*.py")):
        names = tests_by_line(path.read_text())
        for piece in prose(path.read_text()):
            missed += near_misses(path, piece)
            if piece.line in names:
                _add(tests, piece.words, f"{path.relative_to(TESTS)}::{names[piece.line]}")
    for path in sorted(TESTS.rglob("dialogues/*.txt")):
        _add(tests, " ".join(path.read_text().split()), str(path.relative_to(TESTS)))
    return modules, tests, missed


def _add(places: dict[Section, list[str]], words: str, place: str) -> None:
    for section in citations(words):
        if place not in places[section]:
            places[section].append(place)


def read_table(toml: str) -> tuple[dict[int, str], dict[Section, Requirement]]:
    """Read docs/rfc.toml: a table for each RFC, of its title and its sections.

    A section is its requirement, done, or an array of the requirement and "partly, why" or "no, why". ValueError for
    anything else.
    """
    titles: dict[int, str] = {}
    requirements: dict[Section, Requirement] = {}
    for rfc, rows in tomllib.loads(toml).items():
        for number, row in rows.items():
            match row:
                case str(title) if number == "title":
                    titles[int(rfc)] = title
                case str(words):
                    requirements[Section(int(rfc), number)] = Requirement(words, "yes")
                case [str(words), str(status)] if STATUS.fullmatch(status):
                    requirements[Section(int(rfc), number)] = Requirement(words, status)
                case _:
                    msg = f"RFC {rfc}, {number}: neither a requirement nor an array of one and its status"
                    raise ValueError(msg)
    return titles, requirements


def read_index() -> Index:
    """Read the tree."""
    titles, requirements = read_table(TABLE.read_text())
    return Index(titles, requirements, *read_citations())


def faults(index: Index) -> list[str]:
    """Name what is not in a citation's form, and each row that lacks its requirement, module, test or title."""
    cited = {**index.tests, **index.modules}
    done = [section for section, row in index.requirements.items() if not row.status.startswith("no, ")]
    return [
        *index.near_misses,
        *(f"RFC {rfc}: no title" for rfc in sorted({s.rfc for s in index.requirements} - set(index.titles))),
        *(f"{s}: no requirement, but cited by {cited[s][0]}" for s in sorted(cited) if s not in index.requirements),
        *(f"{s}: no module cites it" for s in done if s not in index.modules),
        *(f"{s}: no test cites it" for s in done if s not in index.tests),
    ]


def page(index: Index) -> str:
    """Give the whole page."""
    by_rfc: dict[int, list[Section]] = defaultdict(list)
    for section in sorted(index.requirements, key=_order):
        by_rfc[section.rfc].append(section)
    tables = (
        f"\n## RFC {rfc}: {index.titles[rfc]}\n\n{TABLE_HEAD}" + "".join(_row(section, index) for section in sections)
        for rfc, sections in by_rfc.items()
    )
    return HEAD + "".join(tables)


def _order(section: Section) -> tuple[int, ...]:
    return section.rfc, *map(int, section.number.split("."))


def _row(section: Section, index: Index) -> str:
    words, status = index.requirements[section]
    modules, tests = (_code(places.get(section, ())) for places in (index.modules, index.tests))
    cells = (section.number, words, modules, tests, status)
    return "".join(f"| {cell}" + " " * bool(cell) for cell in cells) + "|\n"


def _code(places: Iterable[str]) -> str:
    return ", ".join(f"`{place}`" for place in places)


def main() -> int:
    """Write the page and give 0, or say what is missing and give 1."""
    index = read_index()
    missing = faults(index)
    if missing:
        print(*missing, sep="\n", file=sys.stderr)
        return 1
    PAGE.write_text(page(index))
    return 0


if __name__ == "__main__":
    sys.exit(main())
