"""A look inside the layers: what they give, how sharp attention is, where gradients are large.

One step is looked at with hooks that are there for that step alone. What ranks saw of a layer is joined, so that the figures
are the whole step's under every layout.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lablib.models.context import GATHERED, context_mask
from lablib.models.decoder import decoder_layers, layer_number
from lablib.train.clip import global_norm
from lablib.train.distributed import World

QUERIES = 256
"""Queries whose attention logits are held at a time."""
Sums = dict[str, dict[int, list[float]]]
"""Measure → layer → what ranks can add up or take the largest of."""


class Layers:
    """Measures the layers of one step between `arm` and `disarm`; otherwise it costs nothing."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Nothing is measured yet."""
        self.model, self.optimizer = model, optimizer
        self._hooks: list[Any] = []
        self._spied: dict[str, Any] = {}
        self._clear()

    def _clear(self) -> None:
        self._squares: dict[int, list[torch.Tensor]] = defaultdict(list)
        self._largest: dict[int, list[torch.Tensor]] = defaultdict(list)
        self._logits: dict[int, list[torch.Tensor]] = defaultdict(list)
        self._norms: dict[int, torch.Tensor] = {}

    def arm(self) -> None:
        """Measure from now on."""
        self._clear()
        for number, layer in decoder_layers(self.model).items():
            self._hooks.append(layer.register_forward_hook(self._output(number)))
        self._hooks.append(self.optimizer.register_step_pre_hook(self._gradients))
        self._spy()

    def disarm(self) -> None:
        """Measure no more; may be called twice."""
        while self._hooks:
            self._hooks.pop().remove()
        for name in self._spied:
            del ALL_ATTENTION_FUNCTIONS[name]
        self._spied = {}

    def sums(self, clipped: float) -> Sums:
        """What this rank saw: sums of squares with their counts, maxima, gradient norms. `clipped` is what
        clipping divided the gradients by."""
        return {
            "rms": {n: torch.stack(found).sum(0).tolist() for n, found in self._squares.items()},
            "max": {n: [float(torch.stack(found).max())] for n, found in self._largest.items()},
            "logit_max": {n: [float(torch.stack(found).max())] for n, found in self._logits.items()},
            "grad_norm": {n: [float(norm) * clipped] for n, norm in self._norms.items()},
        }

    def _output(self, number: int) -> Any:
        @torch.no_grad()
        def hook(module: torch.nn.Module, given: Any, out: Any) -> None:
            made = out[0] if isinstance(out, tuple) else out
            hidden = (made.to_local() if isinstance(made, DTensor) else made).detach().double()
            self._squares[number].append(torch.stack([hidden.square().sum(), hidden.new_tensor(hidden.numel())]))
            self._largest[number].append(hidden.abs().max())

        return hook

    @torch.no_grad()
    def _gradients(self, *_: Any) -> None:
        grouped: dict[int, list[torch.Tensor]] = defaultdict(list)
        for name, weight in self.model.named_parameters():
            number = layer_number(name)
            if number is not None and weight.grad is not None:
                grouped[number].append(weight.grad)
        self._norms = {number: global_norm(found) for number, found in grouped.items()}

    def _spy(self) -> None:
        # Under context parallelism a rank has a slice of the keys only, and the whole is gathered inside.
        modules: list[Any] = [module for module in self.model.modules() if hasattr(module, "layer_idx")]
        used = {str(module.config._attn_implementation) for module in modules if hasattr(module, "config")}
        for name in used - {GATHERED, f"fp32-{GATHERED}"}:
            if name in ALL_ATTENTION_FUNCTIONS:
                self._spied[name] = ALL_ATTENTION_FUNCTIONS[name]
                ALL_ATTENTION_FUNCTIONS[name] = self._watched(self._spied[name])

    def _watched(self, attention: Any) -> Any:
        def forward(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any) -> Any:  # fmt: skip
            scaling, positions = options.get("scaling") or query.shape[-1] ** -0.5, options.get("position_ids")
            seen = mask
            if mask is None and positions is not None:
                seen = context_mask(positions, 0, 1, options.get("sliding_window"))
            self._logits[int(module.layer_idx)].append(logit_max(query, key, seen, scaling))
            return attention(module, query, key, value, mask, **options)

        return forward


@torch.no_grad()
def logit_max(query: torch.Tensor, key: torch.Tensor, mask: Any, scaling: float) -> torch.Tensor:
    """Largest attention logit that enters a softmax, a scalar: of queries (sequences, heads, n, d) and keys (sequences, key
    heads, n, d), `mask` bool or additive (sequences, 1, n, n), or None for a causal one."""
    groups, length = query.shape[1] // key.shape[1], key.shape[2]
    keys = key.float().repeat_interleave(groups, dim=1).transpose(2, 3)
    found = []
    for start in range(0, query.shape[2], QUERIES):
        part = query[:, :, start : start + QUERIES].float()
        with torch.autocast(query.device.type, enabled=False):
            logits = part @ keys * scaling
        if mask is None:
            order = torch.arange(length, device=query.device)
            seen = order[None, :] <= order[start : start + QUERIES, None]
        else:
            rows = mask[:, :, start : start + QUERIES]
            seen = rows if rows.dtype == torch.bool else rows > -1e4
        found.append(logits.masked_fill(~seen, -math.inf).max())
    return torch.stack(found).max()


def joined(parts: Sequence[Sums]) -> dict[str, float]:
    """One row of what all ranks saw: ``rms.<layer>``, ``max.<layer>``, ``logit_max.<layer>``,
    ``grad_norm.<layer>``."""
    row: dict[str, float] = {}
    for measure in ("max", "logit_max", "grad_norm"):  # each rank of a stage holds the same norm
        for number, found in _by_layer(parts, measure).items():
            row[f"{measure}.{number}"] = max(value for (value,) in found)
    for number, found in _by_layer(parts, "rms").items():
        square, count = (sum(column) for column in zip(*found, strict=True))
        row[f"rms.{number}"] = math.sqrt(square / count)
    return row


def _by_layer(parts: Sequence[Sums], measure: str) -> dict[int, list[list[float]]]:
    found: dict[int, list[list[float]]] = defaultdict(list)
    for part in parts:
        for number, values in part[measure].items():
            found[number].append(values)
    return dict(sorted(found.items()))


def watch(layers: Layers, world: World, clipped: float) -> dict[str, float]:
    """The row of the step that was looked at. Every rank calls it."""
    return joined(world.collect(layers.sums(clipped)))
