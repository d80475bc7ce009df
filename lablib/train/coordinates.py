"""The coordinate check of μP: how large a model's activations are as it grows, over the first updates (arXiv 2203.03466 §D.1).

Where the parametrisation is right the size of each activation's change does not depend on the width; where it is not, some
grow with it and the learning rate that is best for a narrow model is too large for a wide one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from lablib.models.build import build_model
from lablib.models.mup import scale_initial, scales
from lablib.specs import ModelSpec, Optimizer
from lablib.specs.recipe import MuP
from lablib.train.losses import token_losses
from lablib.train.optimizer import build_optimizer, set_learning_rate

if TYPE_CHECKING:
    import pandas as pd


def coordinate_check(model: ModelSpec, widths: Sequence[int], tuned: MuP | None, steps: int = 4, rate: float = 0.01) -> pd.DataFrame:  # fmt: skip
    """Train the model at each of `widths` for `steps` AdamW updates of `rate` on one batch of random tokens.

    Rows: width, step (updates done), part ("embedding", "blocks", "logits"), size: the root mean square of the part's change
    since step 0 (of its value, at step 0). `tuned` None is the standard parametrisation.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for width in widths:
        for step, sizes in enumerate(_sizes(model.widened(width), tuned, steps, rate)):
            rows += [{"width": width, "step": step, "part": part, "size": size} for part, size in sizes.items()]
    return pd.DataFrame(rows)


def growth(check: pd.DataFrame) -> dict[str, float]:
    """The power of the width with which each part's change grows after the last update: 0 where it stays."""
    import numpy as np

    last = check[check["step"] == check["step"].max()]
    return {
        str(part): float(np.polyfit(np.log(rows["width"]), np.log(rows["size"]), 1)[0])
        for part, rows in last.groupby("part")
    }


def begun(spec: ModelSpec, tuned: MuP | None, rate: float) -> tuple[Any, torch.optim.Optimizer]:
    """A fresh model and its AdamW without decay at a learning rate, both scaled where it was `tuned` on another width."""
    model = build_model(spec, 0)
    if tuned:
        scale_initial(model, spec, tuned)
    rates = {name: scale.rate for name, scale in scales(model, spec, tuned).items()} if tuned else None
    optimizer = build_optimizer(model, Optimizer(weight_decay=0.0), rates)
    set_learning_rate(optimizer, rate)
    return model, optimizer


def _sizes(spec: ModelSpec, tuned: MuP | None, steps: int, rate: float) -> list[dict[str, float]]:
    model, optimizer = begun(spec, tuned, rate)
    ids = torch.randint(spec.vocab, (4, 32), generator=torch.Generator().manual_seed(1))
    found: list[dict[str, torch.Tensor]] = []
    for _ in range(steps + 1):
        out = model(input_ids=ids, use_cache=False, output_hidden_states=True)
        seen = {"embedding": out.hidden_states[0], "blocks": out.hidden_states[-2], "logits": out.logits}
        found.append({part: value.detach().clone() for part, value in seen.items()})
        token_losses(out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    start = found[0]
    return [{part: _rms(value - start[part] if step else value) for part, value in parts.items()} for step, parts in enumerate(found)]  # fmt: skip


def _rms(values: torch.Tensor) -> float:
    return math.sqrt(float(values.square().mean()))
