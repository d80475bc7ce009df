"""Training frameworks: what each keeps in memory beside the model, and how it measures. Ours is `LAB`.

The same layout costs different memory under another framework, because it keeps other copies of the weights, sums
gradients in another precision, fuses other kernels and reports another figure. These conventions are read from each
project's code or papers, not fitted.
"""

from __future__ import annotations

from typing import Literal

from lablib.specs import Spec

OPTIMIZER_BYTES = {"adamw": 8.0, "adamw-8bit": 2.06, "adamw-bf16": 4.0, "adafactor": 0.05, "muon": 4.0, "sgd": 4.0}
"""Bytes of optimiser states a parameter. AdamW: two fp32 moments (arXiv 1711.05101); 8-bit: two bytes and an fp32 scale for
each block of 256 (arXiv 2110.02861 §2); bf16: two bf16 moments; Adafactor: one row and one column of each matrix (arXiv
1804.04235 §3), under a percent of it; Muon and SGD: one fp32 momentum (kellerjordan.github.io/posts/muon)."""


class Engine(Spec):
    """Bytes are for each parameter; shards of them follow the layout's `zero`."""

    name: str = "lab"
    weights: float = 4.0
    """The weights that live between steps (sharded from ZeRO-3 on)."""
    master: float = 0.0
    """An fp32 copy that the optimiser updates (sharded like the optimiser's states)."""
    grads: float = 4.0
    """Gradients as they accumulate (sharded from ZeRO-2 on)."""
    fused: bool = False
    """Norms, rotary embeddings and activation functions run as one kernel each whatever `compile` says."""
    source: str = ""


LAB = Engine(source="lablib/train: fp32 weights, FSDP2 mixed precision or autocast (docs/planner.md)")
MEASURED = Literal["allocated", "reserved", "device"]
