"""DoReMi's proxy run: the weighted loss by hand, and a real run that tells what can be learned from what is only hard."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from tiny import BATCH, MODEL, ONE, SEQ_LEN, Job, attempt, new_run, recipe
from torch import nn

from lablib.data.mixing import DomainWeights
from lablib.data.prepare import prepare
from lablib.models.build import build_model
from lablib.models.load import load_model
from lablib.plan import estimate
from lablib.runs import Recorder, Run
from lablib.specs import Accelerator, Cluster, DoReMi, LabError, Mixture, Parallelism, Prepare, Pretrain, parse_recipe
from lablib.stages import execute
from lablib.train.doremi import Reweighted, doremi, evenly, group_loss


def test_the_loss_of_groups_by_hand() -> None:
    """Each domain's mean, weighted; not the mean over tokens, in which the larger domain would count three times."""
    losses = torch.tensor([1.0, 2.0, 3.0, 10.0], requires_grad=True)
    found = group_loss(losses, torch.tensor([0, 0, 0, 1]), torch.tensor([0.25, 0.75, 0.0]))
    found.backward()
    assert float(found.detach()) == pytest.approx(0.25 * 2 + 0.75 * 10)
    assert losses.grad is not None and losses.grad.tolist() == pytest.approx([0.25 / 3] * 3 + [0.75])


