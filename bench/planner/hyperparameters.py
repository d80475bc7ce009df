"""``python -m bench.planner.hyperparameters``: how far each law of `lablib.plan.scaling` is from what others trained with.

Two kinds of rows in hyperparameters.csv: runs that were published, whose settings nobody says are optimal, and optima of a
grid search over 91 pairs of learning rate and batch (√2 and 2 apart). A factor of 1 is exact, 2 is twice or half.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.planner import scores
from lablib.plan.scaling import LAWS, TIMESCALE, Scale, batch_tokens, learning_rate
from lablib.specs import Parallelism, Pretrain, catalog

TABLE = Path(__file__).with_suffix(".csv")
KINDS = ("run", "optimum")


class Row(NamedTuple):
    """One training's settings; None where nobody published them."""

    run: str
    kind: str
    scale: Scale
    learning_rate: float
    batch_tokens: float | None
    weight_decay: float | None
    source: str


def rows() -> list[Row]:
    """The published runs and the optima."""
    with TABLE.open(encoding="utf-8") as file:
        return [_row(row) for row in csv.DictReader(file)]


def _row(row: dict[str, str]) -> Row:
    batch, decay = (float(row[name]) if row[name] else None for name in ("batch_tokens", "weight_decay"))
    return Row(row["run"], row["kind"], _scale(row), float(row["learning_rate"]), batch, decay, row["source"])


def _scale(row: dict[str, str]) -> Scale:
    """That of the catalogue's model; of one that it has not, 6·N·D with a tenth for attention."""
    tokens, length = float(row["tokens"]), int(row["seq_len"])
    if not row["model"]:
        return Scale(float(row["params"]), tokens, 6.6 * float(row["params"]) * tokens)
    model = catalog.models[row["model"]].reaching(length)
    return Scale.of(Pretrain(model=model, tokens=int(tokens), seq_len=length, batch_tokens=length, parallelism=Parallelism()))  # fmt: skip


def factor(said: float, true: float) -> float:
    """How many times one is off the other, at least 1."""
    return max(said / true, true / said)


def decay(row: Row) -> float:
    """The weight decay that the timescale gives the row's own learning rate and batch."""
    return (row.batch_tokens or 0.0) / (row.learning_rate * TIMESCALE.of(row.scale) * row.scale.tokens)


def errors() -> Iterator[dict[str, Any]]:
    """One entry a law and kind of row: how many rows, median and worst factor, median ratio law / row, and rows and median
    factor inside the range that the law was fitted on (of what is suggested: 0 and NaN)."""
    for kind in KINDS:
        alike = [row for row in rows() if row.kind == kind]
        for law in LAWS:
            if law.quantity != "critical_batch_tokens":
                yield _entry(kind, law.quantity, law.name, [(law.value(row.scale), own, not law.outside(row.scale)) for row, own in _owned(alike, law.quantity)])  # fmt: skip
        yield _entry(kind, "learning_rate", "as suggested", [(learning_rate(row.scale), own, False) for row, own in _owned(alike, "learning_rate")])  # fmt: skip
        yield _entry(kind, "batch_tokens", "as suggested", [(batch_tokens(row.scale.tokens), own, False) for row, own in _owned(alike, "batch_tokens")])  # fmt: skip
    runs = [row for row in rows() if row.kind == "run" and row.batch_tokens]
    yield _entry("run", "weight_decay", TIMESCALE.name, [(decay(row), own, not TIMESCALE.outside(row.scale)) for row, own in _owned(runs, "weight_decay")])  # fmt: skip


def _owned(made: list[Row], quantity: str) -> list[tuple[Row, float]]:
    """The rows that say the quantity, each with it."""
    return [(row, own) for row in made if (own := getattr(row, quantity))]


def _entry(kind: str, quantity: str, law: str, said: list[tuple[float, float, bool]]) -> dict[str, Any]:
    """`said` has what the law says, what the row says and whether the law was fitted there."""
    said = [one for one in said if one[0] > 0]
    off = [factor(value, own) for value, own, _ in said]
    inside = [factor(value, own) for value, own, held in said if held]
    return {
        "kind": kind,
        "quantity": quantity,
        "law": law,
        "rows": len(off),
        "median_factor": median(off),
        "worst_factor": max(off),
        "median_ratio": median(value / own for value, own, _ in said),
        "inside": len(inside),
        "inside_median_factor": median(inside) if inside else float("nan"),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser("python -m bench.planner.hyperparameters", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    if parser.parse_args().json:
        print(json.dumps(scores.plain(list(errors())), indent=1))
        return
    print("| rows | quantity | law | n | median factor | worst | law over row | n in range | median factor |")
    print("|---|---|---|---|---|---|---|---|---|")
    for one in errors():
        inside = f"{one['inside']} | {one['inside_median_factor']:.2f}" if one["inside"] else "– | –"
        print(
            f"| {one['kind']} | {one['quantity']} | {one['law']} | {one['rows']} | {one['median_factor']:.2f} | "
            f"{one['worst_factor']:.1f} | {one['median_ratio']:.2f} | {inside} |"
        )


if __name__ == "__main__":
    main()
