"""A mixture learned from proxies: the verdict against SciPy's paired interval, and a whole small study that is taken up again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cluster import mixing
from cluster.mixing import kept, learn_mixture, tokens_of
from lab.commands.mixture import shown
from lablib.data.mixing.laws import ExpLaw
from lablib.data.mixing.learned import MixingLaw, refits
from lablib.data.mixing.study import Arm, Study
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Mixture, ModelSpec, Optimizer, Parallelism, Prepare, Pretrain, Profile
from lablib.specs.hardware import LOCAL
from lablib.specs.synthetic import Caps, Synthetic

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


def test_a_small_study_is_whole_and_taken_up_again(
    corpus: Path, here: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One data run, six proxies, three mixtures with two seeds; called again it reads the data again, trains nothing and says the same."""
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
    assert learn_mixture(proxy(corpus), 6, **settings) == found and "6 found" in told[-1]
    assert here == [1, 6, 6, 1], "what lies at the path is read again, and is the same"
    data = Run.open(tmp_path / "runs" / found.proxies[0]).recipe.data  # type: ignore[union-attr]
    assert Study.load(kept(tmp_path / "runs", proxy(corpus).replace(data=data), 6)) == found
    assert shown(found) is not None
    folder = Run.open(tmp_path / "runs" / data.run).artefact_path("data")
    before, manifest = tokens_of(folder, 32), json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "mixture": {"odd": 1.0}}))
    assert tokens_of(folder, 32) == before and set(before) == {"odd", "even"}, "whatever it was prepared for"


def test_a_run_is_known_by_what_it_read_and_owns(tmp_path: Path) -> None:
    """Helpers of a preparation have its hash, and proxies of another state of a folder have theirs."""
    shared, small = Prepare(tasks=2), proxy(tmp_path)
    prepared = [Recorder.create(tmp_path, one) for one in (*shared.shares(), shared)]
    for number, run in enumerate(prepared):
        (run.path / "data").write_text(f"state {number}")
        run.artefact("data", run.path / "data")
    old, new = (Run.open(prepared[number].path).data for number in (0, 2))
    Recorder.create(tmp_path, small.replace(data=old))
    lab = mixing.Lab(LOCAL, tmp_path, 0, lambda words: None)
    (known,) = lab._known([shared]).values()
    assert known.recipe.task == 0  # type: ignore[union-attr]
    assert lab._known([small.replace(data=old)]) and not lab._known([small.replace(data=new)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"count": 3}, "proxies=3: a law takes at least 4"), ({"seeds": 0}, "seeds=0"), ({"importance": {"odd": 0.0}}, "no domain counts"),
     ({"importance": {"odd": float("nan")}}, "finite number"), ({"importance": {"odd": -1.0, "even": 2.0}}, "0 or more")],
)  # fmt: skip
def test_what_no_study_can_have_is_said_before_a_run(here: list[int], tmp_path: Path, settings: dict[str, Any], message: str) -> None:  # fmt: skip
    with pytest.raises(LabError, match=message):
        learn_mixture(**{"recipe": proxy(tmp_path), "count": 6, "root": tmp_path, **settings})
    assert here == []


def test_an_unknown_domain_is_said_before_a_proxy_and_settings_name_the_study(
    corpus: Path, here: list[int], tmp_path: Path
) -> None:
    with pytest.raises(LabError, match="importance names code; this data has even, odd"):
        learn_mixture(proxy(corpus), 6, root=tmp_path / "runs", importance={"code": 1.0})
    assert here == [1]
    small = proxy(corpus)
    others: list[dict[str, Any]] = [{}, {"base": {"odd": 1.0}}, {"seeds": 3}, {"seed": 1}, {"importance": {"odd": 1.0}}]
    assert len({kept(tmp_path, small, count, **other) for count in (6, 7) for other in others}) == 10


def test_proxies_and_arms_keep_the_caps_on_synthetic_text(
    here: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A uniform mixture would be half synthetic; under a cap of .3 each run keeps it, and equal arms are counted once."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(mixing.study, "refits", lambda proxies, law, count: refits(proxies, law, 3))
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(40)]
    rows = [{"text": " ".join(draw.choices(words, k=40)) + f" {n}", "domain": "people" if n % 4 else "model", "generation": 0 if n % 4 else 1} for n in range(300)]  # fmt: skip
    (tmp_path / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare = Prepare(corpus=str(tmp_path / "made.jsonl"), vocab=300, synthetic=Caps(corpus=0.3))
    made = mixing.submit_all([prepare], LOCAL, tmp_path / "runs")[0]
    found = learn_mixture(proxy(tmp_path).replace(data=made.data), 4, root=tmp_path / "runs", seeds=1)
    known = Synthetic.of(made.artefact_path("data"))
    runs = [Run.open(tmp_path / "runs" / run) for run in {*found.proxies, *(run for arm in found.arms for run in arm.runs)}]  # fmt: skip
    mixtures = [run.recipe.mixture for run in runs if isinstance(run.recipe, Pretrain)]
    shares = [one.weights.get("model", 0.0) for one in mixtures if isinstance(one, Mixture)]
    assert known.against({"model": 0.5, "people": 0.5}) and max(shares) == pytest.approx(0.3)
    assert not any(map(known.against, [one.weights for one in mixtures if isinstance(one, Mixture)]))
    assert found.flops == pytest.approx(len(runs) * mixing.model_flops(runs[0].recipe))  # type: ignore[arg-type]


def test_a_profile_far_away_is_refused(corpus: Path, tmp_path: Path) -> None:
    far = Profile(name="far", scheduler="slurm", ssh="me@there", root=Path("/runs"))
    with pytest.raises(LabError, match="call this there"):
        learn_mixture(proxy(corpus), 6, far, tmp_path)
