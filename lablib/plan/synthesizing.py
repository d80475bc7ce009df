"""The work of a model that writes documents: prompts read once, tokens sampled in batches, nothing trained."""

from __future__ import annotations

from pathlib import Path

from lablib.plan import flops, sampling, work
from lablib.plan.flops import Flops
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.memory import GIB, Memory
from lablib.plan.params import count
from lablib.plan.ranges import Range
from lablib.plan.resolve import model_of
from lablib.plan.work import Work
from lablib.specs import Parallelism, Synthesize, Task

WORD_TOKENS = 1.4
"""Tokens of a word of an instruction."""
TOKEN_BYTES = 4
"""Bytes of a token of written text (docs/data.md: 3.3 to 5 by vocabulary)."""
LOGIT_BYTES = 12
"""Bytes of each logit of a decoding step: the logits, their fp32 copy and its softmax."""


def prompt_tokens(recipe: Synthesize) -> float:
    """Tokens of one prompt."""
    if isinstance(recipe.data, Task):
        return sampling.PROMPT_TOKENS * (1 + recipe.data.fewshot)
    return recipe.prompt_tokens + WORD_TOKENS * len(recipe.instruction.split())


def written_bytes(recipe: Synthesize) -> int:
    """Bytes of text that a run is expected to write, were all of it kept."""
    each = recipe.max_new_tokens * sampling.LENGTH.mid
    return round(recipe.count * recipe.attempts * each * TOKEN_BYTES)


def synthesize(recipe: Synthesize, machine: Machine, root: Path | None) -> Work:
    """One task's completions in batches of `batch_size`, as the stage's own `generate` makes them. What comes before (choosing
    documents) and after (scoring answers, a process beside) is not counted. Raises `LabError` where the model is unknown."""
    model, requests = model_of(recipe.model, root), -(-recipe.count * recipe.attempts // recipe.tasks)
    width = 4 if recipe.precision == "fp32" else 2
    prompt, new = prompt_tokens(recipe), recipe.max_new_tokens * sampling.LENGTH.mid
    job = Job(model, count(model), Parallelism(), round(prompt), round(prompt), precision=recipe.precision)
    parts = {
        "sampling": sampling.generate_seconds(model, requests, recipe.batch_size, prompt, new, recipe.precision, machine),
        "prompts": work.forward_seconds(job, requests * prompt, machine),
    }  # fmt: skip
    tokens, context = requests * (prompt + new), flops.causal_context(round(prompt + new))
    each = sum(flops.forward(model, context).values())
    batch = min(recipe.batch_size, requests)
    held = {
        "params": width * count(model).total / GIB,
        "kv_cache": batch * sampling.cache(model, prompt + recipe.max_new_tokens, width) / GIB,
        "logits": batch * model.vocab * LOGIT_BYTES / GIB,
        "overhead": machine.efficiency.reserve_gib,
    }
    return Work(
        steps=1,
        step_parts=parts,
        memory=Memory(peak_gib=sum(held.values()), parts=held, capacity_gib=machine.capacity_gib),
        params=count(model).replace(trainable=0),
        flops=Flops(forward=each, per_token=each, total=each * tokens, hardware=each * tokens),
        step_tokens=tokens,
        once={"loading": 4 * count(model).total / work.DISK + 1.0},
        spread=Range(low=sampling.LENGTH.low / sampling.LENGTH.mid, mid=1.0, high=sampling.LENGTH.high / sampling.LENGTH.mid),
        precision=recipe.precision,
        assumed=(f"completions are taken as {sampling.LENGTH.mid:.0%} of max_new_tokens",),
    )  # fmt: skip
