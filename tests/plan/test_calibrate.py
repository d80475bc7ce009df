"""Calibration: what it stores, how it fits, what it refuses; the figures themselves are the machine's affair."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lablib.plan import calibrate, efficiency, estimate, fitting, probe
from lablib.plan import step as steps
from lablib.plan.calibrate import cores, memory_gib, run_probe
from lablib.plan.efficiency import CPU, GPU
from lablib.plan.fitting import PRIOR, fit, job, predict
from lablib.plan.machine import Machine
from lablib.plan.ranges import Range
from lablib.specs import Accelerator, Cluster, LabError, Parallelism, Pretrain

MACHINE = Accelerator(name="a", kind="cpu", memory_gib=8, bandwidth_gb_s=50, measured_tflops={"fp32": 0.1, "bf16": 0.4})


def test_importing_the_planner_loads_no_torch_and_nothing_heavy() -> None:
    code = "import sys, lablib.plan; print([m for m in ('torch', 'transformers', 'pandas', 'scipy.optimize') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plan_loads_no_torch_either() -> None:
    code = (
        "import sys; from lablib.plan import estimate, forecast; from lablib.specs import Cluster, Pretrain, Parallelism;"
        "r = Pretrain(model='llama-3-8b', tokens='1B', parallelism=Parallelism(dp_shard=8));"
        "estimate(r, Cluster(accelerator='h100-sxm')).explain(); forecast(r); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_numpy_alone_gives_rates() -> None:
    rates = run_probe("numpy")
    assert rates["fp32"] > 1e8 and rates["bandwidth"] > 1e8


def test_a_probe_that_fails_says_its_last_words() -> None:
    with pytest.raises(LabError, match=r"(?s)measuring this machine \(nonsense\) failed: .*KeyError"):
        run_probe("nonsense")


def predicted(constants: efficiency.Efficiency) -> list[dict[str, object]]:
    """Probe rows of a machine that is exactly as `constants` say."""
    machine = Machine(Cluster(name="x", accelerator=MACHINE, gpus_per_node=1), constants)
    return [{"shape": list(size), "seconds": sum(steps.seconds(job(size), machine).values())} for size in probe.SHAPES]


def test_the_fit_finds_the_machine_that_made_the_times() -> None:
    truth = CPU.replace(matmul=Range(low=0.4, mid=0.7, high=0.9), bandwidth=0.2, layer_seconds=4e-4)
    matmul, bandwidth, layer = fit(predicted(truth), MACHINE)
    assert matmul == pytest.approx(0.7, rel=0.05)
    assert bandwidth == pytest.approx(0.2, rel=0.15)
    assert layer == pytest.approx(4e-4, rel=0.35)


def test_one_disturbed_probe_cannot_turn_a_cause_off() -> None:
    rows = predicted(
        CPU.replace(matmul=Range(low=0.5, mid=PRIOR[0], high=1), bandwidth=PRIOR[1], layer_seconds=PRIOR[2])
    )
    rows[1]["seconds"] = 3 * rows[1]["seconds"]  # type: ignore[operator]
    constants = fit(rows, MACHINE)
    assert all(prior / 4 < found < prior * 4 for found, prior in zip(constants, PRIOR, strict=True))


MEASURED = {
    "imports": 2.0,
    "resident": 0.4,
    "device": "cpu",
    "matmul": {"fp32": 1e11, "bf16": 4e11},
    "bf16_step": 2.0,
    "decode": {"seconds": 0.01, "batch": 8, "context": 76.0, "layers": 6},
    "gpu": None,
}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A calibration whose probes answer at once."""
    rows = predicted(CPU.replace(matmul=Range(low=0.4, mid=0.8, high=0.9), bandwidth=0.15, layer_seconds=3e-4))
    half = next(row["seconds"] for row in rows if tuple(row["shape"]) == probe.MIDDLE) / 1.7  # type: ignore[operator,arg-type]
    answers = {
        "numpy": {"fp32": 1.1e11, "bandwidth": 5e10},
        "torch": {**MEASURED, "steps": rows, "threads": {"2": half}},
    }
    monkeypatch.setattr(sys.modules["lablib.plan.calibrate"], "run_probe", lambda kind: answers[kind])
    return answers["torch"]


def test_calibration_stores_a_cluster_and_its_constants(home: Path, measured: dict[str, object]) -> None:
    made = calibrate(price="$0.10")
    assert Cluster.load("local") == made
    assert (made.name, made.accelerator.kind, made.price_per_gpu_hour, made.gpus) == ("local", "cpu", 0.1, cores())
    assert made.accelerator.peak_tflops == {} and made.accelerator.measured_tflops == {"fp32": 0.11, "bf16": 0.4}
    constants = efficiency.of(made)
    assert constants.thread_gain == {1: 1.0, 2: pytest.approx(1.7)}
    assert constants.reserve_gib == pytest.approx(0.45) and "measured on this machine" in constants.source
    assert json.loads((efficiency.file_of("local")).read_text())["bandwidth"] == constants.bandwidth
    assert not list(home.glob(".*tmp"))


