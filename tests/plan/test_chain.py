"""A chain of recipes as one plan."""

from __future__ import annotations

import pytest

from lablib.plan import estimate
from lablib.plan.chain import ChainEstimate
from lablib.specs import (
    SFT,
    Accelerator,
    Cluster,
    Evaluate,
    Export,
    LabError,
    Parallelism,
    Preference,
    Pretrain,
    Recipe,
    Task,
)

H100 = Cluster(accelerator="h100-sxm", nodes=8)
TASK = Task(name="sums", generator="chain_sum")
CHAIN: list[Recipe] = [
    Pretrain(model="llama-3-8b", tokens="100B", seq_len=8192, batch_tokens="4M", parallelism=Parallelism(dp_shard=64), recompute="selective"),
    SFT(model="qwen3-8b", data="rows.jsonl", parallelism=Parallelism(dp_shard=8)),
    Preference(model="qwen3-8b", data="pairs.jsonl", parallelism=Parallelism(dp_shard=8)),
    Evaluate(models={"base": "qwen3-8b"}, tasks=(TASK,)),
    Export(model="qwen3-8b"),
]  # fmt: skip


def test_a_chain_is_the_sum_of_its_stages() -> None:
    chain = estimate(CHAIN, H100)
    alone = [estimate(recipe, H100) for recipe in CHAIN]
    assert isinstance(chain, ChainEstimate) and list(chain.stages) == alone
    assert chain.flops == pytest.approx(sum(plan.flops.total for plan in alone))
    for bound in ("low", "mid", "high"):
        assert getattr(chain.gpu_hours, bound) == pytest.approx(sum(getattr(plan.gpu_hours, bound) for plan in alone))
    assert chain.days.mid == pytest.approx(sum(plan.days.mid for plan in alone))
    assert chain.dollars and chain.dollars.mid == pytest.approx(sum(plan.dollars.mid for plan in alone if plan.dollars))


def test_shares_add_up_and_pretraining_has_most_of_the_compute() -> None:
    chain = estimate(CHAIN, H100)
    for name in ("flops", "gpu_hours", "days", "dollars"):
        assert sum(getattr(share, name) for share in chain.shares) == pytest.approx(1)
    assert chain.shares[0].flops is not None and chain.shares[0].flops > 0.95  # the guide's Figure 1: 95 %
    assert all(share.gpu_hours > 0 for share in chain.shares)


def test_a_chain_shows_itself_and_survives_json() -> None:
    chain = estimate(CHAIN, H100)
    assert ChainEstimate.from_json(chain.to_json()) == chain
    text = str(chain)
    assert all(recipe.name in text for recipe in CHAIN) and "all" in text
    page = chain._repr_html_()
    assert page.count("<tr>") == len(CHAIN) + 2 and "[sft]" in chain.explain()


def test_names_are_escaped_and_unknown_prices_stay_unknown() -> None:
    cheap = H100.replace(accelerator=Accelerator(name="<b>", memory_gib=80, bandwidth_gb_s=2000, peak_tflops={"bf16": 300, "fp32": 20}))  # fmt: skip
    chain = estimate(CHAIN[:2], cheap)
    assert chain.dollars is None and chain.shares[0].dollars is None and "unknown" in str(chain)
    assert "<b>" not in chain._repr_html_() and "&lt;b&gt;" in chain._repr_html_()


def test_a_stage_that_does_not_fit_spoils_the_chain() -> None:
    chain = estimate([CHAIN[0].replace(parallelism=Parallelism(), batch_tokens=8192), CHAIN[1]], H100)
    assert not chain.fits and chain.warnings[0].startswith("pretrain: ")


def test_an_empty_chain_is_an_error() -> None:
    with pytest.raises(LabError, match="at least one stage"):
        estimate([], H100)
