"""Mid-training on a tiny model: where it begins, what replay keeps, that it resumes exactly, and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from further import NEW, OLD, STEPS, Made, make
from launch import on_ranks
from tiny import BATCH, MODEL, SEQ_LEN, STOP, Job, attempt, curve, new_run
from transformers import AutoModelForCausalLM

from lablib.data import PackedDataset
from lablib.data.loader import IGNORED
from lablib.explorers.monitor import kept_and_learned, sides
from lablib.models.merge import Shards
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Merge, Midtrain, Mixture, ModelSpec, Optimizer, Parallelism, catalog
from lablib.specs.further import anneal, continue_on, extend
from lablib.specs.midtrain import Replay
from lablib.stages import execute
from lablib.train.distributed import joined
from lablib.train.optimizer import set_learning_rate
from lablib.train.pretrain import assemble
from lablib.train.source import find_source
from lablib.train.step import Stepper


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("midtrain"))


def onwards(made: Made, replay: float | Replay, steps: int = 16, **changes: Any) -> Midtrain:
    """On the new domain at the parent's own rate, so that few steps are enough to forget."""
    settings = {"optimizer": Optimizer(learning_rate=5e-3), "eval_every": steps, "checkpoint_every": 4, **changes}
    tokens = steps * BATCH * SEQ_LEN
    return continue_on(made.parent, made.run.model, made.data, NEW.replace(max_epochs=50), tokens, replay, **settings)


def test_replay_keeps_what_the_model_knew(made: Made) -> None:
    """Both learn the new domain; without replay the old one is forgotten, with it hardly."""
    kept, lost = (made.train(onwards(made, share)).rows("eval") for share in (0.3, 0.0))
    assert [row["step"] for row in kept] == [0, 16]
    assert kept[0]["loss_old"] == lost[0]["loss_old"] == pytest.approx(made.run.rows("eval")[-1]["loss.old"], abs=1e-6)
    assert max(rows[-1]["loss_new"] - rows[0]["loss_new"] for rows in (kept, lost)) < -0.3
    assert lost[-1]["loss_old"] - lost[0]["loss_old"] > 4 * max(0.02, kept[-1]["loss_old"] - kept[0]["loss_old"])
    assert not sides(made.run.rows("eval"))
    (new, old), (told,) = sides(kept).values(), kept_and_learned(sides(kept))
    assert new == (kept[0]["loss_new"], kept[-1]["loss_new"])
    assert told == f"Held-out loss: new mixture {new[0]:.3f} → {new[1]:.3f}, old mixture {old[0]:.3f} → {old[1]:.3f}."
    assert kept[-1]["loss_old"] == kept[-1]["loss.old"] and kept[-1]["loss_new"] == kept[-1]["loss.new"]


def test_it_stops_and_goes_on_bit_for_bit(made: Made) -> None:
    """And reads the share of the old mixture that it says."""
    wanted = onwards(made, 0.25, 6)
    whole = made.train(wanted)
    path = new_run(made.root, wanted)
    attempt(Job(path, wanted, signal_after=(3, STOP)))
    assert len(curve(path)) == 3
    attempt(Job(path, wanted))
    assert curve(path) == curve(whole.path) and len(Run.open(path).rows("eval")) == 2
    read = whole.rows()[-1]
    assert read["tokens.old"] == 0.25 * 6 * BATCH * SEQ_LEN == read["tokens.new"] / 3


def test_from_a_checkpoint_it_goes_on_bit_for_bit_too(made: Made) -> None:
    """The optimiser has made more updates than this run: those count in its correction of young moments."""
    wanted = anneal(made.parent, made.run.model, OLD.replace(max_epochs=50), from_step=20, tokens=6 * BATCH * SEQ_LEN)
    whole, path = made.train(wanted), new_run(made.root, wanted)
    attempt(Job(path, wanted, signal_after=(3, STOP)))
    attempt(Job(path, wanted))
    assert curve(path) == curve(whole.path)


@contextmanager
def gone(run: Run) -> Iterator[None]:
    """As if somebody had cleaned it away."""
    aside = run.path.with_name("aside")
    run.path.rename(aside)
    try:
        yield
    finally:
        aside.rename(run.path)


@pytest.mark.parametrize("from_step", [None, 20])
def test_a_run_that_has_a_checkpoint_needs_its_parent_no_more(made: Made, from_step: int | None) -> None:
    """It goes on bit for bit without; where its checkpoint is torn, the parent is what it asks for."""
    wanted = anneal(
        made.parent, made.run.model, OLD.replace(max_epochs=50), from_step=from_step, tokens=4 * BATCH * SEQ_LEN
    )
    whole, path = made.train(wanted), new_run(made.root, wanted)
    with gone(made.run), pytest.raises(LabError, match=made.run.path.name):
        attempt(Job(path, wanted))
    attempt(Job(path, wanted, signal_after=(2, STOP)))
    torn = path.with_name(f"torn-{from_step}")
    shutil.copytree(path, torn)
    for shard in torn.glob("checkpoints/step-*/shard*"):
        shard.write_bytes(b"")
    with gone(made.run):
        attempt(Job(path, wanted))
        with pytest.raises(LabError, match=made.run.path.name):
            attempt(Job(torn, wanted))
    assert curve(path) == curve(whole.path)
    attempt(Job(torn, wanted))
    assert curve(torn) == curve(whole.path)


