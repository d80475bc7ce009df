"""`export`: write a report; `export_chain`: the one that a job writes of itself."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

from lablib.report.page import render
from lablib.report.record import collect
from lablib.runs import Run, jsonl
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


def export_chain(run: Run) -> Path | None:
    """Write the report of a run and all those that it needed, the first one first, into the run's ``report/`` folder.

    It is written when the work is done and must not undo it: whatever goes wrong is left as an event of the run, "report
    failed" with the reason, and None is given.
    """
    try:
        return export(list(_chain(run).values()))
    except Exception as error:
        reason = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        jsonl.event(run.path, "report failed", reason=reason, traceback=traceback.format_exc())
        return None


def _chain(run: Run) -> dict[str, Run]:
    found: dict[str, Run] = {}
    for name in run.order.after:
        found |= _chain(Run(run.path.parent / name))
    return {**found, run.id: run}
