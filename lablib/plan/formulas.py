"""How each part of memory and of a step comes about, in words and figures of the job at hand: the ledger's rows."""

from __future__ import annotations

from lablib.plan.data_rates import ALL
from lablib.plan.engines import OPTIMIZER_BYTES
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.memory import CHUNK_TOKENS, mask
from lablib.specs.units import show_count, show_seconds

ZERO = "arXiv 1910.02054 §3 and §5"
Words = tuple[str, str, str]
"""Formula, inputs, source."""

OTHERS: dict[str, Words] = {
    "overhead": ("libraries and context before the model, and what the allocator holds beyond live tensors", "", "lablib/plan/efficiency.py"),
    "critic": ("16 bytes × the critic's parameters (weights, gradients, two moments), sharded alike", "", "arXiv 2203.02155 §3.5"),
    "reward": ("4 bytes × the reward model's parameters, sharded alike", "", "arXiv 2203.02155 §3.5"),
    "sampler": ("2 bytes × parameters / sampler_tp: the serving engine's own weights", "", "lablib/plan/posttraining.py"),
    "dequantised": ("2 bytes × the largest quantised matrix, made whole for its matmul", "", "arXiv 2305.14314 §3"),
    "checkpoint copy": ("weights and optimiser states once more, as asynchronous checkpoints are written from them", "", "lablib/plan/memory.py"),
    "kv_cache": ("sequences × tokens × bytes of keys and values in all layers", "", "lablib/plan/sampling.py"),
    "text": ("four times the raw text, at most 4 GiB", "", "lablib/plan/others.py"),
    "probes": ("what the probed training steps hold beside the libraries", "", "lablib/plan/others.py"),
    "params": ("bytes of a weight × parameters", "", ZERO),
    "logits": ("12 bytes × logits of a batch", "", "lablib/plan/others.py"),
}  # fmt: skip
"""Parts that no training job explains."""
STORED = {
    "none": "every tensor that the backward pass reads",
    "attention": "every tensor but attention's scores and probabilities",
    "selective": "each layer's input and the results of its matmuls and attention",
    "selective-op": "each layer's input, attention's result and every second matmul's",
    "selective-layer": "half of the layers whole, of the others the input",
    "budget": "each layer's input, and of the rest the half that costs most to compute again",
    "full": "each layer's input",
}
LOSS = {
    "full": "tokens of a micro-batch × vocabulary × {0:g} bytes: fp32 log-probabilities, their gradient and the logits' gradient",
    "fused": "tokens of a micro-batch × vocabulary × {1:g} bytes: the logits, and their gradient written over them",
    "fused with the head": f"{CHUNK_TOKENS:,} tokens × vocabulary × 12 bytes, and vocabulary × hidden × {2} bytes: the head's gradient of a slice",
    "chunked": f"{CHUNK_TOKENS:,} tokens × vocabulary × 12 bytes: the loss is computed a slice at a time",
}


def of_memory(part: str, job: Job | None) -> Words:
    """How a part of the peak comes about; without a training job, in general."""
    if job is None or part not in MEMORY:
        return OTHERS[part]
    return MEMORY[part](job)


def _ranks(job: Job, stage: int) -> str:
    """The ranks that a state is divided over, given the ZeRO stage from which it is."""
    layout = job.layout
    names = ["tp", "pp", *(["dp_shard", "cp"] if layout.zero >= stage else [])]
    used = [f"{name} {getattr(layout, name)}" for name in names if getattr(layout, name) > 1]
    return " × ".join(used) or "one rank"


def _params(job: Job) -> Words:
    held = f"{job.engine.weights:g} bytes × weights"
    if job.base_bytes is not None:
        held = f"{job.base_bytes:.3g} bytes × frozen weights + {job.engine.weights:g} bytes × trained ones"
    twice = ", twice with the reference model" if job.reference and not job.reference_shared else ""
    moved = "; gathered from host memory" if job.offload == "all" else ""
    return (
        f"{held} / ranks{twice}{moved}",
        f"{show_count(job.params.total)} over {_ranks(job, 3)}; engine {job.engine.name}",
        ZERO,
    )


def _grads(job: Job) -> Words:
    inputs = f"{show_count(job.params.trainable)} over {_ranks(job, 2)}; engine {job.engine.name}"
    return f"{job.engine.grads:g} bytes × trained weights / ranks", inputs, ZERO


def _optimizer(job: Job) -> Words:
    size, master = OPTIMIZER_BYTES[job.optimizer], job.engine.master
    copy = f" + {master:g} of master weights" if master else ""
    inputs = f"{job.optimizer}: {size:g} bytes{copy}; {show_count(job.params.trainable)} over {_ranks(job, 1)}"
    return f"{size + master:g} bytes × trained weights / ranks", inputs, f"{ZERO}; lablib/plan/engines.py"


