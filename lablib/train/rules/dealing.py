"""Work on whole matrices, divided over the ranks that hold parts of them: each matrix is one rank's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from lablib.models.seeded import local
from lablib.train.rules.base import Update, with_local


def rounds(updates: Sequence[Update]) -> Iterator[Sequence[Update]]:
    """Updates of one mesh, those of one shape and layout together and as many at a time as there are ranks."""
    for _, alike in groupby(sorted(updates, key=_kind), key=_kind):
        several = list(alike)
        weight = several[0].weight
        size = weight.device_mesh.size() if isinstance(weight, DTensor) else 1
        for start in range(0, len(several), size):
            yield several[start : start + size]


def dealt(tensors: Sequence[Tensor], work: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """`work`, which takes stacks of matrices, of each whole tensor, laid out as the tensor was: a round of `rounds`.

    Every rank sends its part of each tensor to that one's owner, works on its own, and gets its part of each result back: an
    all-to-all there and one back. Matrices that lie whole on their ranks, as experts may, are worked on there.
    """
    first = tensors[0]
    if not isinstance(first, DTensor) or _lies_whole(first):
        return [with_local(one, work(local(one))) for one in tensors]
    mesh, layout = first.device_mesh, tuple(map(_shifted, first.placements))
    shape = torch.Size([len(tensors), *first.shape])
    strides = torch.empty(shape, device="meta").stride()
    parts = torch.stack([local(one) for one in tensors])
    stacked = DTensor.from_local(parts, mesh, layout, run_check=False, shape=shape, stride=strides)
    owned = stacked.redistribute(placements=[Shard(0)] * mesh.ndim)
    mine = local(owned)
    done = with_local(owned, work(mine) if mine.numel() else mine)
    assert isinstance(done, DTensor)
    back = done.redistribute(placements=layout)
    return [with_local(one, part) for one, part in zip(tensors, local(back), strict=True)]


def _kind(one: Update) -> tuple[tuple[int, ...], str]:
    weight = one.weight
    return tuple(weight.shape), str(weight.placements) if isinstance(weight, DTensor) else ""


def _lies_whole(one: DTensor) -> bool:
    cut = [placement for placement in one.placements if not isinstance(placement, Replicate)]
    return one.ndim > 2 and all(isinstance(place, Shard | _StridedShard) and place.dim == 0 for place in cut)


def _shifted(placement: Placement) -> Placement:
    """The same for a stack of such tensors."""
    if isinstance(placement, _StridedShard):
        return _StridedShard(placement.dim + 1, split_factor=placement.split_factor)
    return Shard(placement.dim + 1) if isinstance(placement, Shard) else placement
