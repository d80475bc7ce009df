"""`calibrate()`: measure this machine in some seconds, and keep it as the cluster called "local".

Two files below `lablib.specs.paths.home` for each profile: ``local-cluster.json`` (an accelerator with measured rates, on a
CPU without a data-sheet peak, so that no MFU is ever claimed for one) and ``local-efficiency.json`` (what real steps get
out of it). What a cluster's node measures of itself (`lablib.train.measure`) is kept under its profile's name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lablib.plan import efficiency, fitting
from lablib.plan.efficiency import Efficiency
from lablib.specs import Accelerator, Cluster, LabError, Spec, catalog
from lablib.specs.hardware import LOCAL
from lablib.specs.paths import home
from lablib.specs.units import parse_dollars

LIMIT = 300
"""Seconds that one probe may take on a very busy machine."""


class Measured(Spec):
    """A machine as it was measured: its rates, and the constants between them and a training step."""

    cluster: Cluster
    efficiency: Efficiency


def calibrate(price: str | float | None = None) -> Cluster:
    """Measure this machine, and keep and return it as the cluster "local"; `price` is what an hour of one process on it
    costs ("$0.10").

    Raises `LabError` where a probe fails or the price cannot be read.
    """
    dollars = _price(price)
    found = measure()
    source = "" if dollars is None else "given to `lab calibrate`"
    return keep(found.replace(cluster=found.cluster.replace(price_per_gpu_hour=dollars, price_source=source)), LOCAL)


def measure() -> Measured:
    """Matmuls, memory bandwidth, real training steps at several sizes and sampling. Without torch only NumPy's figures are
    measured and the step constants stay guesses. Raises `LabError` where a probe fails."""
    rates = run_probe("numpy")
    found = run_probe("torch") if _has_torch() else {}
    gpu = found.get("gpu")
    accelerator = _gpu(found) if gpu else _cpu(rates, found)
    constants = (fitting.gpu if gpu else fitting.cpu)(accelerator, found)
    return Measured(
        cluster=Cluster(name=LOCAL, accelerator=accelerator, gpus_per_node=gpu["count"] if gpu else cores()),
        efficiency=constants.replace(machine=accelerator.name),
    )


def keep(found: Measured, name: str) -> Cluster:
    """Store a measurement as that of the profile `name`, so that plans for it use it; gives the cluster by that name."""
    cluster = found.cluster.replace(name=name)
    found.efficiency.save(efficiency.file_of(name))
    cluster.save(home() / f"{name}-cluster.json")
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
    return f"measured on this machine with lablib.plan.calibrate, {fitting.today()}"


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
