"""`calibrate()`: measure this machine in some seconds, and keep it as the cluster called "local".

Two files below `lablib.specs.paths.home`: ``local-cluster.json`` (an accelerator with measured rates and no data-sheet
peak, so no MFU is ever claimed for a CPU) and ``local-efficiency.json`` (what real steps get out of it).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lablib.plan import activations, efficiency, probe
from lablib.plan import step as steps
from lablib.plan.cpu_kernels import ADAM_BYTES, LOGIT_BYTES
from lablib.plan.efficiency import CPU, GPU, Efficiency
from lablib.plan.job import Job
from lablib.plan.params import count
from lablib.plan.ranges import Range
from lablib.specs import Accelerator, Cluster, LabError, Parallelism, catalog
from lablib.specs.hardware import LOCAL
from lablib.specs.paths import home
from lablib.specs.units import parse_dollars

LIMIT = 300
"""Seconds that one probe may take on a very busy machine."""
SPREAD = (0.6, 1.15)
"""Band of the matmul efficiency around the measured one: neighbours on a shared machine cost more than they give back."""
LOADED = 0.05
"""GiB that data, tokenizer and checkpoint code add to the probe's process in a real run."""
PRIOR = (0.85, 0.15, 3e-4)
"""Matmul share, bandwidth share and seconds a layer of a quiet server core (docs/log.md, 2026-11-23)."""
PULL = 0.1
"""Weight of the prior: what a relative error of one in a cause counts beside the probes' relative errors."""


def calibrate(price: str | float | None = None) -> Cluster:
    """Measure matmuls, memory bandwidth, real training steps at several sizes and sampling; store and return the cluster.

    `price` is what an hour of one process on this machine costs ("$0.10"). Without torch only NumPy's figures are
    measured and the step constants stay guesses. Raises `LabError` where a probe fails or the price cannot be read.
    """
    dollars = _price(price)
    rates = run_probe("numpy")
    found = run_probe("torch") if _has_torch() else {}
    gpu = found.get("gpu")
    accelerator = _gpu(found) if gpu else _cpu(rates, found)
    constants = _gpu_constants(found) if gpu else _cpu_constants(accelerator, found)
    cluster = Cluster(
        name=LOCAL,
        accelerator=accelerator,
        gpus_per_node=gpu["count"] if gpu else cores(),
        price_per_gpu_hour=dollars,
        price_source="" if dollars is None else "given to `lab calibrate`",
    )
    constants.save(home() / efficiency.FILE)
    cluster.save(home() / "local-cluster.json")
    return cluster


def _price(price: str | float | None) -> float | None:
    try:
        return None if price is None else parse_dollars(price)
    except ValueError as error:
        raise LabError(f"price={price!r} {error}") from None


def _has_torch() -> bool:
    from importlib.util import find_spec

    return find_spec("torch") is not None and find_spec("transformers") is not None


def run_probe(kind: str) -> dict[str, Any]:
    """The figures of one kind of `lablib.plan.probe` in a fresh process. Raises `LabError` with its last words."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if kind == "torch":
        # torch may use all cores when told to; its pool can only grow to what OpenMP allows at start.
        threads["OMP_NUM_THREADS"] = str(cores())
    openmp = {**threads, "OMP_WAIT_POLICY": "PASSIVE"}  # as submitted jobs run
    environment = {**os.environ, **openmp, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", f"from lablib.plan.probe import main; main({kind!r})"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise LabError(f"measuring this machine ({kind}) took over {LIMIT} s; try again when it is less busy") from None
    if done.returncode:
        raise LabError(f"measuring this machine ({kind}) failed: {done.stderr.strip()[-500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def cores() -> int:
    """CPU cores this process may use: its affinity, and the cgroup's quota where that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _words(Path("/sys/fs/cgroup/cpu.max"))
    if len(quota) == 2 and quota[0].isdigit():
        allowed = min(allowed, max(1, round(int(quota[0]) / int(quota[1]))))
    return allowed


def memory_gib() -> float:
    """Memory this process may use: the machine's, or the cgroup's limit where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limits += [int(word) for word in _words(Path("/sys/fs/cgroup") / name) if word.isdigit()]
    return min(limits) / 2**30


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except OSError:
        return []


def _cpu_name() -> str:
    lines = [line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return lines[0].split(":", 1)[1].strip() if lines else "CPU"


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def _measured_on() -> str:
    return f"measured on this machine with lablib.plan.calibrate, {time.strftime('%Y-%m-%d')}"


def _cpu(rates: dict[str, Any], found: dict[str, Any]) -> Accelerator:
    matmul = found.get("matmul", {})
    measured = {"fp32": max(rates["fp32"], matmul.get("fp32", 0.0)), **{k: v for k, v in matmul.items() if k == "bf16"}}
    return Accelerator(
        name=_cpu_name(),
        kind="cpu",
        memory_gib=memory_gib(),
        bandwidth_gb_s=rates["bandwidth"] / 1e9,
        measured_tflops={name: rate / 1e12 for name, rate in measured.items()},
        source=f"{_measured_on()}: one thread",
    )


def _cpu_constants(accelerator: Accelerator, found: dict[str, Any]) -> Efficiency:
    if not found:
        return CPU
    matmul, bandwidth, layer = fit(found["steps"], accelerator)
    made = CPU.replace(
        matmul=Range(low=matmul * SPREAD[0], mid=matmul, high=matmul * SPREAD[1]),
        bandwidth=bandwidth,
        layer_seconds=layer,
        startup_seconds=Range(low=2 + found["imports"], mid=4 + 2 * found["imports"], high=10 + 6 * found["imports"]),
        posttrain_startup_seconds=5 + 3 * found["imports"],
        decode_layer_seconds=_host_share(found["decode"], accelerator, matmul, bandwidth),
        reserve_gib=found["resident"] + LOADED,
        thread_gain={1: 1.0, **{int(n): max(1.0, _middle(found) / t) for n, t in found["threads"].items()}},
        source=_measured_on(),
    )
    return made.replace(bf16_penalty=_bf16_penalty(found, accelerator, made))


def _middle(found: dict[str, Any]) -> float:
    return float(next(row["seconds"] for row in found["steps"] if tuple(row["shape"]) == probe.MIDDLE))


def job(size: tuple[int, int, int, int, int], precision: str = "fp32") -> Job:
    """The probe's training step as a job of the planner."""
    layers, hidden, ffn, sequences, tokens = size
    model = probe.shape(layers, hidden, ffn, tokens)
    layout = Parallelism(micro_batch_size=sequences)
    return Job(model, count(model), layout, tokens, sequences * tokens, precision=precision)


