"""How many parameters a model has, exactly: total, active for one token, by part, and with adapters."""

from __future__ import annotations

from functools import lru_cache

from lablib.plan import anatomy
from lablib.specs import LoRA, ModelSpec, Spec


class Params(Spec):
    """Parameter counts. `active` is total minus the experts that a token does not visit (embeddings count)."""

    total: int = 0
    active: int = 0
    embedding: int = 0
    """Input embedding and, where it is not tied to it, the output head."""
    trainable: int = 0
    """What the optimiser updates: all, or the adapters."""
    parts: dict[str, int] = {}


@lru_cache(maxsize=512)
def count(model: ModelSpec) -> Params:
    """Exact counts, equal to transformers' own for the same config."""
    parts: dict[str, int] = {}
    for matrix in anatomy.matrices(model):
        parts[matrix.part] = parts.get(matrix.part, 0) + matrix.size
    for vector in anatomy.vectors(model):
        parts[vector.part] = parts.get(vector.part, 0) + vector.size * vector.copies
    total = sum(parts.values())
    idle = sum(m.rows * m.cols * (m.copies - m.active) for m in anatomy.matrices(model) if m.part == "experts")
    embedding = parts["embedding"] + parts.get("head", 0)
    kept = {part: size for part, size in parts.items() if size}
    return Params(total=total, active=total - idle, embedding=embedding, trainable=total, parts=kept)


def with_adapters(model: ModelSpec, lora: LoRA) -> Params:
    """Counts where only LoRA adapters train: rank × (inputs + outputs) of each target (arXiv 2106.09685 §4.1).

    PEFT's "all-linear" leaves out the head; fused expert weights and routers are not linear modules in transformers.
    """
    base = count(model)
    adapters = sum(lora.rank * (m.rows + m.cols) * m.copies for m in anatomy.matrices(model) if _target(m, lora))
    parts = {**base.parts, "adapters": adapters}
    return base.replace(total=base.total + adapters, active=base.active + adapters, trainable=adapters, parts=parts)


def _target(matrix: anatomy.Matrix, lora: LoRA) -> bool:
    if matrix.part in ("embedding", "head", "experts", "router"):
        return False
    wanted = (lora.targets,) if isinstance(lora.targets, str) else lora.targets
    return "all-linear" in wanted or matrix.name in wanted