def _activations(job: Job) -> Words:
    flying = f"1F1B keeps up to {job.layout.pp} micro-batches in flight" if job.layout.pp > 1 else "one micro-batch"
    inputs = f"recompute {job.recompute}: {STORED[job.recompute]}; {show_count(float(job.micro_tokens))} tokens on a rank; {flying}"
    masked = ", a mask of all scores of a slice" if mask(job) else ""
    return f"bytes kept a token and layer × tokens × layers of the stage × micro-batches in flight{masked}, and one layer at work", inputs, "arXiv 2205.05198 §4; lablib/plan/activations.py"  # fmt: skip


def _logits(job: Job) -> Words:
    kind = "fused with the head" if job.cross_entropy == "fused" and job.engine.fuses_head else job.cross_entropy
    formula = LOSS[kind].format(job.engine.loss_bytes, job.width + 4, job.width)
    return formula, f"{show_count(float(job.micro_tokens))} tokens × {job.model.vocab:,}", "lablib/plan/memory.py"


def _buffers(job: Job) -> Words:
    if job.shards > 1 and job.layout.zero == 3:
        formula = "gathered weights: embedding, norm and head for the whole pass, two layers and one layer's gradients"
        return formula, f"{job.width} bytes each", "arXiv 2304.11277 §3"
    return (
        "the bf16 copy of weights that autocast keeps for the backward pass",
        f"recompute {job.recompute}",
        "lablib/plan/memory.py",
    )


MEMORY = {
    "params": _params,
    "grads": _grads,
    "optimizer": _optimizer,
    "activations": _activations,
    "logits": _logits,
    "buffers": _buffers,
}

STEP = {
    "compute": ("FLOPs of the fullest stage's matmuls / the rate that their shapes reach", "lablib/plan/kernels.py"),
    "attention": ("FLOPs of scores and values / the attention kernel's rate, windows and causality in closed form", "lablib/plan/kernels.py"),
    "elementwise": ("bytes that norms, activations, the loss and gradient sums move / memory bandwidth", "lablib/plan/kernels.py"),
    "launch": ("what launching kernels takes longer than computing them, and waits of mixtures of experts", "lablib/plan/step.py"),
    "tp": ("all-reduces of each layer's output over tp ranks, less what overlaps", "arXiv 2205.05198 §4.2.2; lablib/plan/communication.py"),
    "cp": ("keys and values round the cp ring, less what attention hides", "lablib/plan/communication.py"),
    "ep": ("all-to-all of tokens to experts and back, less what overlaps", "arXiv 2006.16668; lablib/plan/communication.py"),
    "pp": ("activations handed between stages", "arXiv 2104.04473 §2.2; lablib/plan/communication.py"),
    "dp": ("gathers of weights and sums of gradients, less what compute hides, and waiting for the slowest rank", "arXiv 2304.11277 §3.2; lablib/plan/communication.py"),
    "bubble": ("(pp − 1) / (micro-batches × slices) of the time that stages work", "arXiv 2104.04473 §2.2.1"),
    "optimizer": ("20 bytes a parameter and its states read and written / memory bandwidth, launches, and Muon's Newton-Schulz iterations", "lablib/plan/step.py"),
    "offload": ("what crosses the bus to host memory, less what compute hides, and the host's update", "lablib/plan/offloading.py"),
}  # fmt: skip


def of_step(part: str, job: Job | None, machine: Machine) -> Words | None:
    """How a cause's seconds come about, with the machine's rates; None for causes that are no training step's."""
    if part in ALL:
        return (
            f"bytes of {'pages' if part == 'html' else 'text'} / rate / (processes × tasks)",
            f"{ALL[part].mb_per_second:g} MB a CPU-second",
            ALL[part].source,
        )
    if part not in STEP or job is None:
        return None
    formula, source = STEP[part]
    layout, band = job.layout, f"{machine.bandwidth / 1e9:.3g} GB/s"
    rate = f"{machine.sustained(job.precision) / 1e12:.3g} TFLOP/s {job.precision} of large matmuls"
    inputs = {
        "compute": rate,
        "attention": f"kernel {job.engine.attention}; {rate}",
        "elementwise": band,
        "optimizer": f"{job.optimizer}; {band}",
        "bubble": f"pp {layout.pp}, {job.micro_batches} micro-batches, {layout.virtual_stages} slices, {layout.pp_schedule}",
        "launch": f"{show_seconds(machine.efficiency.layer_seconds)} a layer",
        "offload": f"{machine.host_bytes_s / 1e9:.3g} GB/s",
    }
    return formula, inputs.get(part) or _links(machine), source


def _links(machine: Machine) -> str:
    network = machine.cluster.network
    inside = f"{machine.scaleup / 1e9:.3g} GB/s among {machine.domain}"
    if machine.processes <= machine.domain:
        return inside
    return f"{inside}, beyond them {machine.network / 1e9:.3g} GB/s each over {network.name} ({network.source})"
