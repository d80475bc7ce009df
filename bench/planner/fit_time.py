"""Fit the step-time constants to published rows: ``python -m bench.planner.fit_time --truth DIR [--sources]``.

A handful of physical constants, in logarithms, drawn lightly to first guesses (`PRIOR`). A source weighs as much as the
square root of its rows, so that many rows cannot outvote few. Leaving each source out in turn and scoring it with the
constants of the rest is the honest error, but for what no fit undoes: the shape of the formulas was chosen with all
sources in view, and a constant that only one source shows (a kernel, a host's time) keeps its first guess, which for
Triton's FlashAttention, Megatron's CI and prime-rl's experts was made by looking at that source.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import log, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from bench.planner.rows import Unplannable, read, with_archs
from bench.planner.throughput import planned, rate, source
from lablib.plan.efficiency import GPU, Efficiency
from lablib.plan.engines import Engine
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.specs import LabError

PRIOR: dict[str, float] = {
    "sustained.ampere": 1.1, "sustained.hopper": 1.0, "sustained.blackwell": 1.0, "flash.fa1.ampere": 0.40, "flash.fa1.hopper": 0.25,
    "flash.fa2.ampere": 0.65, "flash.fa2.hopper": 0.48, "flash.fa2.blackwell": 0.24, "flash.fa3.hopper": 0.68,
    "flash.cudnn.hopper": 0.68, "flash.cudnn.blackwell": 0.6, "operands": 0.3, "ragged": 0.15, "quantising": 1.0, "elementwise": 1.0, "eager": 2.0, "routing": 1.0,
    "diagonal": 200.0, "straggler": 0.005, "contention": 0.15, "network": 0.8, "latency_seconds": 2e-5,
    "megatron.moe_seconds": 3e-3, "megatron.tp_overlap": 0.6, "megatron.ep_overlap": 0.3, "megatron.pp_overlap": 0.7,
    "megatron-graphs.ep_overlap": 0.8, "megatron-ci.layer_seconds": 5.5e-3, "megatron-ci.moe_seconds": 4e-3, "prime-rl.moe_seconds": 0.03,
}  # fmt: skip
"""Each constant before the fit: kernel papers, hand counts, and for three of them a look at the rows (see above). A dot names an engine's field, or a table's key."""
MOST: dict[str, float] = {
    "sustained": 1 / GPU.matmul.mid, "flash": 0.8, "operands": 1.0, "quantising": 1.0, "collective": 0.9, "network": 1.0,
    "tp_overlap": 0.95, "ep_overlap": 0.95, "pp_overlap": 0.95, "contention": 0.5,
}  # fmt: skip
"""What physics allows a constant to be, by its name's first or last word; two and a half times the prior where not named."""
PULL = 0.05
"""Weight of the prior: what a constant off by a factor e counts beside a row's relative error."""
OUTLIER = 0.08
"""Relative error beyond which a row pulls no harder."""


class Case(NamedTuple):
    """One row, ready to be predicted."""

    source: str
    job: Job
    machine: Machine
    published: float
    extra: float


def cases(truth: Path) -> list[Case]:
    """Every row of throughput.csv that can be planned."""
    rows, _ = read(truth / "throughput.csv")
    archs, _ = read(truth / "archs.csv")
    made = []
    for row in with_archs(rows, archs):
        try:
            found = planned(row)
        except (Unplannable, LabError, ValueError):
            continue
        if found:
            made.append(Case(source(row), *found))
    return made


def constants(values: dict[str, float]) -> tuple[Efficiency, dict[str, dict[str, float]]]:
    """The efficiency and the engines' fields that the named values stand for."""
    tables: dict[str, dict[str, Any]] = {
        "sustained": dict(GPU.sustained),
        "flash": {k: dict(v) for k, v in GPU.flash.items()},
    }
    plain: dict[str, float] = {}
    engines: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in values.items():
        parts = name.split(".")
        if parts[0] in tables:
            table = tables[parts[0]] if len(parts) == 2 else tables[parts[0]][parts[1]]
            table[parts[-1]] = value
        elif len(parts) == 2:
            engines[parts[0]][parts[1]] = min(value, 1.0) if "overlap" in name else value
        else:
            plain[name] = value
    return GPU.model_copy(update={**tables, **plain}), engines


