"""Peak memory of one accelerator, part by part, on its fullest pipeline stage."""

from __future__ import annotations

from lablib.plan import activations
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

    @property
    def margin(self) -> float:
        """Share of the capacity left free; negative where the plan does not fit."""
        return 1 - self.peak_gib / self.capacity_gib if self.capacity_gib else 1.0


def peak(job: Job, efficiency: Efficiency, capacity_gib: float) -> Memory:
    """Memory of the fullest rank. Raises nothing: whether it fits is a verdict, not an error."""
    ranks = {0: _rank(job, efficiency, first=True, last=job.layout.pp == 1)}
    if job.layout.pp > 1:
        ranks[job.layout.pp - 1] = _rank(job, efficiency, first=False, last=True)
    fullest = max(ranks, key=lambda rank: sum(ranks[rank].values()))
    parts = {name: size / GIB for name, size in ranks[fullest].items()}
    return Memory(peak_gib=sum(parts.values()), parts=parts, capacity_gib=capacity_gib, pipeline_rank=fullest)


def _rank(job: Job, efficiency: Efficiency, first: bool, last: bool) -> dict[str, float]:
    parts = {
        **states(job, first, last),
        "activations": kept(job, first),
        "logits": logits(job) if last else 0.0,
        "buffers": buffers(job, first, last),
    }
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
    """Bytes of activations: a 1F1B pipeline's first stage has as many micro-batches in flight as there are stages
    (arXiv 2104.04473 §2.2.1)."""
    tokens, tp = job.micro_tokens, job.layout.tp
    flight = min(job.layout.pp if first else 1, job.micro_batches)
    everything = activations.total(job.model, job.width, job.fused).each(tp) * tokens * job.stage_share
    if job.recompute == "none":
        return flight * everything
    layers = job.model.layers * job.stage_share
    stored = tokens * layers * job.width * job.model.hidden
    if job.recompute == "selective":
        stored += tokens * job.stage_share * activations.saved_matmuls(job.model, job.width) / tp
    # One layer at a time is whole again in the backward pass, with its gradients about as large.
    return flight * stored + 2 * everything / layers


def logits(job: Job) -> float:
    """Bytes of the loss: logits in the compute precision, their fp32 copy's log-probabilities and the gradient in fp32;
    cross entropy is neither fused nor chunked in this engine."""
    return job.micro_tokens * job.model.vocab * ((job.width if job.width < 4 else 0) + 4 + 4)


def buffers(job: Job, first: bool = True, last: bool = True) -> float:
    """Bytes of gathered or cast weights: FSDP2 holds two layers (one prefetched), one layer's gradients, and the root
    (embedding, norm, head) for the whole pass; an unsharded bf16 job holds a bf16 copy of all (autocast's cache)."""
    size = stage_params(job, first, last)
    if job.shards == 1:
        trained = job.params.trainable / job.params.total
        return size * trained * job.width if job.width < 4 else 0.0
    parts = job.params.parts
    root = parts.get("embedding", 0) * first + parts.get("head", 0) * last
    experts = parts.get("experts", 0)
    layer = (job.params.total - job.params.embedding - experts + experts / job.layout.ep) / job.model.layers
    return job.width * (root + 3 * layer) / job.layout.tp
