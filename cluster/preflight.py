"""What cannot work is refused before it queues, each reason with its remedy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster import starts
from cluster.slurm import query
from cluster.slurm.query import Partition
from lablib.data.catalogue import sources_of
from lablib.plan import Estimate
from lablib.plan.reading import breach
from lablib.specs import LabError, Prepare, Profile, Recipe
from lablib.specs.recipes import PostTrain
from lablib.specs.units import show_seconds

NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")
"""Folders that each node has for itself."""
PER_CORE = 4
"""Processes a core that a local run may have: slow, but it tells whether a layout works."""
ROOM_GIB = 1.0
"""Free space below which a folder of runs is not worth beginning in."""


def check_accelerator(profile: Profile) -> None:
    """Raises `LabError` for one that the catalogue knows for planning alone."""
    card = profile.accelerator
    if card is not None and not card.runnable:
        raise LabError(
            f"accelerator={card.name} can be planned with, not run on: the lab trains with torch on CUDA and CPU"
        )


def check(recipe: Recipe, profile: Profile, plan: Estimate | None, root: Path, more_nodes: int = 0) -> None:
    """Raises `LabError` with every reason why the recipe could not run under the profile, with `more_nodes` for components."""
    reasons = list(_reasons(recipe, profile, plan, root, more_nodes))
    if reasons:
        raise LabError(f"{recipe.stage} cannot work on {profile.name}: {'; '.join(reasons)}")


def _reasons(recipe: Recipe, profile: Profile, plan: Estimate | None, root: Path, more_nodes: int) -> Iterator[str]:
    if plan is not None and not plan.fits:
        yield "; ".join(plan.warnings)
    if profile.scheduler == "local":
        yield from _here(recipe)
    else:
        yield from _asks(recipe, profile, more_nodes)
        yield from _paths(profile, root)
    yield from _inputs(recipe)
    yield from starts.faults(recipe, root)
    why, refused = breach(recipe, root)
    if refused:
        yield why
    if plan is not None and profile.time is not None:
        yield from _time(recipe, profile, plan)
    yield from _room(root)


def bears(recipes: Sequence[Recipe]) -> int:
    """How many of these runs this machine's cores hold at a time."""
    widest = max(recipe.gpus * recipe.threads for recipe in recipes)
    return max(1, (os.cpu_count() or 1) // widest)


def _here(recipe: Recipe) -> Iterator[str]:
    """More processes than this machine could even import torch in."""
    most = max(8, PER_CORE * (os.cpu_count() or 1))
    if recipe.gpus > most:
        yield f"parallelism takes {recipe.gpus} processes, and this machine's {os.cpu_count()} cores bear {most}; shrink dp_shard, or give the profile of a cluster"


def _asks(recipe: Recipe, profile: Profile, more_nodes: int) -> Iterator[str]:
    """More than the profile or the partition has."""
    most = profile.nodes * profile.gpus_per_node
    if recipe.gpus > most:
        yield f"parallelism takes {recipe.gpus} processes, and the profile has {profile.nodes} nodes of {profile.gpus_per_node} = {most}; shrink dp_shard or raise nodes"
    ranks = -(-recipe.gpus // profile.gpus_per_node)
    nodes = ranks + more_nodes
    if more_nodes and nodes > profile.nodes:
        yield f"with its components it takes {nodes} nodes, and the profile has {profile.nodes}; raise nodes, or give components nodes=0 to share the ranks'"
    if profile.ssh:
        return
    known = query.partitions()
    name = profile.partition or next((part.name for part in known.values() if part.default), "")
    partition = known.get(name)
    if partition is None:
        yield f"partition={name!r} is not one of {', '.join(sorted(known))}"
        return
    yield from _against(partition, nodes, profile)
    tasks, each = -(-recipe.gpus // ranks), profile.cpus_per_gpu or recipe.threads
    if partition.cpus and tasks * each > partition.cpus:
        yield f"it takes {tasks} × {each} CPUs a node, and partition {partition.name}'s nodes have {partition.cpus}; lower cpus_per_gpu or gpus_per_node"


def _against(partition: Partition, nodes: int, profile: Profile) -> Iterator[str]:
    if nodes > min(partition.nodes, partition.max_nodes or nodes):
        yield f"it takes {nodes} nodes, and partition {partition.name} gives a job {min(partition.nodes, partition.max_nodes or partition.nodes)}"
    if profile.time and partition.max_seconds and profile.time > partition.max_seconds:
        yield f"time={show_seconds(profile.time)} is above the {show_seconds(partition.max_seconds)} of partition {partition.name}; it would wait for ever"
    if (
        profile.memory_gib_per_node
        and partition.memory_mib
        and profile.memory_gib_per_node * 1024 > partition.memory_mib
    ):
        yield f"memory_gib_per_node={profile.memory_gib_per_node:g} is above the {partition.memory_mib / 1024:.0f} GiB of partition {partition.name}'s nodes"


def _paths(profile: Profile, root: Path) -> Iterator[str]:
    """Folders that the nodes would not see. The development Slurm's nodes are this machine, which sees all."""
    if profile.nodes == 1 or query.on_this_machine():
        return
    if any(root.is_relative_to(folder) for folder in NODE_LOCAL):
        yield f"root={root} is a folder of this machine alone; set root to one on the shared filesystem"


def _inputs(recipe: Recipe) -> Iterator[str]:
    """Data that is not there. What other runs make is looked at where the run is linked to them."""
    corpora = recipe.corpora if isinstance(recipe, Prepare) else (getattr(recipe, "data", None),)
    for corpus in corpora:
        if not isinstance(corpus, str):
            continue
        if isinstance(recipe, PostTrain):
            if not Path(corpus).expanduser().is_file():
                yield f"data={corpus!r} is not a file here; give a .jsonl file, or a task"
            continue
        try:
            sources_of(corpus)
        except LabError as error:
            yield str(error)


def _time(recipe: Recipe, profile: Profile, plan: Estimate) -> Iterator[str]:
    """A job that is told to stop before its first checkpoint would begin again for ever."""
    every = getattr(recipe, "checkpoint_every", None)
    usable = (profile.time or 0.0) - profile.signal_seconds
    if every and plan.step_seconds * min(every, plan.steps) > usable and plan.steps > 1:
        yield (
            f"checkpoint_every={every} steps take {show_seconds(plan.step_seconds * every)}, and time={show_seconds(profile.time or 0)} "
            f"leaves {show_seconds(max(0.0, usable))} before the signal; checkpoint more often or ask for more time"
        )


def _room(root: Path) -> Iterator[str]:
    base = next(folder for folder in (root, *root.parents) if folder.exists())
    if not os.access(base, os.W_OK):
        yield f"root={root} cannot be written to"
    elif shutil.disk_usage(base).free < ROOM_GIB * 2**30:
        yield f"No space left to begin in: root={root} has under {ROOM_GIB:.0f} GiB"
