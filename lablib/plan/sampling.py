"""Sampling tokens: the time of a decoding step and of a whole batch with a long tail, and the key-value cache.

A decoding step is a roofline: weights and caches are read once, whatever the batch, and the host must launch every layer.
`Sampler` says what does it: a trainer's own `generate`, or a serving engine (vLLM, SGLang) with CUDA graphs, continuous
batching and tensor parallelism.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from lablib.plan import anatomy, flops
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.plan.ranges import Range
from lablib.specs import LabError, ModelSpec

PROMPT_TOKENS = 60
"""Tokens of one templated question of a procedural task, the answer included; examples for few-shot are as long."""
LENGTH = Range(low=0.35, mid=0.7, high=1.0)
"""Decoding steps over `max_new_tokens`: a batch runs until its last sequence has ended."""
GRAPHED_LAYER = 3e-5
"""Seconds of one layer's kernels in a captured CUDA graph, however small they are: about ten of three microseconds."""
ENGINE_STEP = 3e-3
"""Seconds that a serving engine spends on the host in each step: scheduling, sampling, detokenising."""
REDUCE_SECONDS = 1.5e-5
"""Seconds that a small all-reduce takes for each doubling of its ranks, launched from a CUDA graph."""
SMALL_EXPERTS = 0.5
"""Bandwidth that grouped matmuls of a few rows an expert reach, over that of one large matmul: each expert's weights are
read in tiles of their own (held against NeMo-RL's steps, whose sampling they dominate)."""
SERVING_SHARE = 0.9
"""Share of an accelerator's memory that a serving engine takes for weights and caches (vLLM's default)."""


class Sampler(NamedTuple):
    """How one replica samples."""

    tp: int = 1
    width: int = 2
    """Bytes of a weight and of a cached number."""
    precision: str = "bf16"
    served: bool = False
    """A serving engine: CUDA graphs, continuous batching, compressed caches of latent attention."""
    eager: bool = False
    """A serving engine without CUDA graphs (vLLM's enforce_eager): the host launches every layer."""
    resident: float = 0.0
    """Bytes that a trainer in turns with it keeps on each accelerator while it samples."""


def cache_bytes(model: ModelSpec, width: float, latent: bool = False) -> float:
    """Bytes of keys and values that one token leaves behind, without recurrent states, which do not grow.

    Latent attention (MLA) caches its expanded heads in transformers, and the compressed vector in a serving engine: 576
    numbers a layer in DeepSeek-V3 (arXiv 2405.04434 §2.1).
    """
    n, mla = anatomy.layers(model).attention, model.mla
    if mla and latent:
        return n * (mla.kv_lora_rank + mla.qk_rope_head_dim) * width
    return n * model.kv_heads * (model.head_dim + anatomy.value_dim(model)) * width


def cache(model: ModelSpec, tokens: float, width: float, latent: bool = False) -> float:
    """Bytes of one sequence's cache: windowed layers hold no more than their window, recurrent ones a state that does not grow."""
    whole = tokens * cache_bytes(model, width, latent) + _states(model, width)
    if not model.sliding_window or tokens <= model.sliding_window:
        return whole
    windowed = anatomy.windowed_layers(model) / max(1, anatomy.layers(model).attention)
    return whole * (1 - windowed * (1 - model.sliding_window / tokens))


def _states(model: ModelSpec, width: float) -> float:
    """Bytes of one sequence's recurrent states: Mamba's, and what its convolution looks back to; of RWKV a token before each
    mixing, and three fp32 sums a channel."""
    n = anatomy.layers(model)
    if model.ssm is None:
        return n.recurrent * (2 * model.hidden * width + 3 * anatomy.mixing(model) * 4)
    return n.ssm * width * (anatomy.ssm_inner(model) * model.ssm.state + anatomy.ssm_conv(model) * model.ssm.conv)


def _experts_read(model: ModelSpec, batch: float) -> float:
    if model.moe is None:
        return 0.0
    touched = 1 - (1 - model.moe.top_k / model.moe.experts) ** max(1.0, batch)
    return count(model).parts.get("experts", 0) * touched


def weights_read(model: ModelSpec, batch: float) -> float:
    """Parameters that a step reads: all but the embedding's other rows, and the experts that some token visits."""
    params = count(model)
    experts = params.parts.get("experts", 0)
    rows = params.parts.get("embedding", 0) if params.parts.get("head") else 0
    return params.total - rows - experts + _experts_read(model, batch)


