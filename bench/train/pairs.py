"""One step of the lab, of a loop written by hand, of litgpt and of HF Trainer in turn: CPU-seconds and their ratios.

All see the same tokens in fp32. The lab, the loop and the Trainer begin from the same weights and stay inside documents, so
their `losses` agree; litgpt knows no documents, and is compared with the lab without them. The Trainer is the host: the
others take their step when it has ended one, so that a busy machine slows all.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from bench.train.sides import Step, by_hand, hosted
from lablib.data import Window
from lablib.models.attention import attend
from lablib.models.build import build_model
from lablib.models.compiled import compile_layers
from lablib.models.layout import Place
from lablib.specs import ModelSpec, Optimizer
from lablib.specs.recipe import CrossEntropy
from lablib.train.batches import Batches
from lablib.train.distributed import World
from lablib.train.meter import peak_gib
from lablib.train.optimizer import build_optimizer
from lablib.train.step import Stepper

RATE, HOST = 3e-4, "HF Trainer"
MODEL = ModelSpec(family="qwen3", layers=4, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=768, vocab=4096, tied_embeddings=True)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What is trained on: random tokens in three documents a sequence. Is itself the data set."""

    model: ModelSpec = MODEL
    seq_len: int = 256
    micro: int = 8
    per_step: int = 16
    """Sequences of a step, in micro-batches of `micro`."""
    compiled: bool = False

    def __getitem__(self, index: int) -> Window:
        """The window of an index, as a `PackedDataset` gives it."""
        draw, size = np.random.default_rng(index), self.seq_len + 1
        cuts = np.sort(draw.choice(np.arange(1, size), size=2, replace=False))
        documents = np.searchsorted(cuts, np.arange(size), side="right")
        positions = np.arange(size) - np.concatenate([[0], cuts])[documents]
        return Window(draw.integers(0, self.model.vocab, size), positions, documents, "made")

    def read(self, count: int) -> dict[str, int]:
        """As a `PackedDataset` does."""
        return {"made": count * self.seq_len}

    def batches(self, documents: bool = True) -> Batches:
        """Micro-batches of each step."""
        return Batches(self, Place(0, 1, 1), self.per_step, self.micro, documents, torch.device("cpu"))


def lab(given: Setting, documents: bool = True, loss: CrossEntropy = "full") -> Step:
    """The lab's step on the lab's batches."""
    model, world, batches = build_model(given.model, 0).train(), World(0, 1, torch.device("cpu")), given.batches(documents)  # fmt: skip
    attend(model, "auto", inside=documents and not given.compiled)
    if given.compiled:
        compile_layers(model)
    optimizer = build_optimizer(model, Optimizer(learning_rate=RATE, betas=(0.9, 0.999), weight_decay=0))
    step = Stepper(model, optimizer, world, Place(0, 1, 1), 1.0, autocast=False, cross_entropy=loss)
    return lambda first: step(batches.at(first)).loss


def plain(given: Setting) -> Step:
    """A loop as one would write it by hand."""
    model = build_model(given.model, 0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0)
    return by_hand(model, optimizer, given.batches(), torch.compile(model) if given.compiled else None)


def litgpt(given: Setting) -> Step:
    """The step of litgpt 0.5's ``pretrain.py`` on its own model. Raises ImportError where it is not installed."""
    from lightning.fabric import Fabric
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    fabric, spec, batches = Fabric(accelerator="cpu", devices=1), given.model, given.batches(documents=False)
    shape = {"n_layer": spec.layers, "n_embd": spec.hidden, "n_head": spec.heads, "n_query_groups": spec.kv_heads, "head_size": spec.head_dim, "intermediate_size": spec.ffn}  # fmt: skip
    model = GPT(Config.from_name("Qwen3-0.6B", **shape, vocab_size=spec.vocab, padded_vocab_size=spec.vocab, block_size=given.seq_len))  # fmt: skip
    model.transformer.wte.weight = model.lm_head.weight
    model = fabric.setup(torch.compile(model) if given.compiled else model)
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0))

    def step(first: int) -> float:
        micro = batches.at(first)
        for batch in micro:
            loss = chunked_cross_entropy(model(batch.inputs), batch.labels)
            fabric.backward(loss / len(micro))
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


class Turns(TrainerCallback):
    """When the Trainer has ended a step, notes its CPU-seconds and lets the others take theirs, in an order that goes round."""

    def __init__(self, others: dict[str, Step], per_step: int) -> None:
        self.others, self.per_step, self.done, self.since = others, per_step, 0, 0.0
        self.seconds: dict[str, list[float]] = {name: [] for name in (HOST, *others)}
        self.losses: dict[str, list[float]] = {name: [] for name in others}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The clock starts."""
        self.since = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Everyone's turn."""
        self.seconds[HOST].append(time.process_time() - self.since)
        names = list(self.others)
        for name in names[self.done % len(names) :] + names[: self.done % len(names)]:
            begun = time.process_time()
            self.losses[name].append(self.others[name](self.done * self.per_step))
            self.seconds[name].append(time.process_time() - begun)
        self.done, self.since = self.done + 1, time.process_time()


def host(given: Setting, steps: int, *callbacks: TrainerCallback) -> float:
    """The Trainer's mean loss over `steps` steps at a constant rate."""
    return hosted(build_model(given.model, 0), given, steps, given.micro, given.per_step, True, callbacks, learning_rate=RATE, lr_scheduler_type="constant", torch_compile=given.compiled)  # fmt: skip


def measure(given: Setting, turns: int, warm: int = 2) -> dict[str, Any]:
    """`turns` steps of each after `warm` unmeasured ones: median CPU-seconds, and the quantiles 0.1, 0.5 and 0.9 of the
    others' ratio to the lab in the same turn (above 1: the lab is faster)."""
    sides = {"lab": lab(given), "plain loop": plain(given)}
    try:
        sides |= {"litgpt": litgpt(given), "lab without documents": lab(given, documents=False)}
    except ImportError as error:
        print(f"litgpt is left out: {error}", file=sys.stderr)
    done = Turns(sides, given.per_step)
    loss = host(given, warm + turns, done)
    seconds = {name: np.array(row[warm:]) for name, row in done.seconds.items()}
    base = {name: seconds["lab without documents" if name == "litgpt" else "lab"] for name in seconds}
    return {
        "cpu_seconds": {name: round(float(np.median(row)), 4) for name, row in seconds.items()},
        "ratio": {name: np.quantile(row / base[name], [0.1, 0.5, 0.9]).round(3).tolist() for name, row in seconds.items()},
        "losses": {HOST: loss, **{name: float(np.mean(row)) for name, row in done.losses.items()}},
        "turns": turns, "compiled": given.compiled, "threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip


def peak(name: str, given: Setting) -> float:
    """Most resident GiB of this process after two steps of the lab with a chunked loss, or of the Trainer."""
    torch.set_num_threads(1)
    if name == HOST:
        host(given, 2)
    else:
        step = lab(given, loss="chunked")
        step(0), step(given.per_step)
    return round(peak_gib(torch.device("cpu")), 3)


def memory(given: Setting) -> dict[str, float]:
    """`peak` of both, in a process each."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return {name: pool.apply(peak, (name, given)) for name in ("lab, chunked loss", HOST)}
