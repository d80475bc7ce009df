"""From a budget to what it can train: budgets hold, no plan is beaten in everything, more money never buys a worse loss."""

from __future__ import annotations

import pytest

from lablib import Cluster, LabError, estimate, plan_for

CLUSTER = Cluster(accelerator="h100-sxm", nodes=4, price_per_gpu_hour=2.5)
SIZES = ["qwen3-0.6b", "llama-3.2-3b", "llama-3.1-8b"]


def test_the_budget_and_the_date_hold_and_the_recipes_are_estimates() -> None:
    options = plan_for(budget="$20k", days=20, cluster=CLUSTER, sizes=SIZES).options
    assert options
    for option in options:
        plan = estimate(option.recipe, CLUSTER)
        assert plan.dollars is not None and plan.dollars.mid <= 20_000 * 1.02 and plan.days.mid <= 20 * 1.02
        assert plan.fits


def test_more_money_never_buys_a_worse_loss() -> None:
    least = [
        min(o.loss for o in plan_for(budget=money, cluster=CLUSTER, sizes=SIZES).options) for money in ("$2k", "$20k")
    ]
    assert least[1] < least[0]


def test_an_impossible_budget_is_named() -> None:
    with pytest.raises(LabError):
        plan_for(budget="$0.01", cluster=CLUSTER, sizes=["llama-3.1-405b"])
