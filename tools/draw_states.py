"""Write docs/protocol.md: the state diagram, drawn from the one table that decides.

`python tools/draw_states.py` rewrites the file; a test fails when it is stale.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from smtprecv.protocol import TRANSITIONS, State

PAGE = Path(__file__).parent.parent / "docs" / "protocol.md"

HEAD = """\
# The protocol

<!-- Written by tools/draw_states.py from TRANSITIONS in src/smtprecv/protocol/_state.py. -->

A command only asks; the reply moves the session. An arrow is an event and the severities of reply that
take the session along it: `2` for 2yz, `3` for 3yz, `4` for 4yz and 5yz. What leaves the state as it is has no arrow.
421 leads from every state to CLOSED, and so does the end of the client's input.

"""

LEGAL = """
Every pair that is not listed here is answered 503.

| in state | legal |
|---|---|
"""


def diagram() -> str:
    """Draw the moves between different states."""
    arrows = [f"    [*] --> {State.CONNECTED.name}", *_arrows(), f"    {State.CLOSED.name} --> [*]"]
    return "\n".join(["```mermaid", "stateDiagram-v2", *arrows, "```", ""])


def _arrows() -> Iterator[str]:
    for here, rows in TRANSITIONS.items():
        labels: dict[State, list[str]] = {}
        for event, moves in rows.items():
            for severity, there in zip("234", moves, strict=True):
                if there is not None and there is not here:
                    labels.setdefault(there, []).append(f"{event.__name__} {severity}")
        yield from (f"    {here.name} --> {there.name}: {', '.join(sorted(label))}" for there, label in labels.items())


def legal() -> str:
    """List the legal events of each state."""
    rows = ((state, ", ".join(sorted(event.__name__ for event in rows))) for state, rows in TRANSITIONS.items())
    return LEGAL + "".join(f"| {state.name} | {events or 'nothing'} |\n" for state, events in rows)


def page() -> str:
    """Give the whole page."""
    return HEAD + diagram() + legal()


if __name__ == "__main__":
    PAGE.write_text(page())
