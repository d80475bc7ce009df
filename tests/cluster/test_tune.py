"""The search for a rate, run: proxies as one array on one preparation, taken up again, and what the command shows and writes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from cluster import mixing
from cluster.tuning import _diverged, _loss, tune
from lab.__main__ import main
from lablib.plan.tuning import proxies
from lablib.runs import Recorder, Run
from lablib.specs import LabError, ModelSpec, Optimizer, Parallelism, Pretrain, Profile
from lablib.specs.model import SSM

RATES = (1e-3, 1e-2, 1e-1)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretrain:
    """Not trained itself: its proxies are."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(40)]
    (tmp_path / "made.jsonl").write_text("".join(json.dumps({"text": " ".join(draw.choices(words, k=40)) + f" {n}"}) + "\n" for n in range(200)))  # fmt: skip
    model = ModelSpec(family="qwen3", layers=2, hidden=128, heads=8, kv_heads=8, head_dim=16, ffn=256, vocab=300, max_seq_len=64)  # fmt: skip
    return Pretrain(
        name="big", model=model, data=str(tmp_path / "made.jsonl"), tokens=100_000, seq_len=32, batch_tokens=128, precision="fp32",
        eval_tokens=320, parallelism=Parallelism(micro_batch_size=4), optimizer=Optimizer(learning_rate=3e-4), eval_every=1000,
    )  # fmt: skip


def test_a_small_search_is_whole_and_taken_up_again(target: Pretrain, here: list[int], tmp_path: Path) -> None:
    """One data run, three proxies, each loss its run's own; called again it trains nothing."""
    told: list[str] = []
    settings: dict[str, Any] = {"root": tmp_path / "runs", "tokens": 10 * 128, "layers": 1}
    found = tune(target, (16,), RATES, tell=told.append, **settings)
    assert here == [1, 3] and "3 proxies take" in told[0]
    assert [(width, rate) for width, rate, _ in found.trials] == [(16, rate) for rate in RATES]
    runs = {(run.recipe.model.hidden, run.recipe.optimizer.learning_rate): run for run in map(Run.open, tmp_path.glob("runs/big-mup-*"))}  # type: ignore[union-attr] # fmt: skip
    for width, rate, loss in found.trials:
        assert loss == runs[width, rate].rows("eval")[-1]["loss"]
    assert (found.hidden, found.layers) == (16, 1) and 0 < found.flops < found.target_flops
    assert tune(target, (16,), RATES, **settings) == found
    assert here == [1, 3, 1], "what lies at the path is read again, and is the same"


def test_one_that_diverged_has_no_loss_and_one_that_failed_is_named(target: Pretrain, tmp_path: Path) -> None:
    made = proxies(target, (16,), RATES, tokens=10 * 128)
    diverged, failed = (Recorder.create(tmp_path, one) for one in made[:2])
    diverged.event("not_finite", at_step=3)
    assert _loss(Run.open(diverged.path)) is None
    with pytest.raises(LabError, match="without a held-out loss"):
        _loss(Run.open(failed.path))


def test_one_that_diverged_is_not_trained_again_and_one_that_failed_is(
    target: Pretrain, here: list[int], tmp_path: Path
) -> None:
    made = [one.replace(data="none") for one in proxies(target, (16,), RATES, tokens=10 * 128)][:2]
    for one, ill in zip(made, ("not_finite", "surprise"), strict=True):
        run = Recorder.create(tmp_path, one)
        with pytest.raises(LabError), run.working():
            run.event(ill, at_step=3)
            raise LabError(ill)
    lab = mixing.Lab("local", tmp_path, 0, lambda words: None)
    (kept,) = lab.run(made[:1], "proxies", ended=_diverged)
    assert here == [] and _loss(kept) is None
    with pytest.raises(LabError):
        lab.run(made[1:], "proxies", ended=_diverged)
    assert here == [1]


def test_a_family_without_mup_is_refused_before_its_data_is_made(
    target: Pretrain, here: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ssm = SSM(heads=16, head_dim=16, state=8, attention_layers=(1,))
    hybrid = target.replace(model=target.model.replace(family="bamba", ssm=ssm, norm_eps=1e-5), document_mask=False)
    with pytest.raises(LabError, match="mup: not for a model of family='bamba'"):
        tune(hybrid, (16,), RATES, root=tmp_path / "runs", tokens=1280)
    assert main(["mup", str(hybrid.save(tmp_path / "hybrid.toml")), "--widths", "16", "--plan"]) == 2
    assert "mup: not for" in capsys.readouterr().err and here == []


def test_the_command_prices_before_it_starts(
    target: Pretrain, here: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Profile(name="far", scheduler="local", accelerator="h100-sxm").save(tmp_path / "far.toml")
    file, there = str(target.save(tmp_path / "big.toml")), ["--profile", str(tmp_path / "far.toml"), "--tokens", "1280"]
    assert main(["mup", file, "--widths", "16,32", *there, "--plan"]) == 0
    assert "14 proxies of 1.28k tokens take" in capsys.readouterr().out and here == []
    assert main(["mup", file, "--widths", "16,32", *there, "--plan", "--json", "--low", "1e-3", "--high", "1e-1", "--rates", "3"]) == 0  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert {one["learning_rate"] for one in said["proxies"]} == set(RATES) and said["search"] is None
    assert said["cost"]["share"] == pytest.approx(said["cost"]["flops"] / said["cost"]["target_flops"])
    for words, message in (
        (["--rates", "2"], "at least 3"),
        (["--low", "1e-3"], "go together"),
        (["--widths", "a"], "whole numbers"),
        (["--widths", "0"], "widths: 0"),
        (["--seeds", "0"], "at least 1 seed"),
        (["--low", "1e-3", "--high", "inf"], "finite"),
        (["--low", "1e-3", "--high", "1.0001e-3"], "different"),
    ):
        assert main(["mup", file, "--widths", "16", *there, *words]) == 2
        assert message in capsys.readouterr().err


def test_the_command_shows_and_writes_what_was_found(
    target: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lab.commands import mup
    from lablib.plan.tuning import search

    made = proxies(target, (16, 32), RATES, tokens=1280)
    found = search(made, [3.0, 2.5, 3.0, 2.9, 2.4, 2.9], target)
    monkeypatch.setattr(mup, "tune", lambda *args, **settings: found)
    Profile(name="far", scheduler="local", accelerator="h100-sxm").save(tmp_path / "far.toml")
    file = str(target.save(tmp_path / "big.toml"))
    words = ["--widths", "16,32", "--profile", str(tmp_path / "far.toml"), "--tokens", "1280"]
    assert main(["mup", file, *words, "--out", str(tmp_path / "tuned.toml")]) == 0
    said = capsys.readouterr().out
    assert "2.4000" in said and "The best rate is 0.01" in said
    tuned = Pretrain.load(tmp_path / "tuned.toml")
    assert tuned.mup and tuned.mup.hidden == 16 and tuned.optimizer.learning_rate == pytest.approx(0.01)
