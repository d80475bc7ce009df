"""The work of stages that train nothing: preparing data, evaluating, exporting, measuring a node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lablib.plan import corpora, flops, sampling, work
from lablib.plan.data_rates import ALL
from lablib.plan.flops import Flops
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.memory import GIB, Memory
from lablib.plan.params import count
from lablib.plan.ranges import Range
from lablib.plan.resolve import model_of
from lablib.plan.work import Work
from lablib.specs import Evaluate, Export, Merge, ModelSpec, Parallelism, Prepare

PIECE_TOKENS = 256
"""Longest held-out piece (`lablib.evals.heldout.PIECE`); a batch of them is scored at once."""
LOGIT_BYTES = 12
"""Bytes of each logit of a batch that is scored: the logits, their contiguous transpose and the log-probabilities, in fp32."""
SAMPLED_TOKENS = 200
"""Length of one free continuation that an evaluation shows."""
MERGED_FILE = 2**30
"""Largest file of a merged model (`lablib.models.merge.FILE_BYTES`)."""
PROBES = {"cpu": 20.0, "gpu": 60.0}
"""Seconds that the probes of `lab calibrate` take: on a quiet server core (docs/planner.md), and a guess for GPUs."""
PROBE_GIB = 0.4
"""What they hold on a CPU beside the libraries; on a GPU those that do not fit are left out."""


def prepare(recipe: Prepare, machine: Machine, root: Path | None = None) -> Work:
    """Reading, tokenising and writing (``text``), the extraction of web pages (``html``) and the funnel's steps that are asked
    for, at measured rates of bytes a second a process, shared by the processes of all its tasks; what a step drops is read by
    those after it all the same, documents without tests cost as much as others of their domain, and all pages are read, whatever the recipe's cap on text."""
    size, pages, assumed = corpora.held(recipe, root)
    efficiency = machine.efficiency
    parts = {"overhead": efficiency.reserve_gib, "text": 4 * min(size, 2**30) / GIB}
    threads = min(recipe.threads, machine.cluster.gpus) if machine.is_cpu else recipe.threads
    workers = recipe.gpus * recipe.tasks * threads
    read = {"html": pages} if pages else {}
    read |= dict.fromkeys(_steps(recipe), size)
    if recipe.verify:
        read["own-tests"] *= corpora.share(recipe, recipe.verify.domains)
    asked = {name: amount / (ALL[name].mb_per_second * 1e6 * workers) for name, amount in read.items()}
    seconds = {"text": size / (efficiency.bytes_per_second * workers), **asked}
    return Work(
        steps=1,
        step_parts=seconds,
        memory=Memory(peak_gib=sum(parts.values()), parts=parts, capacity_gib=machine.capacity_gib),
        spread=Range(low=0.6, mid=1.0, high=1.8),
        assumed=assumed,
    )


def _steps(recipe: Prepare) -> Iterator[str]:
    """Steps of the funnel that the recipe asks for, by their names in `data_rates.ALL`."""
    if recipe.clean is not None:
        yield "quality"
        if recipe.clean.max_profanity is not None:
            yield "profanity"
    if recipe.dedup is not None:
        yield "near-duplicates"
    if recipe.repeats is not None:
        yield f"repeated-{recipe.repeats.unit}s"
    if recipe.decontaminate is not None:
        yield "decontamination"
    if recipe.scrub is not None:
        yield "personal-data"
    if recipe.verify is not None:
        yield "own-tests"
    if recipe.join is not None:
        yield "long-documents"


def evaluate(recipe: Evaluate, machine: Machine, root: Path | None) -> Work:
    """Every model answers every task's test items in batches, and reads the held-out tokens once."""
    models = [model_of(source, root) for source in recipe.models.values()]
    width, precision = 4, "fp32"
    parts = {"sampling": 0.0, "heldout": 0.0}
    tokens = forward = 0.0
    for model in models:
        answered, seconds = _answers(recipe, model, precision, width, machine)
        job = _reading(model, precision)
        read = recipe.eval_tokens if recipe.data else 0
        parts["sampling"] += seconds
        parts["heldout"] += work.forward_seconds(job, read, machine)
        tokens += answered + read
        forward += (answered + read) * sum(flops.forward(model, flops.causal_context(job.seq_len)).values())
    largest = max(models, key=lambda model: count(model).total)
    return Work(
        steps=1,
        step_parts=parts,
        memory=_weights_memory(largest, recipe, width, machine),
        params=count(largest).replace(trainable=0),
        flops=Flops(forward=forward / max(1.0, tokens), per_token=forward / max(1.0, tokens), total=forward, hardware=forward),
        step_tokens=tokens,
        once={"loading": len(models) * (4 * count(largest).total / work.DISK + 1.0)},
        spread=Range(low=0.5, mid=1.0, high=1.6),
        precision=precision,
    )  # fmt: skip


