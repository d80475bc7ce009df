"""Gradient clipping by global norm over plain tensors and DTensors of several meshes at once.

`torch.nn.utils.clip_grad_norm_` fails where tensor parallelism leaves some parameters whole: its operands must share one
mesh. Here each mesh gives its own norm, and the norms are joined as a vector.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch.distributed import ProcessGroup, all_reduce
from torch.distributed.tensor import DTensor

_EPSILON = 1e-6
"""As in torch's own clipping: keeps the quotient finite for a zero gradient."""


def global_norm(gradients: Iterable[torch.Tensor]) -> torch.Tensor:
    """L2 norm of all gradients as if they were whole, a scalar, the same on every rank.

    A plain tensor counts once: tensor-parallel ranks hold equal copies of it.
    """
    meshes: dict[int | None, list[torch.Tensor]] = defaultdict(list)
    for gradient in gradients:
        meshes[id(gradient.device_mesh) if isinstance(gradient, DTensor) else None].append(gradient)
    norms = [_whole(torch.nn.utils.get_total_norm(group)) for group in meshes.values()]
    return torch.linalg.vector_norm(torch.stack(norms))


def _whole(norm: torch.Tensor) -> torch.Tensor:
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[torch.nn.Parameter],
    limit: float,
    stages: ProcessGroup | None = None,
    elsewhere: torch.nn.Parameter | None = None,
) -> torch.Tensor:
    """Scale all gradients in place so that their global norm is at most `limit`; returns the norm before that.

    `stages` are the ranks that hold the other parameters of the model (pipeline parallelism); `elsewhere` is one that another
    of them counts.
    """
    moved = [weight for weight in parameters if weight.grad is not None]
    gradients = [weight.grad for weight in moved if weight.grad is not None]
    norm = global_norm(weight.grad for weight in moved if weight.grad is not None and weight is not elsewhere)
    if stages is not None:
        square = norm.square()
        all_reduce(square, group=stages)
        norm = square.sqrt()
    factor = (limit / (norm + _EPSILON)).clamp(max=1.0)
    for gradient in gradients:
        (gradient.to_local() if isinstance(gradient, DTensor) else gradient).mul_(factor)
    return norm
