"""`Job`: one optimiser step of any training stage, in the terms that memory and time are computed from.

The layout's degrees, `seq_len` and `step_tokens` may be arrays (`lablib.plan.grid.Layouts`): then every figure is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lablib.plan.activations import Style
from lablib.plan.engines import LAB, Engine
from lablib.plan.grid import Layouts, Number, ceil, choose, most, rounded
from lablib.plan.params import Params
from lablib.specs import ModelSpec, Parallelism


@dataclass(frozen=True)
class Job:
    """What every rank does in a step. Sequences are `seq_len` long, packed or padded."""

    model: ModelSpec
    params: Params
    layout: Parallelism | Layouts
    seq_len: Number
    step_tokens: Number
    """Over all ranks."""
    precision: str = "bf16"
    recompute: str = "none"
    fused: bool = False
    """Compiled: elementwise kernels are fused."""
    adapters: bool = False
    """Only LoRA adapters train; the base is frozen."""
    reference: bool = False
    """A frozen second copy of the model runs forward on the same tokens."""
    reference_shared: bool = False
    """The reference is the same weights with the adapters off: it costs a forward pass but no memory."""
    optimizer: str = "adamw"
    """A key of `lablib.plan.engines.OPTIMIZER_BYTES`."""
    cross_entropy: str = "full"
    offload: str = "none"
    reduce_dtype: str = "fp32"
    expert_imbalance: float = 1.0
    """Tokens of the busiest expert-parallel rank over the mean."""
    base_bytes: float | None = None
    """Bytes of a frozen base weight where it is quantised (QLoRA's nf4: 0.5 and its scales); None keeps the engine's."""
    engine: Engine = LAB

    @property
    def shards(self) -> Number:
        """Ranks that share what ZeRO shards (FSDP2 and Megatron's distributed optimiser shard over dp_shard × cp)."""
        return self.layout.dp_shard * self.layout.cp

    @property
    def width(self) -> int:
        """Bytes of an activation: fp8 recipes keep activations in bf16."""
        return 4 if self.precision == "fp32" else 2

    @property
    def style(self) -> Style:
        """How the engine computes: autocast around fp32 weights on one data-parallel rank, else FSDP2's bf16 throughout (so a
        grid's layouts have one rank all, given as a plain 1, or more)."""
        dp = self.layout.dp
        casts = self.engine is LAB and self.width < 4 and not isinstance(dp, np.ndarray) and dp == 1
        stream = 4 if casts else self.width
        return Style(self.width, stream, self.fused or self.engine.fused, self.engine.dropout, self.engine.rotated)

    @property
    def micro_batches(self) -> Number:
        """Micro-batches of one data-parallel rank in a step."""
        return most(1, rounded(self.step_tokens / (self.seq_len * self.layout.micro_batch_size * self.layout.dp)))

    @property
    def micro_tokens(self) -> Number:
        """Tokens of one micro-batch on one rank; context parallelism splits the sequence."""
        return self.layout.micro_batch_size * self.seq_len / self.layout.cp

    @property
    def crowd(self) -> Number:
        """What the ranks wait for at the experts: the busiest one's tokens over the mean, where experts are divided."""
        return choose(self.layout.ep > 1, self.expert_imbalance, 1.0)

    @property
    def stage_share(self) -> Number:
        """Share of the layers on the fullest pipeline stage."""
        return ceil(self.model.layers / self.layout.pp) / self.model.layers
