"""What would mend a plan that does not fit: the recipe with a few fields replaced, planned again until one fits.

A remedy is a whole recipe, so it has only fields that its stage has and values that it accepts. Changes are tried from
what costs least speed to what costs most: first on the accelerators that the recipe takes, then on all that the cluster
has, then on more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from typing import Any, NamedTuple

from lablib.plan import candidates
from lablib.plan.machine import Machine
from lablib.specs import LabError, Parallelism, Recipe
from lablib.specs.recipes import Sampled

DEGREES = (2, 4, 8, 16, 32, 64)
"""Factors by which one degree of parallelism is raised."""
Settings = dict[str, Any]
"""Fields of a recipe, or of its layout, with other values."""


class Remedy(NamedTuple):
    """A recipe that fits, and what it changes, in words."""

    recipe: Recipe
    words: str


def nearest(recipe: Recipe, machine: Machine, fits: Callable[[Recipe], bool]) -> Remedy | None:
    """The first change after which `fits` says yes, preferably on the cluster's own accelerators; None where none does."""

    def works(wanted: Settings) -> bool:
        changed = _changed(recipe, wanted)
        return changed is not None and fits(changed)

    gentle, hard = _smaller(recipe)
    for alike in _layouts(recipe, machine):
        # Where even the last of the gentle settings does not fit, no milder one does.
        roomy = next((layout for layout in alike if works({**gentle[-1], **layout})), None)
        tries = (
            [{**one, **layout} for layout in alike for one in hard]
            if roomy is None
            else [{**one, **roomy} for one in (*_mild(recipe), *gentle)]
        )
        found = next(filter(works, tries), None)
        changed = None if found is None else _changed(recipe, found)
        if found is not None and changed is not None:
            return Remedy(changed, _words(recipe, changed, found, machine.cluster.gpus))
    return None


def _mild(recipe: Recipe) -> list[Settings]:
    """No change, then changes that hardly cost speed."""
    size = recipe.parallelism.micro_batch_size
    halves = [{"micro_batch_size": size >> n} for n in range(1, size.bit_length())]
    return [{}, *halves, {"cross_entropy": "chunked"}, {"precompute_reference": True}]


def _smaller(recipe: Recipe) -> tuple[list[Settings], list[Settings]]:
    """Settings of micro-batches of one sequence that hold less and less: those that repeat work, and those that also keep
    the optimiser's states in fewer bytes or in host memory."""
    full: Settings = {"micro_batch_size": 1, "recompute": "full"}
    gentle = [full]
    if getattr(recipe, "recompute", "full") in ("none", "attention"):
        gentle = [{**full, "recompute": "selective"}, full]
    if _changed(recipe, {"cross_entropy": "chunked"}):
        gentle.append({**full, "cross_entropy": "chunked"})
    if _changed(recipe, {"precompute_reference": True}):
        gentle.append({**gentle[-1], "precompute_reference": True})
    least = gentle[-1]
    return gentle, [{**least, "optimizer": "adamw-8bit"}, {**least, "offload": "optimizer"}]


def _samplers(recipe: Recipe) -> Iterator[Settings]:
    """Where GRPO and PPO sample: over more ranks, or with an engine that takes no more cache than there is room for."""
    if isinstance(recipe, Sampled):
        wider = [recipe.sampler_tp * factor for factor in DEGREES]
        if recipe.engine == "vllm" or recipe.sampler == "split":
            yield from ({"sampler_tp": tp} for tp in wider)
        else:
            yield {"engine": "vllm"}
            yield from ({"engine": "vllm", "sampler_tp": tp} for tp in wider)


def _layouts(recipe: Recipe, machine: Machine) -> Iterator[list[Settings]]:
    """Layouts and samplers, those on as many accelerators together: on the recipe's own, as it is first, on the
    cluster's, and on ever more."""
    samplers = [{}, *_samplers(recipe)]
    given, layout = machine.cluster.gpus, recipe.parallelism
    places: dict[int, list[Settings]] = {recipe.gpus: [{}]}
    for wanted in _degrees(layout, machine):
        degrees = (wanted.get(name, getattr(layout, name)) for name in candidates.DEGREES)
        gpus = recipe.gpus - layout.gpus + prod(degrees)
        places.setdefault(gpus if gpus == recipe.gpus or gpus > given else given, []).append(wanted)
    for _, alike in sorted(places.items()):
        yield [{**wanted, **sampler} for wanted, sampler in product(alike, samplers)]


def _degrees(layout: Parallelism, machine: Machine) -> Iterator[Settings]:
    """Other degrees: replicas that share their states, tensor parallelism inside the scale-up domain and pipeline stages
    in the place of data-parallel ranks, and more ranks of each kind."""
    if layout.dp_replicate > 1:
        yield {"dp_replicate": 1, "dp_shard": layout.dp}
    if machine.is_cpu:
        return
    kinds = [("dp_shard", layout.dp_shard), ("tp", layout.tp), ("pp", layout.pp)]
    wider = [
        (name, now, factor)
        for factor in DEGREES
        for name, now in kinds
        if name != "tp" or now * factor <= machine.domain
    ]
    for name, now, factor in wider:
        if name != "dp_shard" and layout.dp_shard % factor == 0:
            yield {name: now * factor, "dp_shard": layout.dp_shard // factor}
    for name, now, factor in wider:
        yield {name: now * factor}


def _changed(recipe: Recipe, wanted: Settings) -> Recipe | None:
    """The recipe with these settings; None where its stage has no such field, it refuses one, or nothing is changed."""
    inside = {name: value for name, value in wanted.items() if name in Parallelism.model_fields}
    fields = {name: value for name, value in wanted.items() if name not in inside}
    if not fields.keys() <= type(recipe).model_fields.keys():
        return None
    if "optimizer" in fields and not isinstance(recipe.optimizer, str):  # type: ignore[attr-defined]
        fields["optimizer"] = recipe.optimizer.replace(kind=fields["optimizer"])  # type: ignore[attr-defined]
    try:
        changed = recipe.replace(**fields, parallelism=recipe.parallelism.replace(**inside))
    except LabError:
        return None
    return None if changed == recipe else changed


def _words(recipe: Recipe, changed: Recipe, wanted: Settings, gpus: int) -> str:
    """``"micro_batch_size=1 and recompute='full' would fit"``, and on how many accelerators where that changes."""
    told = [words for name, value in wanted.items() for words in _word(recipe, name, value)]
    where = "" if changed.gpus == recipe.gpus else f" on {changed.gpus} GPUs"
    more = f" (the cluster has {gpus})" if where and changed.gpus > gpus else ""
    return f"{', '.join(told[:-1])}{' and ' if told[1:] else ''}{told[-1]} would fit{where}{more}"


def _word(recipe: Recipe, name: str, value: object) -> Iterator[str]:
    """The change of one field, if it is one."""
    owner = recipe.parallelism if name in Parallelism.model_fields else recipe
    now = getattr(owner, name)
    label, now = (name, now) if name != "optimizer" or isinstance(now, str) else ("optimizer.kind", now.kind)
    if now != value:
        yield f"{label}={value!r}"
