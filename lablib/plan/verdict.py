"""Does it fit, and what would mend it: the reasons a recipe cannot run on a cluster, each with the nearest remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lablib.plan import candidates, conventions, memory, remedies
from lablib.plan.candidates import FIELDS
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import with_adapters
from lablib.plan.work import Work
from lablib.specs import Balance, LabError, LoRA, ModelSpec, Parallelism, Pretrain, Recipe
from lablib.specs.recipes import PostTrain
from lablib.specs.units import show_seconds

Plan = Callable[[Recipe], tuple[Work, Machine]]
"""Plans another recipe on the same cluster."""


def obstacles(recipe: Recipe, work: Work, machine: Machine, again: Plan) -> list[str]:
    """Why the recipe cannot run as laid out; empty where it can. `again` plans the remedies that are tried."""
    impossible = [*_impossible(recipe, work)]
    full = [] if work.memory.margin >= memory.MARGIN else [_full(recipe, work, machine, again, bool(impossible))]
    return [*_gpus(recipe, machine), *impossible, *full, *_host(recipe, work, machine)]


def _gpus(recipe: Recipe, machine: Machine) -> Iterator[str]:
    cluster = machine.cluster
    if recipe.gpus > cluster.gpus and not machine.is_cpu:
        yield (
            f"the layout ({recipe.parallelism}) needs {recipe.gpus} GPUs but the cluster has {cluster.gpus}; "
            f"lower its degrees to a product of {cluster.gpus}, or take {-(-recipe.gpus // cluster.gpus_per_node)} nodes"
        )


def _impossible(recipe: Recipe, work: Work) -> Iterator[str]:
    """What does not go together whatever the machine."""
    for job in work.jobs:
        yield from _divides(recipe, job)
        if work.longest > job.model.max_seq_len:
            yield (
                f"sequences of {work.longest} tokens are longer than the model's max_seq_len={job.model.max_seq_len}; lower "
                f"seq_len or longest_tokens to it"
            )
    lora = getattr(recipe, "lora", None)
    if lora and not work.params.trainable:
        yield f"lora.targets={lora.targets!r} names no linear layer of the model, so nothing would train; use 'all-linear'"


def _divides(recipe: Recipe, job: Job) -> Iterator[str]:
    """The rules of the layout search (`lablib.plan.candidates.obstacles`) for one layout, and that of experts."""
    layout, moe = job.layout, job.model.moe
    row = {name: getattr(layout, name) for name in FIELDS}
    for number, (text, wrong) in enumerate(_rules(recipe, job, row)):
        if wrong:
            yield _mended(recipe, job, row, number, text)
    if layout.ep > 1 and moe is None:
        yield f"ep={layout.ep} needs experts, which this model has not; set ep=1"
    elif moe and moe.experts % layout.ep:
        fitting = min(candidates.divisors(moe.experts), key=lambda degree: abs(degree - layout.ep))
        yield f"ep={layout.ep} does not divide experts={moe.experts}; {fitting} does"


def _rules(recipe: Recipe, job: Job, row: dict[str, int]) -> list[tuple[str, Any]]:
    """Each rule's words, with the row's fields to fill in, and whether a layout of these degrees breaks it."""
    longest = recipe.seq_len if isinstance(recipe, Pretrain | PostTrain) else int(job.seq_len)
    whole = job.micro_batches * job.layout.micro_batch_size * job.layout.dp * longest
    asked = recipe.batch_tokens if isinstance(recipe, Pretrain) else whole
    return candidates.obstacles(job.model, row, asked, longest)  # type: ignore[arg-type]  # numbers are arrays of one


def _mended(recipe: Recipe, job: Job, row: dict[str, int], number: int, text: str) -> str:
    """A broken rule with the nearest value that keeps it."""
    field = "virtual_stages" if "virtual_stages" in text else text.partition("=")[0]
    if field not in row:
        return (
            f"virtual_stages={row['virtual_stages']} takes micro-batches in multiples of pp={row['pp']}, and a step has "
            f"{job.micro_batches}; make its batch a multiple of {row['micro_batch_size'] * job.layout.dp * row['pp']} sequences"
        )
    degrees = sorted(range(1, 2 * row[field]), key=lambda degree: (abs(degree - row[field]), degree))
    kept = next((one for one in degrees if not _rules(recipe, job, {**row, field: one})[number][1]), 1)
    divides = text.startswith(f"{field}={{{field}}} does not divide")
    return f"{text.format(**row)}; {kept} does" if divides else f"{text.format(**row)}; take {field}={kept}"


def _full(recipe: Recipe, work: Work, machine: Machine, again: Plan, is_impossible: bool) -> str:
    """What needs most memory, and the nearest recipe that fits."""
    used = work.memory
    largest = max(used.parts, key=lambda name: used.parts[name])
    needs = (
        f"needs {used.peak_gib:.1f} GiB of {used.capacity_gib:.0f} GiB a process (largest part: {largest}, "
        f"{used.parts[largest]:.1f} GiB)"
    )
    if is_impossible:
        return needs
    mended = remedies.nearest(recipe, machine, lambda other: _fits(other, again))
    return f"{needs}; {mended.words if mended else 'use a smaller model, shorter sequences or accelerators with more memory'}"


def _fits(recipe: Recipe, again: Plan) -> bool:
    """Whether a recipe fits on as many accelerators as it takes."""
    try:
        work, machine = again(recipe)
    except LabError:
        return False
    return (
        work.memory.margin >= memory.MARGIN
        and not any(_impossible(recipe, work))
        and not any(_host(recipe, work, machine))
    )


def _on_a_node(recipe: Recipe, work: Work, machine: Machine) -> float:
    """GiB of host memory that the processes of one node take together."""
    return 0.0 if machine.is_cpu else work.memory.host_gib * min(recipe.gpus, machine.cluster.gpus_per_node)


def _host(recipe: Recipe, work: Work, machine: Machine) -> Iterator[str]:
    needed, there = _on_a_node(recipe, work, machine), machine.cluster.host_memory_gib
    if there is not None and needed > there:
        yield (
            f"needs {needed:,.0f} GiB of host memory a node, which has {there:,.0f}; spread what is offloaded over more "
            f"nodes (dp_shard, sampler_tp), or offload less"
        )


def cautions(recipe: Recipe, work: Work, machine: Machine, mfu: float | None, again: Plan) -> Iterator[str]:
    """What the user should know although the plan can run."""
    yield from work.assumed
    yield from _targets(recipe, work)
    yield from _offload(recipe)
    yield from _unbalanced(recipe)
    yield from _whole(recipe)
    yield from _accelerator(recipe, machine)
    yield from _crossing(recipe, work, machine, again)
    needed = _on_a_node(recipe, work, machine)
    if needed:
        yield f"needs {needed:,.0f} GiB of host memory a node ({work.memory.host_gib:,.1f} GiB a process)"
    if machine.is_cpu and recipe.gpus * recipe.threads > machine.cluster.gpus:
        yield f"{recipe.gpus} processes × {recipe.threads} threads share {machine.cluster.gpus} cores; it runs, but no faster"
    is_dense = isinstance(recipe, Pretrain) and recipe.precision == "bf16" and recipe.model.moe is None
    if mfu is not None and is_dense and not machine.is_cpu:  # the band is that of dense bf16 runs
        yield from filter(None, [conventions.verdict(mfu)])


def _targets(recipe: Recipe, work: Work) -> Iterator[str]:
    """Names among LoRA's targets that the model has not: the adapters' library passes over them in silence."""
    lora = getattr(recipe, "lora", None)
    if isinstance(lora, LoRA) and not isinstance(lora.targets, str) and work.params.trainable:
        model = work.jobs[0].model
        unknown = [name for name in lora.targets if not _adapts(model, lora.replace(targets=(name,)))]
        if unknown:
            yield f"lora.targets={lora.targets!r}: the model has no linear layer {', '.join(map(repr, unknown))}, which stays untrained"


def _adapts(model: ModelSpec, lora: LoRA) -> bool:
    return with_adapters(model, lora).parts["adapters"] > 0


def _offload(recipe: Recipe) -> Iterator[str]:
    """Where what is asked for moves nothing."""
    if getattr(recipe, "offload", "none") == "activations" and getattr(recipe, "recompute", "full") != "full":
        yield "offload='activations' moves what full recomputation keeps, each layer's input: with recompute='full' it saves memory, as it is only time is lost"


def _unbalanced(recipe: Recipe) -> Iterator[str]:
    """Experts that nothing keeps in equal use, with what was published for their kind of router."""
    if isinstance(recipe, Pretrain) and recipe.balance is None and (usual := Balance.usual(recipe.model)):
        said = ", ".join(f"{name}={value}" for name, value in usual.summary().items())
        yield f"balance: nothing keeps the {recipe.model.moe.experts} experts in equal use, and routers left alone come to favour a few; set balance=Balance({said})"  # type: ignore[union-attr]


def _whole(recipe: Recipe) -> Iterator[str]:
    """What transformers' plans leave whole on every tensor-parallel rank and the planner divides."""
    if isinstance(recipe, Pretrain) and recipe.model.mla and recipe.parallelism.tp > 1:
        yield f"tp={recipe.parallelism.tp}: the trainer keeps latent attention whole on each tensor-parallel rank, where the plan divides it and so is too low; take dp_shard or ep instead"


