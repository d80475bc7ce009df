"""Whole published runs: layouts as written and by rule, bands, and rows that cannot be true."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from bench.planner import fit_runs, runs
from bench.planner.rows import Row, Unplannable
from lablib.plan import Range, goodput
from lablib.specs import catalog

BLOOM: Row = {
    "id": "R1", "name": "BLOOM 176B", "family": "bloom", "arch": "bloom-176b", "params_total": "176247271424", "n_layers": "70",
    "hidden": "14336", "n_heads": "112", "n_kv_heads": "112", "ffn": "57344", "vocab": "250880", "tokens": "366e9",
    "gpu": "A100-SXM-80GB", "n_gpus": "384", "layout": "TP4 PP12 DP8 ZeRO-1", "batch_tokens": "4194304", "seq_len": "2048",
    "precision": "bf16", "gpu_hours": "1082990", "gpu_hours_kind": "reported", "tier": "A", "source": "https://arxiv.org/abs/2211.05100",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "gpus", "degrees"),
    [
        ("TP4 PP12 DP8 ZeRO-1", 384, (4, 12, 8, 1, 1)),
        ("TP8 + FSDP", 992, (8, 1, 124, 1, 3)),
        ("PP16 (DualPipe) EP64 (8 nodes) ZeRO-1, no TP", 2048, (1, 16, 128, 64, 1)),
        ("FSDP HSDP", 128, (1, 1, 128, 1, 3)),
    ],
)
def test_layouts_are_read_as_written(text: str, gpus: int, degrees: tuple[int, ...]) -> None:
    found = runs.layout_of(text, gpus)
    assert found is not None and found.gpus == gpus
    assert (found.tp, found.pp, found.dp_shard, found.ep if "EP" in text else 1, found.zero) == degrees


def test_what_says_nothing_is_left_to_the_rule() -> None:
    assert runs.layout_of("", 64) is None and runs.layout_of("TP8 PP3", 64) is None
    small = list(runs.by_rule(catalog.models["llama-3-8b"], 64, early=False))
    assert [layout.dp_shard for layout in small] == [64]
    early = list(runs.by_rule(catalog.models["llama-2-70b"], 64, early=True))
    assert all(layout.zero == 1 for layout in early) and {layout.tp for layout in early} == {1, 2, 4, 8}
    assert all(layout.gpus == 64 for layout in early)


def test_a_known_run_is_planned_with_its_band() -> None:
    scored = runs.predict(BLOOM)
    assert scored.low is not None and scored.high is not None
    assert scored.low < scored.predicted < scored.high
    assert scored.published in Range(low=scored.low, mid=scored.predicted, high=scored.high)
    assert scored.predicted == pytest.approx(scored.published, rel=0.35)
    assert runs.run_of(BLOOM).kind == "known" and runs.run_of(BLOOM).job.recompute == "full"


def test_second_hand_figures_have_the_wider_band() -> None:
    kinds = [
        BLOOM,
        {**BLOOM, "layout": "", "n_gpus": ""},
        {**BLOOM, "layout": "", "n_gpus": "", "tier": "B"},
    ]
    width = [one.high / one.low for one in map(runs.predict, kinds) if one.high and one.low]
    assert width[0] == pytest.approx(width[1]) and width[1] < width[2]
    assert [runs.run_of(row).kind for row in kinds] == ["known", "assumed", "vague"]
    assert "GPUs" in runs.predict(kinds[1]).note


@pytest.mark.parametrize(("hours", "word"), [("50000", "impossible"), ("9000000", "inconsistent")])
def test_claims_that_cannot_be_are_named_and_still_scored(hours: str, word: str) -> None:
    scored = runs.predict({**BLOOM, "gpu_hours": hours})
    assert word in scored.note and scored.predicted > 0


@pytest.mark.parametrize("missing", ["tokens", "gpu_hours"])
def test_a_row_without_what_is_needed_says_so(missing: str) -> None:
    with pytest.raises(Unplannable, match=r"unknown|published"):
        runs.predict({**BLOOM, missing: ""})


def test_odd_rows_are_planned_or_say_why() -> None:
    changes = itertools.product(
        ("", "1", "7", "100000"), ("", "TP3 PP5", "TP8 PP2 EP4", "FSDP", "nonsense"), ("", "2048", "1e9")
    )
    for gpus, layout, batch in changes:
        row = {**BLOOM, "n_gpus": gpus, "layout": layout, "batch_tokens": batch}
        assert runs.predict(row).predicted > 0


def made_up(spread: float, families: int) -> list[fit_runs.Case]:
    """Runs that take e^0.3 times the plan, give or take a normal error of `spread` in the logarithm."""
    draw = np.random.default_rng(3)
    return [
        fit_runs.Case(f"R{i}", f"family{i % families}", "known" if i % 2 else "assumed", math.exp(0.3 + spread * draw.normal()), 1.0)
        for i in range(400)
    ]  # fmt: skip


def test_the_fit_finds_a_constant_and_a_spread_that_were_put_in() -> None:
    found = fit_runs.fit(made_up(0.2, families=400))
    assert found.mid == pytest.approx(0.3, abs=0.03)
    low, high = found.bands["solid"]
    assert low == pytest.approx(-1.2816 * 0.2, abs=0.04) and high == pytest.approx(1.2816 * 0.2, abs=0.04)
    assert found.bands["vague"][0] <= low and found.bands["vague"][1] >= high


def test_the_band_allows_for_few_rows() -> None:
    """A new row lies beyond the largest of n exchangeable ones with probability 1/(n+1)."""
    few = [fit_runs.Case(f"R{i}", f"family{i}", "known", math.exp(0.1 * i), 1.0) for i in range(9)]
    low, high = fit_runs.fit(few).bands["solid"]
    assert high >= 0.4 and low <= -0.4  # n = 9: the deciles are the outermost rows, four steps from the median
    wide = [one._replace(family=f"family{i // 3}") for i, one in enumerate(few)]
    assert fit_runs.fit(wide).bands["solid"][1] > high  # families that stand together are further from the rest


def test_the_two_files_hold_one_fit() -> None:
    assert goodput.SLOW.high / goodput.SLOW.mid == pytest.approx(runs.BANDS["solid"].high, rel=0.02)
    assert goodput.SLOW.low == max(1.0, round(goodput.SLOW.mid * runs.BANDS["solid"].low, 2))
