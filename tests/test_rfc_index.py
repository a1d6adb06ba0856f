"""docs/rfc.md says what is cited and tested, and the tool that writes it lets nothing pass that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import rfc_index
from tools.rfc_index import Index, Prose, Requirement, Section

MAIL = Section(5321, "4.1.1.2")
ENTRY = Requirement("MAIL begins a transaction.", "yes")
WHOLE = Index({5321: "SMTP"}, {MAIL: ENTRY}, {MAIL: ["a.py"]}, {MAIL: ["test_a.py::test_mail"]}, [])


@pytest.fixture(scope="module")
def index() -> Index:
    """Give the index of this tree, which takes seconds to read."""
    return rfc_index.read_index()


def test_the_index_is_fresh(index: Index) -> None:
    """docs/rfc.md is what tools/rfc_index.py makes of the citations."""
    assert rfc_index.PAGE.read_text() == rfc_index.page(index)


def test_nothing_is_missing(index: Index) -> None:
    """Each section that is cited has a requirement, and each requirement that is met a module and a test."""
    assert rfc_index.faults(index) == []


@pytest.mark.parametrize(
    ("words", "sections"),
    [
        ("RFC 5321 section 4.5.3.1.10: 452", ["4.5.3.1.10"]),
        ("(RFC 5321 section 4.2.2, RFC 5248)", ["4.2.2"]),
        ("As RFC 5321 section 4.1. 7 more", ["4.1"]),
        ("RFC 5321 section 4.1, 4.2", ["4.1"]),
        ("RFC 5321 sections 4.1 and 4.2", ["4.1", "4.2"]),
        ("(RFC 5321 sections 3.1, 3.8, 4.1.4).", ["3.1", "3.8", "4.1.4"]),
        ("RFC 5321 sections 3.1, 3.8, and 4.1.4", ["3.1", "3.8", "4.1.4"]),
        ("RFC 5321 section 4.1 and RFC 5321 section 4.2", ["4.1", "4.2"]),
        ("RFC 5321, and RFC 5321 appendix D.1", []),
    ],
)
def test_citations(words: str, sections: list[str]) -> None:
    """A citation is an RFC and one section, or several in the plural; an RFC alone is a mention."""
    assert [Section(5321, number) for number in sections] == list(rfc_index.citations(words))


@pytest.mark.parametrize(
    ("words", "miss"),
    [
        ("RFC 5321, section 4.1", "section 4.1"),
        ("RFC 5321 section 4.1 and section 4.2", "section 4.2"),
        ("RFC 5321 sections 4.1", "sections 4.1"),
        ("RFC5321", "RFC5321"),
        ("RFC 5321 \u00a74.1", "\u00a74.1"),
        ("RFC 5321 sect. 4.1", "sect. 4.1"),
    ],
)
def test_what_is_no_citation_is_found(words: str, miss: str) -> None:
    """A section without its RFC, or another way to write one, would be left out in silence."""
    [fault] = rfc_index.near_misses(rfc_index.ROOT / "a.py", Prose(7, words))
    assert fault == f"a.py:7: {miss!r} is no citation"


def test_prose() -> None:
    """Docstrings, those of attributes too, and runs of comment lines are read; other strings are not."""
    source = (
        '"""Head.\n\n    RFC 1\n    section 2."""\nx = "RFC 3 section 4"\n"""Of x."""\n\n# RFC 5\n# section 6\n\n# 7\n'
    )
    assert [Prose(1, "Head. RFC 1 section 2."), Prose(6, "Of x."), Prose(8, "RFC 5 section 6"), Prose(11, "7")] == [
        piece for piece in rfc_index.prose(source) if piece.words
    ]


def test_only_tests_prove() -> None:
    """A line of a test module belongs to the test it stands in; a fixture or the module's head is no test."""
    source = (
        '"""Head."""\n\ndef fixture():\n    pass\n\n\nclass TestA:\n    async def test_b(self):\n        """B."""\n'
    )
    assert rfc_index.tests_by_line(source) == {8: "test_b", 9: "test_b"}


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        (WHOLE._replace(requirements={}), "RFC 5321 section 4.1.1.2: no requirement, but cited by a.py"),
        (WHOLE._replace(modules={}), "RFC 5321 section 4.1.1.2: no module cites it"),
        (WHOLE._replace(tests={}), "RFC 5321 section 4.1.1.2: no test cites it"),
        (WHOLE._replace(titles={}), "RFC 5321: no title"),
        (WHOLE._replace(near_misses=["a.py:7: no"]), "a.py:7: no"),
    ],
)
def test_what_is_missing_is_named(
    index: Index, fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tool names what is missing, ends with status 1, and leaves the page as it was."""
    monkeypatch.setattr(rfc_index, "PAGE", tmp_path / "rfc.md")
    monkeypatch.setattr(rfc_index, "read_index", lambda: index)
    assert rfc_index.main() == 1
    assert capsys.readouterr().err == f"{fault}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_whole_index_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A row has its section, requirement, modules, tests and status; what is not done needs neither module nor test."""
    undone = {Section(5321, "4.1.1.10"): Requirement("QUIT ends it.", "no, nobody quits")}
    index = WHOLE._replace(requirements=undone | {MAIL: ENTRY})
    monkeypatch.setattr(rfc_index, "PAGE", tmp_path / "rfc.md")
    monkeypatch.setattr(rfc_index, "read_index", lambda: index)
    assert rfc_index.main() == 0
    assert (tmp_path / "rfc.md").read_text() == rfc_index.HEAD + (
        "\n## RFC 5321: SMTP\n\n"
        "| section | requirement | module | test | status |\n"
        "|---|---|---|---|---|\n"
        "| 4.1.1.2 | MAIL begins a transaction. | `a.py` | `test_a.py::test_mail` | yes |\n"
        "| 4.1.1.10 | QUIT ends it. | | | no, nobody quits |\n"
    )


def test_the_table_is_read() -> None:
    """A section is its requirement, or an array of that and of what is not done, and why."""
    titles, requirements = rfc_index.read_table('[1]\ntitle = "One"\n"2.3" = "Do."\n"4" = ["Be.", "partly, here"]\n')
    assert titles == {1: "One"}
    assert list(requirements.items()) == [
        (Section(1, "2.3"), Requirement("Do.", "yes")),
        (Section(1, "4"), Requirement("Be.", "partly, here")),
    ]


@pytest.mark.parametrize("row", ['["Be.", "partly"]', '["Be.", "yes, here"]', '["Be."]', "7", '{ Be = "no, why" }'])
def test_a_status_has_its_reason(row: str) -> None:
    """What is not done says why, and in no other form."""
    with pytest.raises(ValueError, match="RFC 1, 2"):
        rfc_index.read_table(f'[1]\n"2" = {row}\n')
