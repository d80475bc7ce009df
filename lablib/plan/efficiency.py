"""`Efficiency`: the few constants between what hardware can do and what a training step gets out of it.

Defaults for GPUs are physical guesses held against published steady-state rows (``python -m bench.planner``); for this
machine `lab calibrate` measures its own and stores them beside the local cluster.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from statistics import median

from pydantic import Field

from lablib.plan.ranges import Range
from lablib.specs import Cluster, Spec
from lablib.specs.hardware import LOCAL
from lablib.specs.paths import home
from lablib.specs.profile import NAME


class Probe(Spec):
    """One probed training step: what it took, what the planner says, and what it says when fitted without this one."""

    layers: int
    hidden: int
    tokens: int
    measured_seconds: float = Field(gt=0)
    predicted_seconds: float
    left_out_seconds: float | None = None

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_seconds / self.measured_seconds - 1

    @property
    def left_out_error(self) -> float | None:
        """The same with constants that this probe had no part in."""
        return None if self.left_out_seconds is None else self.left_out_seconds / self.measured_seconds - 1


class Calibration(Spec):
    """Where and when constants were measured, and how well they explain the steps they were fitted on."""

    machine: str
    date: str
    probes: tuple[Probe, ...] = Field(min_length=1)

    @property
    def residual(self) -> float:
        """Median absolute relative error over the probes."""
        return median(abs(one.error) for one in self.probes)

    @property
    def left_out(self) -> float | None:
        """The same where each probe is foretold from the others; None where nothing was left out."""
        errors = [abs(one.left_out_error) for one in self.probes if one.left_out_error is not None]
        return median(errors) if errors else None

    def __str__(self) -> str:
        foretold = "" if self.left_out is None else f", {self.left_out:.0%} when left out of the fit"
        return f"calibrated on {self.machine}, {self.date}: {len(self.probes)} probes, residual {self.residual:.0%}{foretold}"


class Efficiency(Spec):
    """Dimensionless shares unless a unit is named."""

    matmul: Range
    """Share of the accelerator's best matmul rate (`Accelerator.achievable`) that large matmuls reach inside a step. Its
    bounds over its middle are the 80 % band of a step's speed: on GPUs 0.82 to 1.18, which covers 85 % of the published
    rows that the constants were fitted on; of sources left out of the fit 80 % lie in 0.80 to 1.27 (2026-11-24)."""
    attention: float = Field(default=0.4, gt=0)
    """Attention's rate over the matmuls' rate on a CPU."""
    bandwidth: float = Field(default=0.8, gt=0)
    """Share of the memory bandwidth that elementwise kernels reach."""
    traffic: float = Field(default=2.5, gt=0)
    """On a CPU, bytes moved by elementwise operators, forward and backward, over the activations kept for backward."""
    layer_seconds: float = Field(default=5e-4, ge=0)
    """Host time to launch one layer's forward and backward kernels: a step is never faster than this."""
    overlap: float = Field(default=0.9, ge=0, le=1)
    """Share of attention's time that context-parallel rings hide behind."""
    collective: float = Field(default=0.75, gt=0, le=1)
    """Share of a scale-up link's data-sheet bandwidth that large collectives reach (nccl-tests' bus bandwidth)."""
    latency_seconds: float = Field(default=2e-5, ge=0)
    """Time to start one collective."""
    sustained: dict[str, float] = {"other": 1.0}
    """Rate that a long run keeps, by generation of accelerator, over `matmul` of its best second: power limits."""
    flash: dict[str, dict[str, float]] = {}
    """Rate of fused attention, forward and backward, over that of sustained matmuls, by kernel and generation."""
    narrow: float = Field(default=0.3, ge=0)
    """Exponent by which attention slows down as heads are narrower than 128 features: FlashAttention-2 on an A100 at 64
    features reaches four fifths of its rate at 128 (arXiv 2307.08691 figures 4 and 5)."""
    diagonal: float = Field(default=200.0, ge=0)
    """Tokens' worth of masked blocks that causal attention computes for each query: up to a tile of 128 or 256."""
    operands: float = Field(default=0.3, ge=0)
    """Share of a matmul's operand traffic that its tensor cores wait for."""
    ragged: float = Field(default=0.15, ge=0)
    """Extra time of a matmul for each dimension that is no multiple of 64."""
    quantising: float = Field(default=1.0, ge=0)
    """Exposed share of the traffic of quantising a matmul's inputs; the rest is fused into what made them."""
    elementwise: float = Field(default=1.0, ge=0)
    """Traffic of norms, activation functions and the like over their inputs and outputs read and written once."""
    eager: float = Field(default=2.0, ge=1)
    """The same where every operator is a kernel of its own, over fused kernels."""
    routing: float = Field(default=1.0, ge=0)
    """Traffic of sorting tokens to experts and back over each copy read and written once."""
    network: float = Field(default=0.8, gt=0, le=1)
    """Share of the fabric's own efficiency that collectives of training keep over nccl-tests'."""
    hops: float = Field(default=2.0, ge=0)
    """Network latencies for every doubling of a ring over nodes: there and back."""
    straggler: float = Field(default=0.005, ge=0)
    """Time added by waiting for the slowest rank, for every doubling of the accelerators."""
    contention: float = Field(default=0.15, ge=0)
    """Slow-down of compute while a collective runs beside it, as a share of the collective's time."""
    host_seconds: float = Field(default=3e-5, ge=0)
    """Host time of an optimiser step for each layer: launches of the update, clipping."""
    goodput: Range = Range(low=0.55, mid=0.80, high=0.97)
    """Share of wall time in steady steps, the rest being failures, restarts, evaluation, ramps and slow days: published
    whole runs reach a median MFU of 0.34 where steady-state tables of the same time say 0.40 to 0.55; Llama 3 405B
    reports over 0.9 (arXiv 2407.21783 §3.3.4)."""
    startup_seconds: Range = Range(low=30, mid=90, high=300)
    """From the job's start to the first step, once a run."""
    posttrain_startup_seconds: float = Field(default=30.0, ge=0)
    """What a post-training stage needs on top (imports, tokenisation, a second copy of the model)."""
    trainer_seconds: float = Field(default=0.05, ge=0)
    """What a post-training trainer spends beside the model in each optimiser step."""
    decode_layer_seconds: float = Field(default=4e-4, ge=0)
    """Host time of one layer for one sampled token, whatever the batch."""
    bytes_per_second: float = Field(default=4e6, gt=0)
    """Raw text cleaned, tokenised and written in data preparation by one process (a server core: docs/data.md)."""
    trainer_gib: float = Field(default=0.0, ge=0)
    """What a post-training stage's libraries hold on top."""
    reserve_gib: float = Field(default=1.5, ge=0)
    """Memory of a process before the model: CUDA context and NCCL, or the Python libraries."""
    fragmentation: float = Field(default=0.05, ge=0)
    """What the allocator holds beyond live tensors, as a share of them."""
    bf16_penalty: float = Field(default=1.0, gt=0)
    """Time of a bf16 step over what the bf16 matmul rate promises (CPUs cast at every operator)."""
    thread_gain: dict[int, float] = {1: 1.0}
    """Speed with this many CPU threads over one thread."""
    source: str = ""
    machine: str = ""
    """The accelerator that was measured; empty for constants that hold for a kind of them."""
    calibration: Calibration | None = None
    """What `lab calibrate` measured; None for constants that were not measured here."""

    @property
    def basis(self) -> str:
        """What a plan with these constants rests on."""
        return str(self.calibration or self.source)

    def gain(self, threads: int) -> float:
        """Speed of `threads` threads over one: the most that was measured with no more threads."""
        return max((gain for count, gain in self.thread_gain.items() if count <= threads), default=1.0)


