"""Layout search: its figures are `estimate`'s, nothing that runs is left out, and known cases come out as they should."""

from __future__ import annotations

import pytest

from lablib import Cluster, LabError, estimate, plan_for, search_layouts
from lablib.explorers import BudgetPlan, MemoryPlan
from lablib.plan.search import find_layouts
from lablib.specs import catalog
from lablib.train.able import check

NODE = Cluster(accelerator="h100-sxm", nodes=1)
DEGREES = ["dp_replicate", "dp_shard", "tp", "pp", "cp"]


def test_every_row_is_what_estimate_says_of_its_recipe() -> None:
    cluster = Cluster(accelerator="h100-sxm", nodes=4)
    found = find_layouts("llama-3.1-8b", cluster, "1M", 4096)
    for place in range(0, found.fitting, max(1, found.fitting // 25)):
        candidate = found[place]
        plan, row = estimate(candidate.recipe("1B"), cluster), candidate.row()
        assert plan.memory.peak_gib == pytest.approx(row["peak_gib"], rel=1e-6)
        assert plan.tokens_per_second_per_gpu == pytest.approx(row["tokens_per_second_per_gpu"], rel=1e-6)
        assert plan.mfu == pytest.approx(row["mfu"], rel=1e-6) and plan.fits


def test_every_factorisation_of_the_gpus_is_there() -> None:
    found = search_layouts("llama-3.1-8b", NODE, "1M", 8192, recompute=("full",))
    assert (found[DEGREES].prod(axis=1) == 8).all()
    assert not found[[*DEGREES, "ep", "micro_batch_size", "virtual_stages"]].duplicated().any()
    # 8 = 2³ over five places: C(7, 4) ordered factorisations, all of which divide this model
    assert len(found[DEGREES].drop_duplicates()) == 35


def test_what_runs_comes_first_fastest_first_and_every_loser_has_its_reason() -> None:
    found = search_layouts("llama-3.1-70b", Cluster(accelerator="h100-sxm", nodes=8), "4M", 8192)
    running = found[found["fits"]]
    assert len(running) and not found["fits"].iloc[len(running) :].any()
    assert (
        running["step_seconds"].is_monotonic_increasing or running["tokens_per_second_per_gpu"].is_monotonic_decreasing
    )
    assert (found["reason"] != "").all() and running["reason"].iloc[1:].str.contains("slower|as fast|the same").all()


def test_a_small_model_needs_no_pipeline_and_a_large_one_cannot_be_replicated() -> None:
    small = search_layouts("qwen3-0.6b", NODE, "1M", 4096).iloc[0]
    assert small["pp"] == 1 and small["tp"] == 1
    large = search_layouts("llama-3.1-405b", Cluster(accelerator="h100-sxm", nodes=64), "16M", 8192)
    runs = large[large["fits"]]
    # 16 bytes of 405B parameters are 6 TiB: they must lie on more than 75 cards, whatever shares them
    assert (runs["dp_shard"] * runs["cp"] * runs["tp"] * runs["pp"] > 75).all()


@pytest.mark.parametrize("name", ["granite-4.0-h-tiny", "rwkv-4-1.5b"])
def test_what_is_found_for_a_recurrence_is_what_the_trainer_takes(name: str) -> None:
    found = find_layouts(name, NODE, "1M", 1024, recompute=("full",), micro_batch_sizes=(1,))
    runs = found.frame()
    runs = runs[runs["fits"]]
    assert len(runs) and (runs[["tp", "pp", "cp"]] == 1).all(axis=None)
    check(found[0].recipe("1B"))


@pytest.mark.parametrize("name", ["granite-4.0-h-tiny", "rwkv-4-1.5b"])
def test_every_plan_of_a_recurrence_is_what_the_trainer_takes(name: str) -> None:
    check(plan_for("$5k", cluster=NODE, sizes=[name], seq_len=1024).best.recipe)
    for screen in (BudgetPlan, MemoryPlan):
        check(screen(model=name, seq_len=1024).recipe)


def test_the_rule_of_thumb_is_shown_beside_the_best() -> None:
    found = find_layouts("llama-3.1-8b", NODE, "1M", 8192)
    rule = found.rule_of_thumb
    assert rule is not None and rule.parallelism.tp == 1 and rule.parallelism.dp_shard == 8
    assert rule.row()["tokens_per_second_per_gpu"] <= found.best.row()["tokens_per_second_per_gpu"]


def test_bad_input_is_named() -> None:
    with pytest.raises(LabError, match="9"):
        search_layouts("llama-3.1-8b", NODE, gpus=9)
    with pytest.raises(LabError, match="much"):
        search_layouts("llama-3.1-8b", NODE, "much")
    with pytest.raises(LabError, match="nearest"):
        search_layouts("lama-8b", NODE)
    assert "llama-3.1-8b" in catalog.models
