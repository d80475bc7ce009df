"""Mid-training on a tiny model: where it begins, what replay keeps, that it resumes exactly, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from further import NEW, OLD, STEPS, Made, make
from tiny import BATCH, SEQ_LEN, STOP, Job, attempt, curve, new_run
from transformers import AutoModelForCausalLM

from lablib.runs import Run
from lablib.specs import LabError, Midtrain, Mixture, Optimizer, Schedule
from lablib.specs.further import anneal, continue_on
from lablib.specs.midtrain import Replay


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("midtrain"))


def onwards(made: Made, replay: float, **changes: object) -> Midtrain:
    """Twenty steps on the new domain at the parent's own rate, so that twenty are enough to forget."""
    settings = {"optimizer": Optimizer(learning_rate=5e-3), "eval_every": 20, "checkpoint_every": 10, **changes}
    return continue_on(made.parent, made.run.model, made.data, NEW.replace(max_epochs=50), 20 * BATCH * SEQ_LEN, replay, **settings)  # fmt: skip


def test_replay_keeps_what_the_model_knew(made: Made) -> None:
    """Both learn the new domain; without replay the old one is forgotten, with it hardly."""
    kept = made.train(onwards(made, 0.3)).rows("eval")
    replay = Replay(mixture=OLD, share=0.0)
    lost = made.train(onwards(made, 0.0, replay=replay)).rows("eval")
    assert [row["step"] for row in kept] == [0, 20]
    assert kept[0]["loss_old"] == lost[0]["loss_old"] == pytest.approx(made.run.rows("eval")[-1]["loss.old"], abs=1e-6)
    assert kept[-1]["loss_new"] < kept[0]["loss_new"] - 0.5 and lost[-1]["loss_new"] < lost[0]["loss_new"] - 0.5
    assert lost[-1]["loss_old"] - lost[0]["loss_old"] > 4 * max(0.02, kept[-1]["loss_old"] - kept[0]["loss_old"])
    assert kept[-1]["loss_old"] == kept[-1]["loss.old"]


def test_replay_reads_the_share_that_it_says(made: Made) -> None:
    read = made.train(onwards(made, 0.25)).rows()[-1]
    assert read["tokens.old"] / (read["tokens.old"] + read["tokens.new"]) == pytest.approx(0.25, abs=0.01)


def test_it_stops_and_goes_on_bit_for_bit(made: Made) -> None:
    wanted = onwards(made, 0.2)
    whole = made.train(wanted)
    path = new_run(made.root, wanted)
    attempt(Job(path, wanted, signal_after=(7, STOP)))
    assert len(curve(path)) == 7
    attempt(Job(path, wanted))
    assert curve(path) == curve(whole.path) and len(Run.open(path).rows("eval")) == 2


def test_annealing_from_a_checkpoint_is_wsd_trained_in_one_go(made: Made) -> None:
    """Forty steps of the constant phase, then ten of decay: the weights and losses of one WSD run of fifty, to the last bit,
    because the optimiser's state comes along and the mixture is the same."""
    cut = anneal(made.parent, made.run.model, made.parent.mixture, share=0.2, from_step=40, eval_every=10)
    assert cut.steps == 10 and cut.optimizer.learning_rate == made.parent.optimizer.learning_rate
    late = made.train(cut)
    assert [row["lr"] for row in late.rows()] == pytest.approx([5e-3 * (10 - step) / 10 for step in range(10)])
    assert curve(late.path)[0][0] == pytest.approx(_first_loss_after(made, 40, cut), abs=1e-6)
    assert late.rows("eval")[-1]["loss.old"] < made.run.rows("eval")[-1]["loss.old"] + 0.05
    moments = [row["grad_norm"] for row in late.rows()]
    assert all(map(math.isfinite, moments))


def _first_loss_after(made: Made, step: int, cut: Midtrain) -> float:
    """The first batch of `cut` under the parent's weights after `step`, by transformers alone."""
    from lablib.data import PackedDataset
    from lablib.models.merge import Shards

    shards = Shards(made.run.path / "checkpoints" / f"step-{step:08d}")
    model = AutoModelForCausalLM.from_pretrained(made.run.artefact_path("model"))
    weights = {name.removeprefix("model."): shards.read(name) for name in shards.names()}
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    windows = PackedDataset(made.run.path.parent / made.data.run / "data", cut.mean_mixture, SEQ_LEN, "train", cut.seed)
    nats = targets = 0.0
    with torch.no_grad():
        for window in (windows[i] for i in range(BATCH)):
            ids, places = (torch.from_numpy(row[:-1])[None] for row in (window.tokens, window.positions))
            logits = model(input_ids=ids, position_ids=places, use_cache=False).logits[0]
            labels = torch.from_numpy(window.labels)
            nats += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-100))
            targets += int((labels != -100).sum())
    return nats / targets


def test_the_optimiser_comes_along_from_a_checkpoint(made: Made) -> None:
    """A zero rate changes no weight, so what is saved again is the parent's state, one step older."""
    from lablib.models.merge import Shards  # noqa: F401

    cut = anneal(
        made.parent, made.run.model, OLD.replace(max_epochs=50), share=0.2, from_step=40, tokens=BATCH * SEQ_LEN
    )
    path = new_run(made.root, cut.replace(optimizer=Optimizer(learning_rate=1e-30), schedule=Schedule(kind="constant")))
    attempt(Job(path, Run.open(path).recipe))
    from safetensors.torch import load_file

    def moment(folder: str) -> torch.Tensor:
        [file] = [f for f in (made.root / folder).glob("*.safetensors") if "random" not in f.name]
        return load_file(file)["exp_avg_sq.model.norm.weight"]

    before = moment(f"{made.run.path.name}/checkpoints/step-00000040")
    after = moment(f"{path.name}/checkpoints/step-00000001")
    assert torch.all(after >= 0.95 * before * (1 - 1e-6)) and float(before.sum()) > 0


def test_a_model_of_another_shape_is_refused(made: Made) -> None:
    wider = made.parent.model.replace(ffn=192)
    for from_step in (None, 40):
        wanted = anneal(made.parent, made.run.model, OLD, model=wider, from_step=from_step, tokens=256)
        with pytest.raises(LabError, match="has not the shape of the recipe's model"):
            made.train(wanted)


def test_a_checkpoint_that_is_not_kept_is_refused(made: Made) -> None:
    with pytest.raises(LabError, match=rf"keeps checkpoints \[20, 40, {STEPS}\]"):
        made.train(anneal(made.parent, made.run.model, OLD, from_step=41, tokens=256))


def test_other_positions_are_refused_unless_they_are_meant(made: Made) -> None:
    turned = made.parent.model.replace(rope_theta=5e5)
    with pytest.raises(LabError, match="has rotary positions"):
        made.train(anneal(made.parent, made.run.model, OLD, model=turned, tokens=256))


def test_a_domain_without_held_out_text_is_refused(made: Made) -> None:
    strange = Replay(mixture=Mixture(weights={"strange": 1.0}), share=0.0)
    with pytest.raises(LabError, match="strange"):
        made.train(onwards(made, 0.0, replay=strange))
