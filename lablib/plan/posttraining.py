"""The work of SFT, preference optimisation and GRPO: a trainer's step, with a reference model and sampling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lablib.plan import memory, sampling, step, work
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.memory import GIB, Memory
from lablib.plan.params import count, with_adapters
from lablib.plan.ranges import Range
from lablib.plan.resolve import model_of
from lablib.plan.work import Work
from lablib.specs import GRPO, SFT, Preference, Task
from lablib.specs.recipes import PostTrain

FILE_LENGTH = Range(low=0.2, mid=0.5, high=1.0)
"""Mean length of a file's rows over `seq_len`, where nobody has read the file yet."""


def lengths(data: Task | str, seq_len: int) -> tuple[float, Range, str]:
    """(middle tokens a sequence, spread as factors, how it was assumed): rows of a task are short, a file's unknown."""
    if isinstance(data, Task):
        tokens = float(min(seq_len, sampling.PROMPT_TOKENS * (1 + data.fewshot)))
        return (
            tokens,
            Range(low=0.6, mid=1.0, high=1.7),
            f"sequences of task {data.name} are taken as {tokens:.0f} tokens",
        )
    tokens = seq_len * FILE_LENGTH.mid
    spread = Range(low=FILE_LENGTH.low / FILE_LENGTH.mid, mid=1.0, high=FILE_LENGTH.high / FILE_LENGTH.mid)
    return tokens, spread, f"sequences of {Path(data).name} are taken as half of seq_len={seq_len}"


def _job(recipe: PostTrain, root: Path | None, sequence: float, sequences: float, reference: bool) -> Job:
    model = model_of(recipe.model, root)
    return Job(
        model=model,
        params=with_adapters(model, recipe.lora) if recipe.lora else count(model),
        layout=recipe.parallelism,
        seq_len=max(2, round(sequence)),
        step_tokens=max(1, round(sequence * sequences)),
        precision=recipe.precision,
        adapters=recipe.lora is not None,
        reference=reference,
        reference_shared=recipe.lora is not None,
    )


def _work(
    recipe: PostTrain, one: Job, machine: Machine, spread: Range, assumed: str, longest: int, extra: dict[str, float]
) -> Work:
    """`longest`: tokens of the longest sequence that can come, where late out-of-memory errors come from."""
    whole = replace(one, seq_len=max(longest, one.seq_len))
    parts = {**step.seconds(one, machine), "trainer": machine.efficiency.trainer_seconds / machine.speed, **extra}
    return Work(
        steps=recipe.steps,
        step_parts=parts,
        memory=_memory(whole, machine),
        params=one.params,
        flops=work.training_flops(one, recipe.steps * one.step_tokens),
        step_tokens=one.step_tokens,
        once={
            "imports": machine.efficiency.posttrain_startup_seconds / machine.speed,
            "saving": 4 * one.params.total / work.DISK,
        },
        spread=spread,
        precision=recipe.precision,
        assumed=(assumed,),
        jobs=(one,),
    )


def _memory(whole: Job, machine: Machine) -> Memory:
    used = memory.peak(whole, machine.efficiency, machine.capacity_gib)
    parts = {**used.parts, "overhead": used.parts["overhead"] + machine.efficiency.trainer_gib}
    return used.replace(parts=parts, peak_gib=sum(parts.values()))


def _longest(data: Task | str, one: Job, seq_len: int) -> int:
    return one.seq_len if isinstance(data, Task) else seq_len


def sft(recipe: SFT, machine: Machine, root: Path | None) -> Work:
    """Supervised fine-tuning: ordinary training on short sequences."""
    tokens, spread, assumed = lengths(recipe.data, recipe.seq_len)
    one = _job(recipe, root, tokens, recipe.batch_size, reference=False)
    return _work(recipe, one, machine, spread, assumed, _longest(recipe.data, one, recipe.seq_len), {})


PAIR_TRIES = 4
PAIR_BATCH = 64
PAIR_TOKENS = 28
"""What `lablib.posttrain.preference` samples of a model to find its wrong answers to a task."""


def preference(recipe: Preference, machine: Machine, root: Path | None) -> Work:
    """DPO: two sequences a pair, and the reference model's forward pass on both (arXiv 2305.18290 §4).

    With LoRA the reference is the same weights with the adapters off; a task's pairs are sampled from the model first.
    """
    tokens, spread, assumed = lengths(recipe.data, recipe.seq_len)
    one = _job(recipe, root, tokens, 2 * recipe.batch_size, reference=True)
    made = _work(recipe, one, machine, spread, assumed, _longest(recipe.data, one, recipe.seq_len), {})
    if not isinstance(recipe.data, Task):
        return made
    sampled = sampling.generate_seconds(
        one.model, recipe.pairs * PAIR_TRIES, PAIR_BATCH, tokens, PAIR_TOKENS, "fp32", machine
    )
    return replace(made, once={**made.once, "pairs": sampled})


def grpo(recipe: GRPO, machine: Machine, root: Path | None) -> Work:
    """GRPO: sample `prompts_per_step` × `group_size` completions, score them, and train on them in optimiser steps of
    `batch_size` completions each (arXiv 2402.03300 §4); `steps` counts optimiser steps."""
    prompt = min(recipe.seq_len, sampling.PROMPT_TOKENS * (1 + recipe.task.fewshot))
    sampled = recipe.prompts_per_step * recipe.group_size
    answer = recipe.max_new_tokens * sampling.LENGTH.mid
    one = _job(recipe, root, prompt + answer, recipe.batch_size, reference=recipe.beta > 0)
    local = max(1, sampled // recipe.parallelism.dp)
    generation = sampling.generate_seconds(one.model, local, local, prompt, answer, recipe.precision, machine)
    made = _work(
        recipe, one, machine, Range(low=0.6, mid=1.0, high=1.6),
        f"prompts of task {recipe.task.name} are taken as {prompt} tokens, completions as {sampling.LENGTH.mid:.0%} of max_new_tokens",
        prompt + recipe.max_new_tokens,
        {"generation": generation * min(1.0, recipe.batch_size / sampled)},
    )  # fmt: skip
    cache = local * (prompt + recipe.max_new_tokens) * sampling.cache_bytes(one.model, one.width) / GIB
    parts = {**made.memory.parts, "kv_cache": cache}
    held = made.memory.replace(parts=parts, peak_gib=sum(parts.values()))
    return replace(made, memory=held)
