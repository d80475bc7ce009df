"""`Parallelism`: how one training job is laid out over accelerators."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lablib.specs.base import Spec


class Parallelism(Spec):
    """Degrees of each kind of parallelism; their product (without `ep`) is the number of accelerators.

    `ep` reuses the data-parallel ranks (an expert group lies inside dp_shard × cp × tp), so it adds no accelerators.
    """

    dp_replicate: int = Field(default=1, gt=0)
    """Copies of the sharded model (HSDP outer dimension; plain data parallelism where dp_shard is 1)."""
    dp_shard: int = Field(default=1, gt=0)
    """Ranks that share parameters, gradients and optimiser states (FSDP2 / ZeRO-3)."""
    tp: int = Field(default=1, gt=0)
    pp: int = Field(default=1, gt=0)
    cp: int = Field(default=1, gt=0)
    ep: int = Field(default=1, gt=0)
    micro_batch_size: int = Field(default=1, gt=0)
    """Sequences that one data-parallel rank pushes through the model at a time."""
    zero: Literal[1, 2, 3] = 3
    """What the dp_shard ranks share (arXiv 1910.02054 §5): 1 optimiser states, 2 gradients too, 3 parameters too (FSDP)."""
    sequence_parallel: bool = False
    """Norms and residuals are split over the tensor-parallel ranks along the sequence (arXiv 2205.05198 §4.2)."""
    virtual_stages: int = Field(default=1, gt=0)
    """Slices of the model on each pipeline rank (interleaved schedule, arXiv 2104.04473 §2.2.2)."""
    pp_schedule: Literal["gpipe", "1f1b", "zero-bubble"] = "1f1b"
    """Order of forward and backward passes; with `virtual_stages` above 1, 1F1B is interleaved."""

    @model_validator(mode="after")
    def _experts_fit(self) -> Self:
        if (self.dp_shard * self.cp * self.tp) % self.ep:
            raise ValueError(f"ep={self.ep} must divide dp_shard×cp×tp={self.dp_shard * self.cp * self.tp}")
        return self

    @property
    def dp(self) -> int:
        """Data-parallel ranks, each with its own sequences."""
        return self.dp_replicate * self.dp_shard

    @property
    def gpus(self) -> int:
        """Accelerators, one process each."""
        return self.dp * self.tp * self.pp * self.cp

    def __str__(self) -> str:
        names = ("dp_replicate", "dp_shard", "tp", "pp", "cp", "ep")
        parts = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name) > 1]
        return " ".join(parts or ["one device"]) + f", micro-batch {self.micro_batch_size}"
