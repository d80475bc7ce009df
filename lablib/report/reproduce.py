"""`reproduce`: run the recipes inside a report again, and compare what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lablib.report.record import Record, RunRecord, collect
from lablib.report.seal import load
from lablib.runs import Run
from lablib.specs import LabError, parse_recipe

Executor = Callable[[Any, list[Run]], Run]
"""Runs a recipe after the given runs and returns its run once it has finished."""
TOLERANCE = 0.05
"""Relative difference of a loss, absolute difference of a score, that counts as the same on another machine. A choice,
not a law: between machines sums are ordered differently, and small models' losses drift apart by some per cent."""
CHECKED = ("model", "dataset", "tokenizer")
"""Kinds of artefacts whose content holds no time stamp, so equal work gives equal bytes."""
ROW = ("stage", "figure", "reported", "now", "same", "rule")


def reproduce(
    path: str | Path, executor: Executor, stages: Iterable[str] | None = None, tolerance: float = TOLERANCE
) -> list[dict[str, Any]]:
    """Re-run a verified report's recipes in their order, references pointing to the new runs, and compare.

    `stages` keeps only these stages (or names) and what they need. Each row has stage, figure, reported, now, same and
    the rule that decided: "exact" on the same machine, versions and layout, else the tolerance. Raises `LabError` for a
    changed report, an unknown stage and a recipe that this version of the lab cannot read.
    """
    record = load(path)
    remade: dict[str, Run] = {}
    rows: list[dict[str, Any]] = []
    for old in _needed(record, stages):
        recipe = parse_recipe(_relink(old["recipe"], {name: run.id for name, run in remade.items()}))
        needed = [ref.run for ref in parse_recipe(old["recipe"]).refs()]
        broken = [name for name in needed if name in remade and remade[name].state != "completed"]
        if broken:
            rows.append(
                _row(old, "state", old["state"], f"not run: {', '.join(broken)} did not complete", False, "exact")
            )
            continue
        new = executor(recipe, [remade[name] for name in dict.fromkeys(needed) if name in remade])
        remade[old["id"]] = new
        rows += compare(old, collect([new], "", "")["runs"][0], tolerance)
    return rows


def _needed(record: Record, stages: Iterable[str] | None) -> list[RunRecord]:
    runs: list[RunRecord] = record["runs"]
    if stages is None:
        return runs
    wanted = set(stages)
    unknown = wanted - {run[key] for run in runs for key in ("stage", "name")}
    if unknown:
        raise LabError(f"stages={sorted(unknown)}: the report has {', '.join(run['name'] for run in runs)}")
    keep = {run["id"] for run in runs if wanted & {run["stage"], run["name"]}}
    for run in reversed(runs):
        if run["id"] in keep:
            keep |= {ref.run for ref in parse_recipe(run["recipe"]).refs()}
    return [run for run in runs if run["id"] in keep]


def _relink(value: Any, names: dict[str, str]) -> Any:
    """A recipe's JSON with references to old runs replaced by the new ones."""
    if isinstance(value, dict):
        moved = {key: _relink(item, names) for key, item in value.items()}
        is_ref = set(value) == {"run", "artefact", "science"}
        return {**moved, "run": names.get(value["run"], value["run"])} if is_ref else moved
    return [_relink(item, names) for item in value] if isinstance(value, list) else value


def same_conditions(old: RunRecord, new: RunRecord) -> bool:
    """Whether results must be equal to the last digit: the same processor, versions, layout and threads."""

    def conditions(run: RunRecord) -> tuple[Any, ...]:
        hardware = run["manifest"].get("hardware") or {}
        layout = (run["recipe"]["parallelism"], run["recipe"]["threads"])
        return ([hardware.get(key) for key in ("cpu", "gpus")], run["manifest"].get("versions"), layout)

    return conditions(old) == conditions(new)


def compare(old: RunRecord, new: RunRecord, tolerance: float = TOLERANCE) -> list[dict[str, Any]]:
    """Rows for one stage: its state, final loss, scores, and checksums where bytes must be equal."""
    exact = same_conditions(old, new)
    rows = [_row(old, "state", old["state"], new["state"], old["state"] == new["state"], "exact")]
    rows += _numbers(old, new, exact, tolerance)
    return rows + (_checksums(old, new) if exact else [])


def _figures(run: RunRecord) -> dict[str, float]:
    found = {} if run["outcome"]["loss"] is None else {"final loss": run["outcome"]["loss"]}
    scores = (run["scores"] or {}).get("scores", [])
    return {**found, **{f"{row['model']} on {row['task']} ({row['metric']})": row["value"] for row in scores}}


def _numbers(old: RunRecord, new: RunRecord, exact: bool, tolerance: float) -> list[dict[str, Any]]:
    reported, now, rows = _figures(old), _figures(new), []
    for figure, value in reported.items():
        other = now.get(figure)
        slack = 0.0 if exact else tolerance * (max(1.0, abs(value)) if figure == "final loss" else 1.0)
        same = other is not None and abs(other - value) <= slack
        rows.append(_row(old, figure, value, other, same, "exact" if exact else f"within {tolerance:g}"))
    return rows


def _checksums(old: RunRecord, new: RunRecord) -> list[dict[str, Any]]:
    now = {item["name"]: item["sha256"] for item in new["artefacts"]}
    checked: Sequence[dict[str, Any]] = [item for item in old["artefacts"] if item["kind"] in CHECKED]
    return [
        _row(
            old,
            f"sha256 of {item['name']}",
            item["sha256"][:16],
            now.get(item["name"], "")[:16],
            item["sha256"] == now.get(item["name"]),
            "exact",
        )
        for item in checked
    ]


def _row(run: RunRecord, *values: Any) -> dict[str, Any]:
    return dict(zip(ROW, (run["name"], *values), strict=True))
