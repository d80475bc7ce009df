"""How quick planning is on this machine: distinct recipes without a cache, a large grid of layouts, a fresh import."""

from __future__ import annotations

import importlib
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from lablib.plan import efficiency, estimate, memory, step
from lablib.plan.grid import Layouts
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.specs import Cluster, ModelSpec, Parallelism, Pretrain, catalog

RECIPES = 1000
GRID = 100_000
IMPORTS = 5
_TIMED = "import time; t = time.perf_counter(); import lablib.plan; d = time.perf_counter() - t; import sys; print(d, 'torch' in sys.modules)"
_CACHES = ("lablib.plan.params", "lablib.plan.anatomy", "lablib.plan.flops", "lablib.plan.memory", "lablib.plan.activations",
           "lablib.plan.efficiency", "lablib.plan.machine", "lablib.plan.step", "lablib.plan.kernels")  # fmt: skip


def speed() -> dict[str, Any]:
    """Seconds: median and 95th percentile of one `estimate`, a grid of about 10^5 layouts, ``import lablib.plan``."""
    return {**_estimates(), **_grid(), **_import()}


def recipes() -> Iterator[Pretrain]:
    """1,000 recipes of as many models, so that no two share a model."""
    shapes = itertools.product(range(4, 44), (512, 1024, 2048, 4096, 8192), (1024, 2048, 4096, 8192, 16384))
    for layers, hidden, seq in itertools.islice(shapes, RECIPES):
        model = ModelSpec(
            layers=layers, hidden=hidden, heads=hidden // 64, ffn=256 * round(hidden / 96), vocab=32000 + seq // 64,
            max_seq_len=seq,
        )  # fmt: skip
        layout = Parallelism(dp_shard=8 * (1 + layers % 4), micro_batch_size=1 + layers % 3)
        yield Pretrain(model=model, tokens=10**10, seq_len=seq, batch_tokens=seq * layout.dp * 6, parallelism=layout)


def _forget() -> None:
    """Empty every cache of the planner, so that a recipe costs what the first one costs."""
    for name in _CACHES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        for held in vars(module).values():
            if hasattr(held, "cache_clear"):
                held.cache_clear()


def _estimates() -> dict[str, Any]:
    made = list(recipes())
    cluster = Cluster(accelerator=catalog.accelerators["h100-sxm"], nodes=8, price_per_gpu_hour=2.5)
    estimate(made[0], cluster)  # reads the catalogue's files
    times = []
    for recipe in made:
        _forget()
        start = time.perf_counter()
        estimate(recipe, cluster)
        times.append(time.perf_counter() - start)
    times.sort()
    return {"estimate_recipes": len(times), "estimate_median_s": statistics.median(times), "estimate_p95_s": times[int(0.95 * len(times))]}  # fmt: skip


def _grid() -> dict[str, Any]:
    """Peak memory and step time of about 10^5 layouts of Llama-3-70B on H100s at once, as the layout search asks them."""
    model = catalog.models["llama-3-70b"]
    layouts = _layouts(model)
    points = len(layouts.tp)
    cluster = Cluster(accelerator=catalog.accelerators["h100-sxm"], nodes=4096)
    machine = Machine(cluster, efficiency.of(cluster))
    job = Job(
        model=model, params=count(model), layout=layouts, seq_len=8192, step_tokens=16 * 2**20, recompute="selective"
    )
    start = time.perf_counter()
    peaks = memory.peak_bytes(job, machine.efficiency)
    seconds = sum(step.seconds(job, machine).values())
    taken = time.perf_counter() - start
    usable = int(np.sum(np.isfinite(peaks) & np.isfinite(seconds)))
    return {"grid_points": points, "grid_usable": usable, "grid_s": taken, "grid_s_per_100k": taken * GRID / points}


def _layouts(model: ModelSpec) -> Layouts:
    """Every combination of degrees, in arrays."""
    ways = ((1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 4, 8, 16), (1, 2, 4, 5, 8, 10, 16), (1, 2, 4, 8),
            tuple(range(1, 9)), (1, 2))  # fmt: skip
    grid = np.array(list(itertools.product(*ways)))[:GRID].T
    replicas, shards, tp, pp, cp, micro, virtual = (np.ascontiguousarray(axis) for axis in grid)
    return Layouts(
        dp_replicate=replicas,
        dp_shard=shards,
        tp=tp,
        pp=pp,
        cp=cp,
        ep=1,
        micro_batch_size=micro,
        virtual_stages=virtual,
    )


def _import() -> dict[str, Any]:
    seconds, torch = [], False
    for _ in range(IMPORTS):
        done = subprocess.run([sys.executable, "-c", _TIMED], capture_output=True, text=True, check=True)
        taken, loaded = done.stdout.split()
        seconds.append(float(taken))
        torch = torch or loaded == "True"
    return {"import_s": statistics.median(seconds), "import_torch": torch}
