"""`draft`: a profile from what Slurm says of itself, with notes on what it could not know."""

from __future__ import annotations

import re
from pathlib import Path

import tomli_w

from cluster.slurm import query
from lablib.specs import LabError, Profile, catalog, write_atomic
from lablib.specs.paths import profile_folders
from lablib.specs.profile import files

CARDS = ("gb300", "gb200", "b300", "b200", "h200", "h100", "h800", "h20", "a100", "a800", "l40s", "l4", "a40", "a10", "v100", "t4", "mi355x", "mi325x", "mi300x", "mi250x")  # fmt: skip
"""What sites call their GPUs in Slurm's gres, the longer before the shorter that is a part of it."""


def draft(name: str, partition: str | None = None, root: str | Path | None = None) -> tuple[Profile, list[str]]:
    """A profile of a partition, and what to check in it. Raises `LabError` where Slurm does not answer or knows none such."""
    known = query.partitions()
    part = known.get(partition) if partition else next((one for one in known.values() if one.default), None)
    if part is None:
        raise LabError(f"partition={partition!r}: this Slurm has {', '.join(sorted(known))}; give one with --partition")
    count, card, notes = gpus(part.gpus)
    if not count:
        notes.append("no GPUs: the profile runs processes on CPUs, and plans as this machine was measured")
    if root is None:
        notes.append("root: give a folder that every node sees")
    notes.append("price_per_gpu_hour: yours; without it no dollars are shown")
    per_node = count or max(1, part.cpus // 2)
    found = Profile(
        name=name or f"slurm-{part.name}".lower(),
        scheduler="slurm",
        accelerator=card,
        ask_for_gpus=bool(count),
        nodes=min(part.nodes, part.max_nodes or part.nodes),
        gpus_per_node=per_node,
        partition=part.name,
        time=part.max_seconds,
        cpus_per_gpu=max(1, part.cpus // per_node),
        memory_gib_per_node=part.memory_mib / 1024 if part.memory_mib > 1 else None,
        max_array=query.largest_array(),
        root=None if root is None else Path(root),
    )
    return found, notes


def gpus(gres: str) -> tuple[int, str | None, list[str]]:
    """(GPUs a node, name in the catalogue, notes) from Slurm's ``gpu:h100:8(S:0-1)``."""
    for kind, count in re.findall(r"gpu:(?:([^:,(]+):)?(\d+)", gres):
        wanted = next((card for card in CARDS if card in kind.lower().replace("-", "").replace("_", "")), None)
        cards = sorted(name for name in catalog.accelerators if wanted and re.match(rf"{wanted}(-|$)", name))
        if not cards:
            return int(count), None, [f"accelerator: Slurm calls it {kind or 'gpu'!r}, which says nothing; set it"]
        best = next((name for name in cards if name.endswith("sxm")), cards[0])
        return int(count), best, [f"accelerator={best} was read from {kind!r}; others of that name: {', '.join(card for card in cards if card != best) or 'none'}"]  # fmt: skip
    return 0, None, []


def write(profile: Profile) -> Path:
    """Save in the user's folder of profiles. Raises `LabError` where there is one of that name."""
    if profile.name in files():
        raise LabError(f"there is a profile {profile.name} already, in {files()[profile.name]}; give another --name")
    file = profile_folders()[0] / f"{profile.name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    said = profile.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    if profile.accelerator is not None:
        said["accelerator"] = profile.accelerator.name
    write_atomic(file, tomli_w.dumps(said))
    return file
