"""Seconds of one micro-batch's kernels on one rank: matmuls, attention and what is bound by memory bandwidth.

A matmul of m×k by k×n takes 2·m·k·n over the rate that a long run sustains, and the share of its operands' traffic that
the tensor cores wait for: so small batches, narrow models and many tensor-parallel ranks are slower, without a curve for
each. Quantised matmuls are faster and pay for quantising their inputs. Everything broadcasts over arrays of layouts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from lablib.plan import anatomy, flops
from lablib.plan.grid import Number, choose
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.specs import ModelSpec

FUSED = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
"""Matrices with the same input that run as one matmul."""
ROW_SPLIT = ("o_proj", "down_proj", "out_proj")
"""Tensor parallelism divides their inputs (arXiv 1909.08053 §3); the others' outputs, or nothing."""
WHOLE = ("gate", "q_a_proj", "kv_a_proj_with_mqa")
"""A router and latent projections are not divided."""
TILE = 128
"""Rows of a matmul's tile: a group of experts wastes half a tile each on average."""
QUANTISING = {"fp8": 4.0, "mxfp8": 6.0, "nvfp4": 7.0}
"""Bytes moved to quantise one element of a matmul's inputs: read in bf16 and written in 8 bits, once along each axis
that a matmul reads it by; block formats (MX, NVFP4) also write scales, and NVFP4 rotates before it rounds
(arXiv 2509.25149 §4)."""
TAIL = {"nvfp4": 0.08}
"""Share of the layers that a recipe leaves in bf16, because they would not converge: NVFP4's last ones (arXiv 2509.25149
§4.1)."""
WIDTH = {"fp32": 4.0, "fp8": 1.0, "mxfp8": 1.0, "nvfp4": 0.6}
"""Bytes of a matmul's inputs; 2 where not named."""
BACKWARD_ATTENTION = 2.5
"""FlashAttention's backward pass does five products where the forward pass does two (arXiv 2307.08691 §4.1)."""
SCORE_BYTES = (13.0, 22.0)
"""Bytes of memory traffic for each score of unfused attention in 16 bits, forward and backward: written by the first
product, read and written by the fused mask and softmax, by dropout (with its mask), and read by the second product
(arXiv 2205.05198 §4.1 counts what is stored)."""


class Gemm(NamedTuple):
    """Matmuls of `rows` inputs and `cols` outputs, `times` in the whole model for each token."""

    part: str
    rows: int
    cols: int
    times: float
    split: str
    """What tensor parallelism divides: "cols", "rows" or nothing."""


@lru_cache(maxsize=512)
def gemms(model: ModelSpec) -> tuple[Gemm, ...]:
    """The matmuls of a forward pass, those with a common input joined."""
    made: list[tuple[Gemm, str]] = []
    for matrix in anatomy.matrices(model):
        if not matrix.active:
            continue
        split = "rows" if matrix.name in ROW_SPLIT else "" if matrix.name in WHOLE and matrix.part != "ffn" else "cols"
        one = Gemm(matrix.part, matrix.rows, matrix.cols, float(matrix.active), split)
        before, name = made[-1] if made else (one, "")
        if any(name in group and matrix.name in group for group in FUSED) and before.times == one.times:
            made[-1] = (before._replace(cols=before.cols + one.cols), matrix.name)
        else:
            made.append((one, matrix.name))
    return tuple(one for one, _ in made)


class Passes(NamedTuple):
    """How often work is done in a step, in forward passes: forward, gradients of inputs and of weights, repeats."""

    layers: Number
    head: Number
    attention: Number
    """In forward passes of attention's own cost."""
    elementwise: Number
    """Over a forward and a backward pass without repeats."""


def passes(job: Job) -> Passes:
    """The policy's repeats; a frozen base needs no gradients of its weights; a reference runs forward once."""
    extra = 1.0 if job.reference else 0.0
    trained = 1 + flops.backward_ratio(job.adapters)
    again, scores, light = REPEATS[job.recompute]
    return Passes(
        trained + extra + again,
        trained + extra,
        1 + BACKWARD_ATTENTION + extra + scores,
        1 + light + extra * 0.4,
    )


REPEATS = {
    "none": (0.0, 0.0, 0.0),
    "full": (1.0, 1.0, 0.4),
    "selective": (0.0, 0.0, 0.4),
    "selective-op": (0.5, 0.0, 0.4),
    "selective-layer": (0.5, 0.5, 0.2),
    "budget": (flops.BUDGET_AGAIN, 0.0, 0.4),
    "attention": (0.0, 1.0, 0.0),
}
"""Forward passes repeated in the backward pass, by policy: of the layers' matmuls, of attention, and of elementwise work
(a forward pass has about 0.4 of its traffic). Torchtitan's per-operator policy repeats every second matmul; what a budget
repeats is `lablib.plan.flops.BUDGET_AGAIN`."""


