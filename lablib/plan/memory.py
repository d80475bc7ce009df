"""Peak memory of one accelerator, part by part: each pipeline stage at each moment of a step that may be the fullest.

The same formulas serve one plan and a grid of layouts (`lablib.plan.grid`). What a framework keeps beside the model comes
from `lablib.plan.engines`. Held against published measurements by ``python -m bench.planner``.
"""

from __future__ import annotations

from dataclasses import replace

from lablib.plan import activations, anatomy
from lablib.plan.activations import SINGLE
from lablib.plan.efficiency import Efficiency
from lablib.plan.engines import OPTIMIZER_BYTES
from lablib.plan.grid import Number, choose, least, most
from lablib.plan.job import Job
from lablib.specs import Spec

GIB = 2**30
MARGIN = 0.04
"""A plan fits where it leaves this share free: drivers keep some, and batches differ."""
KEEPS_ROUTED = {
    "none": 1.0,
    "attention": 1.0,
    "selective": 1.0,
    "selective-op": 0.5,
    "selective-layer": 0.5,
    "budget": 0.5,
    "full": 0.0,
}
"""Share of the experts' tokens that each policy keeps for the backward pass: there a busy rank holds more than others."""
MOMENTS = ("loss", "start of backward", "end of backward", "optimiser step", "checkpoint save")


class Memory(Spec):
    """`parts` in GiB add up to `peak_gib`."""

    peak_gib: float = 0.0
    parts: dict[str, float] = {}
    capacity_gib: float = 0.0
    """What one process may use."""
    pipeline_rank: int = 0
    """The stage that needs most: 0 holds most micro-batches in flight, the last holds the logits."""
    moment: str = ""
    """One of `MOMENTS`."""
    host_gib: float = 0.0
    """Host memory that offloading takes, for each process."""

    @property
    def margin(self) -> float:
        """Share of the capacity left free; negative where the plan does not fit."""
        return 1 - self.peak_gib / self.capacity_gib if self.capacity_gib else 1.0


def peak(job: Job, efficiency: Efficiency, capacity_gib: float) -> Memory:
    """Memory of the fullest rank at its fullest moment. Raises nothing: whether it fits is a verdict, not an error."""
    found = {
        (rank, moment): _with_overhead(parts, efficiency)
        for rank in {0, job.layout.pp - 1}
        for moment, parts in moments(job, rank == 0, rank == job.layout.pp - 1).items()
    }
    fullest = max(found, key=lambda place: sum(found[place].values()))
    parts = {name: size / GIB for name, size in found[fullest].items()}
    return Memory(
        peak_gib=sum(parts.values()),
        parts=parts,
        capacity_gib=capacity_gib,
        pipeline_rank=fullest[0],
        moment=fullest[1],
        host_gib=host(job) / GIB,
    )


def peak_bytes(job: Job, efficiency: Efficiency) -> Number:
    """Bytes at the peak of the fullest rank, for every layout of a grid at once; equals `peak` layout by layout."""
    one = job.layout.pp == 1
    ends = (moments(job, first=1, last=one * 1), moments(job, first=one * 1, last=1))
    return most(*(sum(_with_overhead(parts, efficiency).values()) for end in ends for parts in end.values()))


def profile(job: Job, efficiency: Efficiency) -> dict[tuple[int, str], dict[str, float]]:
    """GiB by part of every pipeline rank at every moment: the table behind the peak."""
    ranks = range(job.layout.pp)
    return {
        (rank, moment): {name: size / GIB for name, size in _with_overhead(parts, efficiency).items()}
        for rank in ranks
        for moment, parts in moments(job, rank == 0, rank == ranks[-1], rank).items()
    }


def moments(
    job: Job, first: Number = True, last: Number = True, rank: int | None = None
) -> dict[str, dict[str, Number]]:
    """Bytes by part at each moment of a step that may be the fullest, on the first, the last or a stage between.

    A step of one micro-batch has no gradients yet when its activations are whole; with more, those of the micro-batches
    before are there throughout. Saving a checkpoint gathers nothing: each rank writes its shard.
    """
    always = {**states(job, first, last), "buffers": buffers(job, first, last)}
    stored, work, loss = kept(job, first, rank), working(job), logits(job) * last
    there = job.engine.gradient_buffer or job.micro_batches > 1
    early = {**always, "grads": choose(there, always["grads"], 0.0)}
    left = stored / most(1.0, job.model.layers * job.stage_share)
    return {
        "loss": {**early, "activations": stored, "logits": loss},
        "start of backward": {**early, "activations": stored + work, "logits": 0.0},
        "end of backward": {**always, "activations": left + work, "logits": 0.0},
        "optimiser step": {**always, "activations": 0.0, "logits": 0.0},
        "checkpoint save": {**always, "buffers": 0.0, "activations": 0.0, "logits": 0.0},
    }


def _with_overhead(parts: dict[str, Number], efficiency: Efficiency) -> dict[str, Number]:
    held = sum(parts.values()) * efficiency.fragmentation
    return {**parts, "overhead": efficiency.reserve_gib * GIB + held}


