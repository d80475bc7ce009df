"""Cut a transformers decoder into pipeline stages that keep the names, plans and forward pass of the whole model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from lablib.models.build import tied
from lablib.models.context import Masks
from lablib.specs import LabError, Parallelism

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def stage_numbers(rank: int, parallelism: Parallelism) -> list[int]:
    """The stages of one pipeline rank, of `pp` × `virtual_stages` in all: every pp-th (arXiv 2104.04473 §2.2.2)."""
    return [rank + slice_ * parallelism.pp for slice_ in range(parallelism.virtual_stages)]


def stage_layers(stage: int, stages: int, layers: int) -> range:
    """The decoder layers of a stage: contiguous, and as equal as can be."""
    return range(stage * layers // stages, (stage + 1) * layers // stages)


def cut(model: PreTrainedModel, rank: int, parallelism: Parallelism) -> list[PreTrainedModel]:
    """Leave in `model` only what pipeline rank `rank` holds, and return its stages as models that share those parts.

    A stage is the whole model's forward pass without the layers of other stages; the first takes `input_ids`, the others
    `inputs_embeds`, and all but the last give hidden states where the last gives logits. Parameter names stay those of the
    whole model. A head that is tied to its embedding is on the first stage and on the last, under the embedding's name
    (`lablib.models.layout.sum_tied_gradients`). Raises `LabError` where the architecture is no plain stack of layers, or caps
    its logits: a stage's hidden states would be capped in their place.
    """
    if getattr(model.config, "final_logit_softcapping", None):
        raise LabError(f"parallelism.pp={parallelism.pp}: {model.config.model_type} caps its logits after the head, which stages cannot leave out; set pp=1")  # fmt: skip
    parts = getattr(model.config, "base_model_pp_plan", None) or {}
    if not {"embed_tokens", "layers", "norm"} <= set(parts) or set(model._modules) != {"model", "lm_head"}:
        raise LabError(f"parallelism.pp={parallelism.pp}: transformers has no pipeline plan for {model.config.model_type}; set pp=1")  # fmt: skip
    total = parallelism.pp * parallelism.virtual_stages
    count = len(cast(nn.ModuleList, model.model.layers))
    numbers = stage_numbers(rank, parallelism)
    chunks = []
    for number in numbers:
        kept = set(stage_layers(number, total, count))
        chunk = model if len(numbers) == 1 else _shell(model)
        chunks.append((chunk, kept, number == 0, number == total - 1))
    for chunk, kept, first, last in chunks:
        _keep(chunk, kept, first, last)
    if len(numbers) > 1:
        every = set[int]().union(*(kept for _, kept, _, _ in chunks))
        _keep(model, every, numbers[0] == 0, numbers[-1] == total - 1)
    return [chunk for chunk, _, _, _ in chunks]


class Layers(nn.ModuleList):
    """Some of a model's decoder layers under their own numbers; iterating passes over the others with `_skip`."""

    def __init__(self, layers: nn.ModuleList, kept: set[int]) -> None:
        """`kept` are the numbers that stay."""
        super().__init__()
        self._total = len(layers)
        for number in sorted(kept):
            self.add_module(str(number), layers[number])

    def __getitem__(self, index: Any) -> Any:
        """A layer or a list of layers, by the whole model's numbers."""
        return [self._modules.get(str(number), _skip) for number in range(self._total)][index]

    def __len__(self) -> int:
        """Layers of the whole model."""
        return self._total

    def __iter__(self) -> Any:
        """Every layer of the whole model in order."""
        return iter(self[:])


class Stage(nn.Module):
    """A stage as `torch.distributed.pipelining` calls it: tensors in, one tensor out."""

    def __init__(
        self,
        model: nn.Module,
        first: bool,
        losses: Callable[..., torch.Tensor] | None = None,
        masks: Callable[[torch.Tensor], Masks] | None = None,
    ) -> None:
        """`model` is one of `cut`'s; `first` where it takes token ids; `losses` of labels and of what `model` is called with
        are what the last stage gives; `masks` of whole sequences' positions are what slices of them attend under."""
        super().__init__()
        self.model, self._losses, self._masks = model, losses, masks
        self._input = "input_ids" if first else "inputs_embeds"

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Token ids (sequences, seq_len) or hidden states (…, hidden) to hidden states, or on the last stage to losses.

        `sequences` are the positions of whole sequences where the others are slices of them.
        """
        mask = self._masks(sequences) if self._masks and sequences is not None else None
        given = {self._input: x, "position_ids": positions, "attention_mask": mask, "use_cache": False}
        out = cast(torch.Tensor, self._losses(labels, **given) if self._losses else self.model(**given).logits)
        return out.clone() if out._is_view() else out  # the schedules detach what a stage gives, in place


def _skip(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return hidden_states


def _shell(model: PreTrainedModel) -> PreTrainedModel:
    # The same submodules in a module of its own, so that each stage can be wrapped and called by itself.
    outer, inner = copy.copy(model), copy.copy(model.model)
    for shell in (outer, inner):
        shell._modules = dict(shell._modules)
    outer._modules["model"] = inner
    for plan in ("_tp_plan", "_ep_plan", "_fsdp_plan"):
        setattr(outer, plan, dict(getattr(outer, plan)))
    return outer


def _keep(model: PreTrainedModel, layers: set[int], first: bool, last: bool) -> None:
    inner = cast(nn.Module, model.model)
    gone = []
    inner.layers = Layers(cast(nn.ModuleList, inner.layers), layers)
    if not (first or (last and tied(model))):
        inner.embed_tokens = nn.Identity()
        gone.append("model.embed_tokens")
    if not last:
        inner.norm, model.lm_head = nn.Identity(), nn.Identity()
        gone += ["model.norm", "lm_head"]
    for name in ("_tp_plan", "_ep_plan", "_fsdp_plan"):
        plan = getattr(model, name)
        setattr(model, name, {key: style for key, style in plan.items() if key not in gone})
