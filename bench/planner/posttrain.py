"""Post-training as published: peak memory, time of a step, and GPU-hours of SFT, preference optimisation and GRPO.

Each row becomes a `Job` (and a `Sampler`) like a recipe's. What a source leaves unsaid is in `ASSUMED`; no constant
belongs to a row or a model. `anomaly` names rows that contradict themselves or the hardware; they are scored all the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

from bench.planner import runs
from bench.planner.rows import Row, Scored, Unplannable, accelerator_of, model_of, real, whole
from lablib.plan import memory, sampling, step, work
from lablib.plan.efficiency import GPU
from lablib.plan.engines import BF16, Engine
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import count, with_adapters
from lablib.plan.posttraining import BASE_BYTES, dequantising
from lablib.plan.reinforcing import SYNC_BYTES
from lablib.plan.sampling import Sampler
from lablib.specs import Cluster, LabError, LoRA, ModelSpec, Parallelism

ASSUMED = {
    "litgpt": "bf16-true, Alpaca of 130 tokens in the mean; a step is one micro-batch; eager kernels wait for the host: 4.2 ms a "
    "layer with LoRA, 2.8 ms with adapters; several GPUs recompute and gather without overlap",
    "peft": "batches of 4 in buckets of like length, mean of train_tokens / samples, longest 768 (its default_training_params.json); "
    "bf16 weights, reserved memory; eager kernels wait for the host: 6.7 ms a layer",
    "nemo-rl": "prompts of 150 tokens (OpenMathInstruct-2); 1-step Off splits the accelerators in halves and hides the shorter of "
    "sampling and training, and updates weights in flight (its recipes' num_nodes, in_flight_weight_updates); packed sequences, log-probabilities of policy and reference once each",
    "verl": "96 prompts with 8 completions of at most 9,632 tokens, samplers without CUDA graphs, optimiser in host memory "
    "(its examples/grpo_trainer/run_deepseek671b_math_megatron_96gb.sh); samplers as small as fit",
    "verl min": "bf16 weights, gradients and moments in host memory, sequences of 2,048, micro-batch 1, full recomputation "
    "(examples/tuning); fits where weights and one cache fit too",
    "2412.19437": "context extension of 1,000 steps of 1,920 x 32K and 1,000 of 480 x 128K tokens (its section 4.3), 2,048 GPUs",
    "2501.12948": "R1-Zero: 10,400 steps of 512 completions, sampled 8,192 at once, of about 8,000 tokens (its appendix)",
    "olmo-core": "1,048,576 tokens a step, packed (open-instruct docs/algorithms/sft_running_guide.md)",
    "others": "a row is padded to max_seq, 8,192 where none is named; pairs are two rows; FSDP with the fastest micro-batch that fits; "
    "8 GPUs where none are named",
}
HOST = {"litgpt": 4.2e-3, "litgpt adapter": 2.8e-3, "peft": 6.7e-3}
"""Seconds of host time a layer, forward and backward, of eager adapters (the planner halves a frozen base's backward pass)."""
EXTENSION_TOKENS = 1000 * (32768 * 1920 + 131072 * 480)
UNKNOWN_SEQ = 8192
ROOM = 0.6
"""Share of memory for weights where the sampler's tensor parallelism is not named; the rest holds caches."""
PROMPT = 150
VERL = {"prompts_per_step": "768", "max_seq": "9782"}
"""Columns that verl's rows leave out, from its script."""
RL_STEPS = (650, 8192, 8_000.0)
"""Rollouts, completions of each and their mean tokens (arXiv 2501.12948: 10,400 steps of 512 completions, sampled 8,192 at once)."""


def score(rows: list[Row]) -> Iterator[Scored]:
    """Every figure of each row. Raises `Unplannable` with the reason."""
    for row in rows:
        found = list(_scored(row))
        if not found:
            raise Unplannable(_missing(row))
        yield from found


def _missing(row: Row) -> str:
    if not any(real(row, name) for name in ("peak_gib", "step_time_s", "gpu_hours")):
        return "neither memory, step time nor GPU-hours are published"
    return "neither tokens, samples nor steps are known of it"


def _scored(row: Row) -> Iterator[Scored]:
    source, odd = _source(row), anomaly(row)
    try:
        if source == "verl min":
            yield Scored(row["id"], source, math.nan, math.nan, ASSUMED[source], kind="memory:fits", fits=fits(row))
            return
        seconds = step_time(row, source)
        if real(row, "step_time_s") and seconds:
            yield Scored(row["id"], source, seconds, real(row, "step_time_s") or 0.0, odd, kind="time:step")
        elif real(row, "gpu_hours"):
            hours = gpu_hours(row, source)
            if hours:
                yield Scored(row["id"], source, hours, real(row, "gpu_hours") or 0.0, odd, kind="time:hours")
        if real(row, "peak_gib"):
            used = peak(row, source)
            fit = used <= accelerator_of(row["gpu"]).memory_gib
            yield Scored(row["id"], source, used, real(row, "peak_gib") or 0.0, odd, kind="memory", fits=fit)
    except LabError as error:
        raise Unplannable(str(error)) from None


def _source(row: Row) -> str:
    text = f"{row['name']} {row.get('source', '')}".lower()
    if "min resources" in text:
        return "verl min"
    known = ("litgpt", "nemo-rl", "verl", "huggingface/peft", "2412.19437", "2501.12948")
    found = next((name for name in known if name in text), "others")
    return "peft" if found == "huggingface/peft" else found


def anomaly(row: Row) -> str:
    """What cannot be true of a row: more than 70 % of the peak, or tokens/s that contradict batch, length and time."""
    gpus, step_time = whole(row, "n_gpus", 0), real(row, "step_time_s")
    stated, mean, sampled = real(row, "tok_s_gpu"), real(row, "mean_seq_len"), real(row, "prompts_per_step")
    if gpus and step_time and stated and mean and sampled:
        ratio = sampled * mean / step_time / gpus / stated
        if not 0.5 < ratio < 2:
            return f"inconsistent: batch × length / time is {ratio:.1f} times the stated tokens/s"
    tokens, hours, active = real(row, "train_tokens"), real(row, "gpu_hours"), real(row, "params_active")
    if tokens and hours and active:
        per_token = (2 if row["stage"] == "datagen" else 6) * active
        share = per_token * tokens / (hours * 3600 * (accelerator_of(row["gpu"]).peak("bf16") or math.inf))
        if share > 0.7:
            return f"impossible: {share:.0%} of the peak"
    return ""


def machine_of(row: Row, gpus: int) -> Machine:
    """The row's accelerators, eight in a node."""
    card = accelerator_of(row["gpu"])
    cluster = Cluster(accelerator=card, nodes=max(1, math.ceil(gpus / 8)), gpus_per_node=min(8, gpus))
    return Machine(cluster, GPU, 1, gpus)


def step_time(row: Row, source: str) -> float | None:
    """Seconds of one step, None where the row is no measurement of one."""
    if source in ("litgpt", "peft"):
        job = tuned(row, source)
        machine = machine_of(row, whole(row, "n_gpus", 1))
        parts = step.seconds(job, machine)
        return sum(parts.values()) + dequantising(job, machine)
    if row["stage"] == "grpo" and real(row, "step_time_s"):
        return rl_step(row, source)
    return None


def tuned(row: Row, source: str) -> Job:
    """One micro-batch of adapter training in the mean."""
    found = re.search(r" mb(\d+)", row["name"])
    micro = int(found.group(1)) if found else 4
    model, gpus = model_of(row), whole(row, "n_gpus", 1)
    samples = real(row, "samples")
    mean = (real(row, "train_tokens") or 0.0) / samples if samples else 130.0
    host = HOST["litgpt adapter" if row["method"] == "adapter" else source]
    size = re.search(r"(\d+) trainable", row.get("note", ""))
    params = with_adapters(model, LoRA(rank=8))
    if size:
        params = params.replace(trainable=int(size.group(1)))
    return Job(
        model=model, params=params, layout=Parallelism(dp_shard=gpus, micro_batch_size=micro), seq_len=round(mean),
        step_tokens=round(mean) * micro * gpus, adapters=True, optimizer="adamw-bf16", engine=BF16.replace(layer_seconds=1.5 * host, overlap=0.0),
        recompute="full" if gpus > 1 else "none",
        base_bytes=BASE_BYTES["nf4"] if "nf4" in row["name"] else None,
    )  # fmt: skip


def peak(row: Row, source: str) -> float:
    """GiB at the peak: with the longest sample where the mean is short."""
    if source == "verl":
        return rl_peak(row)
    job = tuned(row, source)
    longest = whole(row, "max_seq", 0) or job.seq_len
    full = replace(job, seq_len=longest, step_tokens=longest * job.layout.micro_batch_size * job.layout.dp)
    held = GPU.replace(reserve_gib=0.5, fragmentation=0.06)
    return memory.peak(full, held, 0.0).peak_gib


def _degrees(row: Row) -> tuple[int, Parallelism]:
    """(the sampler's tensor-parallel ranks, the trainer's layout) as a row writes them."""
    text, gpus = row.get("layout", ""), whole(row, "n_gpus", 8)
    off = "Off" in text
    gpus = gpus // 2 if off else gpus
    made = re.search(r"gen \[TP,PP\]=\[(\d+),(\d+)\]", text)
    train = re.search(r"train \[TP,CP,EP,PP,VPP\]=\[(\d+),(\d+),(\d+),(\d+)", text)
    if train:
        tp, cp, ep, pp = (int(one) for one in train.groups())
    else:
        named = {name: int(n) for name, n in re.findall(r"\b(TP|PP|EP|CP)(\d+)", text)}
        tp, cp, ep, pp = (named.get(name, 1) for name in ("TP", "CP", "EP", "PP"))
    data = max(1, gpus // (tp * cp * pp))
    ep = ep if (data * tp * cp) % ep == 0 else 1
    layout = Parallelism(dp_shard=data, tp=tp, cp=cp, ep=ep, pp=pp, zero=1, sequence_parallel=tp > 1)
    return int(made.group(1)) * int(made.group(2)) if made else smallest(row), layout


def smallest(row: Row) -> int:
    """The fewest accelerators, a power of two, whose memory the sampler's weights fill to `ROOM` at most."""
    bytes_, room = 2 * count(model_of(row)).total, ROOM * accelerator_of(row["gpu"]).memory_gib * memory.GIB
    return 2 ** max(0, math.ceil(math.log2(bytes_ / room)))


def trainer(row: Row, model: ModelSpec, sequences: float, mean: float) -> Job:
    """The trainer's step over all that was sampled, packed to the longest sequence."""
    _, layout = _degrees(row)
    longest = max(whole(row, "max_seq", 0), round(mean))
    longest += -longest % layout.cp
    rows = max(1, round(sequences * mean / longest / layout.dp)) * layout.dp
    engine: Engine = runs.MODERN
    if layout.ep > layout.dp * layout.cp:  # experts take the tensor-parallel ranks' places
        engine = engine.replace(expert_tp=False)
    return Job(model.replace(max_seq_len=max(longest, model.max_seq_len)), count(model), layout, longest,
               rows * longest, precision="bf16", recompute="full", cross_entropy="fused", engine=engine)  # fmt: skip


def rl_step(row: Row, source: str) -> float:
    """Sampling, log-probabilities, training and handing over the weights."""
    row = {**row, **{name: row.get(name) or value for name, value in VERL.items()}} if source == "verl" else row
    model, gpus = model_of(row), whole(row, "n_gpus", 8)
    sequences = real(row, "prompts_per_step") or 512.0
    mean = real(row, "mean_seq_len") or (real(row, "max_seq") or 2048) / 2
    tp, layout = _degrees(row)
    off = "Off" in row.get("layout", "")
    job, machine = trainer(row, model, sequences, mean), machine_of(row, gpus)
    parts = step.seconds(job, machine)
    bubble = 1 + step.bubble_share(job)
    training = sum(parts.values()) + 2 * bubble * work.forward_seconds(job, job.step_tokens, machine)
    samplers = max(1, (gpus - layout.gpus if off else gpus) // tp)
    fp8 = "fp8" in row.get("note", "").split(";")[0]
    sampler = Sampler(tp, 1 if fp8 else 2, "bf16", served=True, eager=source == "verl")
    new = max(1.0, mean - PROMPT)
    most = max(new, (real(row, "max_seq") or 2 * mean) - PROMPT)
    making = sampling.serve_seconds(model, sequences / samplers, PROMPT, new, most, sampler, machine)
    sync = 2 * count(model).total / SYNC_BYTES
    return max(making, training) if off else making + training + sync


def rl_peak(row: Row) -> float:
    """The trainer's peak with its optimiser in host memory."""
    model = model_of(row)
    job = trainer(row, model, 512.0, real(row, "mean_seq_len") or 2048.0)
    return memory.peak(replace(job, offload="optimizer"), GPU.replace(fragmentation=0.06), 0.0).peak_gib


def fits(row: Row) -> bool:
    """Whether GRPO fits on so many accelerators with everything that verl offloads."""
    model, gpus = model_of(row), whole(row, "n_gpus", 1)
    card = accelerator_of(row["gpu"])
    lora = row["method"] == "lora"
    params = with_adapters(model, LoRA(rank=32)) if lora else count(model)
    job = Job(model.replace(max_seq_len=max(2048, model.max_seq_len)), params, Parallelism(dp_shard=gpus), 2048, 2048 * gpus,
              adapters=lora, recompute="full", cross_entropy="fused", offload="optimizer", engine=BF16)  # fmt: skip
    training = memory.peak(job, GPU, card.memory_gib).peak_gib
    weights = 2 * count(model).total / gpus / memory.GIB
    serving = weights * (2 if lora else 1) + sampling.cache(model, 2048, 2, latent=True) / memory.GIB + GPU.reserve_gib
    return max(training, serving) <= card.memory_gib


def gpu_hours(row: Row, source: str) -> float | None:
    """GPU-hours of a whole run, None where nobody knows how much was done."""
    gpus = whole(row, "n_gpus", 0)
    if row["stage"] == "grpo":
        if source != "2501.12948":
            return None
        steps, sampled, mean = RL_STEPS
        filled = {**row, "prompts_per_step": str(sampled), "mean_seq_len": str(mean), "n_gpus": str(gpus or 512),
                  "layout": row.get("layout", "") or "TP8 PP8 EP8"}  # fmt: skip
        return steps * rl_step(filled, source) * (gpus or 512) / 3600
    tokens, seq = _amount(row, source)
    if not tokens:
        return None
    gpus = gpus or (2048 if source == "2412.19437" else 8)
    model = model_of(row)
    card = accelerator_of(row["gpu"])
    shape = runs.Shape(model.replace(max_seq_len=max(seq, model.max_seq_len)), runs.MODERN, card, seq, max(2**20, seq * gpus), "bf16", ("none", "full"))  # fmt: skip
    job = runs._fastest_fitting(shape, list(runs.by_rule(model, gpus, False)), machine_of(row, gpus).cluster)
    seconds = runs.seconds_a_token(job, machine_of(row, gpus).cluster)
    passes = {"dpo": 4 / 3, "datagen": 1 / 3}.get(row["stage"], 1.0)
    return tokens * seconds * passes * gpus / 3600 / GPU.goodput.mid


def _amount(row: Row, source: str) -> tuple[float, int]:
    """(tokens that are computed, padding included; their sequence length)."""
    seq = whole(row, "max_seq", 0)
    epochs = real(row, "epochs") or 1.0
    if source == "2412.19437" and row["stage"] == "midtrain":
        return EXTENSION_TOKENS, 32768
    if real(row, "train_tokens"):
        return real(row, "train_tokens") or 0.0, min(seq or UNKNOWN_SEQ, UNKNOWN_SEQ)
    if real(row, "steps"):
        return (real(row, "steps") or 0.0) * 2**20, min(seq or UNKNOWN_SEQ, UNKNOWN_SEQ)
    pairs = 2 if row["stage"] in ("dpo", "simpo", "reward") else 1
    return (real(row, "samples") or 0.0) * epochs * (seq or UNKNOWN_SEQ) * pairs, seq or UNKNOWN_SEQ
