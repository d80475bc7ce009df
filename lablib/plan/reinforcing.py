"""The work of GRPO and PPO: sampling, scoring and training, on the same accelerators in turns or on others beside."""

from __future__ import annotations

from dataclasses import replace
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
from lablib.specs import GRPO, PPO, ModelSpec
from lablib.specs.recipes import Sampled

SPREAD = Range(low=0.6, mid=1.0, high=1.6)
SYNC_BYTES = 2.5e10
"""Bytes/s at which trained weights reach all samplers: tensor by tensor, gathered, renamed and broadcast, so about one
network card's rate whatever the number of ranks (held against NeMo-RL's on-policy steps of 30B to 671B)."""


def grpo(recipe: GRPO, machine: Machine, root: Path | None) -> Work:
    """GRPO: sample `prompts_per_step` × `group_size` completions, score them, and train on them in optimiser steps of
    `batch_size` completions each (arXiv 2402.03300 §4); `steps` counts optimiser steps."""
    sampled, model = recipe.prompts_per_step * recipe.group_size, model_of(recipe.model, root)
    prompt, answer, assumed = _tokens(recipe)
    one = job_of(recipe, model, prompt + answer, recipe.batch_size, reference=recipe.beta > 0)
    share = min(1.0, recipe.batch_size / sampled)
    return _sampled(recipe, one, machine, (sampled, share), assumed)


def ppo(recipe: PPO, machine: Machine, root: Path | None) -> Work:
    """PPO: a policy and a critic that train, a reference and a reward model that only read (arXiv 2203.02155 §3.5).

    The critic is the reward model's shape. Each optimiser step of `batch_size` completions updates both; sampling and the
    four forward passes over what was sampled are spread over the steps that train on it.
    """
    model, judge = model_of(recipe.model, root), model_of(recipe.reward, root)
    prompt, answer, assumed = _tokens(recipe)
    one = job_of(recipe, model, prompt + answer, recipe.batch_size, reference=True)
    critic = replace(
        scalar(job_of(recipe, judge, prompt + answer, recipe.batch_size, reference=False)), reference=False
    )
    share = min(1.0, recipe.batch_size / recipe.prompts_per_step) / recipe.passes
    made = _sampled(recipe, one, machine, (recipe.prompts_per_step, share), assumed)
    scored = one.step_tokens / recipe.passes
    parts = {
        **made.step_parts,
        "critic": sum(step.seconds(critic, machine).values()),
        "scoring": sum(
            2 * work.forward_seconds(job, scored, machine) for job in (replace(one, reference=False), critic)
        ),
    }
    trained = sum(memory.states(critic).values()) / GIB
    frozen = 4 * critic.params.total / critic.layout.tp / critic.shards / GIB
    held = with_parts(made.memory, {**made.memory.parts, "critic": trained, "reward": frozen})
    return replace(made, step_parts=parts, memory=held)


def _tokens(recipe: GRPO | PPO) -> tuple[int, float, str]:
    """(tokens of a prompt, of a completion in the mean, how they were assumed)."""
    prompt = min(recipe.seq_len, sampling.PROMPT_TOKENS * (1 + recipe.task.fewshot))
    if recipe.mean_tokens:
        return prompt, float(max(1, recipe.mean_tokens - prompt)), ""
    return prompt, recipe.max_new_tokens * sampling.LENGTH.mid, (
        f"prompts of task {recipe.task.name} are taken as {prompt} tokens, completions as {sampling.LENGTH.mid:.0%} of max_new_tokens"
    )  # fmt: skip


def _sampled(recipe: GRPO | PPO, one: Job, machine: Machine, batch: tuple[int, float], assumed: str) -> Work:
    """`batch`: completions sampled at once, and the share of that an optimiser step trains on."""
    sampled, share = batch
    prompt, answer, _ = _tokens(recipe)
    most = recipe.longest_tokens or prompt + recipe.max_new_tokens
    generating = share * generation(recipe, one.model, machine, sampled, prompt, answer)
    served = recipe.engine == "vllm" or recipe.sampler == "split"
    sync = share * 2 * one.params.total / SYNC_BYTES if served else 0.0
    spread = Range.exactly(1.0) if recipe.mean_tokens else SPREAD
    made = work_of(recipe, one, machine, spread, assumed, most, {})
    if recipe.sampler == "split":
        # One step behind: sampling shows only where it takes longer than training.
        generating = max(0.0, generating - made.step_seconds)
    parts = {**made.step_parts, "generation": generating, "weights": sync}
    replicas = (recipe.sampler_gpus or recipe.parallelism.gpus) // recipe.sampler_tp
    local = max(1.0, sampled / max(1, replicas if served else recipe.parallelism.dp))
    held = _memory(recipe, one, made.memory, local * most, machine)
    return replace(made, step_parts={name: value for name, value in parts.items() if value}, memory=held)


def generation(recipe: Sampled, model: ModelSpec, machine: Machine, sampled: int, prompt: int, answer: float) -> float:
    """Seconds to sample all completions of one round, on every sampler at once."""
    longest = float(getattr(recipe, "max_new_tokens", answer))
    if recipe.engine == "transformers" and recipe.sampler == "shared":
        local = max(1, sampled // recipe.parallelism.dp)
        return sampling.generate_seconds(model, local, local, prompt, answer, recipe.precision, machine)
    width = 4 if recipe.precision == "fp32" else 2
    sampler = Sampler(recipe.sampler_tp, width, recipe.precision, served=recipe.engine == "vllm")
    replicas = (recipe.sampler_gpus or recipe.parallelism.gpus) // recipe.sampler_tp
    return sampling.serve_seconds(model, sampled / replicas, prompt, answer, max(longest, answer), sampler, machine)


def _memory(recipe: Sampled, one: Job, trainer: Memory, tokens: float, machine: Machine) -> Memory:
    """The fuller of training and sampling. `generate` adds its cache to the trainer's own weights; a serving engine has
    weights of its own, asleep in host memory while a shared accelerator trains (vLLM's sleep mode, level 1)."""
    served = recipe.engine == "vllm"
    latent = sampling.cache(one.model, 1.0, one.width, served)
    cache = tokens * latent / GIB / min(recipe.sampler_tp, max(1, one.model.kv_heads))
    if recipe.sampler == "shared" and not served:
        return with_parts(trainer, {**trainer.parts, "kv_cache": cache})
    weights = one.width * count(one.model).total / recipe.sampler_tp / GIB
    room = sampling.SERVING_SHARE * machine.capacity_gib - weights
    parts = {"sampler": weights, "kv_cache": max(0.0, min(cache, room)), "overhead": machine.efficiency.reserve_gib}
    if recipe.sampler == "shared":
        parts = {**parts, **{name: size / GIB for name, size in memory.states(one).items()}}
    host = trainer.host_gib + (weights if recipe.sampler == "shared" else 0.0)
    if sum(parts.values()) <= trainer.peak_gib:
        return trainer.replace(host_gib=host)
    return trainer.replace(parts=parts, peak_gib=sum(parts.values()), moment="sampling", host_gib=host)