def _accelerator(recipe: Recipe, machine: Machine) -> Iterator[str]:
    card = machine.cluster.accelerator
    if not card.runnable:
        yield f"{card.name} is planned, not runnable: the lab cannot run on it"
    if getattr(recipe, "precision", "") == "bf16" and machine.architecture in ("volta", "turing"):
        yield (
            f"{card.name} has no tensor cores for bf16: the plan's rate is that of precision='fp16', and bf16 itself is no "
            f"faster there than fp32"
        )


def _crossing(recipe: Recipe, work: Work, machine: Machine, again: Plan) -> Iterator[str]:
    """The price of tensor parallelism that leaves the scale-up domain, beside the same ranks as dp_shard."""
    layout, domain = recipe.parallelism, machine.domain
    if layout.tp <= domain or machine.is_cpu:
        return
    said = f"tp={layout.tp} crosses domains of {domain} accelerators; its all-reduces then run over the network"
    sent = work.step_parts.get("tp", 0.0)
    yield f"{said} and take {show_seconds(sent)} of a step of {show_seconds(work.step_seconds)}{_inside(recipe, work, domain, again)}"


def _inside(recipe: Recipe, work: Work, domain: int, again: Plan) -> str:
    layout: Parallelism = recipe.parallelism
    if layout.tp % domain:
        return ""
    shard = layout.dp_shard * layout.tp // domain
    try:
        other, _ = again(recipe.replace(parallelism=layout.replace(tp=domain, dp_shard=shard)))
    except LabError:
        return ""
    ratio = work.step_seconds / other.step_seconds
    return f": {ratio:.2g} times as long as with tp={domain} and dp_shard={shard}, which takes {show_seconds(other.step_seconds)}"
