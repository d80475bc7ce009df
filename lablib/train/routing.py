"""The routers of a mixture-of-experts model: what they do in a step, and what keeps their experts in equal use.

A hook on each router adds the losses' gradient to what flows back through the experts' weights, so that they work the same
in a pipeline's stages, under recomputation and with a chunked loss, and counts tokens when that gradient passes: once for each
micro-batch that is trained on, never in an evaluation or a recomputation. Nothing is read by the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import all_reduce

from lablib.models.decoder import layer_number
from lablib.models.layout import ALONE, Links, Place
from lablib.specs import Balance, ModelSpec
from lablib.train.batches import Batch
from lablib.train.distributed import World

BIAS = "e_score_correction_bias"
"""The buffer that transformers' sigmoid routers add to their scores for the selection alone."""
LOADS, SCORES = 0, 1
"""Places in the first dimension of `Routing.end`'s sums."""


class Routing:
    """The routers that this rank holds. Every rank calls each method alike."""

    def __init__(
        self, model: torch.nn.Module, spec: ModelSpec, world: World, place: Place, links: Links = ALONE,
        balance: Balance | None = None, steps: int = 0,
    ) -> None:  # fmt: skip
        """Hooks on the routers of `model`, which is of `spec` (with experts); `steps` is what `Balance.bias_frozen` is a share of."""
        assert spec.moe is not None
        self.world, self.place, self.links, self.balance = world, place, links, balance
        self.experts, self.top_k = spec.moe.experts, spec.moe.top_k
        self.thaw = steps if balance is None else round(steps * (1 - balance.bias_frozen))
        """Steps after which the bias stays."""
        self.routers = routers(model)
        shape = 2, spec.layers, self.experts
        self._sums = torch.zeros(shape, dtype=torch.float64, device=world.device)
        self._all = self._sums.clone()
        self._loads = self._sums[LOADS].clone()
        self._relative = self._loads.float()
        self._step, self._sequences, self._weight = 0, 1, 0.0
        for number, router in self.routers.items():
            router.register_forward_hook(self._hook(number))

    def begin(self, batches: Sequence[Batch]) -> None:
        """Count anew: a computation of a step begins, on this rank's micro-batches."""
        tokens = sum(batch.inputs.numel() for batch in batches) * self.place.dp
        self._sequences = len(batches[0].inputs)
        # FSDP2 averages over the ranks that see different tokens, as in `lablib.train.step.gradient_scale`.
        self._weight = self.place.dp * self.place.cp / tokens
        self._sums.zero_()

    def end(self) -> Tensor:
        """What the routers did since `begin`, over all ranks, (2, layers, experts) in float64 on the device: tokens sent to each
        expert, and sums of their normalised scores. Layers without experts are 0."""
        self._all = self.world.sum(self._sums * (self.place.tp_rank == 0))
        return self._all

    @torch.no_grad()
    def update(self) -> None:
        """The step's update is made: move the biases, and remember the loads for the next step's loss."""
        self._remember(self._all[LOADS])
        balance = self.balance
        if balance is not None and balance.bias_rate and self._step < self.thaw:
            for number, router in self.routers.items():
                loads = self._loads[number]
                getattr(router, BIAS).add_(torch.sign(loads.mean() - loads), alpha=balance.bias_rate)
        self._step += 1

    def memory(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the biases, which are the model's: the loads that the next loss weighs by, as JSON."""
        return {"loads": self._loads.long().tolist()} if self.balance and self.balance.loss else {}

    def recall(self, step: int, memory: dict[str, Any]) -> None:
        """Take up what the checkpoint after `step` updates kept; without loads the next step's loss has no gradient."""
        self._step = step
        kept = memory.get("loads")
        self._remember(torch.zeros_like(self._loads) if kept is None else self._loads.new_tensor(kept))

    def _remember(self, loads: Tensor) -> None:
        self._loads = loads.clone()
        self._relative = relative(loads).float()

    def _hook(self, number: int) -> Any:
        @torch.compiler.disable
        def hook(router: torch.nn.Module, given: Any, out: Any) -> Any:
            if not torch.is_grad_enabled():
                return None
            logits, weights, chosen = out
            scores, loads = normalised(router, logits), self._counted(chosen)
            penalty = None if self.balance is None else self._penalty(self.balance, number, logits, scores, loads)
            seen = torch.stack([loads.sum(0), scores.detach().sum(0).double()])
            return logits, _Attached.apply(weights, penalty, lambda: self._sums[:, number].add_(seen)), chosen

        return hook

    def _counted(self, chosen: Tensor) -> Tensor:
        """Tokens to each expert by sequence, (sequences, experts), float64."""
        places = chosen.reshape(self._sequences, -1)
        ones = torch.ones((), dtype=torch.float64, device=places.device).expand_as(places)
        return ones.new_zeros(self._sequences, self.experts).scatter_add_(1, places, ones)

    def _penalty(self, balance: Balance, number: int, logits: Tensor, scores: Tensor, loads: Tensor) -> Tensor:
        """This micro-batch's part of the layer's losses, a scalar."""
        total = scores.new_zeros(())
        if balance.loss:
            total = total + balance.loss * (self._relative[number] * scores.sum(0)).sum()
        if balance.sequence_loss:
            if self.links.cp is not None:
                all_reduce(loads := loads.clone(), group=self.links.cp)
            each = scores.reshape(self._sequences, -1, self.experts).sum(1)
            total = total + balance.sequence_loss * (relative(loads).float() * each).sum()
        if balance.z_loss:
            total = total + balance.z_loss * torch.logsumexp(logits.float(), -1).square().sum()
        return total * self._weight


class _Attached(torch.autograd.Function):
    """Experts' weights as they are; what flows back through them also starts the penalty's gradient, and is told of."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, penalty: Tensor | None, passed: Callable[[], Any]) -> Tensor:
        ctx.passed, ctx.penalty = passed, None if penalty is None else torch.ones_like(penalty)
        return weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        ctx.passed()
        return gradients[0], ctx.penalty, None


def routers(model: torch.nn.Module) -> dict[int, torch.nn.Module]:
    """Number of the layer in the whole model → its router, of those that this rank holds. A router gives (logits, weights of
    the chosen experts, their ids), each (tokens, …)."""
    named = {layer_number(name): module for name, module in model.named_modules() if _routes(module)}
    return {number: module for number, module in named.items() if number is not None}


def _routes(module: torch.nn.Module) -> bool:
    return type(module).__name__.lower().endswith("topkrouter")


def normalised(router: torch.nn.Module, logits: Tensor) -> Tensor:
    """Scores that sum to one for each token, (tokens, experts) in fp32: the softmax, or of a sigmoid router the scores over their
    sum (DeepSeek-V3, arXiv 2412.19437 eq. 17–20)."""
    if not hasattr(router, BIAS):
        return torch.softmax(logits.float(), -1)
    scores = logits.float().sigmoid()
    return scores / (scores.sum(-1, keepdim=True) + 1e-20)


def relative(loads: Tensor) -> Tensor:
    """Loads over their mean, (…, experts); 0 where there are none."""
    return loads / loads.mean(-1, keepdim=True).clamp(min=1e-9)
