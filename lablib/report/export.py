"""`export`: write a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lablib.report.page import render
from lablib.report.record import collect
from lablib.runs import Run
from lablib.specs import LabError, write_atomic


def export(
    runs: Run | Sequence[Run], path: str | Path | None = None, question: str = "", title: str = "LLM Lab report"
) -> Path:
    """Write one self-contained HTML file about a chain of runs, finished or not; gives its path.

    Without `path` it goes to the last run's ``report/`` folder. `question` is what the runs were to find out.
    Raises `LabError` without runs.
    """
    chain = [runs] if isinstance(runs, Run) else list(runs)
    if not chain:
        raise LabError("A report needs at least one run; `lab jobs` lists them")
    file = Path(path) if path is not None else chain[-1].path / "report" / "report.html"
    write_atomic(file, render(collect(chain, question, title)))
    return file