@pytest.mark.parametrize("from_step", [None, 20])
def test_a_spike_before_the_first_checkpoint_goes_back_to_where_it_began(made: Made, from_step: int | None) -> None:
    """Weights and the optimiser's state, its count of updates too."""
    wanted = anneal(made.parent, made.run.model, OLD.replace(max_epochs=50), from_step=from_step, tokens=256)
    run = Recorder(new_run(made.root, wanted))
    with joined(1) as world:
        source = find_source(wanted, run, world)
        assert source is not None
        parts = assemble(wanted, run, world, source)
    parts.restart()
    held = partial(_held, parts.stepper)
    before = held()
    set_learning_rate(parts.stepper.optimizer, 1e-2)
    parts.stepper(parts.batches.at(0))
    assert not torch.equal(held()["lm_head.weight"], before["lm_head.weight"])
    parts.restart()
    after = held()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def _held(stepper: Stepper) -> dict[str, torch.Tensor]:
    found = {name: weight.detach().clone() for name, weight in stepper.model.named_parameters()}
    for number, state in enumerate(stepper.optimizer.state.values()):
        found |= {f"{number}.{name}": tensor.clone() for name, tensor in state.items()}
    return found


def test_annealing_goes_on_from_a_checkpoint(made: Made) -> None:
    """Its first batch is read by the weights of step 20 (put together and run by transformers alone), at the peak rate that
    the stable phase had, which then falls to nothing."""
    cut = anneal(made.parent, made.run.model, made.parent.mixture, share=0.2, from_step=20, eval_every=5)
    assert cut.steps == 5
    rows = made.train(cut).rows()
    assert [row["lr"] for row in rows] == pytest.approx([5e-3 * (5 - step) / 5 for step in range(5)])
    weights = Shards(made.run.path / "checkpoints" / "step-00000020")
    model = AutoModelForCausalLM.from_pretrained(made.run.artefact_path("model"))
    model.load_state_dict({name.removeprefix("model."): weights.read(name) for name in weights.names()}, strict=True)
    assert rows[0]["loss"] == pytest.approx(_first_loss(made, model, cut), abs=1e-6)


@torch.no_grad()
def _first_loss(made: Made, model: Any, wanted: Midtrain) -> float:
    """Nats a target of the first batch."""
    data = made.root / made.data.run / "data"
    windows = PackedDataset(data, wanted.mean_mixture, SEQ_LEN, "train", wanted.seed)
    nats, targets = 0.0, 0
    for window in (windows[i] for i in range(BATCH)):
        ids, places = (torch.from_numpy(row[:-1])[None] for row in (window.tokens, window.positions))
        logits = model(input_ids=ids, position_ids=places, use_cache=False).logits[0]
        labels = torch.from_numpy(window.labels)
        nats += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED))
        targets += int((labels != IGNORED).sum())
    return nats / targets


def test_the_optimiser_comes_along_from_a_checkpoint(made: Made) -> None:
    """Adam's second moment after one step more is β₂·v + (1 - β₂)·g², so never below β₂·v of the parent; a fresh one would
    be some twenty times smaller."""
    cut = anneal(made.parent, made.run.model, OLD.replace(max_epochs=50), from_step=20, tokens=BATCH * SEQ_LEN)
    moments = (
        Shards(run.path / "checkpoints" / f"step-{step:08d}", "exp_avg_sq.")
        for run, step in ((made.run, 20), (made.train(cut), 1))
    )
    before, after = (one.read("exp_avg_sq.model.norm.weight") for one in moments)
    assert float(before.sum()) > 0 and torch.all(after >= 0.95 * before * (1 - 1e-6))


def test_a_model_of_another_shape_is_refused(made: Made) -> None:
    wider, lower = made.parent.model.replace(ffn=192), made.parent.model.replace(layers=1)
    for from_step, other in product((None, 20), (wider, lower)):
        wanted = anneal(made.parent, made.run.model, OLD, model=other, from_step=from_step, tokens=256)
        with pytest.raises(LabError, match="has not the shape of the recipe's model"):
            made.train(wanted)


def test_a_checkpoint_that_is_not_kept_is_refused(made: Made) -> None:
    with pytest.raises(LabError, match=rf"keeps checkpoints \[10, 20, 30, {STEPS}\]"):
        made.train(anneal(made.parent, made.run.model, OLD, from_step=41, tokens=256))


