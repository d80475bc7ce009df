"""The work of SFT, preference optimisation and reward models: a trainer's step, its frozen and its second models.

`lablib.plan.reinforcing` adds sampling to it for GRPO and PPO.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lablib.plan import anatomy, memory, sampling, step, work
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.memory import GIB, Memory
from lablib.plan.params import Params, count, with_adapters
from lablib.plan.ranges import Range
from lablib.plan.resolve import model_of
from lablib.plan.work import Work
from lablib.specs import SFT, LoRA, ModelSpec, Parallelism, Preference, Reward, Task
from lablib.specs.recipes import PostTrain

FILE_LENGTH = Range(low=0.2, mid=0.5, high=1.0)
"""Mean length of a file's rows over `seq_len`, where nobody has read the file yet."""
BASE_BYTES = {"bf16": 2.0, "int8": 1.0 + 4 / 4096, "nf4": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""Bytes of a frozen linear weight: int8 has one fp32 scale a row (arXiv 2208.07339 §3); nf4 an 8-bit scale for 64 weights,
and an fp32 one for 256 of those (double quantisation, arXiv 2305.14314 §3)."""


def lengths(recipe: PostTrain, data: Task | str) -> tuple[float, Range, str]:
    """(middle tokens a sequence, spread as factors, how it was assumed): as the recipe says; else rows of a task are
    short, a file's unknown."""
    if recipe.mean_tokens:
        return float(recipe.mean_tokens), Range.exactly(1.0), ""
    if isinstance(data, Task):
        tokens = float(min(recipe.seq_len, sampling.PROMPT_TOKENS * (1 + data.fewshot)))
        spread = Range(low=0.6, mid=1.0, high=1.7)
        return tokens, spread, f"sequences of task {data.name} are taken as {tokens:.0f} tokens"
    tokens = recipe.seq_len * FILE_LENGTH.mid
    spread = Range(low=FILE_LENGTH.low / FILE_LENGTH.mid, mid=1.0, high=FILE_LENGTH.high / FILE_LENGTH.mid)
    assumed = f"sequences of {Path(data).name} are taken as half of seq_len={recipe.seq_len}; give mean_tokens"
    return tokens, spread, assumed


def longest(recipe: PostTrain, data: Task | str, tokens: float) -> int:
    """Tokens of the longest sequence that can come, where late out-of-memory errors come from."""
    if recipe.longest_tokens:
        return min(recipe.longest_tokens, recipe.seq_len)
    return round(tokens) if isinstance(data, Task) and not recipe.mean_tokens else recipe.seq_len


def padded(tokens: float, most: float, batch: int) -> float:
    """Mean tokens of a row in a micro-batch padded to its longest of `batch` rows, for lengths between `tokens` and
    `most`: the mean of the longest of n exponential lengths is 1 + 1/2 + ... + 1/n times the mean."""
    return min(most, tokens * sum(1 / (one + 1) for one in range(batch)))


def base_bytes(model: ModelSpec, lora: LoRA | None) -> float | None:
    """Mean bytes of a frozen weight: quantised linear layers, and embedding, head and norms in bf16; None keeps fp32."""
    if lora is None or lora.base == "fp32":
        return None
    total = count(model).total
    linear = sum(m.size for m in anatomy.matrices(model) if m.part not in ("embedding", "head", "router"))
    return (linear * BASE_BYTES[lora.base] + (total - linear) * 2) / total


def workspace(model: ModelSpec, lora: LoRA | None) -> float:
    """Bytes of the largest quantised matrix made whole in bf16 for its matmul (experts one at a time)."""
    if lora is None or lora.base not in ("int8", "nf4"):
        return 0.0
    return 2.0 * max(m.rows * m.cols for m in anatomy.matrices(model) if m.part not in ("embedding", "head"))


def job_of(recipe: PostTrain, model: ModelSpec, sequence: float, sequences: float, reference: bool) -> Job:
    """One optimiser step of `sequences` sequences of `sequence` tokens."""
    return Job(
        model=model,
        params=with_adapters(model, recipe.lora) if recipe.lora else count(model),
        layout=recipe.parallelism,
        seq_len=max(2, round(sequence)),
        step_tokens=max(1, round(sequence * sequences)),
        precision=recipe.precision,
        recompute=recipe.recompute,
        fused=recipe.compile,
        optimizer=recipe.optimizer,
        cross_entropy=recipe.cross_entropy,
        offload=recipe.offload,
        adapters=recipe.lora is not None,
        reference=reference,
        reference_shared=recipe.lora is not None,
        base_bytes=base_bytes(model, recipe.lora),
    )


def work_of(
    recipe: PostTrain, one: Job, machine: Machine, spread: Range, assumed: str, longest: int, extra: dict[str, float]
) -> Work:
    """The whole stage: `one` step in the mean, memory with a micro-batch of sequences of `longest` tokens."""
    parts = {**step.seconds(one, machine), "trainer": machine.efficiency.trainer_seconds / machine.speed, **extra}
    parts |= {"dequantising": dequantising(one, machine)} if dequantising(one, machine) else {}
    most = max(longest, one.seq_len)
    full = replace(one, seq_len=most, step_tokens=round(one.step_tokens * most / one.seq_len))
    return Work(
        steps=recipe.steps,
        step_parts=parts,
        memory=held(full, machine, recipe.lora),
        params=one.params,
        flops=work.training_flops(one, recipe.steps * one.step_tokens),
        step_tokens=one.step_tokens,
        once={
            "imports": machine.efficiency.posttrain_startup_seconds / machine.speed,
            "saving": 4 * one.params.total / work.DISK,
        },
        spread=spread,
        precision=recipe.precision,
        assumed=tuple(filter(None, (assumed,))),
        jobs=(one,),
        longest=most,
    )


def held(full: Job, machine: Machine, lora: LoRA | None = None) -> Memory:
    """The trainer's memory: the step's peak, what its libraries hold, and a dequantised matrix."""
    used = memory.peak(full, machine.efficiency, machine.capacity_gib)
    space = workspace(full.model, lora) / GIB / full.layout.tp
    libraries = used.parts["overhead"] + machine.efficiency.trainer_gib
    return with_parts(used, {**used.parts, "overhead": libraries, "dequantised": space})


def with_parts(used: Memory, parts: dict[str, float]) -> Memory:
    """The same memory of other parts."""
    kept = {name: size for name, size in parts.items() if size or name in used.parts}
    return used.replace(parts=kept, peak_gib=sum(kept.values()))


def sft(recipe: SFT, machine: Machine, root: Path | None) -> Work:
    """Supervised fine-tuning: ordinary training on short sequences, packed into whole rows or padded to the longest of a
    micro-batch."""
    tokens, spread, assumed = lengths(recipe, recipe.data)
    model, most = model_of(recipe.model, root), longest(recipe, recipe.data, tokens)
    if recipe.packing:
        rows = recipe.batch_size * tokens / recipe.seq_len
        one = job_of(recipe, model, recipe.seq_len, max(rows, recipe.parallelism.dp), reference=False)
        packed = work_of(recipe, one, machine, spread, assumed, recipe.seq_len, {})
        return replace(packed, longest=most)  # positions begin anew with each sequence of a row
    size = 1 if isinstance(recipe.data, Task) else recipe.parallelism.micro_batch_size
    one = job_of(recipe, model, padded(tokens, most, size), recipe.batch_size, reference=False)
    return work_of(recipe, one, machine, spread, assumed, most, {})


PAIR_TRIES = 4
PAIR_BATCH = 64
PAIR_TOKENS = 28
"""What `lablib.posttrain.preference` samples of a model to find its wrong answers to a task."""


def preference(recipe: Preference, machine: Machine, root: Path | None) -> Work:
    """DPO: two sequences a pair, and the reference model's forward pass on both (arXiv 2305.18290 §4).

    With LoRA the reference is the same weights with the adapters off; precomputed, it runs once before training and is
    gone. A task's pairs are sampled from the model first. A micro-batch of n pairs is 2n sequences.
    """
    tokens, spread, assumed = lengths(recipe, recipe.data)
    beside = not recipe.precompute_reference
    one = paired(job_of(recipe, model_of(recipe.model, root), tokens, 2 * recipe.batch_size, reference=beside))
    made = work_of(recipe, one, machine, spread, assumed, longest(recipe, recipe.data, tokens), {})
    once = dict(made.once)
    if not beside:
        plain = replace(one, adapters=False)
        once["reference"] = work.forward_seconds(plain, recipe.steps * one.step_tokens, machine)
    if isinstance(recipe.data, Task):
        once["pairs"] = sampling.generate_seconds(
            one.model, recipe.pairs * PAIR_TRIES, PAIR_BATCH, tokens, PAIR_TOKENS, "fp32", machine
        )
    return replace(made, once=once)


def reward(recipe: Reward, machine: Machine, root: Path | None) -> Work:
    """A reward model: two sequences a pair through the model, whose head gives one number (arXiv 2203.02155 §3.5)."""
    tokens, spread, assumed = lengths(recipe, recipe.data)
    one = scalar(paired(job_of(recipe, model_of(recipe.model, root), tokens, 2 * recipe.batch_size, reference=False)))
    return work_of(recipe, one, machine, spread, assumed, longest(recipe, recipe.data, tokens), {})


def paired(one: Job) -> Job:
    """The same job where a micro-batch counts pairs: chosen and rejected go through the model together."""
    layout = one.layout
    assert isinstance(layout, Parallelism)
    return replace(one, layout=layout.replace(micro_batch_size=2 * layout.micro_batch_size))


def scalar(one: Job) -> Job:
    """The same job with a scalar head in place of the language model's: no logits."""
    head = one.params.parts.get("head", 0)
    parts: dict[str, int] = {**one.params.parts, "head": one.model.hidden}
    spare = head - one.model.hidden
    params: Params = one.params.replace(
        total=one.params.total - spare,
        active=one.params.active - spare,
        embedding=one.params.embedding - head,
        trainable=one.params.trainable - (0 if one.adapters else spare),
        parts=parts,
    )
    return replace(one, params=params, cross_entropy="full", engine=one.engine.replace(loss_bytes=0.0))


DEQUANTISING = 0.3
"""Share of the reachable bandwidth at which 4-bit weights are made whole (litgpt's resource tables: bitsandbytes 0.41 adds
1.3e-11 s a weight and step to LoRA on A100, over 1.3B to 13B parameters)."""


def dequantising(one: Job, machine: Machine) -> float:
    """Seconds of a step in which quantised weights are read, and written in bf16, forward and backward (and once more for
    each recomputation)."""
    if one.base_bytes is None or one.base_bytes >= 2:
        return 0.0
    moved = (one.base_bytes + 2) * memory.stage_params(one, True, one.layout.pp == 1)
    times = (3 if one.recompute == "full" else 2) * one.micro_batches
    return float(times * moved / (DEQUANTISING * machine.bandwidth))
