"""The work of GRPO and PPO: sampling, scoring and training, on the same accelerators in turns or on others beside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lablib.plan import memory, sampling, step, work
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.memory import GIB, Memory
from lablib.plan.params import count
from lablib.plan.posttraining import job_of, scalar, with_parts, work_of
from lablib.plan.ranges import Range
from lablib.plan.resolve import model_of
from lablib.plan.sampling import Sampler
from lablib.plan.work import Work
from lablib.specs import GRPO, PPO
from lablib.specs.recipes import Sampled

SPREAD = Range(low=0.6, mid=1.0, high=1.6)
SYNC_BYTES = 2.5e10
"""Bytes/s at which trained weights reach all samplers: tensor by tensor, gathered, renamed and broadcast, so about one
network card's rate whatever the number of ranks (held against NeMo-RL's on-policy steps of 30B to 671B)."""


States = dict[str, float]
"""Bytes on one accelerator, as `lablib.plan.memory.states` names them."""


@dataclass(frozen=True)
class Turn:
    """What is sampled at once, in tokens and completions."""

    sequences: int
    share: float
    """Of what is sampled, the part that one optimiser step trains on."""
    prompt: int
    answer: float
    """Of a completion in the mean."""
    longest: int
    """Prompt and completion."""
    assumed: str = ""


def grpo(recipe: GRPO, machine: Machine, root: Path | None) -> Work:
    """GRPO: sample `prompts_per_step` × `group_size` completions, score them, and train on them in optimiser steps of
    `batch_size` completions each (arXiv 2402.03300 §4); `steps` counts optimiser steps."""
    turn = _turn(recipe, recipe.prompts_per_step * recipe.group_size)
    model, tokens = model_of(recipe.model, root), turn.prompt + turn.answer
    one = job_of(recipe, model, tokens, recipe.batch_size, reference=recipe.beta > 0)
    return _sampled(recipe, one, machine, turn, {})


def ppo(recipe: PPO, machine: Machine, root: Path | None) -> Work:
    """PPO: a policy and a critic that train, a reference and a reward model that only read (arXiv 2203.02155 §3.5).

    The critic is the reward model's shape. Each optimiser step of `batch_size` completions updates both; sampling and the
    four forward passes over what was sampled are spread over the steps that train on it.
    """
    turn = _turn(recipe, recipe.prompts_per_step)
    turn = replace(turn, share=turn.share / recipe.passes)
    policy, judge = model_of(recipe.model, root), model_of(recipe.reward, root)
    one, other = (
        job_of(recipe, model, turn.prompt + turn.answer, recipe.batch_size, reference=False)
        for model in (policy, judge)
    )
    critic = scalar(other)
    beside = {"critic": memory.states(critic), "reward": _frozen(critic)}
    if recipe.lora is None:  # else the reference is the policy with its adapters off
        beside["params"] = _frozen(one)
    made = _sampled(recipe, one, machine, turn, beside)
    scored = one.step_tokens / recipe.passes
    parts = {
        **made.step_parts,
        "critic": sum(step.seconds(critic, machine).values()),
        "scoring": sum(2 * work.forward_seconds(job, scored, machine) for job in (one, critic)),
    }
    return replace(made, step_parts=parts)


def _frozen(one: Job) -> States:
    return {"params": memory.states(one)["params"]}


def _turn(recipe: GRPO | PPO, sequences: int) -> Turn:
    """Lengths as the recipe says them, else assumed from the task and `max_new_tokens`."""
    prompt = min(recipe.seq_len, sampling.PROMPT_TOKENS * (1 + recipe.task.fewshot))
    longest = min(recipe.seq_len, recipe.longest_tokens or prompt + recipe.max_new_tokens)
    share = min(1.0, recipe.batch_size / sequences)
    if recipe.mean_tokens:
        return Turn(sequences, share, prompt, float(max(1, recipe.mean_tokens - prompt)), longest)
    answer = recipe.max_new_tokens * sampling.LENGTH.mid
    assumed = f"prompts of task {recipe.task.name} are taken as {prompt} tokens, completions as {sampling.LENGTH.mid:.0%} of max_new_tokens"
    return Turn(sequences, share, prompt, answer, longest, assumed)


def _sampled(recipe: Sampled, one: Job, machine: Machine, turn: Turn, beside: dict[str, States]) -> Work:
    """A trainer and its sampler; `beside` are states of further models on the trainer's accelerators, by part."""
    spread = Range.exactly(1.0) if recipe.mean_tokens else SPREAD
    made = work_of(recipe, one, machine, spread, turn.assumed, turn.longest, {})
    trainer = with_parts(made.memory, _joined(made.memory.parts, beside))
    asleep = _asleep(one, beside)
    sampler = _sampler(recipe, asleep, machine)
    generating = turn.share * generation(recipe, one, sampler, machine, turn)
    if recipe.sampler == "split":
        # One step behind: sampling shows only where it takes longer than training.
        generating = max(0.0, generating - made.step_seconds)
    sync = turn.share * 2 * one.params.total / SYNC_BYTES if _apart(recipe) else 0.0
    parts = {**made.step_parts, "generation": generating, "weights": sync}
    held = _fuller(recipe, trainer, _sampling(recipe, one, sampler, asleep, machine, turn))
    return replace(made, step_parts={name: value for name, value in parts.items() if value}, memory=held)


