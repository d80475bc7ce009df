"""Host memory that a rank needs to begin with a model: drawn from a seed, or read from a folder or from a checkpoint with
AdamW's moments, a part at a time; beside the whole model drawn and then cut.

    python bench/bench_seed.py [--hidden 512] [--layers 12] [--layouts fsdp2,tp2,pp2] [--out result.json]

Two processes a layout, each kind in processes of its own, on the CPU. MiB are the peak of resident memory over what was
resident before (each process has done the same with a tiny model by then), the largest of the ranks; `shard` is the largest
rank's part of the weights and moments, and `tensor` the largest tensor.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import resource
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from lablib.models.build import build_model, initialise, initialise_derived
from lablib.models.checkpoints import MARKER
from lablib.models.layout import Links, distribute
from lablib.models.seeded import skeleton
from lablib.specs import ModelSpec, Optimizer, Parallelism, memory
from lablib.train.checkpoint import tensors_of
from lablib.train.distributed import joined
from lablib.train.optimizer import build_optimizer
from lablib.train.sharded import save_tensors
from lablib.train.start import Start

LAYOUTS = {"fsdp2": Parallelism(dp_shard=2), "tp2": Parallelism(tp=2), "pp2": Parallelism(pp=2)}
KINDS = ("streamed", "folder", "checkpoint", "whole")
MIB = 2**20


def resident() -> float:
    """MiB of this process that are in memory, which begin its peak anew (proc(5), clear_refs)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def begin(spec: ModelSpec, layout: Parallelism, links: Links, kind: str, given: Path) -> float:
    """Begin with a model of `spec`, saved at `given` where it is read; MiB of this rank's weights and moments."""
    model = build_model(spec, 0) if kind == "whole" else skeleton(spec)
    model = distribute(model, layout, False, torch.device("cpu"), links).model
    held = dict(model.named_parameters())
    if kind == "streamed":
        initialise(model, spec, 0)
    elif kind != "whole":
        optimizer = build_optimizer(model, Optimizer())
        initialise_derived(model, spec)
        Start(given / kind).fill(model, optimizer, spec)
        held = tensors_of(model, optimizer) if kind == "checkpoint" else held
    parts = [one.to_local() if isinstance(one, DTensor) else one for one in held.values()]
    return sum(part.numel() * 4 for part in parts) / MIB


def one(rank: int, port: int, name: str, kind: str, models: list[tuple[ModelSpec, Path]]) -> dict[str, float]:
    """What this rank's part of the last of the models takes; the others are begun before."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    layout, row = LAYOUTS[name], dict[str, float]()
    with joined(2) as world:
        links = Links.of(layout, world.device)
        for spec, given in models:
            before = resident()
            shard = begin(spec, layout, links, kind, given)
            row = {"mib": memory.peak_gib() * 1024 - before, "shard": shard}
            world.wait()
    return row


def pair(layout: str, kind: str, models: list[tuple[ModelSpec, Path]]) -> dict[str, float]:
    """The larger of the two ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        found = pool.starmap(one, [(rank, port, layout, kind, models) for rank in range(2)], chunksize=1)
    return {name: max(row[name] for row in found) for name in found[0]}


def save(spec: ModelSpec, root: Path) -> tuple[ModelSpec, Path]:
    """A folder and a checkpoint of a model, as one process leaves them."""
    model = build_model(spec, 0)
    model.save_pretrained(root / "folder")
    (root / "checkpoint").mkdir()
    save_tensors(tensors_of(model, build_optimizer(model, Optimizer())), root / "checkpoint")
    (root / "checkpoint" / MARKER).write_text(json.dumps({"step": 1}))
    return spec, root


def measure(hidden: int, layers: int, layouts: list[str]) -> dict[str, Any]:
    """Every layout, in every way."""
    spec = ModelSpec(family="llama", layers=layers, hidden=hidden, heads=8, ffn=3 * hidden, vocab=16_000)
    weights = [weight.numel() * 4 / MIB for weight in skeleton(spec).parameters()]
    found: dict[str, Any] = {"model": sum(weights), "tensor": max(weights)}
    with TemporaryDirectory() as folder:
        tiny = spec.replace(layers=2, hidden=64, ffn=64, vocab=64)
        models = [save(tiny, Path(folder) / "tiny"), save(spec, Path(folder) / "whole")]
        for layout in layouts:
            found[layout] = {kind: pair(layout, kind, models) for kind in KINDS}
    return {"bench": "seed", "torch": torch.__version__, **found}


def main() -> None:
    """Print the result as JSON, and write it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = json.dumps(measure(given.hidden, given.layers, given.layouts.split(",")), indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
