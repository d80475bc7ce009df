"""8-bit products, emulated, against 16 bits; the conversion needs torchao (extra "gpu")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from launch import on_ranks
from safetensors.torch import load_file

from lablib.models import float8
from lablib.models.build import build_model, initialise
from lablib.models.layout import Links, Place, distribute
from lablib.models.recompute import apply_recompute
from lablib.models.seeded import skeleton
from lablib.specs import LabError, ModelSpec, Parallelism
from lablib.train.batches import Batch
from lablib.train.distributed import joined
from lablib.train.step import Stepper

MODEL = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=100)
CPU = torch.device("cpu")


def test_a_machine_without_8_bit_products_is_refused() -> None:
    with pytest.raises(
        LabError, match=r"cpu has no 8-bit matrix products; set precision='bf16', or run on Ada, Hopper"
    ):
        float8.check_float8(CPU)


def curve(model: Any, recompute: Any = "none", steps: int = 8) -> list[float]:
    """Losses of a few steps on the same made-up text."""
    apply_recompute(model.train(), recompute)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    ids = torch.randint(100, (2, 32), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(
                model(input_ids=ids, use_cache=False).logits.flatten(0, 1).float(), ids.roll(-1, 1).flatten()
            )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def test_eight_bits_learn_as_16_do_and_leave_the_weights_alone(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    plain, eight = build_model(MODEL, 0), build_model(MODEL, 0)
    converted = float8.convert(eight, emulate=True)
    assert len(converted) == 14 and not any("lm_head" in name for name in converted)
    assert eight.state_dict().keys() == plain.state_dict().keys()
    assert {weight.dtype for weight in eight.parameters()} == {torch.float32}
    wanted, found = curve(plain), curve(eight)
    assert wanted[-1] < wanted[0] - 1
    assert found == pytest.approx(wanted, rel=0.03) and found != wanted
    assert eight.config.to_dict() == plain.config.to_dict()
    for name, model in {"plain": plain, "eight": eight}.items():
        model.save_pretrained(tmp_path / name)
    saved = {name: load_file(tmp_path / name / "model.safetensors") for name in ("plain", "eight")}
    assert saved["plain"].keys() == saved["eight"].keys()
    assert all(torch.equal(saved["eight"][name], weight) for name, weight in eight.named_parameters())


def test_recomputation_repeats_the_same_roundings() -> None:
    pytest.importorskip("torchao")
    curves = []
    for recompute in ("none", "selective", "full"):
        model = build_model(MODEL, 0)
        float8.convert(model, emulate=True)
        curves.append(curve(model, recompute, steps=3))
    assert curves[1] == curves[0] == curves[2]


def test_gradients_are_e5m2_and_the_rest_e4m3() -> None:
    pytest.importorskip("torchao")
    from torchao.float8 import Float8LinearConfig

    config = Float8LinearConfig()
    assert config.cast_config_input.target_dtype == config.cast_config_weight.target_dtype == torch.float8_e4m3fn
    assert config.cast_config_grad_output.target_dtype == torch.float8_e5m2


def test_layers_that_do_not_fit_are_refused() -> None:
    pytest.importorskip("torchao")
    odd = MODEL.replace(hidden=60, ffn=90, heads=5, kv_heads=5, head_dim=12)
    with pytest.raises(LabError, match="multiples of 16"):
        float8.convert(build_model(odd, 0), emulate=True)


def spread(layout: Parallelism) -> list[float]:
    """Losses of three steps, each rank on its own sequence, emulated."""
    with joined(layout.gpus) as world:
        links, place = Links.of(layout, world.device), Place.of(world.rank, layout)
        empty = skeleton(MODEL)
        float8.convert(empty, emulate=True)
        laid = distribute(empty, layout, True, world.device, links)
        initialise(laid.model, MODEL, 0)
        autocast = layout.dp == 1
        step = Stepper(
            laid.model, torch.optim.AdamW(laid.model.parameters(), lr=3e-3), world, place, 1.0, autocast, links
        )
        ids = torch.randint(100, (2, 32), generator=torch.Generator().manual_seed(0))
        rows = [Batch(row, row.roll(-1, 1), torch.arange(32)[None]) for row in ids.split(1)]
        return [step(rows[place.dp_rank :: place.dp]).loss for _ in range(3)]


@pytest.mark.slow
def test_shards_of_two_processes_make_the_same_8_bit_products() -> None:
    pytest.importorskip("torchao")
    two = on_ranks(2, spread, Parallelism(dp_shard=2))
    assert two == pytest.approx(spread(Parallelism()), rel=0.01)