def errors(some: Sequence[Case], values: dict[str, float]) -> np.ndarray:
    """Logarithm of predicted over published, row by row."""
    efficiency, fields = constants(values)
    known: dict[Engine, Engine] = {}
    found = []
    for case in some:
        engine = case.job.engine
        if engine not in known and engine.name in fields:
            hidden = {name: value for name, value in fields["megatron"].items() if name.endswith("overlap")}
            shared = hidden if engine.name == "megatron-graphs" else {}
            known[engine] = engine.model_copy(update={**shared, **fields[engine.name]})
        job = replace(case.job, engine=known.get(engine, engine))
        found.append(log(rate(job, replace(case.machine, efficiency=efficiency), case.extra) / case.published))
    return np.array(found)


def fit(some: Sequence[Case], start: dict[str, float] | None = None, rounds: int = 12) -> dict[str, float]:
    """The constants that bring the rows' errors down, starting from the prior."""
    names = list(PRIOR)
    prior = np.log([PRIOR[name] for name in names])
    begin = np.log([(start or PRIOR)[name] for name in names])
    rows: dict[str, int] = defaultdict(int)
    for case in some:
        rows[case.source] += 1
    weight = np.array([1 / sqrt(sqrt(rows[case.source])) for case in some])

    def residuals(x: np.ndarray) -> np.ndarray:
        got = errors(some, dict(zip(names, np.exp(x), strict=True)))
        soft = np.sign(got) * OUTLIER * np.sqrt(2 * (np.sqrt(1 + (got / OUTLIER) ** 2) - 1))
        return np.concatenate([weight * soft, PULL * (x - prior)])

    top = np.log([most(name) for name in names])
    bounds = (prior - 2.5, np.maximum(top, prior) + 1e-6)
    found = least_squares(
        residuals, np.minimum(begin, bounds[1] - 1e-6), bounds=bounds, max_nfev=rounds, diff_step=1e-3
    ).x
    return dict(zip(names, np.exp(found).tolist(), strict=True))


def most(name: str) -> float:
    """The largest that a constant may be."""
    words = name.split(".")
    return MOST.get(words[-1], MOST.get(words[0], 2.5 * PRIOR[name]))


def report(title: str, found: dict[str, np.ndarray]) -> None:
    """Print the median absolute error of each source."""
    print(f"{title}: rows, median APE, within 10 %, median ratio")
    for name, error in sorted(found.items(), key=lambda item: -len(item[1])):
        ape = np.abs(np.exp(error) - 1)
        print(f"  {name:20}{len(ape):5}{np.median(ape):8.1%}{np.mean(ape < 0.1):8.0%}{np.exp(np.median(error)):8.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the fitted constants, and with ``--sources`` the error of each source when it is left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--sources", action="store_true", help="leave each source out in turn")
    asked = parser.parse_args(arguments)
    all_cases = cases(asked.truth)
    groups = sorted({case.source for case in all_cases})
    of = {name: [case for case in all_cases if case.source == name] for name in groups}
    values = fit(all_cases)
    for name, value in values.items():
        print(f"  {name:34}{value:10.4g}   before {PRIOR[name]:.4g}")
    report("fitted on all", {name: errors(some, values) for name, some in of.items()})
    if asked.sources:
        # The band that plans state comes from here: what a source looks like that the constants have not seen.
        left = {n: errors(of[n], fit([c for c in all_cases if c.source != n], rounds=6)) for n in groups}
        report("each source left out", left)
        ratios = np.exp(-np.concatenate([error for name, error in left.items() if name != "megatron-golden"]))
        low, high = np.quantile(ratios, (0.1, 0.9))
        print(f"80 % of published over predicted lie in {low:.2f} to {high:.2f} (CI toys apart)")


if __name__ == "__main__":
    main()
