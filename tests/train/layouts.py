"""Three steps of a tiny model under any layout, on whatever processes call it: what parity tests compare."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from tiny import BUGS

from lablib.data.loader import IGNORED
from lablib.models.attention import attend
from lablib.models.build import initialise
from lablib.models.compiled import BUDGET, compile_layers
from lablib.models.layout import Links, Place, distribute, whole_model
from lablib.models.recompute import apply_recompute
from lablib.models.seeded import skeleton
from lablib.specs import Balance, ModelSpec, Optimizer, Parallelism
from lablib.specs.model import MLA, SSM, MoE
from lablib.specs.recipe import CrossEntropy, Recompute
from lablib.train import pipeline, step
from lablib.train.batches import Batch, micro_batches
from lablib.train.distributed import World, joined
from lablib.train.losses import TokenLosses
from lablib.train.optimizer import build_optimizer
from lablib.train.pipeline import Pipeline
from lablib.train.routing import Routing
from lablib.train.start import Start
from lablib.train.step import Stepper

SEQ_LEN, PER_STEP, STEPS = 24, 8, 3
SMALL_CHUNKS = [(where, "TokenLosses", partial(TokenLosses, chunk=20)) for where in (pipeline, step)]
"""Patches: more than one chunk in a micro-batch, the last one smaller."""
_SHAPE: dict[str, Any] = {"hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "vocab": 300, "max_seq_len": 64}
MODELS = {
    "dense": ModelSpec(family="qwen3", layers=4, ffn=160, **_SHAPE),
    "tied": ModelSpec(family="qwen3", layers=4, ffn=160, tied_embeddings=True, **_SHAPE),
    "windows": ModelSpec(family="mistral", layers=4, ffn=160, sliding_window=7, **_SHAPE),
    "some windows": ModelSpec(family="gemma3", layers=4, ffn=160, sliding_window=7, window_every=2, **_SHAPE),
    "llama": ModelSpec(family="llama", layers=4, ffn=160, **_SHAPE),
    "gpt2": ModelSpec(family="gpt2", layers=2, hidden=64, heads=4, ffn=160, vocab=300, max_seq_len=64),
    "moe": ModelSpec(family="qwen3_moe", layers=4, ffn=160, moe=MoE(experts=8, top_k=2, expert_ffn=48), **_SHAPE),
    "one expert": ModelSpec(family="mixtral", layers=2, moe=MoE(experts=1, top_k=1, expert_ffn=48), ffn=48, **_SHAPE),
    "biased": ModelSpec(
        family="glm4_moe",
        layers=3,
        ffn=160,
        moe=MoE(experts=8, top_k=2, expert_ffn=48, shared_experts=1, dense_layers=1),
        **_SHAPE,
    ),
    "latent": ModelSpec(
        family="deepseek_v3",
        layers=3,
        ffn=160,
        moe=MoE(experts=8, top_k=2, expert_ffn=48, shared_experts=1, dense_layers=1),
        mla=MLA(q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=12),
        **{**_SHAPE, "kv_heads": 4},
    ),
    "hybrid": ModelSpec(
        family="bamba",
        layers=3,
        ffn=160,
        ssm=SSM(heads=8, head_dim=16, state=16, chunk=16, attention_layers=(1,)),
        **_SHAPE,
    ),
    "jamba": ModelSpec(
        family="jamba",
        layers=4,
        ffn=48,
        moe=MoE(experts=4, top_k=2, expert_ffn=48, norm_topk=False, every=2),
        ssm=SSM(heads=128, head_dim=1, state=8, step_rank=4, attention_layers=(1,)),
        **_SHAPE,
    ),
    "granite": ModelSpec(
        family="granitemoehybrid",
        layers=3,
        ffn=96,
        moe=MoE(experts=4, top_k=2, expert_ffn=48, shared_experts=2),
        ssm=SSM(heads=8, head_dim=16, state=16, chunk=16, attention_layers=(1,)),
        **_SHAPE,
    ),
    "rwkv": ModelSpec(family="rwkv", layers=3, hidden=64, heads=1, ffn=160, vocab=300, max_seq_len=64),
    "uneven": ModelSpec(
        family="qwen3", layers=5, ffn=150, hidden=60, heads=6, kv_heads=2, head_dim=10, vocab=301, max_seq_len=64
    ),
}


@dataclass(frozen=True)
class Case:
    """One training of one model."""

    model: str
    layout: Parallelism
    bug: str = ""
    """A name in `tiny.BUGS`."""
    recompute: Recompute = "none"
    reduce_bf16: bool = False
    balance: Balance | None = None
    cross_entropy: CrossEntropy = "full"
    compile: bool = False
    sizes: tuple[int, ...] = (PER_STEP,) * STEPS
    """Sequences of each step."""
    start: Path | None = None
    """What it starts from; None: the weights are drawn."""


@dataclass(frozen=True)
class Trained:
    """What a training gave; losses in nats a target."""

    losses: tuple[float, ...]
    norms: tuple[float, ...]
    heldout: float
    weights: dict[str, Any]
    """Final weights as NumPy arrays."""

    def differences(self, other: Trained) -> tuple[float, float, float, float]:
        """Largest difference of losses, of norms (relative), of the held-out losses, of a weight."""
        assert self.weights.keys() == other.weights.keys()
        return (
            max(abs(a - b) for a, b in zip(self.losses, other.losses, strict=True)),
            max(abs(a / b - 1) for a, b in zip(self.norms, other.norms, strict=True)),
            abs(self.heldout - other.heldout),
            max(float(abs(self.weights[name] - other.weights[name]).max()) for name in self.weights),
        )


def sequences(indices: Sequence[int]) -> Batch:
    """Made-up sequences of several documents, some targets ignored: functions of their indices alone."""
    rows = []
    for index in indices:
        draw = torch.Generator().manual_seed(index)
        tokens = torch.randint(300, (SEQ_LEN + 1,), generator=draw)
        cut = int(torch.randint(1, SEQ_LEN - 1, (1,), generator=draw))
        positions = torch.cat([torch.arange(cut), torch.arange(SEQ_LEN - cut)])
        labels = tokens[1:].clone()
        labels[cut - 1] = IGNORED
        labels[: index % 5] = IGNORED
        rows.append((tokens[:-1], labels, positions))
    return Batch(*(torch.stack(column) for column in zip(*rows, strict=True)))


def train(case: Case, world: World) -> Trained | None:
    """Train on this process's part; the result on rank 0."""
    layout = case.layout
    place, links = Place.of(world.rank, layout), Links.of(layout, world.device)
    spec = MODELS[case.model]
    whole = skeleton(spec)
    attend(whole, "auto", inside=case.layout.gpus > 1 and layout.cp == 1 and not spec.ssm)
    laid = distribute(whole, layout, False, world.device, links, case.reduce_bf16)
    initialise(laid.model, spec, 0)
    optimizer = build_optimizer(laid.model, Optimizer(learning_rate=3e-3))
    if case.start is not None:
        Start(case.start).fill(laid.model, optimizer, spec)
    for stage in laid.stages:
        apply_recompute(stage, case.recompute)
    if case.compile:
        compile_layers(laid.model, BUDGET if case.recompute == "budget" else 1.0)
    stages = None
    if links.pp is not None:
        stages = Pipeline(laid.stages, layout, links.pp, world.device, spec.hidden, torch.float32, case.cross_entropy)
    stepper = Stepper(
        laid.model,
        optimizer,
        world,
        place,
        1.0,
        False,
        links=links,
        partial=laid.partial,
        pipeline=stages,
        zero=layout.zero,
        cross_entropy=case.cross_entropy,
        routing=Routing(laid.model, spec, world, place, links, case.balance, STEPS) if spec.moe else None,
    )
    laid.model.train()
    outcomes, read = [], 0
    for size in case.sizes:
        groups = micro_batches(read, size, layout.micro_batch_size, place)
        outcomes.append(stepper([sequences(group) for group in groups]))
        read += size
    with torch.no_grad():
        batch = sequences([1000, 1001])
        nats = float(stepper.summed(stepper.sequence_losses(batch).sum()) / stepper.summed(batch.targets))
    whole = whole_model(laid.model, links)
    if whole is None:
        return None
    weights = {name: tensor.detach().numpy().copy() for name, tensor in whole.state_dict().items()}
    return Trained(tuple(o.loss for o in outcomes), tuple(o.grad_norm for o in outcomes), nats, weights)


def train_all(cases: Sequence[Case]) -> list[Trained | str]:
    """Several trainings in one set of processes, one after the other; where one fails, its error."""
    found: list[Trained | str] = []
    with joined(cases[0].layout.gpus) as world:
        for case in cases:
            with ExitStack() as planted:
                for target, name, value in BUGS[case.bug] + SMALL_CHUNKS:
                    planted.enter_context(patch.object(target, name, value))
                found.append(train(case, world) or "another rank has it")
            dist.barrier() if world.size > 1 else None
    return found
