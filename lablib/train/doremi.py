"""DoReMi's proxy run (arXiv 2305.10429): a small model trained by group DRO beside a finished reference model.

Windows come equally from every domain; each domain's mean loss is weighted by its current weight, which follows the clipped
excess over the reference. One process: the proxy is small by design.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from lablib.data import PackedDataset
from lablib.data.loader import IGNORED, Window
from lablib.data.mixing.doremi import DomainWeights
from lablib.data.mixing.shares import Shares
from lablib.models.build import build_model
from lablib.models.compiled import compile_layers
from lablib.models.recompute import apply_recompute
from lablib.specs import LabError, Mixture, Pretrain
from lablib.train.batches import Batch, collate
from lablib.train.clip import clip_gradients
from lablib.train.optimizer import build_optimizer, set_learning_rate
from lablib.train.schedule import learning_rate

Log = Callable[[int, dict[str, float]], None]
"""(step, its measurements): pass a recorder's log."""


@dataclass(frozen=True)
class Reweighted:
    """What a DoReMi run gives."""

    mixture: Mixture
    """The mean weights over training."""
    path: list[Shares]
    """The weights after each step that this call made."""
    excess: Shares
    """The last mean clipped excess of each domain, nats a token."""
    finished: bool = True
    """False where it was asked to stop; what it is then asked again goes on from there."""


class Keeper(Protocol):
    """Keeps a run's state between attempts (`lablib.train.reweigh` has the one of a run folder)."""

    def load(self, model: Any, optimizer: torch.optim.Optimizer, weights: DomainWeights) -> int:
        """Fill all three from the last state that was kept, and give its step; 0 at the start."""

    def keep(self, step: int, model: Any, optimizer: torch.optim.Optimizer, weights: DomainWeights) -> bool:
        """Called after each step (and before the first), keeps the state where it is due; False asks to stop."""


def doremi(recipe: Pretrain, data: Path, reference: torch.nn.Module, weights: DomainWeights | None = None,
           log: Log | None = None, keeper: Keeper | None = None) -> Reweighted:  # fmt: skip
    """Train the recipe's model as DoReMi's proxy on the windows of a prepared `data` folder.

    `reference` is a model trained on the same tokenizer (an ordinary `Pretrain` run in natural proportions). The recipe
    gives model, tokens, batch, optimiser and schedule; its mixture only names the domains (empty: all). Small domains are
    read as often as large ones, so more often than `max_epochs` if need be: what a proxy reads is not a mixture. Raises `LabError`
    for a layout of several processes or a precision below 16 bits, and where a loss stops being finite.
    """
    if recipe.gpus != 1:
        raise LabError(f"parallelism: DoReMi's proxy trains in one process, not {recipe.gpus}; set every degree to 1")
    if recipe.precision not in ("fp32", "bf16"):
        raise LabError(f"precision={recipe.precision!r}: DoReMi's proxy is small and trains in 16 or 32 bits; set precision='bf16'")  # fmt: skip
    windows = evenly(recipe, data)
    weights = weights or DomainWeights(windows.domains)
    if weights.domains != windows.domains:
        raise LabError(f"weights are for {', '.join(weights.domains)}; the data has {', '.join(windows.domains)}")
    model = build_model(recipe.model, recipe.seed).to("cuda" if torch.cuda.is_available() else "cpu")
    apply_recompute(model, recipe.recompute)
    if recipe.compile:
        compile_layers(model)
    optimizer = build_optimizer(model, recipe.optimizer)
    path: list[Shares] = []
    model.train()
    reference.eval()
    size = recipe.step_tokens // recipe.seq_len
    for step in range(keeper.load(model, optimizer, weights) if keeper else 0, recipe.steps):
        if keeper and not keeper.keep(step, model, optimizer, weights):
            return _reweighted(recipe, weights, path, finished=False)
        rate = learning_rate(step, recipe.steps, recipe.optimizer.learning_rate, recipe.schedule)
        set_learning_rate(optimizer, rate)
        taken = [windows[index] for index in range(step * size, (step + 1) * size)]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = _step(model, reference, taken, weights, recipe.document_mask)
        clip_gradients(model.parameters(), recipe.optimizer.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        path.append(dict(zip(weights.domains, weights.now.tolist(), strict=True)))
        if log is not None:
            log(step + 1, {"loss": loss, **{f"weight.{name}": share for name, share in path[-1].items()}})
    return _reweighted(recipe, weights, path, finished=True)


def _reweighted(recipe: Pretrain, weights: DomainWeights, path: list[Shares], finished: bool) -> Reweighted:
    excess = dict(zip(weights.domains, weights.excess.tolist(), strict=True))
    mixture = Mixture(weights=weights.mean, max_epochs=recipe.mean_mixture.max_epochs)
    return Reweighted(mixture, path, excess, finished)


def evenly(recipe: Pretrain, data: Path) -> PackedDataset:
    """The training windows with equal shares of every domain that the recipe's mixture names."""
    known = PackedDataset(data, recipe.mean_mixture, recipe.seq_len, "train", recipe.seed).domains
    even = Mixture(weights={name: 1 / len(known) for name in known}, max_epochs=recipe.mean_mixture.max_epochs)
    return PackedDataset(data, even, recipe.seq_len, "train", recipe.seed)


def _step(model: Any, reference: Any, taken: list[Window], weights: DomainWeights, mask: bool) -> float:
    """Forward, update of the weights, backward; the weighted loss in nats."""
    batch = collate(taken, mask).on(next(model.parameters()).device)
    counted = batch.labels.flatten() != IGNORED
    rows = torch.tensor([weights.domains.index(window.domain) for window in taken], device=counted.device)
    domain = rows.repeat_interleave(batch.labels.shape[1])[counted]
    own = token_losses(model, batch)[counted]
    with torch.no_grad():
        theirs = token_losses(reference, batch)[counted]
    excess = (own.detach() - theirs).double().cpu().numpy()
    now = weights.update(excess, domain.cpu().numpy().astype(np.int64))
    loss = group_loss(own, domain, torch.tensor(now, device=own.device, dtype=own.dtype))
    loss.backward()
    return float(loss.detach())


def token_losses(model: Any, batch: Batch) -> torch.Tensor:
    """Cross entropy of every target, fp32 (sequences·seq_len,); 0 where none is predicted."""
    logits = model(input_ids=batch.inputs, position_ids=batch.positions, use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="none")


def group_loss(losses: torch.Tensor, domain: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Σ_d α_d · (mean loss of domain d's tokens): losses and domain (tokens,), weights (domains,).

    A domain that is not in the batch adds nothing.
    """
    summed = torch.zeros_like(weights).index_add(0, domain, losses)
    count = torch.bincount(domain, minlength=len(weights)).clamp(min=1)
    return (weights * summed / count).sum()