class Cost(NamedTuple):
    """Seconds of a micro-batch on one rank by kind of kernel: `layers` of all layers together, `head` of the loss."""

    layers: Number
    head: Number
    attention: Number
    elementwise: Number
    loss: Number


def cost(job: Job, machine: Machine) -> Cost:
    """The kernels of the whole model on one tensor-parallel rank, before pipeline stages divide the layers."""
    often = passes(job)
    layers, head = _matmuls(job, machine, job.precision)
    tail = TAIL.get(job.precision, 0.0)
    if tail:
        layers = layers * (1 - tail) + tail * _matmuls(job, machine, "bf16")[0]
    return Cost(
        layers * often.layers,
        head * often.head,
        _attention(job, machine, often.attention),
        _elementwise(job, machine) * often.elementwise,
        _loss(job, machine) * often.head / 3,
    )


def _matmuls(job: Job, machine: Machine, precision: str) -> tuple[Number, Number]:
    """Seconds of the forward pass's matmuls: of all layers and of the head, which is never quantised."""
    fast, slow = machine.sustained(precision), machine.sustained(_wide(precision))
    tp, tokens, ep, moe = job.layout.tp, job.micro_tokens, job.layout.ep, job.model.moe
    layers: Number = 0.0
    head: Number = 0.0
    for one in gemms(job.model):
        rows = one.rows / tp if one.split == "rows" else one.rows
        cols = one.cols / tp if one.split == "cols" else one.cols
        if one.part == "head":
            head = head + _gemm(machine, tokens, rows, cols, slow, _wide(precision))
        elif one.part == "experts" and moe is not None:
            # With expert parallelism an expert's matrices are whole, and its ranks' tokens come to it; all wait for the busiest.
            each = choose(ep > 1, tokens / tp * ep, tokens) * moe.top_k / moe.experts * job.crowd
            layers = layers + (one.times / moe.top_k) * (moe.experts / ep) * _gemm(
                machine, each, choose(ep > 1, one.rows, rows), choose(ep > 1, one.cols, cols), fast, precision, TILE / 2
            )  # fmt: skip
        else:
            layers = layers + one.times * _gemm(machine, tokens, rows, cols, fast, precision)
    return layers, head


def _wide(precision: str) -> str:
    return precision if precision == "fp32" else "bf16"


def _gemm(machine: Machine, m: Number, k: Number, n: Number, rate: float, precision: str, waste: float = 0.0) -> Number:  # fmt: skip
    """Seconds of one forward matmul; its two backward ones move the same operands. `waste` rows are padding."""
    efficiency = machine.efficiency
    width = WIDTH.get(precision, 2.0)
    operands = width * (m * k + k * n) + 2.0 * m * n
    seconds = 2.0 * (m + waste) * k * n / rate * (1 + _ragged(k, efficiency.ragged) + _ragged(n, efficiency.ragged))
    moved = efficiency.operands * operands
    if precision in QUANTISING:
        moved = moved + efficiency.quantising * QUANTISING[precision] * (m * k + m * n) / 2
    return seconds + moved / machine.bandwidth


def _ragged(size: Number, penalty: float) -> Number:
    """Extra time where a dimension is no multiple of 64: tensor cores read 128 bytes at a time (NVIDIA, "Matrix
    multiplication background", on alignment)."""
    return choose(size % 64 != 0, penalty, 0.0)


SCAN = (0.02, 0.3)
"""Share of a matmul's rate that a scan reaches: elementwise (Mamba-1, RWKV), at an accelerator's rate without tensor cores (an
H100's is 67 of 989 TFLOP/s, NVIDIA's data sheet; half of it for memory), and in chunks that are matmuls (Mamba-2)."""


def _attention(job: Job, machine: Machine, often: Number) -> Number:
    """Seconds of softmax(QKᵀ)V (and of a scan) in all layers."""
    model, seq = job.model, job.seq_len
    work = flops.scores(model, flops.causal_context(seq)) * job.micro_tokens / job.layout.tp
    scan = flops.scan(model)
    scans = (3 * scan + flops.recomputed({"scan": scan}, job.recompute)) * job.micro_tokens / job.layout.tp
    share_of_scan = SCAN[not (model.traits.recurrent or (model.ssm and model.ssm.step_rank))]
    rate = machine.sustained(_wide(job.precision))
    efficiency, kernel = machine.efficiency, job.engine.attention
    seconds = scans / (rate * share_of_scan)
    if kernel == "math":
        return seconds + _unfused(job, machine, work, rate, often)
    share = efficiency.flash[kernel].get(machine.architecture, efficiency.flash[kernel]["other"])
    narrow = (128 / min(128, anatomy.value_dim(model))) ** efficiency.narrow
    diagonal = 1 + efficiency.diagonal / seq
    return seconds + work * often * narrow * diagonal / (rate * share)