def _apart(recipe: Sampled) -> bool:
    """Whether the sampler has weights of its own."""
    return recipe.engine == "vllm" or recipe.sampler == "split"


def _joined(parts: dict[str, float], beside: dict[str, States]) -> dict[str, float]:
    """GiB by part, with the states of further models."""
    return {**parts, **{name: parts.get(name, 0.0) + sum(states.values()) / GIB for name, states in beside.items()}}


def _asleep(one: Job, beside: dict[str, States]) -> dict[str, float]:
    """GiB by part that trained and frozen models keep on an accelerator while it samples: gradients are set free after
    each optimiser step."""
    own = {name: size / GIB for name, size in memory.states(one).items() if name != "grads"}
    return _joined(own, {name: {**states, "grads": 0.0} for name, states in beside.items()})


def _sampler(recipe: Sampled, asleep: dict[str, float], machine: Machine) -> Sampler:
    served = recipe.engine == "vllm"
    efficiency, width = machine.efficiency, 4 if recipe.precision == "fp32" else 2
    shared = recipe.sampler == "shared"
    resident = (1 + efficiency.fragmentation) * sum(asleep.values()) + efficiency.trainer_gib if shared else 0.0
    return Sampler(recipe.sampler_tp, width, recipe.precision, served, resident=resident * GIB)


def _replicas(recipe: Sampled) -> int:
    """Samplers that work at the same time."""
    return (recipe.sampler_gpus or recipe.parallelism.gpus) // recipe.sampler_tp


def generation(recipe: Sampled, one: Job, sampler: Sampler, machine: Machine, turn: Turn) -> float:
    """Seconds to sample all completions of one turn, on every sampler at once."""
    if not _apart(recipe):
        each = max(1, turn.sequences // recipe.parallelism.dp)
        return sampling.generate_seconds(one.model, each, each, turn.prompt, turn.answer, recipe.precision, machine)
    most = max(recipe.max_new_tokens, turn.answer)
    local = turn.sequences / _replicas(recipe)
    return sampling.serve_seconds(one.model, local, turn.prompt, turn.answer, most, sampler, machine)


def _sampling(
    recipe: Sampled, one: Job, sampler: Sampler, asleep: dict[str, float], machine: Machine, turn: Turn
) -> dict[str, float]:
    """GiB by part of an accelerator that samples. `generate` puts a cache for all its sequences beside what the trainer
    keeps; a serving engine has weights of its own, and takes the cache that there is room for: one sequence's at least."""
    efficiency = machine.efficiency
    local = max(1.0, turn.sequences / (_replicas(recipe) if _apart(recipe) else recipe.parallelism.dp))
    each = sampling.cache(one.model, turn.longest, sampler.width, sampler.served) / GIB
    if not _apart(recipe):
        held = {**asleep, "buffers": memory.buffers(one) / GIB, "kv_cache": local * each}
        slack = efficiency.fragmentation * sum(held.values())
        return {**held, "overhead": efficiency.reserve_gib + efficiency.trainer_gib + slack}
    each = each / sampling.split(one.model, sampler.tp)
    cache = max(each, min(local * each, sampling.room(one.model, sampler, machine) / GIB))
    weights = sampler.width * count(one.model).total / sampler.tp / GIB
    kept = asleep if recipe.sampler == "shared" else {}
    overhead = efficiency.reserve_gib + sampler.resident / GIB - sum(kept.values())
    return {**kept, "sampler": weights, "kv_cache": cache, "overhead": overhead}


def _fuller(recipe: Sampled, trainer: Memory, sampled: dict[str, float]) -> Memory:
    """The fuller of training and sampling. A serving engine's weights sleep in host memory while a shared accelerator
    trains (vLLM's sleep mode, level 1)."""
    asleep = sampled.get("sampler", 0.0) if recipe.sampler == "shared" else 0.0
    trainer = trainer.replace(host_gib=trainer.host_gib + asleep)
    if sum(sampled.values()) <= trainer.peak_gib:
        return trainer
    return trainer.replace(parts=sampled, peak_gib=sum(sampled.values()), moment="sampling")