def stage_params(job: Job, first: Number, last: Number) -> Number:
    """Parameters of one pipeline stage on one tensor- and expert-parallel rank, before data-parallel sharding."""
    dense, experts = _stage(job, first, last)
    return dense + experts


def _stage(job: Job, first: Number, last: Number) -> tuple[Number, Number]:
    """(parameters that every rank of a tensor-parallel group splits, parameters of its experts)."""
    parts, layout = job.params.parts, job.layout
    embedding, head, experts = (parts.get(name, 0) for name in ("embedding", "head", "experts"))
    layers = sum(parts.values()) - embedding - head - experts
    # A tied head is a second copy of the embedding where the first and the last stage are different ranks.
    out = head * last if head else embedding * choose(layout.pp > 1, last, 0)
    return (layers * job.stage_share + embedding * first + out) / layout.tp, experts * job.stage_share / expert_split(
        job
    )


def expert_split(job: Job) -> Number:
    """Ranks that one stage's experts are divided over: expert parallelism, or tensor parallelism where there is none."""
    return choose(job.layout.ep > 1, job.layout.ep * (job.layout.tp if job.engine.expert_tp else 1), job.layout.tp)


def states(job: Job, first: Number = True, last: Number = True) -> dict[str, Number]:
    """Bytes of weights, gradients and optimiser states on one rank, as the engine keeps them and ZeRO shards them.

    Ours: 4 + 4 + 8 = 16 for each trained parameter in fp32 (the same sum as ZeRO's 2 + 2 + 12, arXiv 1910.02054 §3.1),
    sharded over dp_shard × cp. Experts of an expert-parallel group share what data-parallel ranks are left.
    """
    engine, zero = job.engine, job.layout.zero
    trained = job.params.trainable / job.params.total
    frozen = engine.weights if job.base_bytes is None else job.base_bytes
    weights = engine.weights * trained + frozen * (1 - trained)
    copies = 2 if job.reference and not job.reference_shared else 1
    updated = engine.master + OPTIMIZER_BYTES[job.optimizer]
    host_kept = job.offload in ("optimizer", "all")
    dense, experts = _stage(job, first, last)
    ranks = job.shards * job.layout.tp
    pairs = ((dense, job.shards), (experts, most(1, ranks / expert_split(job))))

    def held(size: float, stage: int) -> Number:
        return sum(params * size / (shards if zero >= stage else 1) for params, shards in pairs)

    return {
        "params": held(weights, 3) * copies * (job.offload != "all"),
        "grads": held(engine.grads * trained, 2) * (job.offload != "all"),
        "optimizer": held(updated * trained, 1) * (not host_kept),
    }


def host(job: Job) -> Number:
    """Bytes of host memory that offloading takes, for each process."""
    there = states(replace(job, offload="none")) if job.offload in ("optimizer", "all") else {}
    moved = sum(there.values()) if job.offload == "all" else there.get("optimizer", 0.0)
    return moved + (inputs(job) if job.offload in ("activations", "all") else 0.0)


def copied(found: Memory, job: Job, on_host: bool) -> Memory:
    """The same plan with the copy of weights and optimiser states that an asynchronous checkpoint is written from while the
    training goes on: in host memory, which on a CPU is the process' own."""
    rank = found.pipeline_rank
    kept = states(replace(job, offload="none"), first=rank == 0, last=rank == job.layout.pp - 1)
    size = (kept["params"] + kept["optimizer"]) / GIB
    if not on_host:
        return found.replace(host_gib=found.host_gib + size)
    return found.replace(peak_gib=found.peak_gib + size, parts={**found.parts, "checkpoint copy": size})


def in_flight(job: Job, first: Number = True, rank: int | None = None) -> Number:
    """Micro-batches whose activations one stage holds at once.

    GPipe keeps all of a step; 1F1B as many as there are stages left, so `pp` on the first (arXiv 2104.04473 §2.2.1);
    interleaved, the first holds (pp - 1) / v more (arXiv 2205.05198 §4.2.3) and the last pp · (v - 1) + 1 slices.
    """
    pp, slices = job.layout.pp, job.layout.virtual_stages
    if job.layout.pp_schedule == "gpipe":
        return job.micro_batches
    begin = pp - rank if rank is not None and not first else choose(first, pp, 1)
    extra = choose(first, (pp - 1) / slices, (pp * (slices - 1) + 1) / slices - 1) * choose(slices > 1, 1, 0)
    return least(begin + extra * choose(pp > 1, 1, 0), most(1, job.micro_batches))


def kept(job: Job, first: Number = True, rank: int | None = None) -> Number:
    """Bytes of activations stored from forward to backward on one stage."""
    layer_tokens = in_flight(job, first, rank) * job.micro_tokens * job.stage_share
    crowded = anatomy.layers(job.model).moe * activations.routed(job.model, job.style) / job.layout.tp * (job.crowd - 1)
    if job.offload in ("activations", "all") and job.recompute == "full":
        return 2 * inputs(job) / most(1.0, job.model.layers * job.stage_share)
    return layer_tokens * (stored(job) + KEEPS_ROUTED[job.recompute] * crowded) + in_flight(job, first, rank) * mask(
        job
    )


