"""The memory planner: it says what `estimate` says, stage by stage, and its switches change what they name."""

from __future__ import annotations

import pytest

from lablib.explorers import MemoryPlan
from lablib.plan import estimate
from lablib.specs import LabError


def test_the_screen_says_what_the_estimate_says() -> None:
    screen = MemoryPlan(model="llama-3.1-8b", dp_shard=8)
    view, plan = screen.view(), estimate(screen.recipe, screen.cluster)
    assert f"{plan.memory.peak_gib:.3g} GiB" == view.headlines[0].value
    assert sum(view.frames["parts"]["gib"]) == pytest.approx(plan.memory.peak_gib, rel=1e-3)
    assert max(view.frames["moments"]["value"]) == pytest.approx(plan.memory.peak_gib, rel=1e-3)


def test_every_stage_of_a_pipeline_has_a_row_and_the_first_holds_most_activations() -> None:
    table = MemoryPlan(model="llama-3.1-70b", dp_shard=8, tp=8, pp=4, recompute="full").view().tables[1]
    assert [row[0] for row in table.rows] == ["0", "1", "2", "3"]
    starts = [float(row[table.columns.index("start of backward")]) for row in table.rows]
    assert starts[0] > starts[1] > starts[2]


def test_switches_save_what_they_should() -> None:
    rows = {row[0]: row for row in MemoryPlan(model="llama-3.1-8b", recompute="none").view().tables[0].rows}
    change = {name: float(row[2].split()[0]) for name, row in rows.items()}
    assert change["chunked cross entropy"] < change["fused cross entropy"] < 0
    assert change["recompute every layer"] < change["keep every second matmul"] < change["keep every matmul"] < 0
    assert change["8-bit AdamW"] < 0 and change["half the sequence"] < 0
    assert "no recomputation" not in rows  # a switch that changes nothing is not shown


def test_a_layout_that_does_not_go_with_the_model_is_refused_with_the_remedy() -> None:
    with pytest.raises(LabError, match="tp=16"):
        MemoryPlan(model="smollm2-135m", tp=16).view()
