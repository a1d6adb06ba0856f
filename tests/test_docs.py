"""What is generated is fresh."""

from __future__ import annotations

from tools import draw_states


def test_the_state_diagram_is_fresh() -> None:
    """docs/protocol.md is what tools/draw_states.py makes of the transition table."""
    assert draw_states.PAGE.read_text() == draw_states.page()
