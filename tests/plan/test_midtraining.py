"""What a mid-training is warned of, at and beyond the guide's limits."""

from __future__ import annotations

import pytest

from lablib import Cluster, estimate
from lablib.plan.forecast import forecast
from lablib.plan.midtraining import cautions
from lablib.plan.reading import Reading
from lablib.specs import Midtrain, Mixture, ModelSpec, Pretrain
from lablib.specs.midtrain import Replay

MODEL = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, head_dim=16, ffn=128, vocab=512, max_seq_len=64)


def onwards(share: float | None = 0.2, **changes: object) -> Midtrain:
    replay = None if share is None else Replay(mixture=Mixture(weights={"web": 1.0}), share=share)
    usual = {"kind": "continue", "model": MODEL, "start": "a", "tokens": "1M", "seq_len": 64, "batch_tokens": 4096}
    return Midtrain(**{**usual, "mixture": Mixture(weights={"law": 1.0}), "replay": replay, **changes})


def read(tokens: float, unique: float | None) -> tuple[Reading, ...]:
    web = Reading(domain="web", share=0.2, tokens=1e5, unique=1e12, epochs=None, worth=None)
    return web, Reading(domain="law", share=0.8, tokens=tokens, unique=unique, epochs=None, worth=None)


@pytest.mark.parametrize(
    ("share", "said"), [(None, "forgotten"), (0.05, "forgotten"), (0.1, ""), (0.3, ""), (0.4, "little is left")]
)
def test_the_share_of_the_old_mixture(share: float | None, said: str) -> None:
    found = list(cautions(onwards(share), ()))
    assert len(found) == bool(said) and said in "".join(found)


@pytest.mark.parametrize(("passes", "said"), [(0.05, True), (0.1, False), (1.0, False), (1.5, True)])
def test_passes_over_the_new_domain_alone(passes: float, said: bool) -> None:
    found = list(cautions(onwards(), read(passes * 1e6, 1e6)))
    assert len(found) == said and all(f"{passes:.2g} times" in text for text in found)
    assert not list(cautions(onwards(), read(passes * 1e6, None))), "nothing is said of a size that nobody knows"


@pytest.mark.parametrize(("tokens", "said"), [("0.9B", True), ("1B", False), ("10B", False), ("11B", True)])
def test_tokens_at_a_new_length(tokens: str, said: bool) -> None:
    wanted = onwards(None, kind="extend", tokens=tokens)
    assert len(list(cautions(wanted, ()))) == said


def test_an_estimate_tells_them_and_forecasts_no_loss() -> None:
    """The laws are of training from nothing. The price is that of so many tokens, as for pretraining."""
    wanted, machine = onwards(0.5), Cluster(accelerator="h100-sxm")
    plan = estimate(wanted, machine)
    assert any("replay.share=0.5" in text for text in plan.warnings) and forecast(wanted) is None
    assert {one.domain for one in plan.reads} == {"law", "web"}
    same = {name: getattr(wanted, name) for name in Pretrain.model_fields if name not in ("stage", "name")}
    assert plan.gpu_hours == estimate(Pretrain(**same), machine).gpu_hours
    assert not list(cautions(Pretrain(**same), ()))
