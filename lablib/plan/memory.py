"""Peak memory of one accelerator, part by part, on its fullest pipeline stage."""

from __future__ import annotations

from lablib.plan import activations
from lablib.plan.activations import SINGLE
from lablib.plan.efficiency import Efficiency
from lablib.plan.job import Job
from lablib.specs import Spec

GIB = 2**30
MARGIN = 0.04
"""A plan fits where it leaves this share free: drivers keep some, and batches differ."""


class Memory(Spec):
    """`parts` in GiB add up to `peak_gib`."""

    peak_gib: float = 0.0
    parts: dict[str, float] = {}
    capacity_gib: float = 0.0
    """What one process may use."""
    pipeline_rank: int = 0
    """The stage that needs most: 0 holds most micro-batches in flight, the last holds the logits."""
    moment: str = ""
    """When: at the loss, in the backward pass (its start or end) or in the optimiser's step."""

    @property
    def margin(self) -> float:
        """Share of the capacity left free; negative where the plan does not fit."""
        return 1 - self.peak_gib / self.capacity_gib if self.capacity_gib else 1.0


def peak(job: Job, efficiency: Efficiency, capacity_gib: float) -> Memory:
    """Memory of the fullest rank at its fullest moment. Raises nothing: whether it fits is a verdict, not an error."""
    last = job.layout.pp - 1
    found = {}
    for rank in {0, last}:
        for moment, parts in moments(job, rank == 0, rank == last).items():
            found[rank, moment] = _with_overhead(parts, efficiency)
    fullest = max(found, key=lambda place: sum(found[place].values()))
    parts = {name: size / GIB for name, size in found[fullest].items()}
    return Memory(
        peak_gib=sum(parts.values()),
        parts=parts,
        capacity_gib=capacity_gib,
        pipeline_rank=fullest[0],
        moment=fullest[1],
    )


def moments(job: Job, first: bool = True, last: bool = True) -> dict[str, dict[str, float]]:
    """Bytes by part at each moment of a step that may be the fullest.

    A step of one micro-batch has no gradients yet when its activations are whole; with more, those of the micro-batches
    before are there throughout.
    """
    always = {**states(job, first, last), "buffers": buffers(job, first, last)}
    stored, work, loss = kept(job, first), working(job), logits(job) if last else 0.0
    early = always if job.micro_batches > 1 else {**always, "grads": 0.0}
    left = stored / max(1.0, job.model.layers * job.stage_share)
    return {
        "loss": {**early, "activations": stored, "logits": loss},
        "start of backward": {**early, "activations": stored + work, "logits": 0.0},
        "end of backward": {**always, "activations": left + work, "logits": 0.0},
        "optimiser step": {**always, "activations": 0.0, "logits": 0.0},
    }


def _with_overhead(parts: dict[str, float], efficiency: Efficiency) -> dict[str, float]:
    held = sum(parts.values()) * efficiency.fragmentation
    return {**parts, "overhead": efficiency.reserve_gib * GIB + held}


def stage_params(job: Job, first: bool, last: bool) -> float:
    """Parameters of one pipeline stage on one tensor-parallel rank, before data-parallel sharding."""
    parts = job.params.parts
    embedding, head = parts.get("embedding", 0), parts.get("head", 0)
    layers = sum(parts.values()) - embedding - head
    # A tied head is a second copy of the embedding where the first and the last stage are different ranks.
    out = head or embedding if last and not first else head if last else 0
    return (layers * job.stage_share + (embedding if first else 0) + out) / job.layout.tp


def states(job: Job, first: bool = True, last: bool = True) -> dict[str, float]:
    """Bytes of parameters, gradients and AdamW's two moments: 4 + 4 + 8 = 16 for each trained parameter in fp32
    masters (the same sum as ZeRO's 2 + 2 + 12, arXiv 1910.02054 §3.1), sharded over dp_shard × cp. Frozen weights and a
    reference model are held in fp32 too: this engine casts where it computes."""
    size = stage_params(job, first, last) / job.shards
    trained = job.params.trainable / job.params.total
    copies = 2 if job.reference and not job.reference_shared else 1
    return {"params": 4 * size * copies, "grads": 4 * size * trained, "optimizer": 8 * size * trained}


def kept(job: Job, first: bool = True) -> float:
    """Bytes of activations stored from forward to backward: a 1F1B pipeline's first stage has as many micro-batches in
    flight as there are stages (arXiv 2104.04473 §2.2.1)."""
    tokens, tp = job.micro_tokens, job.layout.tp
    flight = min(job.layout.pp if first else 1, job.micro_batches)
    if job.recompute == "none":
        return flight * tokens * job.stage_share * activations.total(job.model, job.style).each(tp)
    stored = float(job.model.layers * job.style.stream * job.model.hidden)
    if job.recompute == "selective":
        stored += activations.saved_matmuls(job.model, job.style) / tp
    return flight * tokens * job.stage_share * stored


def working(job: Job) -> float:
    """Bytes that one layer's backward pass needs on top: gradients of its activations (a fifth of them live at a time),
    and with recomputation the layer's own activations again, as far as they are not stored."""
    layers = job.model.layers
    one = activations.total(job.model, job.style).each(job.layout.tp) / layers
    if job.recompute == "none":
        return 0.2 * job.micro_tokens * one
    stored = (
        activations.saved_matmuls(job.model, job.style) / job.layout.tp / layers
        if job.recompute == "selective"
        else 0.0
    )
    return job.micro_tokens * max(0.2 * one, 1.2 * one - stored)


def logits(job: Job) -> float:
    """Bytes of the loss at its fullest, in the backward pass of cross entropy: fp32 log-probabilities, their gradient
    and the logits' gradient; it is neither fused nor chunked in this engine."""
    return job.micro_tokens * job.model.vocab * 12


def buffers(job: Job, first: bool = True, last: bool = True) -> float:
    """Bytes of gathered or cast weights.

    FSDP2 holds two layers (one prefetched) and one layer's gradients, and the root (embedding, norm, head) for the whole
    pass. An unsharded bf16 job holds bf16 copies: of all trained weights, because autograd saves what autocast made, or,
    where layers are recomputed, of one layer and the head.
    """
    parts, layers, tp = job.params.parts, job.model.layers, job.layout.tp
    experts = parts.get("experts", 0)
    layer = (job.params.total - job.params.embedding - experts + experts / job.layout.ep) / layers
    if job.shards > 1:
        root = parts.get("embedding", 0) * first + parts.get("head", 0) * last
        return job.width * (root + 3 * layer) / tp
    trained = job.params.trainable / job.params.total
    if job.width == SINGLE:
        return 0.0
    if job.recompute == "none":
        return stage_params(job, first, last) * trained * job.width
    return job.width * trained * (layer + job.model.vocab * job.model.hidden * last) / tp
