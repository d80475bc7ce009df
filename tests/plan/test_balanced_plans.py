"""Plans of models with experts keep them in equal use, and a recipe that does not is told how."""

from __future__ import annotations

import re

import pytest

from lablib import Cluster, Parallelism, Pretrain, catalog, estimate
from lablib.plan.search import find_layouts
from lablib.specs import Balance, Mixture
from lablib.specs.balance import SELECTS_BY_BIAS
from lablib.specs.further import anneal, extend
from lablib.train.able import check


@pytest.mark.parametrize("name", ["qwen3-30b-a3b", "deepseek-v3"])
def test_planned_recipes_are_balanced_and_others_are_warned(name: str) -> None:
    """By what the trainer can do for the family; one that nothing balances is told how, in words that it takes."""
    model, cluster = catalog.models[name], Cluster(accelerator="h100-sxm", nodes=32, gpus_per_node=8)
    bare = Pretrain(
        model=model, tokens="1T", batch_tokens="16M", seq_len=4096, parallelism=Parallelism(dp_shard=256, ep=8)
    )
    (said,) = [words for words in estimate(bare, cluster).warnings if words.startswith("balance")]
    usual = Balance.usual(model)
    assert usual and usual == Balance(**dict(re.findall(r"(\w+)=([\d.e-]+)", said.partition("set balance=")[2])))
    assert (usual.bias_rate > 0) == (model.family in SELECTS_BY_BIAS)
    assert not any(words.startswith("balance") for words in estimate(bare.replace(balance=usual), cluster).warnings)
    check(bare.replace(balance=usual))
    small = model.replace(layers=4)
    assert (
        find_layouts(small, cluster.replace(nodes=1), batch_tokens="16M", seq_len=4096).best.recipe().balance == usual
    )
    assert Balance.usual(catalog.models["llama-3-8b"]) is None


def test_what_is_trained_further_stays_balanced() -> None:
    """Routers that a loss kept in equal use would come to favour a few in the stages after."""
    model = catalog.models["qwen3-30b-a3b"]
    parent = Pretrain(model=model, tokens="1T", batch_tokens="4M", seq_len=4096, balance=Balance.usual(model), attention="sdpa")  # fmt: skip
    for further in (anneal(parent, "model", Mixture()), extend(parent, "model", 8192)):
        assert (further.balance, further.attention) == (parent.balance, "sdpa")
