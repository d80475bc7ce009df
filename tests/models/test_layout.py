"""Layouts that cannot run are refused with what to change; ranks know their place."""

from __future__ import annotations

import pytest

from lablib.models.layout import Place
from lablib.specs import LabError, ModelSpec, Parallelism
from lablib.train.able import check_layout

MODEL = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, kv_heads=2, ffn=160, vocab=300)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Parallelism(pp=2), r"parallelism.pp=2.*set pp=1"),
        (Parallelism(cp=2), r"parallelism.cp=2.*set cp=1"),
        (Parallelism(dp_shard=2, ep=2), r"parallelism.ep=2.*set ep=1"),
        (Parallelism(tp=3), r"parallelism.tp=3 does not divide the model's heads=4"),
        (Parallelism(tp=4), r"parallelism.tp=4 does not divide the model's kv_heads=2"),
    ],
)
def test_refused(layout: Parallelism, message: str) -> None:
    with pytest.raises(LabError, match=message):
        check_layout(MODEL, layout)


def test_accepted() -> None:
    check_layout(MODEL, Parallelism(dp_replicate=3, dp_shard=5, tp=2))


def test_tensor_parallel_neighbours_share_their_data() -> None:
    places = [Place.of(rank, Parallelism(dp_replicate=2, dp_shard=2, tp=2)) for rank in range(8)]
    assert [place.dp_rank for place in places] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert {(place.dp, place.tp) for place in places} == {(4, 2)}
