"""From a probe's times to the few constants of `Efficiency`, and how well those explain the times (`Calibration`)."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np

from lablib.plan import activations, probe
from lablib.plan import step as steps
from lablib.plan.cpu_kernels import LOGIT_BYTES, update_bytes
from lablib.plan.efficiency import CPU, GPU, Calibration, Efficiency, Probe
from lablib.plan.job import Job
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.plan.ranges import Range
from lablib.specs import Accelerator, Cluster, Parallelism

SPREAD = (0.6, 1.15)
"""Band of the matmul efficiency around the measured one: neighbours on a shared machine cost more than they give back."""
LOADED = 0.05
"""GiB that data, tokenizer and checkpoint code add to the probe's process in a real run."""
PRIOR = (0.85, 0.15, 3e-4)
"""Matmul share, bandwidth share and seconds a layer of a quiet server core (docs/log.md, 2026-11-23)."""
PULL = 0.15
"""Weight of the prior: what a relative error of one in a cause counts beside the probes' relative errors."""
ROUNDS = 4
"""Times that a GPU's matmul share is set to what the large steps ask for; each leaves under a third of the error."""

Row = dict[str, Any]
"""``{"shape": (layers, hidden, ffn, sequences, tokens), "seconds": ...}`` of one probed training step."""


def job(size: tuple[int, int, int, int, int], precision: str = "fp32") -> Job:
    """The probe's training step as a job of the planner."""
    layers, hidden, ffn, sequences, tokens = size
    model = probe.shape(layers, hidden, ffn, tokens)
    layout = Parallelism(micro_batch_size=sequences)
    return Job(model, count(model), layout, tokens, sequences * tokens, precision=precision)


def cpu(accelerator: Accelerator, found: dict[str, Any]) -> Efficiency:
    """Constants of a CPU from the torch probe's figures; the guesses for any CPU where there are none."""
    if not found:
        return CPU
    rows = found["steps"]
    matmul, bandwidth, layer = fit(rows, accelerator)
    made = _fitted(matmul, bandwidth, layer).replace(
        startup_seconds=Range(low=2 + found["imports"], mid=4 + 2 * found["imports"], high=10 + 6 * found["imports"]),
        posttrain_startup_seconds=5 + 3 * found["imports"],
        decode_layer_seconds=_host_share(found["decode"], accelerator, matmul, bandwidth),
        reserve_gib=found["resident"] + LOADED,
        thread_gain={1: 1.0, **{int(n): max(1.0, _middle(found) / t) for n, t in found["threads"].items()}},
        source=f"measured on this machine with `lab calibrate`, {today()}",
    )
    left_out = [_fitted(*fit([*rows[:i], *rows[i + 1 :]], accelerator)) for i in range(len(rows))]
    return made.replace(
        bf16_penalty=_bf16_penalty(found, accelerator, made),
        calibration=calibration(rows, accelerator, made, left_out),
    )


def gpu(accelerator: Accelerator, found: dict[str, Any]) -> Efficiency:
    """Constants of a GPU: host times from the smallest steps, and the matmul share that the large ones ask for; a card
    that cannot hold any large one keeps the default share, and claims no calibration."""
    smallest = found["steps"][0]
    made = GPU.replace(
        layer_seconds=smallest["seconds"] / smallest["shape"][0],
        decode_layer_seconds=found["decode"]["seconds"] / found["decode"]["layers"],
        startup_seconds=Range(low=5 + found["imports"], mid=15 + 2 * found["imports"], high=60 + 6 * found["imports"]),
        source=f"host times and matmul share measured with `lab calibrate`, {today()}; the rest {GPU.source}",
    )
    rows = found["large"]
    for _ in range(ROUNDS if rows else 0):
        asked = median(predict(row, accelerator, made, "bf16") / row["seconds"] for row in rows)
        shares = made.matmul
        made = made.replace(matmul=shares.times(min(asked, 1.0 / shares.mid)))
    return made.replace(calibration=calibration(rows, accelerator, made, precision="bf16") if rows else None)


def today() -> str:
    """ISO date of a measurement."""
    return time.strftime("%Y-%m-%d")


def predict(row: Row, accelerator: Accelerator, constants: Efficiency, precision: str = "fp32") -> float:
    """Seconds that the planner gives a probed step."""
    machine = Machine(Cluster(name="probe", accelerator=accelerator, gpus_per_node=1), constants)
    return float(sum(steps.seconds(job(tuple(row["shape"]), precision), machine).values()))


def calibration(
    rows: list[Row],
    accelerator: Accelerator,
    made: Efficiency,
    left_out: list[Efficiency] | None = None,
    precision: str = "fp32",
) -> Calibration:
    """How the planner with `made` explains the probes; with `left_out[i]`, constants fitted without row i, also how it
    foretells them."""
    return Calibration(
        machine=accelerator.name,
        date=today(),
        probes=tuple(
            Probe(
                layers=row["shape"][0],
                hidden=row["shape"][1],
                tokens=row["shape"][3] * row["shape"][4],
                measured_seconds=row["seconds"],
                predicted_seconds=predict(row, accelerator, made, precision),
                left_out_seconds=predict(row, accelerator, left_out[i], precision) if left_out else None,
            )
            for i, row in enumerate(rows)
        ),
    )


def fit(rows: list[Row], accelerator: Accelerator) -> tuple[float, float, float]:
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


def _fitted(matmul: float, bandwidth: float, layer: float) -> Efficiency:
    shares = Range(low=matmul * SPREAD[0], mid=matmul, high=matmul * SPREAD[1])
    return CPU.replace(matmul=shares, bandwidth=bandwidth, layer_seconds=layer)


def _middle(found: dict[str, Any]) -> float:
    return float(next(row["seconds"] for row in found["steps"] if tuple(row["shape"]) == probe.MIDDLE))


def _causes(one: Job) -> tuple[float, float, float]:
    """FLOPs (attention weighted as slower), bytes moved and layers of one step: what `step.seconds` charges for."""
    parts = steps.forward(one)
    scores = parts.pop("scores")
    tokens = one.micro_tokens
    kept = activations.total(one.model, one.style).each(1)
    moved = tokens * (kept * CPU.traffic + one.model.vocab * LOGIT_BYTES) + one.params.total * update_bytes("adamw")
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
    machine = Machine(Cluster(name="probe", accelerator=accelerator, gpus_per_node=1), made)
    parts = steps.seconds(job(probe.MIDDLE, "bf16"), machine)
    matmuls = parts["compute"] + parts["attention"]
    return max(1.0, (found["bf16_step"] - sum(parts.values()) + matmuls) / matmuls)
