"""Training through a change of mixture: stopped anywhere around it, continued exactly; each domain's tokens and losses told."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny import BATCH, SEQ_LEN, STOP, Job, attempt, curve, new_run, prepare_data, recipe

from lablib.data import PackedDataset
from lablib.data.mixing.proxies import collect
from lablib.data.prepare import prepare
from lablib.explorers import Monitor
from lablib.models.layout import Place
from lablib.runs import Recorder, Run
from lablib.specs import Caps, Curriculum, LabError, Mixture, Parallelism, Prepare, Pretrain, Ref
from lablib.train.batches import Batches

PLAN = Curriculum.of(("3k", Mixture(weights={"odd": 0.75, "even": 0.25})), ("2k", Mixture(weights={"even": 1.0})))
"""Stretched over five steps: the mixture changes after the third."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ref]:
    root = tmp_path_factory.mktemp("curriculum")
    return root, prepare_data(root)


@pytest.fixture(scope="module")
def wanted(data: tuple[Path, Ref]) -> Pretrain:
    return recipe(data[1], mixture=PLAN, checkpoint_every=1, eval_every=1)


@pytest.fixture(scope="module")
def whole(data: tuple[Path, Ref], wanted: Pretrain) -> Run:
    path = new_run(data[0], wanted)
    attempt(Job(path, wanted))
    return Run.open(path)


def test_each_domain_is_read_as_planned(whole: Run) -> None:
    """24 windows of three quarters odd, then 16 of even alone."""
    read = [(row["tokens.odd"], row["tokens.even"]) for row in whole.rows()]
    assert read == [(SEQ_LEN * odd, SEQ_LEN * even) for odd, even in ((6, 2), (12, 4), (18, 6), (18, 14), (18, 22))]


def test_the_screen_shows_what_was_read_and_how_well_each_domain_is_known(whole: Run) -> None:
    """The same windows as shares of each step, and every row of the eval stream as a row a domain."""
    frames = Monitor(whole).view().frames
    read = dict(zip(zip(frames["mixture_read"]["step"], frames["mixture_read"]["domain"], strict=True), frames["mixture_read"]["share"], strict=True))  # fmt: skip
    assert [read[step, "odd"] for step in range(6)] == [0.75, 0.75, 0.75, 0.75, 0.0, 0.0]
    bounds = list(zip(*frames["mixture_plan"].values(), strict=True))
    assert bounds == [(0, "even", 0.25), (3, "even", 1.0), (5, "even", 1.0)], "even is planned most, so it lies below"
    losses = dict(zip(zip(frames["domain_loss"]["step"], frames["domain_loss"]["name"], strict=True), frames["domain_loss"]["loss"], strict=True))  # fmt: skip
    assert losses == {(row["step"], name): pytest.approx(row[f"loss.{name}"], rel=1e-5) for row in whole.rows("eval") for name in ("odd", "even")}  # fmt: skip


