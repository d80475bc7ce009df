"""``python -m bench.planner --truth DIR``: the planner's errors on published measurements, with peers beside it."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.planner import peers, report, scores
from bench.planner.fields import FIELDS, Field, assumed, field_of, kinds_of
from bench.planner.table import Problem

HELP = """
Each row of memory.csv, throughput.csv, runs.csv and posttrain.csv in the folder is planned from its columns alone (model
shape, layout, accelerator, context) and compared with what was measured. archs.csv, if there, says more of each model.

  median_ape            median of |predicted / published - 1|, in PERCENT
  within_10, within_20  share of rows within 10 and 20 %, as a FRACTION from 0 to 1
  bias                  median of predicted / published: above 1 we say too much
  rank                  Spearman's correlation: are the layouts in the right order?
  false_fits            rows known to run out of memory that the plan calls fitting (must be 0)
  false_unfits          rows that ran which the plan calls unfit; false_unfit_share is their FRACTION
  band80_coverage       FRACTION of published figures inside the plan's 80 % band, with the exact 95 % interval of that
                        share; interval_score is Winkler's over the published figure (width + 10 x miss): lower is better
  by_source, by_kind    the same figures for each source, and by what decides the bar: dense bf16, 8- or 4-bit or mixture of
                        experts; full training or adapters; how sure a run's figures are (tiers A and B); the stage
  peers                 live: computed here on the same rows, with our median on the rows that the peer can do ("ours");
                        quoted: medians that others measured, dated, for the same sources

A figure over no rows is null. Malformed and unplannable rows are listed under problems with file, line and reason; they
never stop the bench. Units: GiB a GPU, tokens/s/GPU, GPU-hours; sources are groups of rows that one project published.
"""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.planner", description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--truth", type=Path, metavar="DIR", help="folder with memory.csv, throughput.csv, runs.csv, posttrain.csv")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="machine-readable output, and nothing else, on stdout")
    parser.add_argument("--only", default="", metavar="FIELDS", help=f"some of {','.join(FIELDS)}")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out (quicker)")
    parser.add_argument("--speed", action="store_true", help="time estimate, a grid of layouts and the import; alone it needs no folder (in --json unless --only)")  # fmt: skip
    parser.add_argument("--leave-one-out", action="store_true", help="print each field's error with constants fitted on all other sources")  # fmt: skip
    return parser


def bench(truth: Path, only: tuple[str, ...] = FIELDS, with_peers: bool = True) -> tuple[dict[str, Any], list[Field]]:
    """What ``--json`` prints, and the fields it came from. A field that was not asked for is left out."""
    fields = [field_of(name, truth) for name in only]
    result: dict[str, Any] = {field.name: _figures(field) for field in fields}
    result["peers"] = {field.name: _peers(field) for field in fields} if with_peers else {}
    result["assumed"] = {field.name: assumed(field.name) for field in fields}
    result["problems"] = _problems(truth, fields)
    result["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    result["lab"] = version("llm-lab")
    return scores.plain(result), fields


def _figures(field: Field) -> dict[str, Any]:
    figures = scores.FIGURES[field.name](field.scored)
    counts = {"sound_rows": len(field.rows), "planned": len({one.row for one in field.scored})}
    figures["by_kind"] = scores.by_source([one._replace(source=kind) for one, kind in kinds_of(field)])
    return {**figures, **counts, **({"missing": field.missing} if field.missing else {})}


def _peers(field: Field) -> dict[str, Any]:
    sources = sorted({one.source for one in field.scored})
    return {"live": peers.live(field), "quoted": peers.quoted(field.name, sources) if sources else []}


def _problems(truth: Path, fields: list[Field]) -> list[dict[str, Any]]:
    if not truth.is_dir():
        return [Problem(str(truth), 0, "", "is not a folder")._asdict()]
    unique = dict.fromkeys(problem for field in fields for problem in (*field.malformed, *field.unplannable))
    return [problem._asdict() for problem in unique]


def main(argv: list[str] | None = None) -> int:
    """Run the bench; returns 0 wherever it could say something."""
    parser = arguments()
    asked = parser.parse_args(argv)
    only = tuple(name.strip() for name in asked.only.split(",") if name.strip()) or FIELDS
    unknown = [name for name in only if name not in FIELDS]
    if unknown:
        parser.error(f"--only {','.join(unknown)}: the fields are {', '.join(FIELDS)}")
    if asked.truth is None and not asked.speed:
        parser.error("--truth DIR is needed: a folder with memory.csv, throughput.csv, runs.csv and posttrain.csv")
    _say(asked, only)
    return 0


def _say(asked: argparse.Namespace, only: tuple[str, ...]) -> None:
    result, fields = bench(asked.truth, only, not asked.no_peers) if asked.truth else ({}, [])
    if asked.speed or (asked.json and not asked.only):
        from bench.planner.speed import speed

        result["speed"] = scores.plain(speed())
    if asked.leave_one_out and asked.truth:
        from bench.planner.cross import leave_one_out

        result["leave_one_out"] = scores.plain(leave_one_out(only, asked.truth))
    if asked.json:
        sys.stdout.write(json.dumps(result, allow_nan=False, indent=1, ensure_ascii=False) + "\n")
        return
    lines = [report.text(result, fields)] if fields else report.speed(result["speed"])
    lines += report.left_out(result.get("leave_one_out", {}))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
