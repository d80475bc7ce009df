"""A mixture learned from proxies: the verdict against SciPy's paired interval, and a whole small study that is taken up again."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cluster import mixing
from cluster.mixing import kept, learn_mixture
from lab.commands.mixture import shown
from lablib.data.mixing.laws import ExpLaw
from lablib.data.mixing.learned import MixingLaw, refits
from lablib.data.mixing.study import Arm, Study
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Mixture, ModelSpec, Optimizer, Parallelism, Pretrain, Profile
from lablib.stages import execute

LAW = MixingLaw(domains=("a", "b"), laws={"a": ExpLaw(c=0, b=0, t=(-1, 0))}, importance={"a": 1.0}, runs=9)
HALF = Mixture(weights={"a": 0.5, "b": 0.5})


def study(**objectives: tuple[float, ...]) -> Study:
    arms = tuple(Arm(name=name, mixture=HALF, runs=(), by_domain={"a": 1.0}, objective=found) for name, found in objectives.items())  # fmt: skip
    return Study(recipe="r", proxies=(), law=LAW, mixture=HALF, predicted_gain=0.1, predicted_range=None, opinions=(), arms=arms, flops=2e9, target_flops=1e12)  # fmt: skip


def test_the_interval_is_the_paired_one() -> None:
    rng = np.random.default_rng(0)
    own, other = rng.normal(2.0, 0.1, 5), rng.normal(2.05, 0.1, 5)
    (verdict,) = study(learned=tuple(own), uniform=tuple(other)).verdicts
    wanted = stats.ttest_rel(other, own).confidence_interval(0.95)
    assert (verdict.gain - verdict.half, verdict.gain + verdict.half) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [((2.0, 2.1), (2.2, 2.3001), "beats"), ((2.2, 2.3001), (2.0, 2.1), "loses to"), ((2.0, 2.2), (2.2, 2.1), "was not shown"), ((2.0,), (3.0,), "was not shown")],
)  # fmt: skip
def test_the_verdict_is_honest(own: tuple[float, ...], other: tuple[float, ...], said: str) -> None:
    """One seed shows nothing, however large the difference."""
    found = study(learned=own, natural=other)
    assert said in str(found.verdicts[0]) and found.cost == pytest.approx(0.002)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(40)]
    rows = [{"text": " ".join(draw.choices(words, k=40)) + f" {n}", "domain": "odd" if n % 2 else "even"} for n in range(300)]  # fmt: skip
    (tmp_path / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "made.jsonl"


def proxy(corpus: Path) -> Pretrain:
    model = ModelSpec(family="qwen3", layers=1, hidden=32, heads=2, kv_heads=1, head_dim=16, ffn=64, vocab=300, max_seq_len=64)  # fmt: skip
    return Pretrain(
        name="proxy", model=model, data=str(corpus), tokens=512, seq_len=32, batch_tokens=256, precision="fp32", eval_tokens=640,
        parallelism=Parallelism(micro_batch_size=8), optimizer=Optimizer(learning_rate=1e-2), eval_every=2, checkpoint_every=2,
    )  # fmt: skip


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`submit_all` in this process; how many recipes each call was given."""
    calls: list[int] = []

    def submit_all(recipes: Sequence[Any], profile: Profile, root: Path, at_once: int = 0) -> list[Run]:
        calls.append(len(recipes))
        made = []
        for recipe in recipes:
            run = Recorder.create(root, recipe)
            with run.working():
                execute(recipe, run)
            made.append(Run.open(run.path))
        return made

    monkeypatch.setattr(mixing, "submit_all", submit_all)
    return calls


def test_a_small_study_is_whole_and_taken_up_again(
    corpus: Path, here: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One data run, six proxies, three mixtures with two seeds; called again it submits nothing and says the same."""
    monkeypatch.setattr(mixing.study, "refits", lambda proxies, law, count: refits(proxies, law, 3))
    told: list[str] = []
    settings: dict[str, Any] = {
        "root": tmp_path / "runs",
        "target": proxy(corpus).replace(tokens="1M"),
        "tell": told.append,
    }
    found = learn_mixture(proxy(corpus), 6, **settings)
    assert here == [1, 6, 6] and [arm.name for arm in found.arms] == ["learned", "uniform", "natural"]
    assert set(found.law.importance) == {"odd", "even"} and len(found.proxies) == 6
    by_hand = [np.mean([Run.open(tmp_path / "runs" / run).rows("eval")[-1][f"bits_per_byte.{d}"] for d in ("odd", "even")]) for run in found.arms[1].runs]  # fmt: skip
    assert found.arms[1].objective == pytest.approx(by_hand)
    assert found.cost == pytest.approx(12 * 512 / 1_000_192)  # the same model: tokens alone differ
    assert learn_mixture(proxy(corpus), 6, **settings) == found and here == [1, 6, 6] and "6 found" in told[-1]
    data = Run.open(tmp_path / "runs" / found.proxies[0]).recipe.data  # type: ignore[union-attr]
    assert Study.load(kept(tmp_path / "runs", proxy(corpus).replace(data=data))) == found
    assert shown(found) is not None


def test_a_profile_far_away_is_refused(corpus: Path, tmp_path: Path) -> None:
    far = Profile(name="far", scheduler="slurm", ssh="me@there", root=Path("/runs"))
    with pytest.raises(LabError, match="learn the mixture there"):
        learn_mixture(proxy(corpus), 6, far, tmp_path)