def test_a_plan_on_the_calibrated_machine_uses_what_was_measured(home: Path, measured: dict[str, object]) -> None:
    cluster = calibrate()
    layers, hidden, ffn, sequences, tokens = probe.MIDDLE
    recipe = Pretrain(
        model=probe.shape(layers, hidden, ffn, tokens), tokens=100 * sequences * tokens, seq_len=tokens, batch_tokens=sequences * tokens,
        parallelism=Parallelism(micro_batch_size=sequences), precision="fp32",
    )  # fmt: skip
    seen = next(row["seconds"] for row in measured["steps"] if tuple(row["shape"]) == probe.MIDDLE)  # type: ignore[attr-defined]
    plan = estimate(recipe, cluster)
    assert plan.step_seconds == pytest.approx(seen, rel=0.1)
    assert plan.mfu is None and plan.dollars is None
    assert estimate(recipe.replace(threads=2), cluster).step_seconds == pytest.approx(seen / 1.7, rel=0.1)
    bf16 = estimate(recipe.replace(precision="bf16"), cluster)
    assert bf16.step_seconds == pytest.approx(2.0, rel=0.1)


def test_a_plan_says_where_and_how_well_its_machine_was_measured(
    home: Path, measured: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = calibrate()
    done = efficiency.of(cluster).calibration
    assert done is not None and done.machine == cluster.accelerator.name
    assert done.residual < 0.1, "the probes' times were made by the planner's own formulas"
    assert done.left_out is not None and done.residual <= done.left_out < 0.25
    plan = estimate(Pretrain(model="smollm2-135m", tokens="1M", seq_len=256, batch_tokens=2048), cluster)
    assert plan.basis == str(done) and f"{done.residual:.0%}" in plan.explain() and done.date in str(plan)
    assert "published" in estimate(Pretrain(model="llama-3-8b", tokens="1B"), Cluster(accelerator="h100-sxm")).basis


def test_a_disturbed_probe_shows_as_a_residual(home: Path, measured: dict[str, object]) -> None:
    measured["steps"][2]["seconds"] *= 2  # type: ignore[index]
    done = efficiency.of(calibrate()).calibration
    assert done is not None and done.probes[2].error < -0.2
    assert done.probes[2].left_out_error == pytest.approx(-0.5, abs=0.12), "the others do not know of the disturbance"


def test_a_gpu_is_fitted_to_its_large_steps() -> None:
    """Times made by a card whose matmuls reach 0.7 of the best rate lead back to 0.7."""
    card = Cluster(accelerator="h100-sxm").accelerator
    truth = GPU.replace(matmul=Range(low=0.6, mid=0.7, high=0.8))
    rows = [{"shape": size, "seconds": 1.0} for size in probe.LARGE]
    rows = [{**row, "seconds": predict(row, card, truth, "bf16")} for row in rows]
    small = [{"shape": probe.SHAPES[0], "seconds": probe.SHAPES[0][0] * truth.layer_seconds}]
    found = {"steps": small, "large": rows, "imports": 3.0, "decode": {"seconds": 0.01, "layers": 6}}
    made = fitting.gpu(card, found)
    assert made.matmul.mid == pytest.approx(0.7, rel=0.03)
    assert made.calibration is not None and made.calibration.residual < 0.02
    assert fitting.gpu(card, {**found, "large": []}).calibration is None


def test_a_price_that_cannot_be_read_is_one_message(home: Path) -> None:
    with pytest.raises(LabError, match=r"price='cheap'.*\$50k"):
        calibrate(price="cheap")
    assert not home.exists()


def test_constants_default_by_kind_and_only_local_is_measured(home: Path) -> None:
    assert efficiency.of(Cluster(accelerator="h100-sxm")) is GPU
    assert efficiency.of(Cluster(accelerator=MACHINE)) is CPU
    CPU.replace(bandwidth=0.33).save(efficiency.file_of("local"))
    assert efficiency.of(Cluster(name="local", accelerator=MACHINE)).bandwidth == 0.33
    assert efficiency.of(Cluster(name="mine", accelerator=MACHINE)) is CPU


def test_the_machine_is_read_within_its_limits() -> None:
    assert 1 <= cores() <= 4096
    assert 0.1 < memory_gib() < 1e5


def test_processes_that_share_cores_slow_each_other() -> None:
    two = Cluster(accelerator=MACHINE, gpus_per_node=2)
    constants = CPU.replace(thread_gain={1: 1.0, 2: 1.6})
    assert Machine(two, constants, threads=2, processes=1).speed == 1.6
    assert Machine(two, constants, threads=1, processes=2).speed == 1.0
    assert Machine(two, constants, threads=1, processes=4).speed == 0.5
