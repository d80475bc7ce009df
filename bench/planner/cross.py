"""Errors with constants that never saw the source: each source is left out of the fit in turn. The honest figure."""

from __future__ import annotations

import importlib
from math import exp
from pathlib import Path
from typing import Any

from bench.planner.scores import FIGURES
from bench.planner.table import Scored

NONE = "nothing is fitted across this field's sources, or its fit offers no cross-validation"


def leave_one_out(only: tuple[str, ...], truth: Path) -> dict[str, Any]:
    """Each field's figures, every source scored with constants fitted on the others; or why there are none.

    A field's own ``leave_one_out(truth) -> Iterable[Scored]`` is used where its file has one. Takes minutes.
    """
    return {name: _field(name, truth) for name in only}


def _field(name: str, truth: Path) -> dict[str, Any] | str:
    for found in (name, f"fit_{name}"):
        try:
            module: Any = importlib.import_module(f"bench.planner.{found}")
        except ModuleNotFoundError:
            continue
        if hasattr(module, "leave_one_out"):
            return FIGURES[name](list(module.leave_one_out(truth)))
    return FIGURES[name](_step_time(truth)) if name == "throughput" else NONE


def _step_time(truth: Path) -> list[Scored]:
    """Throughput of each source with the step-time constants of the rest."""
    from bench.planner import fit_time

    cases = fit_time.cases(truth)
    made: list[Scored] = []
    for source in sorted({case.source for case in cases}):
        rest = [case for case in cases if case.source != source]
        left = [case for case in cases if case.source == source]
        if not rest:
            continue
        off = fit_time.errors(left, fit_time.fit(rest, rounds=6))
        made += [Scored("", source, case.published * exp(error), case.published) for case, error in zip(left, off, strict=True)]  # fmt: skip
    return made
