"""The DoReMi stage: the proxy beside its reference, resumable, and the mixture that comes of it as an artefact."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch

from lablib.data.mixing import DomainWeights
from lablib.models.load import load_model
from lablib.runs import Recorder
from lablib.specs import DoReMi, LabError, write_atomic
from lablib.train.able import check
from lablib.train.checkpoint import Checkpoints, Position
from lablib.train.distributed import World, joined
from lablib.train.doremi import doremi, evenly
from lablib.train.loop import due
from lablib.train.meter import peak_gib
from lablib.train.source import find_source

FILE = "mixture.json"


def reweigh(recipe: DoReMi, run: Recorder) -> None:
    """Train the proxy and register the artefact "mixture"; each step's loss and weights are in the train stream.

    Continues from the newest whole checkpoint. Where the run is asked to stop it saves and returns without the artefact.
    Raises `LabError` for a reference of another vocabulary, and for what the trainer cannot do.
    """
    proxy = recipe.proxy
    check(proxy)
    with joined(1, recipe.threads) as world:
        source = find_source(proxy, run, world)
        assert source is not None  # it is another run's
        reference = load_model(run.input(recipe.reference))
        if reference.config.vocab_size != proxy.model.vocab:
            raise LabError(f"reference={recipe.reference} has {reference.config.vocab_size} tokens in its vocabulary, the proxy {proxy.model.vocab}; losses are compared token by token, so both must read the same tokenizer")  # fmt: skip
        run.enter("running")
        weights = DomainWeights(evenly(proxy, source.data).domains, recipe.rate, recipe.smoothing)
        keeper = Kept(recipe, run, world, Checkpoints(run.folder("checkpoints"), world, proxy.keep_checkpoints))
        found = doremi(proxy, source.data, reference, weights, keeper.log, keeper)
    if found.finished:
        found.mixture.save(run.path / FILE)
        run.artefact("mixture", run.path / FILE)
        run.note(excess=found.excess)


@dataclass(frozen=True)
class Kept:
    """A run folder as `lablib.train.doremi.Keeper`: a checkpoint of the proxy, with the domains' weights beside it."""

    recipe: DoReMi
    run: Recorder
    world: World
    checkpoints: Checkpoints

    def load(self, model: Any, optimizer: torch.optim.Optimizer, weights: DomainWeights) -> int:
        """The step of the newest whole checkpoint, after loading it; 0 where there is none."""
        at = self.checkpoints.load(model, optimizer, self.recipe.science_hash)
        if at is None:
            return 0
        weights.restore(json.loads(self._weights(at.step).read_text(encoding="utf-8")))
        self.run.event("resumed", at_step=at.step, sequences=at.sequences, layout=str(self.recipe.parallelism))
        return at.step

    def keep(self, step: int, model: Any, optimizer: torch.optim.Optimizer, weights: DomainWeights) -> bool:
        """Saves where a checkpoint is due or a stop is asked for. The weights are written first: what is published is whole."""
        stop, proxy = self.run.stop_requested, self.recipe.proxy
        if step and (stop or due(step, proxy.checkpoint_every, proxy.steps, times=10)):
            write_atomic(self._weights(step), json.dumps(weights.state()))
            at = Position(step, step * (proxy.step_tokens // proxy.seq_len), self.recipe.science_hash)
            self.run.saved(step, self.checkpoints.save(model, optimizer, at, str(self.recipe.parallelism)))
        return not stop

    def log(self, step: int, measured: dict[str, float]) -> None:
        """A row of the train stream, as often as the proxy's recipe asks for one."""
        proxy = self.recipe.proxy
        if step % proxy.log_every == 0 or step == proxy.steps:
            gib = peak_gib(self.world.device)
            self.run.log(step, "train", tokens=step * proxy.step_tokens, memory_gib=gib, **measured)
        self.run.progress(step, proxy.steps)

    def _weights(self, step: int) -> Any:
        return self.run.folder("weights") / f"step-{step:08d}.json"
