"""AdamW whose moments are 8 bits an element, with a scale for each block (arXiv 2110.02861)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lablib.models.seeded import local
from lablib.specs.recipe import EIGHT_BIT_BLOCK
from lablib.train.rules.base import MOMENTS, Rule, State, decayed, zeros
from lablib.train.rules.elementwise import adam_direction


@dataclass(frozen=True)
class AdamW8(Rule):
    """AdamW that keeps the moments of matrices in 8 bits and computes in fp32: a quarter of the state.

    A block is `EIGHT_BIT_BLOCK` neighbours of a row, so that it lies on one rank wherever rows do and every layout reads back
    the very bytes. Vectors, less than a thousandth of a model, keep fp32 moments, as small tensors do in the paper's code.
    """

    betas: tuple[float, float]
    eps: float

    def fresh(self, weight: Tensor) -> State:
        """Of a matrix each moment's codes (as the weight, uint8) and scales (…, blocks of a row), of a vector the moments;
        zero."""
        if weight.ndim < 2:
            return zeros(weight, *MOMENTS)
        codes = zeros(weight, *(f"{name}_code" for name in MOMENTS), dtype=torch.uint8)
        return codes | {f"{name}_scale": _scales(weight) for name in MOMENTS}

    def update(self, weight: Tensor, gradient: Tensor, state: State, step: int, rate: float, decay: float) -> None:
        """As `Rule.update`."""
        decayed(weight, rate, decay)
        grad, kept = local(gradient).float(), {name: local(tensor) for name, tensor in state.items()}
        first = torch.lerp(_read(kept, MOMENTS[0]), grad, 1 - self.betas[0])
        second = torch.lerp(_read(kept, MOMENTS[1]), grad.square(), 1 - self.betas[1])
        _write(kept, MOMENTS[0], first)
        _write(kept, MOMENTS[1], second)
        local(weight).sub_(rate * adam_direction(first, second, step, self.betas, self.eps))


def _scales(weight: Tensor) -> Tensor:
    """Zeros, one for each block of the weight's rows, laid out as the weight."""
    own = local(weight)
    made = torch.zeros(*own.shape[:-1], _blocks(own.shape[-1]), device=own.device)
    if not isinstance(weight, DTensor):
        return made
    shape = torch.Size([*weight.shape[:-1], _blocks(weight.shape[-1])])
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(made, weight.device_mesh, weight.placements, run_check=False, shape=shape, stride=stride)


def _blocks(length: int) -> int:
    return -(-length // EIGHT_BIT_BLOCK)


def _read(state: State, name: str) -> Tensor:
    return (
        state[name] if name in state else dequantised(state[f"{name}_code"], state[f"{name}_scale"], "sq" not in name)
    )


def _write(state: State, name: str, value: Tensor) -> None:
    if name in state:
        state[name].copy_(value)
        return
    codes, scales = quantised(value, "sq" not in name)
    state[f"{name}_code"].copy_(codes)
    state[f"{name}_scale"].copy_(scales)


def quantised(value: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes, uint8 of the same shape, and scales, fp32 (…, blocks), of fp32 values (…, length): the nearest of `levels` times
    the largest magnitude of each block. Without a sign what is not zero stays so: a first moment over the root of a second one
    that was rounded away would be an update of any size, as in rows of an embedding that a step does not read (arXiv
    2309.01507 §4.1 takes zero out of the levels for this)."""
    blocks = _cut(value)
    scales = blocks.abs().amax(-1)
    table = torch.tensor(levels(signed), device=value.device)
    middle = (table[1:] + table[:-1]) / 2
    codes = torch.bucketize(blocks / scales.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-1), middle)
    codes = codes if signed else codes.clamp(min=(blocks > 0).to(codes.dtype))
    return codes.to(torch.uint8).flatten(-2)[..., : value.shape[-1]], scales


def dequantised(codes: Tensor, scales: Tensor, signed: bool) -> Tensor:
    """What `quantised` made codes and scales of, fp32."""
    table = torch.tensor(levels(signed), device=codes.device)
    return (table[_cut(codes).int()] * scales.unsqueeze(-1)).flatten(-2)[..., : codes.shape[-1]]


def _cut(value: Tensor) -> Tensor:
    """(…, length) → (…, blocks, size), the last block filled up with zeros; rows shorter than a block are one."""
    length = value.shape[-1]
    size = min(length, EIGHT_BIT_BLOCK)
    filled = torch.nn.functional.pad(value, (0, _blocks(length) * size - length)) if length % size else value
    return filled.unflatten(-1, (-1, size))


@lru_cache(maxsize=2)
def levels(signed: bool) -> tuple[float, ...]:
    """The 256 levels of dynamic tree quantisation between -1 (or 0) and 1, ascending (arXiv 2110.02861 §1.3): for each power of
    ten from 1e-6 (unsigned 1e-6 too, with twice the levels) to 1 a fraction that doubles its levels with the power."""
    found, powers = [0.0, 1.0], 7
    for power in range(powers):
        edges = torch.linspace(0.1, 1, 2 ** (power if signed else power + 1) + 1, dtype=torch.float64)
        means = ((edges[:-1] + edges[1:]) / 2 * 10.0 ** (power - powers + 1)).tolist()
        found += means + [-mean for mean in means if signed]
    return tuple(sorted(found))
