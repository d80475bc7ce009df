"""What a run of the chain says of text that models wrote: a Synthesize run what it wrote, a data run what is in its corpus."""

from __future__ import annotations

from typing import Any

from lablib.data import generations, written
from lablib.runs import Run

SHOWN = 3
"""Completions that were kept, and as many that were refused, in a report."""


def read(run: Run) -> dict[str, Any] | None:
    """``written`` with ``kept`` and ``refused`` samples of a Synthesize run, ``generations`` of a data run with such text;
    None for any other."""
    facts = written.facts(run.path) if run.recipe.stage == "synthesize" else None
    if facts is not None:
        return {"written": facts, "kept": written.kept(run.path, SHOWN), "refused": written.refused(run.path, SHOWN)}
    found = generations.read(run.path) if run.recipe.stage == "prepare" else None
    return None if found is None else {"generations": found.facts}
