"""Learning rates against closed forms and torch's own schedulers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.specs import Schedule
from lablib.train.schedule import learning_rate


def curve(steps: int, schedule: Schedule, peak: float = 1.0) -> list[float]:
    return [learning_rate(step, steps, peak, schedule) for step in range(steps)]


def test_wsd_by_hand() -> None:
    found = curve(10, Schedule(kind="wsd", warmup=0.2, decay=0.4, floor=0.2), peak=5.0)
    assert found == pytest.approx([2.5, 5, 5, 5, 5, 5, 5, 4, 3, 2])


def test_cosine_by_hand() -> None:
    found = curve(6, Schedule(kind="cosine", warmup=1 / 3, floor=0.1))
    half = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert found == pytest.approx([0.5, 1.0, *half])


def test_wsd_with_a_square_root_by_hand() -> None:
    found = curve(8, Schedule(kind="wsd", shape="1-sqrt", warmup=0, decay=0.5, floor=0.2))
    fall = [0.2 + 0.8 * (1 - math.sqrt(k / 4)) for k in range(4)]
    assert found == pytest.approx([1, 1, 1, 1, *fall])


def test_constant_after_the_warm_up() -> None:
    assert curve(5, Schedule(kind="constant", warmup=0.4)) == [0.5, 1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["wsd", "cosine", "linear"])
def test_agrees_with_torch(kind: str) -> None:
    steps, warmup, floor = 40, 8, 0.25
    schedule = Schedule(kind=kind, warmup=warmup / steps, decay=1 - warmup / steps, floor=floor)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    lower = torch.optim.lr_scheduler
    if kind != "cosine":
        peer = lower.LinearLR(optimizer, 1.0, floor, total_iters=steps - warmup)
    else:
        peer = lower.CosineAnnealingLR(optimizer, steps - warmup, eta_min=2.0 * floor)
    for step in range(warmup, steps):
        assert learning_rate(step, steps, 2.0, schedule) == pytest.approx(peer.get_last_lr()[0])
        optimizer.step()
        peer.step()


@settings(deadline=None)
@given(
    steps=st.integers(1, 300),
    warmup=st.floats(0, 0.5),
    decay=st.floats(0, 0.5),
    floor=st.floats(0, 1),
    kind=st.sampled_from(["wsd", "cosine", "linear", "constant"]),
    shape=st.sampled_from(["linear", "1-sqrt"]),
)
def test_rises_then_never_rises_again(
    steps: int, warmup: float, decay: float, floor: float, kind: str, shape: str
) -> None:
    rates = curve(steps, Schedule(kind=kind, shape=shape, warmup=warmup, decay=decay, floor=floor))
    top = max(0, round(warmup * steps) - 1)
    assert all(0 < rate <= 1 + 1e-12 for rate in rates)
    assert rates[:top] == sorted(rates[:top])
    assert all(later <= earlier + 1e-12 for earlier, later in zip(rates[top:], rates[top + 1 :], strict=False))
    assert min(rates[top:], default=1.0) >= floor - 1e-12


def test_no_warmup_and_no_decay_is_constant() -> None:
    assert curve(7, Schedule(warmup=0, decay=0)) == [1.0] * 7
