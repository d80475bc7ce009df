"""A look inside the layers: what they give, how sharp attention is, where gradients are large, which experts get the tokens.

One step is looked at with hooks that are there for that step alone. What ranks saw of a layer is joined, so that the figures
are the whole step's under every layout.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lablib.models.context import GATHERED
from lablib.models.decoder import decoder_layers, layer_number
from lablib.train.clip import global_norm
from lablib.train.distributed import World

QUERIES = 256
"""Queries whose attention logits are held at a time."""
FEW = 0.5
"""Share of the experts in effective use (e to the entropy of their load, over their number) below which a router collapses.
An entropy is at least that of the busiest expert's share, so loads as uneven as those of trained routers (busiest 1.7 × the mean,
arXiv 2408.15664 Table 2) leave 1 / 1.7 = 0.59 of them in use however they are spread."""
PATIENCE = 3
"""Looks in a row after which a collapsing router is named."""
Sums = dict[str, dict[int, list[float]]]
"""Measure → layer → what ranks can add up or take the largest of."""


class Layers:
    """Measures the layers of one step between `arm` and `disarm`; otherwise it costs nothing."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, experts: int) -> None:
        """`experts` of the whole model in a layer, 0 for a dense one."""
        self.model, self.optimizer, self.experts = model, optimizer, experts
        self._hooks: list[Any] = []
        self._spied: dict[str, Any] = {}
        self._clear()

    def _clear(self) -> None:
        self._squares: dict[int, list[torch.Tensor]] = defaultdict(list)
        self._largest: dict[int, list[torch.Tensor]] = defaultdict(list)
        self._logits: dict[int, list[torch.Tensor]] = defaultdict(list)
        self._loads: dict[int, list[torch.Tensor]] = defaultdict(list)
        self._norms: dict[int, torch.Tensor] = {}

    def arm(self) -> None:
        """Measure from now on."""
        self._clear()
        for number, layer in decoder_layers(self.model).items():
            self._hooks.append(layer.register_forward_hook(self._output(number)))
        for name, module in self.model.named_modules():
            if self.experts and type(module).__name__.endswith("Experts"):
                self._hooks.append(module.register_forward_pre_hook(self._routed(layer_number(name)), prepend=True))
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
        """What this rank saw: sums of squares with their counts, maxima, gradient norms, expert loads. `clipped` is what
        clipping divided the gradients by."""
        return {
            "rms": {n: torch.stack(found).sum(0).tolist() for n, found in self._squares.items()},
            "max": {n: [float(torch.stack(found).max())] for n, found in self._largest.items()},
            "logit_max": {n: [float(torch.stack(found).max())] for n, found in self._logits.items()},
            "grad_norm": {n: [float(norm) * clipped] for n, norm in self._norms.items()},
            "load": {n: torch.stack(found).sum(0).tolist() for n, found in self._loads.items()},
        }

    def _output(self, number: int) -> Any:
        @torch.no_grad()
        def hook(module: torch.nn.Module, given: Any, out: Any) -> None:
            made = out[0] if isinstance(out, tuple) else out
            hidden = (made.to_local() if isinstance(made, DTensor) else made).detach().double()
            self._squares[number].append(torch.stack([hidden.square().sum(), hidden.new_tensor(hidden.numel())]))
            self._largest[number].append(hidden.abs().max())

        return hook

    def _routed(self, number: int | None) -> Any:
        @torch.no_grad()
        def hook(module: torch.nn.Module, given: Any) -> None:
            chosen = next((x for x in given[1:] if isinstance(x, torch.Tensor) and not x.is_floating_point()), None)
            if chosen is not None and number is not None:
                self._loads[number].append(torch.bincount(chosen.flatten(), minlength=self.experts).double())

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
            scaling = options.get("scaling") or query.shape[-1] ** -0.5
            self._logits[int(module.layer_idx)].append(logit_max(query, key, mask, scaling))
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
    """One row of what all ranks saw: ``rms.<layer>``, ``max.<layer>``, ``logit_max.<layer>``, ``grad_norm.<layer>`` and of
    experts ``experts.<layer>`` (share of them in effective use) and ``load_max.<layer>`` (busiest over the mean)."""
    row: dict[str, float] = {}
    for measure in ("max", "logit_max", "grad_norm"):  # each rank of a stage holds the same norm
        for number, found in _by_layer(parts, measure).items():
            row[f"{measure}.{number}"] = max(value for (value,) in found)
    for number, found in _by_layer(parts, "rms").items():
        square, count = (sum(column) for column in zip(*found, strict=True))
        row[f"rms.{number}"] = math.sqrt(square / count)
    for number, found in _by_layer(parts, "load").items():
        loads = [sum(column) for column in zip(*found, strict=True)]
        row[f"experts.{number}"], row[f"load_max.{number}"] = in_use(loads), max(loads) * len(loads) / sum(loads)
    return row


def _by_layer(parts: Sequence[Sums], measure: str) -> dict[int, list[list[float]]]:
    found: dict[int, list[list[float]]] = defaultdict(list)
    for part in parts:
        for number, values in part[measure].items():
            found[number].append(values)
    return dict(sorted(found.items()))


def in_use(loads: Sequence[float]) -> float:
    """Share of experts in effective use: e to the entropy of the `loads`, over their number; 1 where all get alike."""
    total = sum(loads)
    entropy = -sum(load / total * math.log(load / total) for load in loads if load > 0)
    return math.exp(entropy) / len(loads)


class Routers:
    """Names a layer whose router has sent its tokens to few experts for `PATIENCE` looks in a row."""

    def __init__(self) -> None:
        """No layer has collapsed yet."""
        self._streaks: Counter[str] = Counter()

    def observe(self, row: dict[str, float]) -> list[tuple[int, float, float]]:
        """(Layer, share of its experts in use, busiest over the mean) of those that have just collapsed."""
        told = []
        for name, share in row.items():
            measure, _, number = name.partition(".")
            if measure != "experts":
                continue
            self._streaks[number] = self._streaks[number] + 1 if share < FEW else 0
            if self._streaks[number] == PATIENCE:
                told.append((int(number), share, row[f"load_max.{number}"]))
        return told


def watch(layers: Layers, world: World, clipped: float) -> dict[str, float]:
    """The row of the step that was looked at. Every rank calls it."""
    return joined(world.collect(layers.sums(clipped)))
