"""The guide's numbers beside ours."""

from __future__ import annotations

import math

import pytest

from lablib.plan import guide
from lablib.specs import Pretrain


def test_the_cost_table_has_its_eight_rows_priced() -> None:
    rows = guide.costs()
    assert len(rows) == 8
    for row in rows:
        assert row.plan.dollars is not None and row.plan.gpu_hours.mid > 0
        assert math.isfinite(row.dollar_gap) and row.verdict
    text = guide.table(rows)
    assert text.count("\n") == 7 and "6ND" in text


@pytest.mark.parametrize(("index", "gap"), [(0, 9), (1, 2.9), (2, 1.3)])
def test_the_guides_gpu_time_is_too_high(index: int, gap: float) -> None:
    row = guide.costs()[index]
    assert row.gap == pytest.approx(gap, rel=0.06)  # notes/guide-errata.md
    assert isinstance(row.recipe, Pretrain)
    assert row.plan.fits, row.plan.warnings
    if gap > 2:
        assert "too high" in row.verdict


def test_a_frontier_run_is_within_the_guides_band() -> None:
    frontier, qlora = guide.costs()[3], guide.costs()[5]
    assert qlora.plan.fits and qlora.recipe.gpus == 1
    assert frontier.plan.fits and frontier.plan.dollars is not None
    assert 1e8 < frontier.plan.dollars.mid < 5e8


def test_the_kpis_have_ours_beside_them() -> None:
    found = {kpi.name: kpi for kpi in guide.kpis()}
    assert len(found) == 4
    assert "$" in found["frontier pretraining"].ours and found["LoRA SFT of a 7B"].verdict in ("holds", "mostly")


def test_rules_of_thumb_are_tried() -> None:
    rules = {rule.claim: rule for rule in guide.rules()}
    assert rules["Llama-3-8B: D/N about 1,900"].verdict == "holds"
    assert rules["16 bytes a parameter (2 + 2 + 12)"].verdict == "holds"
    assert rules["7B states on one GPU (2 + 2 + 12)"].ours.startswith("108 GB")
    assert rules["7B states over 8 GPUs, fully sharded (2 + 2 + 12)"].verdict == "holds"
    assert all(rules[f"ZeRO-{n} saves about {s}×"].verdict == "holds" for n, s in ((1, "4"), (2, "8"), (3, "N")))
    assert rules["activation checkpointing costs about 30 % compute"].verdict == "holds"
    assert rules["a 70B adapts on one 80 GB GPU (nf4 base)"].verdict == "holds"
    assert rules["a 70B adapts on one 80 GB GPU (bf16 base)"].ours.endswith("does not fit")
    assert "refuted" in rules["8K against 128K is 3× the memory (selective recomputation)"].verdict
    assert all(rule.ours and rule.verdict for rule in rules.values())