class Worlds:
    """Data in two domains: ``chain``, whose words follow from one another, and ``noise``, which no model can learn."""

    def __init__(self, root: Path) -> None:
        draw = random.Random(0)
        words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(12)]
        chain = [" ".join(words[(start + i) % 12] for i in range(30)) + f" {start}" for start in range(200)]
        noise = ["".join(draw.choices("ijklmnopqrstuvwxyz", k=140)) for _ in range(200)]
        rows = [{"text": text, "domain": name} for name, texts in (("chain", chain), ("noise", noise)) for text in texts]  # fmt: skip
        root.mkdir(parents=True, exist_ok=True)
        (root / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = Recorder.create(root, Prepare(corpus=str(root / "made.jsonl"), vocab=MODEL.vocab, heldout=0.1))
        with patch.dict(os.environ, LAB_HOME=str(root / "home")):
            prepare(run.recipe, run)
        self.root, self.prepared = root, Run.open(run.path)
        self.data = self.prepared.artefact_path("data")

    def recipe(self, steps: int, **changes: Any) -> Pretrain:
        even = Mixture(weights={"chain": 0.5, "noise": 0.5}, max_epochs=100)
        asked = {"tokens": steps * BATCH * SEQ_LEN, "mixture": even, "eval_every": steps, "checkpoint_every": steps}
        return recipe(self.prepared.data, **{**asked, **changes})

    def reference(self) -> Any:
        """An ordinary run, long enough to know the chain."""
        wanted = self.recipe(120)
        path = new_run(self.root, wanted)
        attempt(Job(path, wanted))
        return load_model(Run.open(path).artefact_path("model"))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    return Worlds(tmp_path_factory.mktemp("doremi"))


@pytest.fixture(scope="module")
def found(worlds: Worlds) -> dict[str, Reweighted]:
    """DoReMi beside a reference, and (planted) without one: group DRO on the loss itself."""
    asked, reference = worlds.recipe(30, seed=7), worlds.reference()
    return {name: doremi(asked, worlds.data, model) for name, model in (("right", reference), ("none", Certain()))}


class Certain(nn.Module):
    """A reference that loses nothing anywhere, so that excess is the loss itself."""

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        logits = torch.zeros(*input_ids.shape, MODEL.vocab)
        following = torch.roll(input_ids, -1, dims=1)
        return type("Output", (), {"logits": logits.scatter(2, following[..., None], 100.0)})


def test_what_can_be_learned_gets_weight_and_noise_does_not(found: dict[str, Reweighted]) -> None:
    """The published idea: excess over a reference. Noise loses most, but the reference loses as much on it."""
    weights = found["right"].mixture.weights
    assert weights["chain"] > 0.6 and sum(weights.values()) == pytest.approx(1)
    assert found["right"].path[0]["chain"] != found["right"].path[-1]["chain"] and len(found["right"].path) == 30


def test_without_a_reference_noise_would_win(found: dict[str, Reweighted]) -> None:
    """Planted: so the reference's loss is really taken off."""
    assert found["none"].mixture.weights["noise"] > found["none"].mixture.weights["chain"]


def test_windows_come_equally_and_the_run_repeats(worlds: Worlds, found: dict[str, Reweighted]) -> None:
    asked = worlds.recipe(3, mixture=Mixture(weights={"chain": 0.9, "noise": 0.1}, max_epochs=9))
    windows = evenly(asked, worlds.data)
    assert sorted(windows[i].domain for i in range(8)) == ["chain"] * 4 + ["noise"] * 4
    reference, rows = build_model(MODEL, 5), []
    first = doremi(asked, worlds.data, reference, log=lambda step, row: rows.append((step, row)))
    again = doremi(asked, worlds.data, reference)
    assert first.path == again.path and first.mixture.max_epochs == 9
    assert [step for step, _ in rows] == [1, 2, 3] and set(rows[0][1]) == {"loss", "weight.chain", "weight.noise"}


def test_the_reference_does_not_move(worlds: Worlds) -> None:
    reference = build_model(MODEL, 5)
    before = np.concatenate([weight.detach().numpy().ravel() for weight in reference.parameters()])
    doremi(worlds.recipe(2), worlds.data, reference)
    after = np.concatenate([weight.detach().numpy().ravel() for weight in reference.parameters()])
    assert (before == after).all() and all(weight.grad is None for weight in reference.parameters())


def stage(path: Path, signal_after: int = 0) -> Run:
    """One attempt at a DoReMi run in this process; it is asked to stop once it has logged that step."""
    run = Recorder(path)
    log = run.log

    def logging(step: int, stream: str = "train", **values: Any) -> None:
        log(step, stream, **values)
        if step == signal_after:
            run.request_stop()

    with run.working(), patch.object(run, "log", logging):
        execute(run.recipe, run)
    return Run.open(path)


@pytest.fixture(scope="module")
def asked(worlds: Worlds) -> DoReMi:
    """Six steps beside an untrained model that an ordinary run left."""
    reference = worlds.recipe(1, seed=5)
    path = new_run(worlds.root, reference)
    attempt(Job(path, reference))
    proxy = worlds.recipe(6, parallelism=Parallelism(micro_batch_size=BATCH), checkpoint_every=2)
    return DoReMi(proxy=proxy, reference=Run.open(path).model)


def test_the_stage_makes_a_mixture_and_continues_bit_for_bit(worlds: Worlds, asked: DoReMi) -> None:
    """Stopped between two checkpoints; the weights' path and the mixture are those of a run that nothing interrupted."""
    whole = stage(Recorder.create(worlds.root, asked).path)
    path = Recorder.create(worlds.root, asked).path
    stopped = stage(path, signal_after=3)
    assert stopped.state == "stopped" and len(stopped.rows()) == 3 and "mixture" not in stopped.artefacts
    again = stage(path)
    columns = ("step", "loss", "weight.chain", "weight.noise", "tokens")
    assert [[row[name] for name in columns] for row in again.rows()] == [[row[name] for name in columns] for row in whole.rows()]  # fmt: skip
    assert again.artefact_path("mixture").read_bytes() == whole.artefact_path("mixture").read_bytes()
    made = Mixture.load(whole.artefact_path("mixture")).weights
    assert made["chain"] == pytest.approx(np.mean([row["weight.chain"] for row in whole.rows()]))
    taker = worlds.recipe(1, mixture=whole.ref("mixture"))
    target = new_run(worlds.root, taker)
    attempt(Job(target, taker))
    read = Run.open(target).rows()[-1]
    assert abs(read["tokens.chain"] - made["chain"] * read["tokens"]) <= SEQ_LEN


def test_the_recipe_says_what_goes_together(worlds: Worlds, asked: DoReMi) -> None:
    assert {ref.artefact for ref in asked.refs()} == {"model", "data"}
    renamed = asked.replace(proxy=asked.proxy.replace(name="other", log_every=9))
    assert renamed.science_hash == asked.science_hash != asked.replace(rate=0.5).science_hash
    assert parse_recipe(json.loads(asked.to_json())) == asked
    with pytest.raises(LabError, match=rf"micro_batch_size={BATCH}"):
        asked.replace(proxy=worlds.recipe(6))
    with pytest.raises(LabError, match="refer to the data"):
        asked.replace(proxy=asked.proxy.replace(data="core"))
    with pytest.raises(LabError, match="one process"):
        asked.replace(parallelism=Parallelism(dp_shard=2))


def test_it_is_priced_with_the_forward_pass_of_its_reference(worlds: Worlds, asked: DoReMi) -> None:
    """A training step is three forward passes' work, and the reference adds one."""
    cpu = Accelerator(name="known", kind="cpu", memory_gib=64, bandwidth_gb_s=50, measured_tflops={"fp32": 0.1})
    cluster = Cluster(accelerator=cpu, gpus_per_node=1)
    whole, alone = (estimate(recipe, cluster, root=worlds.root) for recipe in (asked, asked.proxy))
    assert whole.flops.total == pytest.approx(alone.flops.total * 4 / 3)
    assert whole.step_seconds > alone.step_seconds and whole.memory.peak_gib > alone.memory.peak_gib


def test_what_it_cannot_do_is_said(worlds: Worlds) -> None:
    with pytest.raises(LabError, match="one process"):
        doremi(worlds.recipe(2, parallelism=Parallelism(dp_shard=2, micro_batch_size=4)), worlds.data, build_model(MODEL, 0))  # fmt: skip
    with pytest.raises(LabError, match="weights are for a"):
        doremi(worlds.recipe(2, parallelism=ONE), worlds.data, build_model(MODEL, 0), DomainWeights(("a",)))