def step_seconds(model: ModelSpec, batch: float, context: float, sampler: Sampler, machine: Machine) -> float:
    """Seconds to sample one token for each of `batch` sequences on one replica. Raises `LabError` where the precision's
    rate is unknown."""
    rate = machine.matmul_rate(sampler.precision)
    if rate is None:
        raise LabError(f"precision={sampler.precision!r}: no rate is known for {machine.cluster.accelerator.name}; run `lab calibrate`")  # fmt: skip
    tp, width = sampler.tp, sampler.width
    held = batch * cache(model, context, width, sampler.served) / split(model, tp)
    read = weights_read(model, batch) + _experts_read(model, batch) * (1 / SMALL_EXPERTS - 1)
    reading = (read * width / tp + held) / machine.bandwidth
    computing = batch * sum(flops.forward(model, context).values()) / tp / (rate * machine.efficiency.matmul.mid)
    if machine.is_cpu:
        return machine.efficiency.decode_layer_seconds * model.layers / machine.speed + reading + computing
    layer = GRAPHED_LAYER if sampler.served and not sampler.eager else machine.efficiency.decode_layer_seconds
    host = layer * model.layers + (ENGINE_STEP if sampler.served else 0.0)
    return host + max(reading, computing) + _reduced(model, batch, sampler, machine)


def _reduced(model: ModelSpec, batch: float, sampler: Sampler, machine: Machine) -> float:
    """Seconds of two all-reduces a layer over the tensor-parallel ranks."""
    if sampler.tp == 1:
        return 0.0
    size = 2 * batch * model.hidden * sampler.width * (sampler.tp - 1) / sampler.tp
    one = size / machine.link(sampler.tp, 1) + REDUCE_SECONDS * math.log2(sampler.tp)
    return 2 * model.layers * one


def decode_seconds(model: ModelSpec, batch: int, context: float, width: int, precision: str, machine: Machine) -> float:
    """A step of the trainer's own `generate`. Raises `LabError` where the precision's rate is unknown."""
    return step_seconds(model, batch, context, Sampler(1, width, precision), machine)


def prefill_seconds(model: ModelSpec, tokens: float, sampler: Sampler, machine: Machine) -> float:
    """Seconds to read `tokens` of prompts on one replica. Raises `LabError` where the precision's rate is unknown."""
    rate = machine.matmul_rate(sampler.precision)
    if rate is None:
        raise LabError(f"precision={sampler.precision!r}: no rate is known for {machine.cluster.accelerator.name}; run `lab calibrate`")  # fmt: skip
    forward = sum(flops.forward(model, 1.0).values())
    return tokens * forward / sampler.tp / (rate * machine.efficiency.matmul.mid)


def serve_seconds(
    model: ModelSpec, sequences: float, prompt: float, mean: float, longest: float, sampler: Sampler, machine: Machine
) -> float:
    """Seconds for one replica to answer `sequences` prompts at once, `mean` new tokens each and `longest` at most.

    Continuous batching: sequences leave as they end, so steps go on until the longest ends, at a mean batch of
    sequences × mean / longest; where the cache does not hold that many, they queue.
    """
    active = max(1.0, sequences * mean / longest)
    context = prompt + mean / 2
    at_once = max(1.0, min(active, slots(model, prompt + mean, sampler, machine)))
    steps = max(longest, sequences * mean / at_once)
    decoding = steps * step_seconds(model, at_once, context, sampler, machine)
    return decoding + prefill_seconds(model, sequences * prompt, sampler, machine)


def split(model: ModelSpec, tp: int) -> int:
    """Tensor-parallel ranks that a cache is divided over: its heads; every rank holds a latent cache whole."""
    return 1 if model.mla else min(tp, max(1, model.kv_heads))


def room(model: ModelSpec, sampler: Sampler, machine: Machine) -> float:
    """Bytes that one accelerator of a serving engine has for caches: its share of the memory, less the weights, the
    libraries and what a trainer keeps there."""
    weights = count(model).total * sampler.width / sampler.tp
    taken = weights + machine.efficiency.reserve_gib * 2**30 + sampler.resident
    return SERVING_SHARE * machine.capacity_gib * 2**30 - taken


def slots(model: ModelSpec, tokens: float, sampler: Sampler, machine: Machine) -> float:
    """Sequences of `tokens` that one replica's cache holds; at least one."""
    one = cache(model, tokens, sampler.width, sampler.served) / split(model, sampler.tp)
    return max(1.0, room(model, sampler, machine) / max(1.0, one))


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
