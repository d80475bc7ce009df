"""Caps on text that models wrote, held against what a mixture makes of it: closed forms, and who warns and who refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import preflight
from lablib.plan import estimate
from lablib.plan.reading import breach
from lablib.specs import Accelerator, Caps, Cluster, LabError, Mixture, ModelSpec, Pretrain, Profile, Ref
from lablib.specs.mixtures import Curriculum
from lablib.specs.synthetic import Synthetic, Written

CPU = Cluster(accelerator=Accelerator(name="known", kind="cpu", memory_gib=64, bandwidth_gb_s=50, measured_tflops={"fp32": 0.1}), gpus_per_node=1)  # fmt: skip
MODEL = ModelSpec(layers=2, hidden=64, heads=4, ffn=128, vocab=512)


def prepared(root: Path, caps: Caps | None, generation: int = 1) -> Ref:
    """The data of a run: people's ``web``, and ``tales``, of which a model wrote nine tenths."""
    rows = [{"domain": name, "split": "train", "tokens": 1_000_000} for name in ("web", "tales")]
    (root / "made" / "data").mkdir(parents=True, exist_ok=True)
    (root / "made" / "data" / "manifest.json").write_text(json.dumps({"shards": rows, "mixture": {}}))
    told = Synthetic(domains={"tales": Written(share=0.9, generation=generation)}, caps=caps)
    told.save(root / "made" / "data" / "synthetic.json")
    return Ref(run="made", artefact="data", science="0" * 16)


def asked(data: Ref, tales: float) -> Pretrain:
    mixture = Mixture(weights={"web": 1 - tales, "tales": tales})
    return Pretrain(model=MODEL, data=data, mixture=mixture, tokens="100k", seq_len=256, batch_tokens=1024, precision="fp32")  # fmt: skip


def test_a_mixture_that_keeps_the_cap_is_not_spoken_of(tmp_path: Path) -> None:
    """0.9 × 0.5 = 45 % is under one half; natural proportions are the same half here."""
    data = prepared(tmp_path, None)
    assert breach(asked(data, 0.5), tmp_path) == ("", False)
    assert breach(asked(data, 0.5).replace(mixture=Mixture()), tmp_path) == ("", False)
    assert breach(asked(data, 0.5).replace(data="core"), tmp_path) == ("", False)


def test_the_usual_caps_warn_and_the_recipes_own_refuse(tmp_path: Path) -> None:
    """0.9 × 0.8 = 72 %; half is reached at 0.5 / 0.9 = 55.6 %."""
    told = "makes 72.0% of the tokens synthetic.*tales has weight 80.0% and is 90% synthetic; give it at most 55.6%"
    recipe = asked(prepared(tmp_path, None), 0.8)
    profile = Profile(name="here", scheduler="local")
    (warned,) = (said for said in estimate(recipe, CPU, root=tmp_path).warnings if "synthetic" in said)
    assert re.search(told + ".*usual caps", warned)
    preflight.check(recipe, profile, None, tmp_path)
    strict = asked(prepared(tmp_path, Caps(corpus=0.5)), 0.8)
    (warned,) = (said for said in estimate(strict, CPU, root=tmp_path).warnings if "synthetic" in said)
    assert warned.endswith("the run will refuse to begin")
    with pytest.raises(LabError, match=told):
        preflight.check(strict, profile, None, tmp_path)


def test_a_curriculum_is_held_to_its_mean(tmp_path: Path) -> None:
    """A third all tales is 30 % synthetic over the run; two thirds are 60 %."""
    web, tales = (Mixture(weights={name: 1.0}) for name in ("web", "tales"))
    recipe = asked(prepared(tmp_path, None), 0.5)
    assert not breach(recipe.replace(mixture=Curriculum.of((2000, web), (1000, tales))), tmp_path)[0]
    assert "60.0%" in breach(recipe.replace(mixture=Curriculum.of((1000, web), (2000, tales))), tmp_path)[0]


def test_a_deeper_generation_is_named(tmp_path: Path) -> None:
    data = prepared(tmp_path, None, generation=2)
    assert "tales (2); give it weight 0" in breach(asked(data, 0.1), tmp_path)[0]
    assert breach(asked(data, 0.0), tmp_path)[0] == ""


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=2, max_size=5), st.floats(0.05, 0.95))
def test_the_remedy_is_enough(rows: list[tuple[float, float]], cap: float) -> None:
    """The named domain brought to the weight that is told, the others in proportion: the cap is kept, and just."""
    whole = sum(weight for weight, _ in rows)
    weights = {f"d{number}": weight / whole for number, (weight, _) in enumerate(rows)}
    written = {f"d{number}": Written(share=share, generation=1) for number, (_, share) in enumerate(rows)}
    told = Caps(corpus=cap).against(weights, written)
    total = sum(weights[name] * one.share for name, one in written.items())
    assert bool(told) == (total > cap * (1 + 1e-9))
    found = re.search(r": (d\d) has weight .* at most ([\d.]+)%", told)
    if found:
        name, most = found[1], float(found[2]) / 100
        moved = {n: most if n == name else w * (1 - most) / (1 - weights[name]) for n, w in weights.items()}
        assert sum(moved[n] * one.share for n, one in written.items()) == pytest.approx(cap, abs=6e-4)
