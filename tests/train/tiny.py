"""A tiny model, recipe and data set, and a job that trains them on whatever process calls it."""

from __future__ import annotations

import json
import os
import random
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from lablib.data.prepare import prepare
from lablib.models import context, seeded
from lablib.models.layout import Place
from lablib.runs import Recorder, Run
from lablib.specs import ModelSpec, Optimizer, Parallelism, Prepare, Pretrain, Ref, Schedule
from lablib.train import clip, losses, routing, step
from lablib.train.pretrain import pretrain

MODEL = ModelSpec(
    family="qwen3", layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=160, vocab=300, max_seq_len=64
)
SEQ_LEN, BATCH = 32, 8
ONE = Parallelism(micro_batch_size=4)


def recipe(data: Ref, layout: Parallelism = ONE, **changes: Any) -> Pretrain:
    """Five steps of eight sequences of 32 tokens in fp32, with a checkpoint after step 3."""
    settings: dict[str, Any] = {
        "data": data,
        "model": MODEL,
        "tokens": 5 * BATCH * SEQ_LEN,
        "seq_len": SEQ_LEN,
        "batch_tokens": BATCH * SEQ_LEN,
        "precision": "fp32",
        "parallelism": layout,
        "optimizer": Optimizer(learning_rate=3e-3),
        "schedule": Schedule(warmup=0.2, decay=0.4),
        "eval_tokens": 10 * SEQ_LEN,
        "eval_every": 5,
        "checkpoint_every": 3,
    }
    return Pretrain(**{**settings, **changes})


def prepare_data(root: Path) -> Ref:
    """A Prepare run below `root` on made-up documents of 2 to 60 words in two domains; its data."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(1, 6))) for _ in range(80)]
    rows = [
        {
            "text": " ".join(draw.choices(words, k=draw.randint(2, 60))) + f" {number}",
            "domain": "odd" if number % 2 else "even",
        }
        for number in range(400)
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = Prepare(corpus=str(root / "made.jsonl"), vocab=MODEL.vocab, heldout=0.1)
    run = Recorder.create(root, wanted)
    with patch.dict(os.environ, LAB_HOME=str(root / "home")):
        prepare(wanted, run)
    return Run.open(run.path).data


def new_run(root: Path, wanted: Pretrain) -> Path:
    """A run folder beside the data that it reads."""
    return Recorder.create(root, wanted).path


@dataclass(frozen=True)
class Job:
    """One attempt at a run, on all processes of its layout."""

    path: Path
    recipe: Pretrain
    bug: str = ""
    """Name of a mistake to plant."""
    signal_after: tuple[int, int] = (0, 0)
    """(step, signal): what rank 0 sends itself once it has logged that step."""


def attempt(job: Job) -> None:
    """Carry a job out on this process."""
    run = Recorder(job.path, int(os.environ.get("RANK", "0")))
    with ExitStack() as planted:
        for target, name, value in BUGS[job.bug]:
            planted.enter_context(patch.object(target, name, value))
        planted.enter_context(patch.object(run, "log", _interrupting(run, *job.signal_after)))
        with run.working():
            pretrain(job.recipe, run)


def attempt_all(jobs: list[Job]) -> None:
    """Several jobs one after the other in the same processes, each with a meeting place of its own."""
    for job in jobs:
        attempt(job)
        os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)


def _interrupting(run: Recorder, at: int, number: int) -> Any:
    logged = run.log

    def log(step: int, stream: str = "train", **values: Any) -> None:
        logged(step, stream, **values)
        if run.is_main and stream == "train" and step == at:
            os.kill(os.getpid(), number)

    return log


def curve(path: Path) -> list[tuple[float, float, float]]:
    """(loss, gradient norm, learning rate) of every step."""
    return [(row["loss"], row["grad_norm"], row["lr"]) for row in Run.open(path).rows()]


def _no_all_reduce(self: step.Stepper, values: torch.Tensor) -> torch.Tensor:
    return values.double() * self.place.dp


def do_nothing(*args: Any, **kwargs: Any) -> None:
    """What a forgotten call does."""


def _local_norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.get_total_norm([getattr(grad, "_local_tensor", grad) for grad in gradients])


def _gathered_without_gradient(tensor: torch.Tensor, group: Any) -> torch.Tensor:
    slices = [torch.empty_like(tensor) for _ in range(group.size())]
    dist.all_gather(slices, tensor.detach().contiguous(), group=group)
    slices[group.rank()] = tensor
    return torch.cat(slices, dim=2)


def _own_loads(self: routing.Routing) -> torch.Tensor:
    self._all = self._sums.clone()
    return self._all


def _key_of_rank(seed: int, name: str) -> int:
    return seed + (dist.get_rank() if dist.is_initialized() else 0)


def _twice(work: Any) -> Any:
    return lambda *args: (work(*args), work(*args))


def _bugs() -> dict[str, list[tuple[Any, str, Any]]]:
    from torch.distributed.fsdp._fully_shard import _fsdp_collectives

    return {
        "": [],
        "averaging not undone": [(step, "gradient_scale", lambda targets, dp: 1 / targets)],
        "each rank its own divisor": [(step.Stepper, "summed", _no_all_reduce)],
        "norm gradients never summed": [(step, "sum_partial_gradients", do_nothing)],
        "norm gradients summed again": [(step, "sum_partial_gradients", _twice(step.sum_partial_gradients))],
        "replicas never reduced": [
            (_fsdp_collectives, "dist", SimpleNamespace(**{**vars(dist), "all_reduce": do_nothing}))
        ],
        "tensor ranks read other data": [(Place, "of", classmethod(lambda cls, rank, p: cls(rank % p.dp, p.dp, p.tp)))],
        "norm of own shards only": [(clip, "global_norm", _local_norm)],
        "norm of own stage only": [(clip, "all_reduce", do_nothing)],
        "head and embedding apart": [(step, "sum_tied_gradients", do_nothing)],
        "tied matrix counted twice": [(step, "tied_end", do_nothing)],
        "no gradient to other slices' keys": [(context, "_gathered", _gathered_without_gradient)],
        "windows forgotten": [
            (step, "context_masks", lambda _, *given: context.context_masks(None, *given)),
        ],
        "every rank its own draw": [(seeded, "_key", _key_of_rank)],
        "loads of own rank only": [(routing.Routing, "end", _own_loads)],
        "labels of another slice": [(losses, "by_slice", lambda labels, slices: labels.reshape(slices, -1))],
        "expert gradients not averaged": [(FSDPModule, "set_gradient_divide_factor", do_nothing)],
    }


BUGS = _bugs()
STOP, KILL = signal.SIGTERM, signal.SIGKILL