def _reading(model: ModelSpec, precision: str, longest: int = 1024) -> Job:
    seq_len = min(longest, model.max_seq_len)
    return Job(model, count(model), Parallelism(), seq_len, seq_len, precision=precision)


def _answers(recipe: Evaluate, model: ModelSpec, precision: str, width: int, machine: Machine) -> tuple[float, float]:
    """(tokens, seconds) of one model's answers to all tasks and needles (one at a time), and of its free samples."""
    tokens = seconds = 0.0
    for task in recipe.tasks:
        prompt = sampling.PROMPT_TOKENS * (1 + task.fewshot)
        batch = min(recipe.batch_size, task.test)
        one = sampling.decode_seconds(model, batch, prompt + recipe.max_new_tokens / 2, width, precision, machine)
        lengths = recipe.max_new_tokens * sampling.LENGTH.mid
        seconds += sampling.rounds(task.test, batch) * lengths * one
        seconds += work.forward_seconds(_reading(model, precision), task.test * prompt, machine)
        tokens += task.test * (prompt + lengths)
    if needle := recipe.needle:
        for length in needle.lengths:
            one = sampling.decode_seconds(model, 1, length, width, precision, machine)
            seconds += needle.items * needle.max_new_tokens * one
            seconds += work.forward_seconds(_reading(model, precision, length), needle.items * length, machine)
            tokens += needle.items * length
    if recipe.samples:
        seconds += SAMPLED_TOKENS * sampling.decode_seconds(
            model, recipe.samples, SAMPLED_TOKENS, width, precision, machine
        )
    return tokens, seconds


def _weights_memory(model: ModelSpec, recipe: Evaluate, width: int, machine: Machine) -> Memory:
    longest = max((sampling.PROMPT_TOKENS * (1 + t.fewshot) for t in recipe.tasks), default=0) + recipe.max_new_tokens
    cached = max(recipe.batch_size * longest, *(recipe.needle.lengths if recipe.needle else (0,)))
    parts = {
        "params": width * count(model).total / GIB,
        "kv_cache": cached * sampling.cache_bytes(model, width) / GIB,
        "logits": recipe.batch_size * min(PIECE_TOKENS, model.max_seq_len) * model.vocab * LOGIT_BYTES / GIB
        if recipe.data
        else 0.0,
        "overhead": machine.efficiency.reserve_gib,
    }
    return Memory(peak_gib=sum(parts.values()), parts=parts, capacity_gib=machine.capacity_gib)


def export(recipe: Export, machine: Machine, root: Path | None) -> Work:
    """Load the weights, write them again, and compare the logits of the two."""
    params = count(model_of(recipe.model, root))
    out = 4 if recipe.dtype == "fp32" else 2
    parts = {"params": (4 + out) * params.total / GIB, "overhead": machine.efficiency.reserve_gib}
    return Work(
        steps=1,
        step_parts={"disk": (4 + 2 * out) * params.total / work.DISK},
        memory=Memory(peak_gib=sum(parts.values()), parts=parts, capacity_gib=machine.capacity_gib),
        params=params.replace(trainable=0),
        spread=Range(low=0.5, mid=1.0, high=2.0),
        precision=recipe.dtype,
    )


def merge(recipe: Merge, machine: Machine, root: Path | None) -> Work:
    """Read every model, a tensor at a time, and write one; memory holds a file of the result, and a tensor's sum and one summand
    in fp64."""
    model = model_of(recipe.models[-1], root)
    params = count(model)
    experts = 2 * model.moe.experts * model.moe.expert_ffn if model.moe else 0
    whole, largest = 4 * params.total, model.hidden * max(model.vocab, model.ffn, experts)
    held = min(whole, max(MERGED_FILE, 4 * largest)) + 16 * largest
    parts = {"params": held / GIB, "overhead": machine.efficiency.reserve_gib}
    return Work(
        steps=1,
        step_parts={"disk": (recipe.count + 1) * whole / work.DISK},
        memory=Memory(peak_gib=sum(parts.values()), parts=parts, capacity_gib=machine.capacity_gib),
        params=params.replace(trainable=0),
        spread=Range(low=0.5, mid=1.0, high=2.0),
        precision="fp32",
    )


def calibrate(machine: Machine) -> Work:
    """The probes of a node: a busy one takes several times as long."""
    parts = {"overhead": machine.efficiency.reserve_gib, "probes": PROBE_GIB}
    return Work(
        steps=1,
        step_parts={"probes": PROBES["cpu" if machine.is_cpu else "gpu"]},
        memory=Memory(peak_gib=sum(parts.values()), parts=parts, capacity_gib=machine.capacity_gib),
        spread=Range(low=0.6, mid=1.0, high=4.0),
    )
