"""What a plan says of the data: shares and passes over a whole curriculum, from what was really prepared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lablib.plan import Estimate, estimate
from lablib.plan.reading import readings
from lablib.specs import Accelerator, Cluster, Mixture, ModelSpec, Pretrain, Ref
from lablib.specs.mixtures import Curriculum

MODEL = ModelSpec(layers=2, hidden=64, heads=4, ffn=128, vocab=512)
CPU = Cluster(accelerator=Accelerator(name="known", kind="cpu", memory_gib=64, bandwidth_gb_s=50, measured_tflops={"fp32": 0.1}), gpus_per_node=1)  # fmt: skip
HELD = {"web": 40_960, "code": 10_240}
PLAN = Curriculum.of(("3k", Mixture(weights={"web": 1.0})), ("1k", Mixture(weights={"code": 0.8, "web": 0.2})))


@pytest.fixture
def data(tmp_path: Path) -> Ref:
    """A Prepare run's manifest, as far as a plan reads it."""
    rows = [{"domain": name, "split": split, "tokens": n // (1 if split == "train" else 9)} for name, n in HELD.items() for split in ("train", "heldout")]  # fmt: skip
    (tmp_path / "made" / "data").mkdir(parents=True)
    (tmp_path / "made" / "data" / "manifest.json").write_text(json.dumps({"shards": rows, "mixture": {}}))
    return Ref(run="made", artefact="data", science="0" * 16)


def recipe(data: Ref | str, **changes: object) -> Pretrain:
    settings = {"model": MODEL, "data": data, "tokens": 102_400, "seq_len": 256, "batch_tokens": 1024, "precision": "fp32"}  # fmt: skip
    return Pretrain(**{**settings, **changes})


def test_passes_are_those_of_all_phases(data: Ref, tmp_path: Path) -> None:
    """By hand: three quarters of 102,400 tokens all web, then a fifth of the last quarter."""
    found = {one.domain: one for one in readings(recipe(data, mixture=PLAN), tmp_path)}
    assert found["web"].share == pytest.approx(0.8) and found["web"].epochs == pytest.approx(0.8 * 102_400 / 40_960)
    assert found["code"].epochs == pytest.approx(0.2 * 102_400 / 10_240) and not found["code"].over
    repeats = found["web"].epochs - 1  # type: ignore[operator]
    assert found["web"].worth == pytest.approx(40_960 * (1 + 15.387756 * (1 - math.exp(-repeats / 15.387756))))


def test_natural_proportions_come_from_the_manifest(data: Ref, tmp_path: Path) -> None:
    found = readings(recipe(data), tmp_path)
    assert [(one.domain, one.share) for one in found] == [("web", 0.8), ("code", pytest.approx(0.2))]
    assert all(one.epochs == pytest.approx(2) for one in found)
    assert readings(recipe("core"), tmp_path) == ()
    (named,) = readings(recipe("core", mixture=Mixture(weights={"web": 1.0})), tmp_path)
    assert named.unique is None and named.epochs is None and named.tokens == 102_400


def test_the_plan_warns_and_round_trips(data: Ref, tmp_path: Path) -> None:
    code = Mixture(weights={"code": 0.5, "web": 0.5}, max_epochs=6)
    plan = estimate(recipe(data, mixture=code), CPU, root=tmp_path)
    assert any("code is read 5.0 times, worth" in said for said in plan.warnings)
    assert "code 50.0% × 5" in str(plan) and Estimate.from_json(plan.to_json()).reads == plan.reads
    strict = estimate(recipe(data, mixture=code.replace(max_epochs=4)), CPU, root=tmp_path)
    assert any("code would be read 5.0 times, more than mixture.max_epochs" in said for said in strict.warnings)


def test_a_mixture_to_be_made_is_not_guessed(data: Ref, tmp_path: Path) -> None:
    asked = recipe(data, mixture=data.replace(artefact="mixture"))
    assert estimate(asked, CPU, root=tmp_path).reads == ()
    Mixture(weights={"code": 1.0}).save(tmp_path / "made" / "mixture.json")
    assert [one.domain for one in readings(asked, tmp_path)] == ["code"]