def test_longer_sequences_are_learned(made: Made) -> None:
    """The parent never saw a position past 32: there a token costs it more than before 32. After two dozen steps at 128, under
    stretched positions, it costs no more there than before."""
    wanted = extend(made.parent, made.run.model, 4 * SEQ_LEN, "yarn", tokens=48 * BATCH * SEQ_LEN, eval_every=24,
                    optimizer=Optimizer(learning_rate=5e-3), document_mask=False)  # fmt: skip
    assert wanted.model.rope_scaling and wanted.model.rope_scaling.factor == 4
    longer = made.train(wanted)
    model, parent = (AutoModelForCausalLM.from_pretrained(run.artefact_path("model")) for run in (longer, made.run))
    assert model.config.rope_parameters["rope_type"] == "yarn" and model.config.max_position_embeddings == 128
    (near, far), (near_before, far_before) = _losses_around(made, model), _losses_around(made, parent)
    assert far < far_before - 0.2 and far - near < far_before - near_before


@torch.no_grad()
def _losses_around(made: Made, model: Any) -> tuple[float, float]:
    """Nats a target at positions up to 32 and past 32, of held-out windows of 128 tokens."""
    data = PackedDataset(made.root / made.data.run / "data", OLD, 4 * SEQ_LEN, "heldout", 0)
    windows = [data[i] for i in range(8)]
    ids, labels = (
        torch.stack([torch.from_numpy(getattr(one, name)) for one in windows]) for name in ("tokens", "labels")
    )
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    near, far = (float(part[part > 0].mean()) for part in (nats[:, :SEQ_LEN], nats[:, SEQ_LEN:]))
    return near, far


def test_other_positions_are_refused_unless_they_are_meant(made: Made) -> None:
    turned = made.parent.model.replace(rope_theta=5e5)
    for from_step in (None, 20):
        with pytest.raises(LabError, match="has rotary positions"):
            made.train(anneal(made.parent, made.run.model, OLD, model=turned, from_step=from_step, tokens=256))


def test_a_row_of_the_catalogue_trains_with_its_stretch_and_goes_on(made: Made) -> None:
    """Llama 3.1's positions, in a model of the parent's size: from nothing, and from the folder that this leaves."""
    shape = {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 160, "vocab": MODEL.vocab}
    row = catalog.models["llama-3.1-8b"].replace(**shape)
    fresh = made.train(made.parent.replace(model=row, tokens=4 * BATCH * SEQ_LEN))
    assert fresh.rows()[-1]["loss"] < fresh.rows()[0]["loss"]
    assert ModelSpec.from_hf(fresh.artefact_path("model")).rope_scaling == row.rope_scaling
    assert row.rope_scaling is not None
    onwards = made.train(anneal(fresh.recipe, fresh.model, OLD.replace(max_epochs=50), tokens=2 * BATCH * SEQ_LEN))
    assert onwards.rows()[0]["loss"] < fresh.rows()[0]["loss"]
    with pytest.raises(LabError, match="has rotary positions"):
        made.train(anneal(fresh.recipe, fresh.model, OLD, model=row.replace(rope_scaling=None), tokens=256))


def test_a_domain_without_held_out_text_is_refused(made: Made) -> None:
    strange = Replay(mixture=Mixture(weights={"strange": 1.0}), share=0.0)
    with pytest.raises(LabError, match="strange"):
        made.train(onwards(made, strange))


def test_checkpoints_of_the_stable_phase_are_averaged(made: Made) -> None:
    """By the weights that each held, put together from their shards; the recipe is resolved, run and read back as a stage."""
    wanted = Merge(models=(made.run.model,), steps=(20, 30, STEPS), average="ema", decay=0.5)
    run = Recorder.create(made.root, wanted)
    with run.working():
        execute(wanted, run)
    found = AutoModelForCausalLM.from_pretrained(Run.open(run.path).artefact_path("model")).state_dict()
    kept = [Shards(made.run.path / "checkpoints" / f"step-{step:08d}") for step in wanted.steps]
    for name in kept[0].names():
        mean = sum(w * one.read(name).double() for w, one in zip((0.25, 0.25, 0.5), kept, strict=True))
        torch.testing.assert_close(found[name.removeprefix("model.")].double(), mean, rtol=1e-6, atol=1e-8)
    torn = next((made.run.path / "checkpoints" / "step-00000030").glob("shard*"))
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.raises(LabError, match="not as it was written"):
        execute(wanted, Recorder.create(made.root, wanted))


@pytest.mark.slow
def test_two_processes_begin_and_learn_as_one(made: Made) -> None:
    """From a model and from a checkpoint of one process, sharded over two."""
    for from_step in (None, 20):
        wanted = anneal(
            made.parent, made.run.model, OLD.replace(max_epochs=50), from_step=from_step, tokens=4 * BATCH * SEQ_LEN
        )
        alone = curve(made.train(wanted).path)
        sharded = wanted.replace(parallelism=Parallelism(dp_shard=2, micro_batch_size=4))
        path = new_run(made.root, sharded)
        on_ranks(2, attempt, Job(path, sharded))
        for one, other in zip(alone, curve(path), strict=True):
            assert other[0] == pytest.approx(one[0], abs=1e-5) and other[1] == pytest.approx(one[1], rel=1e-4)