def mask(job: Job) -> Number:
    """Bytes of what hides other documents from the queries of a slice, of one micro-batch: one number for each of their scores,
    shared by all layers, and one more of each kind of window."""
    if not job.engine.masks_slices:
        return 0.0
    kinds = 2 if job.model.sliding_window and job.model.window_every else 1
    sliced = choose(job.layout.cp > 1, 1, job.layout.sequence_parallel * choose(job.layout.tp > 1, 1, 0))
    return sliced * kinds * job.micro_tokens * job.seq_len * job.width


def inputs(job: Job) -> Number:
    """Bytes of every layer's input on the fullest stage, micro-batches in flight included."""
    return in_flight(job) * job.micro_tokens * job.stage_share * _inputs(job)


def _inputs(job: Job) -> Number:
    wide = float(job.model.layers * job.style.stream * job.model.hidden)
    return wide / job.layout.tp if job.layout.sequence_parallel else wide


def stored(job: Job) -> Number:
    """Bytes one token's pass through all layers leaves for the backward pass under the recomputation policy."""
    model, style, tp = job.model, job.style, job.layout.tp
    whole = activations.total(model, style).each(tp, job.layout.sequence_parallel)
    match job.recompute:
        case "full":
            return _inputs(job)
        case "selective":
            return _inputs(job) + activations.saved_matmuls(model, style) / tp
        case "selective-op":
            return _inputs(job) + activations.saved_matmuls(model, style, every=2) / tp
        case "selective-layer" | "budget":
            return (_inputs(job) + whole) / 2
    if job.engine.attention == "math" and job.recompute == "none":
        whole = whole + activations.scores(model, job.seq_len, job.engine.dropout) / tp
    return whole


def working(job: Job) -> Number:
    """Bytes that one layer's backward pass needs on top: gradients of its activations (a fifth of them live at a time),
    and with recomputation the layer's own activations again, as far as they are not stored."""
    layers, tp = job.model.layers, job.layout.tp
    one = activations.total(job.model, job.style).each(tp, job.layout.sequence_parallel) / layers
    if job.model.moe and job.recompute == "full":
        one = one + job.engine.dispatch * activations.sparse(job.model, job.style).each(
            tp, job.layout.sequence_parallel
        )
    if job.engine.attention == "math":
        one = one + activations.scores(job.model, job.seq_len, job.engine.dropout) / tp / layers
    if job.recompute == "none":
        return 0.2 * job.micro_tokens * one
    again = (stored(job) - _inputs(job)) / layers if job.recompute in ("selective", "selective-op", "budget") else 0.0
    return job.micro_tokens * most(0.2 * one, 1.2 * one - again)


CHUNK_TOKENS = 1024
"""Tokens whose logits a chunked loss holds at once (torchtune takes an eighth of 8,192)."""


def logits(job: Job) -> Number:
    """Bytes of the loss at its fullest, in the backward pass of cross entropy: in this engine fp32 log-probabilities, their
    gradient and the logits' gradient; a fused kernel keeps the logits and writes their gradient over them, or, with the head
    in it, keeps a chunk of them as a chunked loss does, and the head's gradient of that chunk."""
    size = job.micro_tokens * job.model.vocab / (job.layout.tp if job.engine.vocab_parallel else 1)
    if job.cross_entropy == "full":
        return size * job.engine.loss_bytes
    if job.cross_entropy == "fused" and not job.engine.fuses_head:
        return size * (job.width + SINGLE)
    chunk = size * 3 * SINGLE * least(1.0, CHUNK_TOKENS / job.micro_tokens)
    return chunk + job.model.vocab * job.model.hidden * job.width * (job.cross_entropy == "fused")


def buffers(job: Job, first: Number = True, last: Number = True) -> Number:
    """Bytes of gathered or cast weights.

    FSDP2 holds two layers (one prefetched) and one layer's gradients, and the root (embedding, norm, head) for the whole
    pass. An unsharded bf16 job of ours holds bf16 copies: of all trained weights, because autograd saves what autocast
    made, or, where layers are recomputed, of one layer and the head.
    """
    parts, layers, tp = job.params.parts, job.model.layers, job.layout.tp
    experts = parts.get("experts", 0)
    layer = (job.params.total - job.params.embedding - experts) / layers / tp + experts / layers / expert_split(job)
    root = (parts.get("embedding", 0) * first + parts.get("head", 0) * last) / tp
    frozen = job.width if job.base_bytes is None else job.base_bytes  # quantised weights are gathered as they are
    gathered = job.width * root + frozen * 3 * layer if job.layout.zero == 3 else 0.0
    if job.engine.keeps_gathered:
        gathered = choose(job.layout.pp > 1, (job.width + SINGLE) * stage_params(job, first, last), gathered)
    trained = job.params.trainable / job.params.total
    if job.width == SINGLE or job.engine.weights <= job.width:
        cast: Number = 0.0
    elif job.recompute == "none":
        cast = stage_params(job, first, last) * trained * job.width
    else:
        cast = job.width * trained * (layer + job.model.vocab * job.model.hidden * last / tp)
    return choose(job.shards > 1, gathered, cast)
