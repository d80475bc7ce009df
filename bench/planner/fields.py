"""The four fields: each CSV goes row by row through the field's own file; what cannot be planned is kept with its reason."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from bench.planner.shapes import model_of
from bench.planner.table import Problem, Row, Scored, Unplannable, read, real, with_archs
from lablib.specs import LabError

FIELDS = ("memory", "throughput", "runs", "posttrain")
UNITS = {
    "memory": "GiB a GPU",
    "throughput": "tokens/s/GPU",
    "runs": "GPU-hours",
    "posttrain": "GiB, or seconds and hours",
}


class Field(NamedTuple):
    """A field's sound rows, what the planner says of them, and what was left out."""

    name: str
    rows: dict[str, Row]
    """By id."""
    scored: list[Scored]
    malformed: list[Problem]
    unplannable: list[Problem]
    """Sound rows that no plan was made for, and why."""
    missing: str = ""
    """Why the whole field has no figures."""


def field_of(name: str, truth: Path) -> Field:
    """Plan every row of ``truth/<name>.csv``. Nothing that a row holds raises."""
    found, malformed = read(truth / f"{name}.csv")
    archs, wrong = read(truth / "archs.csv") if (truth / "archs.csv").is_file() else ([], [])
    rows = {row.get("id") or f"line {row['_line']}": row for row in with_archs(found, archs)}
    try:
        module = importlib.import_module(f"bench.planner.{name}")
    except (ImportError, SyntaxError) as error:
        return Field(name, rows, [], [*malformed, *wrong], [], f"{error}")
    scored: list[Scored] = []
    unplannable: list[Problem] = []
    for key, row in rows.items():
        try:
            scored += _scored(module, key, row)
        except Unplannable as reason:
            unplannable.append(_problem(name, key, row, str(reason)))
        except LabError as reason:
            unplannable.append(_problem(name, key, row, str(reason).splitlines()[-1]))
        except Exception as error:  # one bad row must not cost the others; its kind is named
            unplannable.append(_problem(name, key, row, f"{type(error).__name__}: {error}"))
    return Field(name, rows, scored, [*malformed, *wrong], unplannable)


def _scored(module: ModuleType, key: str, row: Row) -> Iterator[Scored]:
    """What the field says of one row; a note of kind "unplannable" counts as an exception of that reason."""
    for one in list(module.score([{**row, "id": key}])):
        if one.kind == "unplannable":
            raise Unplannable(one.note)
        yield one._replace(row=one.row or key, source=one.source or "unknown")


def _problem(name: str, key: str, row: Row, reason: str) -> Problem:
    return Problem(f"{name}.csv", int(row["_line"]), key, reason[:160])


def kinds_of(field: Field) -> list[tuple[Scored, str]]:
    """What each prediction is judged as: the bars differ between dense bf16 and the rest, and between sure and derived."""
    kinds = {key: _KINDS[field.name](row) for key, row in field.rows.items()}
    part = {
        one: f"{one.kind.partition(':')[0] or 'time'}: " if field.name == "posttrain" else "" for one in field.scored
    }
    return [(one, part[one] + kinds.get(one.row, "unknown")) for one in field.scored]


def _training(row: Row) -> str:
    task = row.get("task") or "pretrain"
    if "lora" in task or "adapter" in task or "peft" in task:
        return "adapters"
    return "inference" if task == "inference" else "full training"


def _arithmetic(row: Row) -> str:
    if _training(row) == "adapters":
        return "adapters"
    try:
        sparse = model_of(row).moe is not None
    except (Unplannable, LabError):
        sparse = bool(real(row, "n_experts"))
    if sparse:
        return "mixture of experts"
    low = any(word in row.get("precision", "") for word in ("fp8", "float8", "fp4", "not stated"))
    return "dense, 8 or 4 bits" if low else "dense bf16"


_KINDS: dict[str, Callable[[Row], str]] = {
    "memory": _training,
    "throughput": _arithmetic,
    "runs": lambda row: f"tier {row.get('tier') or 'unknown'}",
    "posttrain": lambda row: (
        f"{row.get('stage') or 'unknown'}, {'full' if row.get('method', '') in ('', 'full') else 'adapters'}"
    ),
}


def assumed(name: str) -> dict[str, str]:
    """Units and conventions that the field's file assumes of each source (its `ASSUMED`), and its own docstring as the rule for all."""
    try:
        module = importlib.import_module(f"bench.planner.{name}")
    except (ImportError, SyntaxError):
        return {}
    said = getattr(module, "ASSUMED", None)
    rule = " ".join((module.__doc__ or "").split())
    return {"unit": UNITS[name], "rule": rule, **(said if isinstance(said, Mapping) else {})}


def frame(truth: str | Path, only: tuple[str, ...] = FIELDS) -> list[dict[str, Any]]:
    """Every planned row of a folder as a dictionary: field, source, row, model, predicted, published, low, high, kind,
    fits and note (units: `UNITS`). Made for notebooks and charts."""
    made = []
    for name in only:
        field = field_of(name, Path(truth))
        for one in field.scored:
            row = field.rows.get(one.row, {})
            made.append({"field": name, "model": row.get("model") or row.get("name", ""), **one._asdict()})
    return made
