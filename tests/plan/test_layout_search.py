"""Layout search: its figures are `estimate`'s, nothing that runs is left out, and known cases come out as they should."""

from __future__ import annotations

import pytest

from lablib import Cluster, LabError, estimate, search_layouts
from lablib.plan.search import DEGREES, follows_rule, recipe_of, rule_of_thumb
from lablib.specs import catalog

NODE = Cluster(accelerator="h100-sxm", nodes=1)


def test_every_row_is_what_estimate_says_of_its_recipe() -> None:
    cluster = Cluster(accelerator="h100-sxm", nodes=4)
    found = search_layouts("llama-3.1-8b", cluster, "1M", 4096)
    runs = found[found["fits"] & (found["dp_shard"] * found["dp_replicate"] > 1)]
    for at in range(0, len(runs), max(1, len(runs) // 25)):
        row = runs.iloc[at]
        plan = estimate(recipe_of(row, "llama-3.1-8b", "1B", "1M", 4096), cluster)
        assert plan.memory.peak_gib == pytest.approx(row["peak_gib"], rel=1e-6)
        assert plan.tokens_per_second_per_gpu == pytest.approx(row["tokens_per_second_per_gpu"], rel=1e-6)
        assert plan.mfu == pytest.approx(row["mfu"], rel=1e-6)


def test_every_factorisation_of_the_gpus_is_there_once() -> None:
    found = search_layouts("llama-3.1-8b", NODE, "1M", 8192, recompute=("full",))
    assert ((found["dp_replicate"] * found["dp_shard"] * found["tp"] * found["pp"] * found["cp"]) == 8).all()
    degrees = found[list(DEGREES)]
    assert not degrees.duplicated().any()
    # 8 = 2³ over five places: C(7, 4) ordered factorisations, all of which divide this model
    assert len(degrees[["dp_replicate", "dp_shard", "tp", "pp", "cp"]].drop_duplicates()) == 35


def test_what_runs_comes_first_fastest_first_and_every_loser_has_its_reason() -> None:
    found = search_layouts("llama-3.1-70b", Cluster(accelerator="h100-sxm", nodes=8), "4M", 8192)
    running = found[found["fits"]]
    assert len(running) and not found["fits"].iloc[len(running) :].any()
    assert running["tokens_per_second_per_gpu"].is_monotonic_decreasing
    assert found["reason"].iloc[0] == "" and (found["reason"].iloc[1:] != "").all()
    assert found[~found["fits"]]["reason"].str.contains("GiB of 80|batch").all()


def test_a_small_model_needs_no_pipeline_and_a_large_one_cannot_be_replicated() -> None:
    small = search_layouts("qwen3-0.6b", NODE, "1M", 4096).iloc[0]
    assert small["pp"] == 1 and small["tp"] == 1
    large = search_layouts("llama-3.1-405b", Cluster(accelerator="h100-sxm", nodes=64), "16M", 8192)
    runs = large[large["fits"]]
    # 16 bytes of 405B parameters are 6 TiB: they must lie on more than 75 cards, whatever shares them
    assert (runs["dp_shard"] * runs["cp"] * runs["tp"] * runs["pp"] > 75).all()


def test_the_rule_of_thumb_by_size() -> None:
    rule = {
        name: rule_of_thumb(catalog.models[name], NODE) for name in ("qwen3-0.6b", "llama-3.1-8b", "llama-3.1-405b")
    }
    assert "DDP" in rule["qwen3-0.6b"] and "FSDP" in rule["llama-3.1-8b"] and "pipeline" in rule["llama-3.1-405b"]
    found = search_layouts("llama-3.1-8b", NODE, "1M", 8192)
    obeying = found[found.apply(follows_rule, axis=1, model=catalog.models["llama-3.1-8b"])]
    assert (obeying["tp"] == 1).all() and (obeying["recompute"] == "selective").all() and obeying["fits"].any()


def test_bad_input_is_named() -> None:
    with pytest.raises(LabError, match="gpus=9"):
        search_layouts("llama-3.1-8b", NODE, gpus=9)
    with pytest.raises(LabError, match="batch_tokens='much'"):
        search_layouts("llama-3.1-8b", NODE, "much")
    with pytest.raises(LabError, match="nearest"):
        search_layouts("lama-8b", NODE)