def _unfused(job: Job, machine: Machine, work: Number, rate: float, often: Number) -> Number:
    """Batched matmuls over the whole square, each score written and read several times; backward is twice forward."""
    model, seq = job.model, job.seq_len
    trained = often - 0.5  # two products forward and four backward, where flash attention does five
    ragged = _ragged(model.head_dim, machine.efficiency.ragged) if model.head_dim % 8 else 0.0
    square = 2 * work * trained / rate * (1 + 2 * ragged)
    scores = anatomy.layers(model).attention * job.micro_tokens * seq * model.heads / job.layout.tp
    moved = scores * (SCORE_BYTES[0] * (trained - 2) + SCORE_BYTES[1])
    return square + moved / machine.bandwidth


def _elementwise(job: Job, machine: Machine) -> Number:
    """Seconds of norms, residuals, rotary embeddings and activation functions, forward and backward."""
    wide, split, routed = _moved(job.model)
    parallel = job.layout.tp if job.layout.sequence_parallel else 1
    efficiency = machine.efficiency
    often = efficiency.elementwise * (1.0 if job.fused or job.engine.fused else efficiency.eager)
    split = split + (_adapted(job.model) if job.adapters else 0.0)
    each = often * (wide / parallel + split / job.layout.tp) + efficiency.routing * routed / job.layout.tp
    return job.micro_tokens * each * job.width / machine.bandwidth


@lru_cache(maxsize=1024)
def _moved(model: ModelSpec) -> tuple[float, float, float]:
    """Elements read and written for one token in all layers, forward and backward, where each kernel reads its inputs
    and writes its outputs once: (of the stream, of what tensor parallelism splits, of routing).

    A norm with its residual reads and writes 4 numbers forward and 5 backward, a gate 3 and 5, an activation without a
    gate 2 and 3, a rotary embedding 2 and 2; each of a token's copies for its experts is sorted, gathered and summed (10).
    """
    n = anatomy.layers(model)
    stream = model.layers * model.hidden * 9.0 * model.traits.norms
    gate = 8.0 if model.gated else 5.0
    heads = (model.heads + model.kv_heads) * model.head_dim * n.attention
    split = (
        heads * ((4.0 if model.positions == "rope" else 0.0) + (5.0 if model.qk_norm else 0.0))
        + gate * model.ffn * n.dense
    )
    routed = 0.0
    if model.moe:
        stream += n.moe * model.hidden * 4.0
        split += n.moe * (model.moe.top_k + model.moe.shared_experts) * gate * model.moe.expert_ffn
        routed = 10.0 * n.moe * model.moe.top_k * model.hidden
    if model.ssm:
        split += n.ssm * 12.0 * (anatomy.ssm_inner(model) + anatomy.ssm_conv(model))
    if n.recurrent:
        stream += n.recurrent * 5 * 8.0 * model.hidden  # five mixes of two tokens
        split += n.recurrent * 12.0 * anatomy.mixing(model)
    return stream, split, routed


@lru_cache(maxsize=512)
def _adapted(model: ModelSpec) -> float:
    """Elements that adapters move for one token, forward and backward: each reads its matrix's input again, and its
    result is scaled and added to the output."""
    return sum(
        one.times * (2.0 * one.rows + 5.0 * one.cols) for one in gemms(model) if one.part in ("attention", "ffn")
    )


LOSS_BYTES = {"full": 40.0, "fused": 16.0, "chunked": 24.0}
"""Bytes moved for each logit by the loss, forward and backward: operator by operator the logits are cast to fp32, turned
into log-probabilities and read again for the gradient; one kernel reads and writes them twice; chunks stay small enough
to be compiled together, and the head runs once more."""


def _loss(job: Job, machine: Machine) -> Number:
    """Seconds of cross entropy over the vocabulary on one tensor-parallel rank."""
    kind = "fused" if job.engine.fused and job.cross_entropy == "full" else job.cross_entropy
    return job.micro_tokens * job.model.vocab / job.layout.tp * LOSS_BYTES[kind] / machine.bandwidth
