"""Host memory that a rank needs to start a model: its shard drawn tensor by tensor, beside the whole model drawn and then cut.

    python bench/bench_seed.py [--hidden 512] [--layers 12] [--out result.json]

Two processes a layout, each kind in processes of its own, on the CPU. MiB are the peak of resident memory over what was
resident before, the largest of the ranks; `shard` and `tensor` are the largest rank's part of the model and the largest tensor.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import socket
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from lablib.models.build import build_model, initialise
from lablib.models.layout import Links, distribute
from lablib.models.seeded import skeleton
from lablib.specs import ModelSpec, Parallelism
from lablib.train.distributed import joined

LAYOUTS = {"fsdp2": Parallelism(dp_shard=2), "tp2": Parallelism(tp=2), "pp2": Parallelism(pp=2)}
MIB = 2**20


def resident() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def one(rank: int, port: int, layout: str, kind: str, spec: ModelSpec) -> dict[str, float]:
    """What this rank's part of a model takes."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    build_model(spec.replace(layers=1, hidden=64, ffn=64, vocab=64), 0)  # what torch keeps for itself
    with joined(2) as world:
        links, before = Links.of(LAYOUTS[layout], world.device), resident()
        model = build_model(spec, 0) if kind == "whole" else skeleton(spec)
        laid = distribute(model, LAYOUTS[layout], False, world.device, links)
        if kind == "streamed":
            initialise(laid.model, spec, 0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        parts = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in laid.model.parameters()]
        world.wait()
    return {"mib": peak, "shard": sum(part.numel() * 4 for part in parts) / MIB}


def pair(layout: str, kind: str, spec: ModelSpec) -> dict[str, float]:
    """The larger of the two ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        found = pool.starmap(one, [(rank, port, layout, kind, spec) for rank in range(2)], chunksize=1)
    return {name: max(row[name] for row in found) for name in found[0]}


def measure(hidden: int, layers: int) -> dict[str, Any]:
    """Every layout, both ways."""
    spec = ModelSpec(family="llama", layers=layers, hidden=hidden, heads=8, ffn=3 * hidden, vocab=16_000)
    weights = [weight.numel() * 4 / MIB for weight in skeleton(spec).parameters()]
    found: dict[str, Any] = {"model": sum(weights), "tensor": max(weights)}
    for layout in LAYOUTS:
        found[layout] = {kind: pair(layout, kind, spec) for kind in ("streamed", "whole")}
    return {"bench": "seed", "torch": torch.__version__, **found}


def main() -> None:
    """Print the result as JSON, and write it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = json.dumps(measure(given.hidden, given.layers), indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