GPU = Efficiency(
    matmul=Range(low=0.70, mid=0.85, high=1.0),
    sustained={"ampere": 1.15, "hopper": 1.13, "blackwell": 0.92, "other": 1.0},
    flash={
        "fa1": {"ampere": 0.45, "hopper": 0.24, "other": 0.3},
        "fa2": {"ampere": 0.58, "hopper": 0.32, "blackwell": 0.18, "other": 0.45},
        "fa3": {"hopper": 0.57, "other": 0.5},
        "cudnn": {"ampere": 0.60, "hopper": 0.80, "blackwell": 0.68, "other": 0.5},
    },
    diagonal=135.0,
    operands=0.95,
    ragged=0.37,
    quantising=0.47,
    elementwise=1.54,
    eager=1.98,
    routing=1.47,
    network=0.79,
    latency_seconds=5e-5,
    straggler=0.0093,
    contention=0.30,
    source="fitted on 548 published steady-state rows of 19 sources, 2026-11-24: docs/planner.md has the errors",
)
CPU = Efficiency(
    matmul=Range(low=0.2, mid=0.5, high=0.9),
    attention=0.65,  # one causal document in a sequence; the mask under compile and cp makes it half as fast
    layer_seconds=1e-3,
    goodput=Range(
        low=0.9, mid=0.97, high=1.0
    ),  # one process for minutes: nothing fails, only logging is beside the steps
    startup_seconds=Range(low=4, mid=10, high=30),
    posttrain_startup_seconds=15.0,
    reserve_gib=0.5,
    trainer_gib=0.17,
    fragmentation=0.15,
    source="guesses for a CPU that was not measured; `lab calibrate` replaces them",
)


def file_of(name: str) -> Path:
    """Where the constants measured for a profile are kept."""
    return home() / f"{name}-efficiency.json"


def of(cluster: Cluster) -> Efficiency:
    """Constants measured for this cluster's profile where `lab calibrate` stored them and its accelerator is still that
    one, those of this machine for an equal CPU, else the defaults of the kind."""
    card = cluster.accelerator
    own = _stored(cluster.name) if NAME.fullmatch(cluster.name) else None
    if own is not None and own.machine in ("", card.name):
        return own
    here = _stored(LOCAL) if card.kind == "cpu" else None
    if here is not None and here.machine == card.name:
        return here
    return CPU if card.kind == "cpu" else GPU


def _stored(name: str) -> Efficiency | None:
    file = file_of(name)
    try:
        return _read(file, file.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=4)
def _read(file: Path, _changed: int) -> Efficiency:
    return Efficiency.load(file)