@pytest.mark.parametrize("step", [2, 3, 4])
def test_stopped_around_the_boundary_it_continues_bit_for_bit(
    data: tuple[Path, Ref], wanted: Pretrain, whole: Run, step: int
) -> None:
    """A step before it, exactly on it, a step after it."""
    path = new_run(data[0], wanted)
    attempt(Job(path, wanted, signal_after=(step, STOP)))
    assert len(curve(path)) == step
    attempt(Job(path, wanted))
    assert curve(path) == curve(whole.path)
    assert (path / "model" / "model.safetensors").read_bytes() == (
        whole.path / "model" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_number_of_readers_reads_the_same_step(data: tuple[Path, Ref], ranks: int) -> None:
    """The steps before and after the boundary, tiled by the ranks."""
    layout, folder = Parallelism(dp_shard=ranks, micro_batch_size=2), Run.open(data[0] / data[1].run).path / "data"

    def step(first: int, rank: int, layout: Parallelism) -> list[bytes]:
        windows = PackedDataset(folder, PLAN.scaled(5 * BATCH * SEQ_LEN), SEQ_LEN)
        found = Batches(windows, Place.of(rank, layout), BATCH, 2, True, torch.device("cpu")).at(first)
        return [row.numpy().tobytes() for batch in found for row in batch.inputs]

    for first in (2 * BATCH, 3 * BATCH):
        together = Counter(row for rank in range(ranks) for row in step(first, rank, layout))
        assert together == Counter(step(first, 0, Parallelism(micro_batch_size=2)))


def test_domains_add_up_to_the_whole(data: tuple[Path, Ref], whole: Run, wanted: Pretrain) -> None:
    """Weighted by their targets where every held-out window is read; a law takes each for a target of its own."""
    held = PackedDataset(Run.open(data[0] / data[1].run).path / "data", Mixture(), SEQ_LEN, "heldout")
    everything = wanted.replace(mixture=Mixture(), eval_tokens="1M", eval_every=5)
    path = new_run(data[0], everything)
    attempt(Job(path, everything))
    row, targets = Run.open(path).rows("eval")[-1], held.targets
    mean = sum(targets[name] * row[f"loss.{name}"] for name in targets) / sum(targets.values())
    assert row["loss"] == pytest.approx(mean, rel=1e-9)
    last = whole.rows("eval")[-1]
    assert {"loss.odd", "loss.even", "bits_per_byte.odd", "bits_per_byte.even"} <= set(last)
    with pytest.raises(LabError, match="eval stream"):
        collect([whole])  # its mixture changes: no law of a constant one


def test_a_mixture_that_another_run_made(data: tuple[Path, Ref], wanted: Pretrain) -> None:
    maker = Recorder.create(data[0], wanted)
    Mixture(weights={"odd": 1.0}).save(maker.path / "mixture.json")
    maker.artefact("mixture", maker.path / "mixture.json")
    asked = wanted.replace(mixture=Run.open(maker.path).ref("mixture"), tokens=256)
    assert asked.refs()[-1].run == maker.path.name and len(asked.refs()) == 2
    path = new_run(data[0], asked)
    attempt(Job(path, asked))
    assert Run.open(path).rows()[-1]["tokens.odd"] == 256 and "tokens.even" not in Run.open(path).rows()[-1]
    assert str(asked.mixture) in str(Run.open(path).manifest)
    with pytest.raises(LabError, match="not known before run"):
        _ = asked.mean_mixture


def test_a_corpus_named_in_the_recipe_is_prepared_in_the_mean_mixture(data: tuple[Path, Ref], wanted: Pretrain, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setitem(os.environ, "LAB_HOME", str(data[0] / "home"))
    asked = wanted.replace(data=str(data[0] / "made.jsonl"), tokens=512)
    path = new_run(data[0], asked)
    attempt(Job(path, asked))
    assert '"odd": 0.45' in (path / "data" / "manifest.json").read_text().split('"mixture"')[1][:80]


def test_a_mixture_beyond_the_caps_on_synthetic_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared under a cap that its natural shares keep; weights do not."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    rows = [{"text": f"{name} {n} " + "words " * 9, "domain": name, "synthetic": share} for name, share, count in (("odd", 1.0, 40), ("even", 0.0, 90)) for n in range(count)]  # fmt: skip
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    maker = Recorder.create(tmp_path, Prepare(corpus=str(tmp_path / "mine.jsonl"), vocab=300, heldout=0.1, synthetic=Caps(corpus=0.4)))  # fmt: skip
    prepare(maker.recipe, maker)
    asked = recipe(Run.open(maker.path).data, mixture=Mixture(weights={"odd": 0.7, "even": 0.3}))
    with pytest.raises(LabError, match=r"synthetic\.corpus=0\.4: odd has weight 70\.0% and is 100% synthetic; give it at most 40\.0%"):  # fmt: skip
        attempt(Job(new_run(tmp_path, asked), asked))


def test_too_many_passes_in_all_phases_together_are_refused(data: tuple[Path, Ref], wanted: Pretrain) -> None:
    asked = wanted.replace(tokens="10M")
    with pytest.raises(LabError, match="max_epochs"):
        attempt(Job(new_run(data[0], asked), asked))
