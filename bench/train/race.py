"""CPU-seconds from nothing to a fixed held-out bits a byte of `core`: the lab's defaults, HF Trainer's and nanoGPT's.

All have the same corpus, tokenizer, windows and targets, models of equal size (nanoGPT's is a GPT-2), one thread, fp32, and the
same tuning: their own defaults, then the same random draws of learning rate, batch and warm-up, judged at one length. With the
best of them each trains from every seed at lengths that double until a run, its schedule ended, is at or below the target;
the seconds are read off between the last two lengths on logarithmic axes. Evaluation is not counted, and each is evaluated
as it trained: the lab inside documents, the others across them. Results are kept by run, model and torch, so that a race
continues; remove them (``bench/results/race``) where the code has changed.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from datetime import date
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from bench.ladder import ensure
from bench.train.sides import by_hand, hosted
from lablib.data import PackedDataset
from lablib.models.build import build_model
from lablib.models.layout import Place
from lablib.plan import count_params
from lablib.runs import Recorder
from lablib.specs import Mixture, ModelSpec, Optimizer, Parallelism, Prepare, Pretrain, Schedule, write_atomic
from lablib.train.batches import Batches
from lablib.train.distributed import World
from lablib.train.heldout import Heldout
from lablib.train.loop import train
from lablib.train.optimizer import set_learning_rate
from lablib.train.pretrain import assemble
from lablib.train.schedule import learning_rate
from lablib.train.source import Source, token_bytes
from lablib.train.step import Stepper

SEQ_LEN, VOCAB, MICRO, EVAL = 256, 4096, 16, 128
"""Tokens, words, sequences in a micro-batch, held-out sequences."""
WORLD, ALONE = World(0, 1, torch.device("cpu")), Place(0, 1, 1)


class Size(NamedTuple):
    """How large a race is: model, target in bits a byte, tokens of a trial, of the shortest run, doublings, trials, seeds."""

    layers: int
    hidden: int
    target: float
    tuning: int
    first: int
    doublings: int
    trials: int
    seeds: int = 3

    def model(self, who: str) -> ModelSpec:
        """The tour's shape, or a GPT-2 of that width and depth, which is larger by its positions and biases."""
        heads = self.hidden // 32
        shared = {"layers": self.layers, "hidden": self.hidden, "heads": heads, "vocab": VOCAB, "max_seq_len": SEQ_LEN}
        gated = {"kv_heads": heads // 2, "head_dim": 32, "ffn": 3 * self.hidden, "tied_embeddings": True}
        own = {"family": "gpt2", "ffn": 4 * self.hidden} if who == "nanoGPT" else {"family": "qwen3", **gated}
        return ModelSpec.model_validate({**shared, **own})


SIZES = {
    "quick": Size(2, 64, 3.2, 16_384, 16_384, 2, 2),
    "short": Size(2, 64, 2.8, 32_768, 32_768, 3, 4),
    "whole": Size(4, 128, 2.4, 131_072, 131_072, 4, 6),
}


class Job(NamedTuple):
    """One training run."""

    who: str
    rate: float
    batch: int
    """Sequences a step."""
    warmup: float
    """Share of all steps."""
    tokens: int = 0
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return -(-self.tokens // (self.batch * SEQ_LEN))


def lab(spec: ModelSpec, job: Job, source: Source) -> Any:
    """The tour's pretraining as it runs, with its log, guard and last checkpoint."""
    recipe = Pretrain(
        name="race", model=spec, tokens=job.tokens, seq_len=SEQ_LEN, batch_tokens=job.batch * SEQ_LEN, seed=job.seed, precision="fp32",
        optimizer=Optimizer(learning_rate=job.rate), schedule=Schedule(kind="wsd", warmup=job.warmup, decay=0.3),
        parallelism=Parallelism(micro_batch_size=min(MICRO, job.batch)), checkpoint_every=10**6,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        run = Recorder.create(Path(folder), recipe)
        parts = replace(assemble(recipe, run, WORLD, source), heldout=lambda _: {})
        train(recipe, run, parts)
    return parts.stepper.model


def trainer(spec: ModelSpec, job: Job, source: Source) -> Any:
    """HF Trainer's defaults (AdamW 0.9, 0.999 without decay, linear to 0) on a model as transformers initialises it."""
    torch.manual_seed(job.seed)
    model = AutoModelForCausalLM.from_config(spec.to_hf(), dtype=torch.float32)
    data = PackedDataset(source.data, Mixture(), SEQ_LEN, "train", job.seed)
    hosted(model, data, job.steps, min(MICRO, job.batch), job.batch, False, learning_rate=job.rate, warmup_steps=round(job.warmup * job.steps))  # fmt: skip
    return model


def nanogpt(spec: ModelSpec, job: Job, source: Source) -> Any:
    """nanoGPT's loop with its small-model settings (config/train_shakespeare_char.py: AdamW 0.9, 0.99, decay 0.1 of all matrices,
    cosine to a tenth, residual projections scaled), but no dropout, as its train.py advises for pretraining."""
    model = build_model(spec, job.seed).train()
    kinds = [([w for w in model.parameters() if (w.ndim >= 2) == matrix], decay) for matrix, decay in ((True, 0.1), (False, 0.0))]  # fmt: skip
    optimizer = torch.optim.AdamW([{"params": own, "weight_decay": decay, "factor": 1.0} for own, decay in kinds], betas=(0.9, 0.99))  # fmt: skip
    data = PackedDataset(source.data, Mixture(), SEQ_LEN, "train", job.seed)
    step = by_hand(model, optimizer, Batches(data, ALONE, job.batch, min(MICRO, job.batch), False, WORLD.device))
    for number in range(job.steps):
        set_learning_rate(optimizer, learning_rate(number, job.steps, job.rate, Schedule(kind="cosine", warmup=job.warmup, floor=0.1)))  # fmt: skip
        step(number * job.batch)
    return model


CONTENDERS: dict[str, Callable[[ModelSpec, Job, Source], Any]] = {"lab": lab, "HF Trainer": trainer, "nanoGPT": nanogpt}
DEFAULTS = Job("lab", 3e-3, 16, 0.05), Job("HF Trainer", 5e-5, 8, 0.0), Job("nanoGPT", 1e-3, 64, 0.02)


@cache
def warmed(who: str, size: Size, folder: Path) -> Source:
    """The data, after what a process does once, imports above all: that is not of the race."""
    source = Source(folder / "data", folder / "tokenizer", Mixture())
    CONTENDERS[who](size.model(who), Job(who, 1e-4, 4, 0.0, 4 * SEQ_LEN), source)
    return source


def run(size: Size, job: Job, folder: Path) -> dict[str, float]:
    """Train and evaluate: CPU-seconds of making and training the model, bits a byte."""
    torch.set_num_threads(1)
    source = warmed(job.who, size, folder)
    begun = time.process_time()
    model = CONTENDERS[job.who](size.model(job.who), job, source)
    seconds = time.process_time() - begun
    held = PackedDataset(source.data, Mixture(), SEQ_LEN, "heldout", 0)
    asked = Heldout(held, EVAL, MICRO, job.who == "lab", token_bytes(source.tokenizer, VOCAB))
    found = asked(Stepper(model, torch.optim.SGD(model.parameters()), WORLD, ALONE, 1.0, False))
    return {"seconds": round(seconds, 2), "bits_per_byte": round(found["bits_per_byte"], 4)}


class Kept:
    """Results by job in a file of `folder`; what is missing is run, `processes` at a time."""

    def __init__(self, folder: Path, name: str, processes: int) -> None:
        self.size, self.processes, self.file = SIZES[name], processes, folder / f"{name}.json"
        self.data = ensure(folder, Prepare(name="race-data", corpus="core", vocab=VOCAB, max_bytes="24 MB")).path
        self.found: dict[str, dict[str, float]] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def __call__(self, wanted: Iterable[Job]) -> list[dict[str, float]]:
        """The results, in order."""
        jobs = {mark(self.size, job): job for job in wanted}
        with ProcessPoolExecutor(self.processes, get_context("spawn")) as pool:
            futures = {pool.submit(run, self.size, job, self.data): key for key, job in jobs.items() if key not in self.found}  # fmt: skip
            for future in as_completed(futures):
                self.found[futures[future]] = future.result()
                write_atomic(self.file, json.dumps(self.found, indent=1))
                print(futures[future], future.result(), flush=True)
        return [self.found[key] for key in jobs]


def mark(size: Size, job: Job) -> str:
    """What a result is kept by."""
    return json.dumps([torch.__version__, size.layers, size.hidden, *job])


def trials(usual: Job, size: Size) -> list[Job]:
    """The defaults, then the draws that all contenders share."""
    draw = np.random.default_rng(6)
    drawn = [(float(f"{10 ** draw.uniform(-3.2, -1.8):.2g}"), int(draw.choice([4, 8, 16])), float(draw.choice([0.02, 0.05, 0.1]))) for _ in range(size.trials - 1)]  # fmt: skip
    return [usual._replace(tokens=size.tuning), *(Job(usual.who, *settings, size.tuning) for settings in drawn)]


def crossing(runs: list[dict[str, float]], target: float) -> float:
    """CPU-seconds at which runs of growing length end at `target`, infinite where none does; of a first run that is below
    already its own seconds."""
    for before, after in zip([runs[0], *runs], runs, strict=False):
        if after["bits_per_byte"] <= target:
            least, most = math.log(before["bits_per_byte"] / target), math.log(before["bits_per_byte"] / after["bits_per_byte"])  # fmt: skip
            return float(before["seconds"] * (after["seconds"] / before["seconds"]) ** (least / most if most else 1))
    return math.inf


def race(name: str, folder: Path, processes: int) -> str:
    """Run what is missing: the dated record in Markdown."""
    kept, size = Kept(folder, name, processes), SIZES[name]
    tried = {usual.who: trials(usual, size) for usual in DEFAULTS}
    kept(job for row in zip(*tried.values(), strict=True) for job in row)
    scores = {who: [result["bits_per_byte"] for result in kept(row)] for who, row in tried.items()}
    best = {who: tried[who][int(np.argmin(row))] for who, row in scores.items()}
    runs: dict[tuple[str, int], list[dict[str, float]]] = {
        (who, seed): [] for seed in range(size.seeds) for who in best
    }
    for doubling in range(size.doublings + 1):
        left = [key for key, row in runs.items() if not row or row[-1]["bits_per_byte"] > size.target]
        made = kept([best[who]._replace(tokens=size.first << doubling, seed=seed) for who, seed in left]) if left else []  # fmt: skip
        for key, result in zip(left, made, strict=True):
            runs[key].append(result)
    took = {who: [crossing(runs[who, seed], size.target) for seed in range(size.seeds)] for who in best}
    middle = {who: statistics.median(row) for who, row in took.items()}
    lines = [
        f"| {who} | {count_params(size.model(who)).total:,} | {job.rate:g}, {job.batch} × {SEQ_LEN}, {job.warmup:g} | {scores[who][0]:.3f} | {min(scores[who]):.3f} "
        f"| {', '.join(f'{seconds:.1f}' for seconds in took[who])} | {middle[who]:.1f} | {middle[who] / middle['lab']:.2f} |"
        for who, job in best.items()
    ]  # fmt: skip
    return "\n".join([
        f"## {date.today()} · {name}: {size.target} bits a byte", "",
        f"`python -m bench.train race --size {name} --record`: {size.trials} trials of {size.tuning:,} tokens each, torch {torch.__version__}, one thread, fp32, eager.", "",
        "| contender | parameters | best rate, batch, warm-up | defaults, bits a byte | tuned | CPU-seconds to the target, by seed | median | over the lab's |",
        "|---|---|---|---|---|---|---|---|", *lines, "",
    ])  # fmt: skip