def fit(rows: list[dict[str, Any]], accelerator: Accelerator) -> tuple[float, float, float]:
    """(matmul efficiency, bandwidth efficiency, seconds a layer): the non-negative combination of matmul work, memory
    traffic and layers whose relative errors over the probes are least, drawn lightly to `PRIOR` so that one disturbed
    probe cannot turn a cause off."""
    from scipy.optimize import nnls

    work = np.array([_causes(job(tuple(row["shape"]))) for row in rows])
    seconds = np.array([row["seconds"] for row in rows])
    rate, width = accelerator.measured_tflops["fp32"] * 1e12, accelerator.bandwidth_gb_s * 1e9
    prior = np.array([1 / (PRIOR[0] * rate), 1 / (PRIOR[1] * width), PRIOR[2]])
    system = np.vstack([work * prior / seconds[:, None], PULL * np.eye(3)])
    found = nnls(system, np.concatenate([np.ones(len(rows)), PULL * np.ones(3)]))[0] * prior
    return float(1 / (found[0] * rate)), float(1 / (found[1] * width)), float(found[2])


def _causes(one: Job) -> tuple[float, float, float]:
    """FLOPs (attention weighted as slower), bytes moved and layers of one step: what `step.seconds` charges for."""
    parts = steps.forward(one)
    scores = parts.pop("scores")
    tokens = one.micro_tokens
    kept = activations.total(one.model, one.style).each(1)
    moved = tokens * (kept * CPU.traffic + one.model.vocab * LOGIT_BYTES) + one.params.total * ADAM_BYTES
    return 3 * tokens * (sum(parts.values()) + scores / CPU.attention), moved, float(one.model.layers)


def _host_share(decode: dict[str, float], accelerator: Accelerator, matmul: float, bandwidth: float) -> float:
    """Seconds a layer of one decoding step that neither computing nor reading explains."""
    one = job(probe.MIDDLE)
    flops = decode["batch"] * sum(steps.forward(one).values())
    computing = flops / (accelerator.measured_tflops["fp32"] * 1e12 * matmul)
    reading = one.params.total * 4 / (accelerator.bandwidth_gb_s * 1e9 * min(1.0, bandwidth))
    return max(1e-5, (decode["seconds"] - computing - reading) / decode["layers"])


def _bf16_penalty(found: dict[str, Any], accelerator: Accelerator, made: Efficiency) -> float:
    """How much slower bf16 matmuls are in a step than the bf16 matmul rate promises."""
    from lablib.plan.machine import Machine

    machine = Machine(Cluster(name=LOCAL, accelerator=accelerator, gpus_per_node=1), made)
    parts = steps.seconds(job(probe.MIDDLE, "bf16"), machine)
    matmuls = parts["compute"] + parts["attention"]
    return max(1.0, (found["bf16_step"] - sum(parts.values()) + matmuls) / matmuls)


CARDS = {"H100 80GB HBM3": "h100-sxm", "H100 PCIe": "h100-pcie", "H200": "h200-sxm", "A100-SXM4-80GB": "a100-sxm",
         "A100-SXM4-40GB": "a100-sxm-40gb", "B200": "b200-sxm", "L40S": "l40s"}  # fmt: skip
"""What a driver calls a card, and its name in the catalogue, whose peak and links then hold."""


def _gpu(found: dict[str, Any]) -> Accelerator:
    card = found["gpu"]
    known = next((catalog.accelerators[name] for text, name in CARDS.items() if text in card["name"]), None)
    measured = {name: rate / 1e12 for name, rate in found["matmul"].items()}
    own = {"memory_gib": card["memory_gib"], "measured_tflops": measured, "source": _measured_on()}
    if known is not None:
        return known.replace(**own, peak_tflops=known.peak_tflops)
    return Accelerator(name=card["name"], bandwidth_gb_s=card["bandwidth"] / 1e9, **own)


def _gpu_constants(found: dict[str, Any]) -> Efficiency:
    smallest = found["steps"][0]
    return GPU.replace(
        layer_seconds=smallest["seconds"] / smallest["shape"][0],
        decode_layer_seconds=found["decode"]["seconds"] / found["decode"]["layers"],
        startup_seconds=Range(low=5 + found["imports"], mid=15 + 2 * found["imports"], high=60 + 6 * found["imports"]),
        source=f"{_measured_on()}: host times; matmul and bandwidth shares are the defaults",
    )
