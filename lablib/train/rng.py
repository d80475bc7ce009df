"""Random state of one process, as tensors that safetensors can hold."""

from __future__ import annotations

import random

import numpy as np
import torch


def capture() -> dict[str, torch.Tensor]:
    """The states of torch (CPU and this process's GPU), NumPy's global generator and Python's."""
    _, keys, place, *_ = np.random.get_state()
    _, words, _ = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor([*map(int, keys), int(place)], dtype=torch.int64),
        "python": torch.tensor(words, dtype=torch.int64),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def restore(state: dict[str, torch.Tensor]) -> None:
    """Put back what `capture` gave; a pending second Gaussian of NumPy's or Python's generator is dropped."""
    torch.set_rng_state(state["torch"])
    *keys, place = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), place, 0, 0.0))
    random.setstate((3, tuple(state["python"].tolist()), None))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed(value: int) -> None:
    """Seed all of them."""
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)
