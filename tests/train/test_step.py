"""One step: accumulation is the full batch, the divisor is the number of targets, documents do not see each other."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from tiny import MODEL
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from lablib.models.build import build_model
from lablib.models.layout import Place
from lablib.specs import Optimizer
from lablib.train import step
from lablib.train.batches import Batch
from lablib.train.distributed import World
from lablib.train.optimizer import build_optimizer
from lablib.train.step import Stepper

CPU = torch.device("cpu")


def stepper(seed: int = 0, autocast: bool = False) -> Stepper:
    model = build_model(MODEL, seed)
    return Stepper(model, build_optimizer(model, Optimizer()), World(0, 1, CPU), Place(0, 1, 1), 1e9, autocast)


def batch(rows: int = 4, masked: float = 0.4) -> Batch:
    """Rows with unequal numbers of targets."""
    draw = torch.Generator().manual_seed(3)
    tokens = torch.randint(MODEL.vocab, (rows, 24), generator=draw)
    labels = torch.randint(MODEL.vocab, (rows, 24), generator=draw)
    share = torch.linspace(0, 2 * masked, rows)[:, None]
    labels[torch.rand((rows, 24), generator=draw) < share] = -100
    return Batch(tokens, labels, torch.arange(24).expand(rows, -1).contiguous())


def split(whole: Batch, size: int) -> list[Batch]:
    rows = len(whole.inputs)
    return [Batch(*(getattr(whole, name)[i : i + size] for name in ("inputs", "labels", "positions"))) for i in range(0, rows, size)]  # fmt: skip


def weights(trained: Stepper) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in trained.model.parameters()])


@pytest.mark.parametrize("size", [1, 2])
def test_accumulation_is_the_full_batch(size: int) -> None:
    whole, parts = stepper(), stepper()
    one, many = whole([batch()]), parts(split(batch(), size))
    assert many.loss == pytest.approx(one.loss, abs=1e-6)
    assert many.grad_norm == pytest.approx(one.grad_norm, rel=1e-6)


def test_planted_mean_of_means_is_caught() -> None:
    """The bug class of huggingface/transformers#37766: each micro-batch divided by its own targets."""
    whole, parts = stepper(), stepper()
    real = Stepper.loss_sum

    def mean(self: Stepper, part: Batch) -> torch.Tensor:
        return real(self, part) / part.targets * batch().targets / 4

    wanted = whole([batch()])
    with patch.object(step.Stepper, "loss_sum", mean):
        found = parts(split(batch(), 1))
    assert abs(found.loss - wanted.loss) > 1e-4
    assert abs(found.grad_norm / wanted.grad_norm - 1) > 1e-4


def test_loss_and_norm_are_torchs_own() -> None:
    ours, whole = stepper(), batch()
    model = build_model(MODEL, 0)
    logits = model(input_ids=whole.inputs, position_ids=whole.positions, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), whole.labels.flatten())
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    found = ours(split(whole, 2))
    assert found.loss == pytest.approx(loss.item(), abs=1e-6)
    assert found.grad_norm == pytest.approx(float(norm), rel=1e-6)


def test_a_step_that_is_not_finite_changes_no_weight() -> None:
    ours = stepper()
    with torch.no_grad():
        ours.model.model.norm.weight[0] = float("inf")
    before = weights(ours).clone()
    assert not ours([batch()]).finite
    assert torch.equal(weights(ours), before)


def test_autocast_computes_in_bf16_and_stays_close() -> None:
    plain, mixed = stepper(), stepper(autocast=True)
    assert mixed([batch()]).loss == pytest.approx(plain([batch()]).loss, abs=0.02)
    assert {weight.dtype for weight in mixed.model.parameters()} == {torch.float32}


DOCUMENTS = (5, 9, 1, 9)


def packed(changed: bool = False) -> Batch:
    """Four documents in one row; `changed` gives the first other tokens."""
    draw = torch.Generator().manual_seed(5)
    tokens = torch.randint(MODEL.vocab, (1, sum(DOCUMENTS)), generator=draw)
    if changed:
        tokens[0, : DOCUMENTS[0]] = (tokens[0, : DOCUMENTS[0]] + 7) % MODEL.vocab
    positions = torch.cat([torch.arange(length) for length in DOCUMENTS])[None]
    return Batch(tokens, tokens, positions)


@torch.no_grad()
def logits(row: Batch, **settings: Any) -> torch.Tensor:
    """As `Stepper.loss_sum` calls the model."""
    seen: list[torch.Tensor] = []
    ours = stepper()
    hook = ours.model.register_forward_hook(lambda module, args, output: seen.append(output.logits))
    if settings:
        forward = ours.model.forward
        ours.model.forward = lambda **given: forward(**{**given, **settings})
    ours.loss_sum(row)
    hook.remove()
    return seen[0][0]


def test_packed_documents_give_the_logits_they_give_alone() -> None:
    together, row, start = logits(packed()), packed(), 0
    for length in DOCUMENTS:
        part = slice(start, start + length)
        alone = logits(Batch(row.inputs[:, part], row.labels[:, part], row.positions[:, part]))
        torch.testing.assert_close(together[part], alone, atol=2e-6, rtol=0)
        start += length


def test_a_document_cannot_move_another() -> None:
    assert torch.equal(logits(packed())[DOCUMENTS[0] :], logits(packed(changed=True))[DOCUMENTS[0] :])


def test_planted_cache_leaks_between_documents() -> None:
    leaky = [logits(packed(changed), use_cache=True)[DOCUMENTS[0] :] for changed in (False, True)]
    assert float((leaky[0] - leaky[1]).abs().max()) > 1e-3


class Reads(TorchDispatchMode):
    """Counts values that the host asks the device for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def reads(parts: int) -> int:
    """In a step of so many micro-batches, apart from the one list at its end and from transformers' own forward pass."""
    ours, real = stepper(), Stepper.loss_sum

    def hidden(self: Stepper, part: Batch) -> torch.Tensor:
        with _disable_current_modes():
            return real(self, part)

    with patch.object(Stepper, "loss_sum", hidden), Reads() as seen:
        ours(split(batch(), 4 // parts))
    return seen.count


def test_the_host_waits_for_the_device_once_a_step() -> None:
    assert reads(1) == reads(4) == 0


def test_planted_read_of_every_micro_batch_is_seen() -> None:
    with patch.object(Batch, "targets", property(lambda self: torch.tensor(int((self.labels != -100).sum())))):
        assert reads(4) == 4
