"""Sampling tokens: the time of one decoding step and the memory of the key-value cache."""

from __future__ import annotations

from lablib.plan import anatomy, flops
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.plan.ranges import Range
from lablib.specs import LabError, ModelSpec

PROMPT_TOKENS = 60
"""Tokens of one templated question of a procedural task, the answer included; examples for few-shot are as long."""
LENGTH = Range(low=0.35, mid=0.7, high=1.0)
"""Decoding steps over `max_new_tokens`: a batch runs until its last sequence has ended."""


def cache_bytes(model: ModelSpec, width: int) -> float:
    """Bytes of keys and values that one token leaves behind (transformers caches MLA's expanded heads), without
    Mamba-2's states, which do not grow."""
    n = anatomy.layers(model).attention
    if model.mla:
        return (
            n * model.heads * (model.mla.qk_nope_head_dim + model.mla.qk_rope_head_dim + model.mla.v_head_dim) * width
        )
    return n * 2 * model.kv_heads * model.head_dim * width


def decode_seconds(model: ModelSpec, batch: int, context: float, width: int, precision: str, machine: Machine) -> float:
    """Seconds to sample one token for each of `batch` sequences: host time of every layer, and the slower of reading
    the weights and caches once and computing. Raises `LabError` where the precision's rate is unknown."""
    rate = machine.matmul_rate(precision)
    if rate is None:
        raise LabError(
            f"precision={precision!r}: no rate is known for {machine.cluster.accelerator.name}; run `lab calibrate`"
        )
    weights = count(model).active * width
    reading = (weights + batch * context * cache_bytes(model, width)) / machine.bandwidth
    computing = batch * sum(flops.forward(model, context).values()) / (rate * machine.efficiency.matmul.mid)
    host = machine.efficiency.decode_layer_seconds * model.layers / machine.speed
    return host + (reading + computing if machine.is_cpu else max(reading, computing))


def generate_seconds(
    model: ModelSpec, prompts: int, batch: int, prompt: float, new: float, precision: str, machine: Machine
) -> float:
    """Seconds to sample about `new` tokens for each of `prompts` prompts in batches of `batch`."""
    width = 4 if precision == "fp32" else 2
    size = min(prompts, batch)
    return rounds(prompts, size) * new * decode_seconds(model, size, prompt + new / 2, width, precision, machine)


def rounds(items: int, batch: int) -> int:
    """Batches that `items` make."""
    return -(-items // batch)
