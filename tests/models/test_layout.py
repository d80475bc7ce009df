"""Layouts that cannot run are refused with what to change; ranks know their place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from lablib.models.context import FULL, WINDOWED, attend_over, context_masks
from lablib.models.layout import Place
from lablib.models.sequence import sequence_plan
from lablib.models.stages import cut
from lablib.specs import SSM, LabError, ModelSpec, Parallelism, Pretrain
from lablib.specs.families import FAMILIES
from lablib.train.able import PLANLESS, check_batch, check_layout

MODEL = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, kv_heads=2, ffn=160, vocab=300)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Parallelism(pp=4), r"parallelism.pp=4 × virtual_stages=1 is more than the model's layers=2"),
        (Parallelism(virtual_stages=2), r"virtual_stages=2 needs a pipeline"),
        (
            Parallelism(pp=2, dp_shard=2, pp_schedule="zero-bubble"),
            r"pp_schedule='zero-bubble'.*set pp_schedule='1f1b'",
        ),
        (Parallelism(dp_shard=2, ep=2), r"parallelism.ep=2 does not divide the model's 0 experts"),
        (Parallelism(tp=3), r"parallelism.tp=3 does not divide the model's heads=4"),
        (Parallelism(tp=4), r"parallelism.tp=4 does not divide the model's kv_heads=2"),
    ],
)
def test_refused(layout: Parallelism, message: str) -> None:
    with pytest.raises(LabError, match=message):
        check_layout(MODEL, layout)


def test_accepted() -> None:
    check_layout(MODEL, Parallelism(dp_replicate=3, dp_shard=5, tp=2))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Parallelism(cp=2), r"parallelism.cp=2: only layers of attention"),
        (Parallelism(pp=2), r"parallelism.pp=2: stages are cut from layers of attention"),
    ],
)
def test_refused_for_mamba(layout: Parallelism, message: str) -> None:
    ssm = SSM(heads=4, head_dim=32, state=8, attention_layers=(1,))
    with pytest.raises(LabError, match=message):
        check_layout(MODEL.replace(family="bamba", ssm=ssm), layout)


def test_masks_of_slices_are_those_that_transformers_makes() -> None:
    spec, positions = MODEL.replace(family="gemma3", sliding_window=5, window_every=2), torch.arange(12)[None]
    config = spec.to_hf()
    config._attn_implementation = "sdpa"
    makers = {FULL: create_causal_mask, WINDOWED: create_sliding_window_causal_mask}
    packed = torch.cat([torch.arange(7), torch.arange(5)])[None]
    for given in (positions, packed):
        asked = {"attention_mask": None, "past_key_values": None, "position_ids": given}
        whole = {kind: make(config, torch.zeros(1, 12, 64), **asked) for kind, make in makers.items()}
        parts = [context_masks(config, given, rank, 3) for rank in range(3)]
        assert isinstance(parts[0], dict) and parts[0].keys() == makers.keys()
        for kind, wanted in whole.items():
            found = torch.cat([part[kind] for part in parts], 2) == 0  # type: ignore[index]
            assert torch.equal(found, found.new_ones(12, 12).tril()[None, None] if wanted is None else wanted), kind


@pytest.mark.parametrize(
    ("family", "layout", "message"),
    [
        (
            "nemotron",
            Parallelism(pp=2),
            r"parallelism.pp=2: there is no plan of this kind for family='nemotron'; set pp=1",
        ),
        ("gpt2", Parallelism(tp=2), r"parallelism.tp=2.*set tp=1"),
        ("gemma2", Parallelism(tp=2, sequence_parallel=True), r"sequence_parallel=True.*set sequence_parallel=False"),
    ],
)
def test_refused_for_a_family(family: Any, layout: Parallelism, message: str) -> None:
    with pytest.raises(LabError, match=message):
        check_layout(ModelSpec(family=family, layers=2, hidden=64, heads=4, ffn=128, vocab=128), layout)


@pytest.mark.parametrize("family", [name for name, traits in FAMILIES.items() if not traits.parts])
def test_families_without_a_plan_are_those_that_cannot_be_laid_out(family: Any) -> None:
    with torch.device("meta"):
        heads = 1 if FAMILIES[family].recurrent else 4
        spec = ModelSpec(family=family, layers=2, hidden=64, heads=heads, ffn=128, vocab=128)
        model = AutoModelForCausalLM.from_config(spec.to_hf())
    missing = set() if model.tp_plan else {"tp", "sequence_parallel"}
    for kind, lay_out in (
        ("sequence_parallel", lambda: model.tp_plan and sequence_plan(model, model.tp_plan)),
        ("cp", lambda: attend_over(model, SimpleNamespace(size=lambda: 2))),
        ("pp", lambda: cut(model, 0, Parallelism(pp=2))),
    ):
        try:
            lay_out()
        except LabError:
            missing.add(kind)
    assert missing == {kind for kind, families in PLANLESS.items() if family in families}


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        (Parallelism(cp=3), {}, r"seq_len=64 is no multiple of the 3 slices"),
        (Parallelism(pp=2), {"batch_tokens": 64}, r"1 micro-batches does not fill parallelism.pp=2"),
        (Parallelism(pp=2, pp_schedule="zero-bubble"), {"recompute": "full"}, r"recompute='full': zero-bubble"),
        (Parallelism(pp=2, pp_schedule="zero-bubble"), {"compile": True}, r"compile=True: zero-bubble.*'1f1b'"),
    ],
)
def test_refused_for_a_step(layout: Parallelism, changes: dict[str, Any], message: str) -> None:
    settings = {"model": MODEL, "tokens": 4096, "seq_len": 64, "batch_tokens": 512, "parallelism": layout, **changes}
    with pytest.raises(LabError, match=message):
        check_batch(Pretrain(**settings))


def test_ranks_of_every_kind_have_their_place() -> None:
    layout = Parallelism(pp=2, dp_replicate=2, dp_shard=2, cp=2, tp=2)
    places = [Place.of(rank, layout) for rank in range(layout.gpus)]
    assert len({(p.pp_rank, p.dp_rank, p.cp_rank, p.tp_rank) for p in places}) == layout.gpus
    assert sum(place.speaks for place in places) == layout.dp
    assert {(p.dp_rank, p.tp_rank, p.cp_rank) for p in places if p.pp_rank == 1 and p.speaks} == {
        (n, 0, 0) for n in range(4)
    }


def test_tensor_parallel_neighbours_share_their_data() -> None:
    places = [Place.of(rank, Parallelism(dp_replicate=2, dp_shard=2, tp=2)) for rank in range(8)]
    assert [place.dp_rank for place in places] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert {(place.dp, place.tp) for place in places} == {(4, 2)}
