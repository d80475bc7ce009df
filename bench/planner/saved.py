"""Keep what the planner says of published rows, for the notebook and the docs: ``python -m bench.planner.saved --truth DIR``."""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

from bench.planner.fields import frame

TARGET = Path(__file__).resolve().parents[2] / "lablib" / "specs" / "catalogue" / "accuracy.csv"
COLUMNS = ("field", "source", "row", "model", "published", "predicted", "low", "high", "kind")


def main() -> None:
    """Write the catalogue's ``accuracy.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--truth", type=Path, required=True, help="folder with memory.csv, throughput.csv, runs.csv and posttrain.csv"
    )
    rows = [row for row in frame(parser.parse_args().truth) if _measured(row["published"])]
    with TARGET.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _short(row.get(name)) for name in COLUMNS})


def _measured(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _short(value: object) -> object:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
