"""Layouts of a thousand GPUs laid out on none: what a rank holds is what the planner says and what division gives."""

from __future__ import annotations

import weakref
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM

from lablib.models.build import build_model
from lablib.models.context import context_masks
from lablib.models.layout import Laid, Links, Place, distribute
from lablib.models.seeded import skeleton
from lablib.specs import LabError, ModelSpec, Parallelism, Pretrain
from lablib.specs.model import SSM, MoE
from lablib.train import dryrun, pipeline
from lablib.train.batches import Batch
from lablib.train.distributed import World
from lablib.train.dryrun import lay_out_dry
from lablib.train.pipeline import Part, Pipeline
from lablib.train.step import Stepper

WIDE: dict[str, Any] = {"hidden": 1024, "heads": 16, "kv_heads": 8, "vocab": 32_000}
DENSE = ModelSpec(family="llama", layers=8, ffn=4096, **WIDE)
TIED = ModelSpec(family="qwen3", layers=8, ffn=4096, tied_embeddings=True, **WIDE)
ROUTED = ModelSpec(family="qwen3_moe", layers=4, ffn=4096, moe=MoE(experts=64, top_k=4, expert_ffn=512), **WIDE)
JAMBA = ModelSpec(
    family="jamba",
    layers=4,
    ffn=512,
    moe=MoE(experts=64, top_k=4, expert_ffn=512, norm_topk=False, every=2),
    ssm=SSM(heads=2048, head_dim=1, state=16, step_rank=64, attention_layers=(1,)),
    **WIDE,
)
RWKV = ModelSpec(family="rwkv", layers=4, hidden=1024, ffn=4096, vocab=32_000)
CASES = [
    (DENSE, Parallelism(dp_replicate=2, dp_shard=16, tp=8, pp=4, sequence_parallel=True, virtual_stages=2)),
    (TIED, Parallelism(dp_shard=128, cp=2)),
    (ROUTED, Parallelism(dp_shard=64, ep=16)),
    (JAMBA, Parallelism(dp_shard=64, ep=16)),
    (RWKV, Parallelism(dp_shard=4)),  # FSDP2 leaves its mixes, (1, 1, hidden), whole to the first rank
]


def recipe(model: ModelSpec, layout: Parallelism) -> Pretrain:
    """Sixteen micro-batches a step."""
    step = 16 * 1024 * layout.dp * layout.micro_batch_size
    mask = model not in (JAMBA, RWKV)
    return Pretrain(
        model=model, tokens=10 * step, seq_len=1024, batch_tokens=step, parallelism=layout, document_mask=mask
    )


@pytest.mark.parametrize(("model", "layout"), CASES)
def test_every_stage_holds_what_is_planned(model: ModelSpec, layout: Parallelism) -> None:
    held = lay_out_dry(recipe(model, layout))
    assert [one.pp_rank for one in held] == sorted({0, layout.pp // 2, layout.pp - 1})
    assert all(abs(one.excess) < 2e-3 for one in held)


def test_shards_add_up_to_the_model() -> None:
    (held,) = lay_out_dry(recipe(TIED, Parallelism(dp_shard=64)))
    with torch.device("meta"):
        whole = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(TIED.to_hf()).parameters())
    assert held.parameters * 64 == whole


def test_a_layout_that_shards_nothing_shows() -> None:
    with patch.object(dryrun, "distribute", lambda model, *rest: Laid(model, (model,))):
        (held,) = lay_out_dry(recipe(DENSE, Parallelism(dp_shard=64)))
    assert held.excess > 60


def test_what_cannot_run_is_refused() -> None:
    with pytest.raises(LabError, match=r"zero=2.*set zero=3"):
        lay_out_dry(recipe(DENSE, Parallelism(dp_shard=8, zero=2)))


def test_replicas_of_a_stage_meet_once_a_step() -> None:
    spec, cpu, said = DENSE.replace(hidden=16, heads=2, kv_heads=2, ffn=16, vocab=32), torch.device("cpu"), []
    ids = torch.zeros(1, 8, dtype=torch.int64)
    with dryrun._pretended(0, 2), patch.object(pipeline, "share_gradients", lambda *given: said.append(given[1:])):
        stages = Pipeline([build_model(spec, 0)], Parallelism(), dist.new_group([0]), cpu, 16, torch.float32)
        stages.train([Part(ids, ids, ids, None)] * 4, 1.0)
    assert said == [(3, False)] * 3 + [(3, True)]


@pytest.mark.parametrize("half", [True, False])
def test_masks_have_the_type_that_fsdp_computes_in(half: bool) -> None:
    layout, cpu, ids = Parallelism(cp=2), torch.device("cpu"), torch.zeros(1, 8, dtype=torch.int64)
    with dryrun._pretended(0, 2):
        laid = distribute(skeleton(DENSE), layout, half, torch.device("meta"), Links.of(layout, cpu))
        optimizer = torch.optim.SGD(laid.model.parameters())
        step = Stepper(laid.model, optimizer, World(0, 2, cpu), Place.of(0, layout), 1.0, False)
        mask = step._masks(step._part(Batch(ids, ids, ids)))
    assert isinstance(mask, torch.Tensor) and mask.dtype == (torch.bfloat16 if half else torch.float32)


def test_masks_are_held_for_the_micro_batches_in_flight_alone() -> None:
    spec, cpu = DENSE.replace(hidden=16, heads=2, kv_heads=2, ffn=16, vocab=32), torch.device("cpu")
    ids, held, most = torch.zeros(1, 8, dtype=torch.int64), [], 0

    def noted(*given: Any) -> Any:
        nonlocal most
        mask = context_masks(*given)
        held.append(weakref.ref(mask))
        most = max(most, sum(ref() is not None for ref in held))
        return mask

    with dryrun._pretended(0, 2), patch.object(pipeline, "context_masks", noted):
        stages = Pipeline([build_model(spec, 0)], Parallelism(), dist.new_group([0]), cpu, 16, torch.float32)
        stages.train([Part(ids, ids, ids, ids)] * 6, torch.tensor(1.0))
    assert len(held) == 6 and most == 1
