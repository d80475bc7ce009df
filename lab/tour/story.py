"""What the tour says at the end: predicted beside actual, the evaluation, and what it does not do yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from lab.show import table
from lablib.explorers.planned import Span, planned
from lablib.runs import Run
from lablib.specs.units import show_dollars, show_seconds

QUESTION = "What does this machine buy in a few minutes: how well can a small model be pretrained on real text, and does each alignment stage make it measurably better at a task it can be checked on?"

NOT_YET = (
    "Slurm: stages run on this machine; profiles, job chains on a cluster and survival come next.",
    "PP, CP and EP: the loop shards over FSDP2, HSDP and TP.",
    "Calibrated post-training plans: SFT, DPO and GRPO are priced from the pretraining probe.",
    "Decontamination and near-duplicate removal: the corpus is deduplicated exactly only.",
)


def _predicted(span: Span | None, show: Any) -> str:
    return "" if span is None else show(span.mid)


def comparison(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Predicted and actual time, memory, loss and money of each stage, as numbers."""
    rows = []
    for label, run in runs.items():
        plan, outcome = planned(run), run.outcome
        rows.append(
            {
                "stage": label,
                "seconds_predicted": plan.seconds and plan.seconds.mid,
                "seconds": outcome.seconds,
                "gib_predicted": plan.gib and plan.gib.mid,
                "gib": outcome.peak_gib,
                "loss_predicted": plan.loss and plan.loss.mid,
                "loss": outcome.loss if run.recipe.stage == "pretrain" else None,
                "dollars_predicted": plan.dollars and plan.dollars.mid,
                "dollars": outcome.dollars,
            }
        )
    return rows


def plan_table(runs: Mapping[str, Run]) -> RenderableType:
    """The same for people: each figure as predicted → actual."""
    shows = {
        "seconds": show_seconds,
        "gib": lambda x: f"{x:.2f}",
        "loss": lambda x: f"{x:.2f}",
        "dollars": show_dollars,
    }

    def cell(row: dict[str, Any], key: str) -> str:
        before, after = row[f"{key}_predicted"], row[key]
        if after is None:
            return ""
        return f"{shows[key](before) if before is not None else '–'} → {shows[key](after)}"

    rows = [[row["stage"], *(cell(row, key) for key in shows)] for row in comparison(runs)]
    return table(["stage", "time", "memory GiB", "loss", "money"], rows, "Predicted → actual")


def scores(run: Run) -> dict[str, Any]:
    """What an evaluation run registered."""
    found: dict[str, Any] = json.loads(run.artefact_path("scores").read_text(encoding="utf-8"))
    return found


def evaluation_table(scores: dict[str, Any]) -> RenderableType:
    """Each model and task with its interval, and the paired difference to the baseline with its verdict."""
    against = {(row["model"], row["task"]): row for row in scores["comparisons"] if row["against"] == "baseline"}
    before = {
        (row["model"], row["task"]): row for row in scores["comparisons"] if row["baseline"] != scores["baseline"]
    }
    rows = []
    for row in scores["scores"]:
        key = (row["model"], row["task"])
        interval = f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        rows.append([row["model"], row["task"], interval, _difference(against.get(key)), _difference(before.get(key))])
    title = f"Evaluation, {scores['confidence']:.0%} intervals, paired on the same items"
    return table(
        ["model", "task", row_title(scores), f"against {scores['baseline']}", "against the stage before"], rows, title
    )


def row_title(scores: dict[str, Any]) -> str:
    """What the value column holds: the metrics of the table."""
    return " or ".join(dict.fromkeys(row["metric"] for row in scores["scores"]))


def _difference(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}) {row['verdict']}"
